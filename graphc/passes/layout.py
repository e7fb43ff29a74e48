"""choose-layout: blocked channels where convolutions run, plain row-major at the edges.

A convolution writes blocked channels (NCHW16c on AVX-512), but for one with few output channels (`_is_narrow`), which reads and writes
row-major maps; what reads a convolution reads blocked, and ops that keep layouts (elementwise,
pooling, concat over channels) write blocked too. Loops can read and write any layout, so a copy is inserted only where a caller's
memory meets a convolution, or where a convolution makes an output of the program. The zero halo that a convolution needs around its
input is part of that value's layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphc.errors import VerifyError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.kernel.choose import ALGORITHMS
from graphc.ops.conv import Conv
from graphc.ops.conv_weight import ConvWeightGradient
from graphc.ops.pointwise import op
from graphc.passes.anchors import WHOLE, anchor_family, is_dense
from graphc.passes.base import Context
from graphc.source import UNKNOWN
from graphc.target import Target
from graphc.types.layout import PLAIN, Layout

CONVOLUTIONS = ("conv", "conv-weight")  # families that write blocks of channels
FEW_CHANNELS = 4  # a first layer with so few input channels reads them plain
COPY_TAPS = 4  # kernel positions that pay for a copy of the input
NARROW = 1.2  # times as many lanes filled: less must be gained for plain maps where output channels are few


def run(graph: Graph, context: Context) -> int:
    if context.target is None:
        raise VerifyError("choose-layout needs a target")
    patch = Patch(graph, "choose-layout")
    _copy_edges(patch, context.target)
    patch.commit()
    exits, groups = _exits(graph), _groups(graph)
    for node in graph.nodes:
        value = exits.get(node)
        if value is not None:
            value.layout = _layout_of(graph, groups[node], value, context.target)
    narrow = {node for node in graph.nodes if _is_narrow(node, context.target)}
    for node in list(graph.nodes):
        if anchor_family(node) in CONVOLUTIONS and node not in narrow:
            _prepare_input(patch, node, context.target)
    for node in [node for node in graph.nodes if node in narrow]:
        value = groups[node][-1].output
        if anchor_family(node) == "conv" and (value.layout.is_blocked or _costs_a_copy(node)):  # blocked: because a convolution reads it
            value.layout = Layout(context.target.lanes(node.inputs[0].type.dtype))
            _prepare_input(patch, node, context.target)
            continue
        blocked = [x for x in _blocked_inputs(node) if x.layout.is_blocked]
        plain = {x: _copy(patch, x, node, "unpack") for x in blocked}
        patch.set_inputs(node, [plain.get(x, x) for x in node.inputs])
    patch.commit()
    for node in graph.nodes:
        if isinstance(node.op, Conv) and anchor_family(node) == "conv":
            _widen_halo(node.inputs[0], node.op, node.output.type.static_shape, node.inputs[1].type.static_shape[2:], node.algorithm)
        elif isinstance(node.op, ConvWeightGradient) and anchor_family(node):
            _widen_halo(node.inputs[0], node.op, node.inputs[1].type.static_shape, node.op.kernel, node.algorithm)
    _copy_for_products(patch)
    return patch.count + sum(value.layout != PLAIN for value in graph.values.values())


def _copy_edges(patch: Patch, target: Target) -> None:
    """Copies between a caller's memory or a product's rows and the program's layouts: inputs and products that a convolution reads,
    outputs that one writes, and outputs that no kernel writes (an input returned as it is, one value returned twice)."""
    copies: dict[Value, Value] = {}
    groups = _groups(patch.graph)
    for node in list(patch.graph.nodes):
        for x in _blocked_inputs(node):
            if _has_fixed_layout(x, patch.graph, groups):
                if x not in copies:
                    copies[x] = _copy(patch, x, node, "pack")
                patch.set_inputs(node, [copies[x] if value is x else value for value in node.inputs])
    patch.commit()
    groups = _groups(patch.graph)
    seen: set[Value] = set()

    def written(value: Value) -> Value:
        """The value where a kernel writes it plainly, and for nobody else; else a copy."""
        maker = value.producer
        plain = maker is not None and value not in seen and not any(anchor_family(member) in CONVOLUTIONS for member in groups[maker])
        seen.add(value)
        return value if plain else _copy(patch, value, maker, "unpack")

    patch.graph.outputs = [written(value) for value in patch.graph.outputs]
    patch.graph.updates = {state: written(value) for state, value in patch.graph.updates.items()}


def _has_fixed_layout(x: Value, graph: Graph, groups: dict[Node, list[Node]]) -> bool:
    return x.producer is None or x in graph.roots or any(is_dense(member) for member in groups[x.producer])


def _copy_for_products(patch: Patch) -> None:
    """Matrix products, recurrent layers, sorting and control flow read dense row-major memory."""
    for node in list(patch.graph.nodes):
        if anchor_family(node) in ("contract", *WHOLE) and any(x.layout != PLAIN for x in node.inputs):
            plain = [_copy(patch, x, node, "unpack") if x.layout != PLAIN else x for x in node.inputs]
            patch.set_inputs(node, plain)
    patch.commit()


def _copy(patch: Patch, value: Value, like: Node | None, suffix: str) -> Value:
    patch.builder.source, patch.builder.origins = like.source if like else UNKNOWN, ()
    patch.count += 1
    return patch.builder.add(op("identity"), value, name=f"{value.name}:{suffix}")


def _exits(graph: Graph) -> dict[Node, Value]:
    """The last node of each kernel -> the value that it stores (kernels of several outputs: the first)."""
    last: dict[int, Node] = {}
    for node in graph.nodes:
        if node.kernel is not None:
            last[node.kernel] = node
    return {node: node.outputs[0] for node in graph.nodes if node.outputs and (node.kernel is None or last[node.kernel] is node)}


def _groups(graph: Graph) -> dict[Node, list[Node]]:
    """The nodes of each node's kernel."""
    members: dict[object, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(node if node.kernel is None else node.kernel, []).append(node)
    return {node: group for group in members.values() for node in group}


def _layout_of(graph: Graph, group: list[Node], value: Value, target: Target) -> Layout:
    for member in group:
        if anchor_family(member) in CONVOLUTIONS and not _is_narrow(member, target):
            return Layout(target.lanes(member.inputs[0].type.dtype))  # of the sums, whatever the epilogue casts them to
    if value in graph.roots or value.type.rank < 3 or not all(member.op.keeps_layout for member in group):
        return PLAIN
    inside = {output for member in group for output in member.outputs}
    reads = [x for member in group for x in member.inputs if x not in inside and x.type.rank == value.type.rank]
    blocks = [x.layout.block for x in reads if x.layout.is_blocked and int(x.type.size) > 1 and x.type.shape[1] != 1]
    return Layout(blocks[0]) if blocks else PLAIN


def _is_narrow(node: Node, target: Target) -> bool:
    """A convolution, or the gradient of its weight, whose output channels would leave more lanes of a block empty than vectors along
    rows do."""
    if anchor_family(node) not in CONVOLUTIONS or ALGORITHMS.get(node.algorithm):
        return False
    x = node.inputs[0].type
    if isinstance(node.op, Conv):
        value, rowwise = node.output, node.op.groups == 1 and node.op.stride[-1] == 1
    else:
        assert isinstance(node.op, ConvWeightGradient)
        value, rowwise = node.inputs[1], node.op.groups == node.op.stride[-1] == 1 and int(x.shape[1].__index__()) <= FEW_CHANNELS
    lanes, shape = target.lanes(x.dtype), value.type.static_shape
    return rowwise and shape[1] <= lanes // 2 and shape[-1] / -(-shape[-1] // lanes) > NARROW * shape[1]


def _costs_a_copy(node: Node) -> bool:
    """Its input would have to be copied to a plain map, for too few multiply-adds with each element."""
    return node.inputs[0].layout.is_blocked and prod(node.inputs[1].type.static_shape[2:]) < COPY_TAPS


def _prepare_input(patch: Patch, node: Node, target: Target) -> None:
    """What a convolution reads is blocked, but for few channels that are row-major already; blocks of another dtype's size are copied."""
    for x in _blocked_inputs(node):
        block = target.lanes(x.type.dtype)
        value = x
        if x.layout.is_blocked and x.layout.block != block:
            value = _copy(patch, x, node, "pack")
            patch.set_inputs(node, [value if other is x else other for other in node.inputs])
        depthwise = 1 < getattr(node.op, "groups", 1) == x.type.shape[1]
        only_x = value is node.inputs[0] and node.inputs.count(value) == 1  # the other map of a weight's gradient is read in blocks
        few = int(x.type.shape[1].__index__()) <= max(FEW_CHANNELS, block // 2) and only_x
        if not value.layout.is_blocked and (not few or depthwise or ALGORITHMS.get(node.algorithm)):
            value.layout = Layout(block)


def _blocked_inputs(node: Node) -> list[Value]:
    """What a kernel reads in blocks of channels: of a convolution its input, of the gradient of a weight both maps."""
    return list(dict.fromkeys(node.inputs[: {"conv": 1, "conv-weight": 2}.get(anchor_family(node), 0)]))


def _widen_halo(x: Value, op: Conv | ConvWeightGradient, output: Sequence[int], kernel: Sequence[int], algorithm: str) -> None:
    """`output`: the shape of the map that the kernel runs over."""
    tile = ALGORITHMS.get(algorithm, 0) or 1
    spatial, out = x.type.static_shape[2:], output[2:]
    have = x.layout.halo or ((0, 0),) * len(spatial)
    need = []
    for i, size in enumerate(spatial):
        before = op.pad_before[i]
        end = -(-out[i] // tile) * tile - 1  # the last position of the last tile
        last = end * op.stride[i] + (kernel[i] - 1) * op.dilation[i] - before
        need.append((max(have[i][0], before), max(have[i][1], last - (size - 1), 0)))
    halo = tuple(need)
    x.layout = Layout(x.layout.block, halo if any(b or a for b, a in halo) else ())
