"""fuse-depthwise: a depthwise convolution joins the kernel of the convolution that it reads, where one step is faster than two.

Of the convolutions that are summed directly, with constant weights and one group: the expansion of an inverted residual, a first layer.
The value between exists only in the scratch of threads, so nothing else may use it. See `graphc.kernel.choose_chain`.
"""

from __future__ import annotations

from graphc.errors import VerifyError
from graphc.ir.graph import Graph, Node
from graphc.kernel.choose import DIRECT
from graphc.kernel.choose_chain import ChainShape, is_worth
from graphc.ops.conv import Conv
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context


def run(graph: Graph, context: Context) -> int:
    """The number of pairs."""
    if context.target is None:
        raise VerifyError("fuse-depthwise needs a target")
    roots, groups, count = set(graph.roots), _groups(graph), 0
    fresh = max((node.kernel for node in graph.nodes if node.kernel is not None), default=-1) + 1
    for node in list(graph.nodes):
        maker = node.inputs[0].producer if _is_depthwise(node) else None
        if maker is None or node.inputs[0] in roots or any(len(n.outputs) != 1 for n in groups[maker]):
            continue
        anchors = [member for member in groups[maker] if anchor_family(member)]
        alone = dict(node.inputs[0].users) == {node: 1}
        fits = alone and len(anchors) == 1 and _may_be_first(anchors[0], node)
        if fits and is_worth(_shape(anchors[0], node), context.target):
            fresh += _merge(groups, maker, node, fresh)
            count += 1
    return count


def _groups(graph: Graph) -> dict[Node, list[Node]]:
    """The nodes of each node's kernel."""
    members: dict[object, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(node if node.kernel is None else node.kernel, []).append(node)
    return {node: group for group in members.values() for node in group}


def _merge(groups: dict[Node, list[Node]], first: Node, second: Node, fresh: int) -> bool:
    """One kernel of both; whether it took the number `fresh`."""
    number = first.kernel if first.kernel is not None else second.kernel
    kernel = fresh if number is None else number
    both = groups[first] + groups[second]
    for node in both:
        node.kernel = kernel
        groups[node] = both
    return number is None


def _is_depthwise(node: Node) -> bool:
    if anchor_family(node) != "conv" or not isinstance(node.op, Conv) or not node.inputs[1].is_constant:
        return False
    channels, per_group, *kernel = node.inputs[1].type.static_shape
    return len(kernel) == 2 and per_group == 1 and channels > 1 and node.op.groups == channels


def _may_be_first(node: Node, second: Node) -> bool:
    plain = anchor_family(node) == "conv" and isinstance(node.op, Conv) and node.op.groups == 1
    same = node.inputs[0].type.dtype == second.inputs[0].type.dtype  # no cast between: blocks of channels have one size
    return plain and same and node.algorithm in ("", DIRECT) and node.inputs[1].is_constant


def _shape(first: Node, second: Node) -> ChainShape:
    assert isinstance(second.op, Conv)
    (x, weight), between, kernel = first.inputs[:2], first.output, second.inputs[1].type.static_shape[2:]
    return ChainShape.of(
        x.type.static_shape, weight.type.static_shape, between.type.static_shape, kernel, second.output.type.static_shape,
        second.op.stride[0], second.op.dilation[0], second.op.pad_before[0], between.type.dtype.itemsize,
    )  # fmt: skip
