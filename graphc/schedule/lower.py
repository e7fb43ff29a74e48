"""lower: a kernel's nodes become one kernel spec on physical operands. Fusion is substitution of one op's element into the next's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from graphc.errors import UnsupportedError
from graphc.ir.graph import Kind, Node, Value
from graphc.ir.op import Updates
from graphc.kernel.access import Access, from_function, from_operand
from graphc.kernel.canonical import canonical
from graphc.kernel.expr import Expr, arg, const, index, load, minimum, rebuild, substitute, walk
from graphc.kernel.index import simplify
from graphc.kernel.spec import (
    ConvChain,
    ConvSpec,
    Epilogue,
    KernelSpec,
    Nest,
    NestSpec,
    Operand,
    PackSpec,
    StoreAt,
    UpdateSpec,
    WinogradConv,
    WinogradProduct,
)
from graphc.ops.conv import Conv
from graphc.ops.conv_weight import ConvWeightGradient
from graphc.ops.matmul import MatMul
from graphc.passes.anchors import anchor_family
from graphc.schedule.partition import Kernel
from graphc.schedule.weight_gradient import parts_of
from graphc.types.dtype import i64

FAMILIES = ("normalise", "reduce", "window", "gather", "copy", "map")  # a fused kernel is called by the first that occurs
OperandOf = Callable[[Value], Operand]


@dataclass(frozen=True)
class Lowered:
    """A spec, and the values of its input operands in order. `packed`: the inputs whose weights the back end packs. `then`: the updates of
    what the spec has stored."""

    spec: KernelSpec
    inputs: tuple[Value, ...]
    packed: tuple[int, ...] = ()
    then: Lowered | None = None


def lower(kernel: Kernel, operand_of: OperandOf, placed: frozenset[int] = frozenset()) -> Lowered:
    """`placed`: pieces of a concat that their producers have already written in place."""
    anchor = kernel.anchor
    if len(parts := kernel.chain) == 2:
        lowered = _lower_chain(parts[0], parts[1], operand_of)
    elif anchor_family(anchor) == "conv":
        lowered = _lower_conv(kernel, anchor, operand_of)
    elif anchor_family(anchor) == "contract":
        lowered = _lower_matmul(kernel, anchor, operand_of)
    elif anchor_family(anchor) == "conv-weight":
        lowered = _lower_conv_weight(anchor, operand_of)
    else:
        lowered = _lower_nest(kernel, operand_of, placed)
    then = lowered.then and replace(lowered.then, spec=canonical(lowered.then.spec))
    return replace(lowered, spec=canonical(lowered.spec), then=then)


# loops ----------------------------------------------------------------------------------------------------------------------


def _lower_nest(kernel: Kernel, operand_of: OperandOf, placed: frozenset[int]) -> Lowered:
    inputs = kernel.inputs
    operands = tuple(operand_of(value) for value in inputs)
    out = operand_of(kernel.output)
    accesses: dict[Value, Access] = {value: from_operand(slot, operands[slot]) for slot, value in enumerate(inputs)}
    for node in kernel.nodes[:-1]:
        accesses[node.output] = _inline(node, accesses)
    last = kernel.nodes[-1]
    lowering = last.op.lower([accesses[value] for value in last.inputs], last.outputs[0].type)
    slot = len(inputs)
    nests: list[Nest] = []
    if lowering.value is not None:
        nests += _nests(out.shape, out, slot, lambda *i: i, lowering.value)
    for number, piece in enumerate(lowering.pieces):
        if number not in placed:
            nests += _nests(piece.extents, out, slot, piece.place, piece.value)
    nests += _zero_tail(out, slot)
    families = {node.op.family for node in kernel.nodes}
    family = next((name for name in FAMILIES if name in families), "reduce")  # products of integers are loops with a sum
    lowered = Lowered(NestSpec(family, operands, (out,), tuple(nests)), inputs)
    if lowering.updates is None:
        return lowered
    then = Lowered(_update_spec(lowering.updates, operands, out), inputs) if lowering.updates.count else None
    return replace(_used(lowered), then=None if then is None else _used(then))


def _update_spec(updates: Updates, operands: tuple[Operand, ...], out: Operand) -> UpdateSpec:
    step, axes = index("u", updates.count), tuple(index(f"i{d}", size) for d, size in enumerate(updates.extents))
    offset = simplify(out.offset(updates.place(step, *axes)))
    return UpdateSpec(operands, out, axes, step, StoreAt(len(operands), offset, updates.value(step, *axes)), updates.combine)


def _used(lowered: Lowered) -> Lowered:
    """Without the inputs that nothing is loaded from."""
    spec = lowered.spec
    assert isinstance(spec, (NestSpec, UpdateSpec))
    stores = [spec.store] if isinstance(spec, UpdateSpec) else [store for nest in spec.nests for store in nest.stores]
    used = sorted({node.attr for store in stores for node in _loads(store.offset, store.value)})
    slots = {slot: number for number, slot in enumerate((*used, len(spec.inputs)))}
    inputs = tuple(spec.inputs[slot] for slot in used)
    moved = [StoreAt(slots[s.slot], _renumbered(s.offset, slots), _renumbered(s.value, slots)) for s in stores]
    if isinstance(spec, UpdateSpec):
        made: KernelSpec = replace(spec, inputs=inputs, store=moved[0])
    else:
        made = replace(spec, inputs=inputs, nests=tuple(Nest(n.axes, (s,)) for n, s in zip(spec.nests, moved, strict=True)))
    return replace(lowered, spec=made, inputs=tuple(lowered.inputs[slot] for slot in used))


def _renumbered(value: Expr, slots: Mapping[int, int]) -> Expr:
    """With other numbers of operands."""
    new: dict[Expr, Expr] = {}
    for node in walk(value):
        args = tuple(new[child] for child in node.args)
        new[node] = load(slots[node.attr], args[0], node.dtype) if node.fn == "load" else rebuild(node, args) if args else node
    return new[value]


def _inline(node: Node, accesses: Mapping[Value, Access]) -> Access:
    type = node.output.type
    lowering = node.op.lower([accesses[value] for value in node.inputs], type)
    if lowering.value is None:
        raise UnsupportedError(f"{node.op.name} cannot be inlined", where=node.where)
    return from_function(type.static_shape, type.dtype, lowering.value)


def _nests(
    extents: tuple[int, ...], out: Operand, slot: int, place: Callable[..., tuple[Expr, ...]], value: Callable[..., Expr]
) -> list[Nest]:  # fmt: skip
    """Loops in the order of the output's memory; where the channels do not fill the last block, that block has loops of its own."""
    block = out.layout.block
    if not block:
        axes = tuple(index(f"i{d}", size) for d, size in enumerate(extents))
        return [_nest(axes, axes, out, slot, place, value)]
    n, channels, *spatial = extents
    nests = []
    for first, blocks, lanes in ((0, channels // block, block), (channels // block * block, 1, channels % block)):
        if blocks and lanes:
            outer = (index("n", n), index("cb", blocks), *(index(f"s{d}", size) for d, size in enumerate(spatial)))
            lane = index("lane", lanes)
            logical = (outer[0], outer[1] * block + lane + first, *outer[2:])
            nests.append(_nest((*outer, lane), logical, out, slot, place, value))
    return nests


def _nest(
    axes: tuple[Expr, ...], logical: tuple[Expr, ...], out: Operand, slot: int,
    place: Callable[..., tuple[Expr, ...]], value: Callable[..., Expr],
) -> Nest:  # fmt: skip
    return Nest(axes, (StoreAt(slot, simplify(out.offset(tuple(place(*logical)))), value(*logical)),))


def _zero_tail(out: Operand, slot: int) -> list[Nest]:
    """The lanes beyond the last channel hold zeros, because convolutions sum over them."""
    block = out.layout.block
    if not block or out.shape[1] % block == 0:
        return []
    n, channels, *spatial = out.shape
    filled = channels % block
    axes = (index("n", n), *(index(f"s{d}", size) for d, size in enumerate(spatial)), index("lane", block - filled))
    physical = (axes[0], const(channels // block, i64), *axes[1:-1], axes[-1] + filled)
    return [Nest(axes, (StoreAt(slot, simplify(out.physical_offset(physical)), const(0, out.dtype)),))]


def zeroes_whole(out: Operand) -> bool:
    """Whether all of a map is cleared, faster than strips of a few elements each: row-major, and with much halo for its size."""
    return not out.layout.is_blocked and prod(out.physical_shape[2:]) * 7 > prod(out.shape[2:]) * 8


def halo_spec(out: Operand) -> NestSpec:
    """Zeros around each map: for each spatial dim a strip before and one after, not overlapping; or everywhere (`zeroes_whole`)."""
    halo = out.layout.halo
    if zeroes_whole(out):
        sample, element = index("n", out.physical_shape[0]), index("i", prod(out.physical_shape[1:]))
        offset = simplify(sample * out.strides[0] + element)
        return NestSpec("copy", (), (out,), (Nest((sample, element), (StoreAt(0, offset, const(0, out.dtype)),)),))
    rank = len(halo)
    nests = []
    for dim in range(rank):
        for side, width in enumerate(halo[dim]):
            if not width:
                continue
            sizes: list[tuple[int, int]] = []  # (start relative to the map, extent) per spatial dim
            for other in range(rank):
                before, after = halo[other]
                size = out.shape[2 + other]
                if other < dim:
                    sizes.append((0, size))
                elif other > dim:
                    sizes.append((-before, size + before + after))
                else:
                    sizes.append((-before if side == 0 else size, width))
            n, blocks = out.physical_shape[0], out.physical_shape[1]
            lanes = (index("lane", out.layout.block),) if out.layout.is_blocked else ()
            axes = (index("n", n), index("cb", blocks), *(index(f"s{d}", extent) for d, (_, extent) in enumerate(sizes)), *lanes)
            shifted = (axes[0], axes[1], *(i + start for i, (start, _) in zip(axes[2:], sizes, strict=False)), *lanes)
            nests.append(Nest(axes, (StoreAt(0, simplify(out.physical_offset(shifted)), const(0, out.dtype)),)))
    return NestSpec("copy", (), (out,), tuple(nests))


def copy_spec(x: Operand) -> NestSpec:
    """A plain tensor, copied."""
    axes = tuple(index(f"i{d}", size) for d, size in enumerate(x.shape))
    offset = simplify(x.offset(axes))
    return canonical(NestSpec("copy", (x,), (x,), (Nest(axes, (StoreAt(1, offset, load(0, offset, x.dtype)),)),)))


# convolution and products ---------------------------------------------------------------------------------------------------


def _lower_conv(kernel: Kernel, anchor: Node, operand_of: OperandOf) -> Lowered:
    assert isinstance(anchor.op, Conv)
    x, weight, *bias = anchor.inputs
    out = operand_of(kernel.output)
    block = out.layout.block
    n, channels, *spatial = out.shape
    axes: tuple[Expr, ...] = (index("n", n), *(index(f"s{d}", size) for d, size in enumerate(spatial)))
    channel = index("c", channels)  # replaced below by what the layout makes of it
    chain = _Epilogue(kernel, anchor, (axes[0], channel, *axes[1:]), operand_of, first_slot=2)
    acc = arg("acc", x.type.dtype)
    value: Expr = acc
    if bias:
        value = acc + chain.access(bias[0])[channel]
    value = chain.apply(value)
    if block:
        lane, cb = index("lane", block), index("cb", -(-channels // block))
        value = chain.place_channel(value, channel, cb * block + lane, channels if channels % block else 0)
        order: tuple[Expr, ...] = (axes[0], cb, *axes[1:], lane)
    else:
        order = (axes[0], channel, *axes[1:])
    epilogue = Epilogue(order, acc, value)
    spec = anchor.op.spec(operand_of(x), chain.operands, out, weight.type.static_shape, epilogue)
    return Lowered(spec, (x, weight, *chain.values), packed=(1,))


def _lower_chain(first: Kernel, second: Kernel, operand_of: OperandOf) -> Lowered:
    a, b = (_lower_conv(part, part.anchor, operand_of) for part in (first, second))
    assert isinstance(a.spec, ConvSpec)
    assert isinstance(b.spec, ConvSpec)
    spec = ConvChain(a.spec, b.spec)
    return Lowered(spec, (*a.inputs, *b.inputs[1:]), packed=spec.weights)


def _lower_conv_weight(anchor: Node, operand_of: OperandOf) -> Lowered:
    assert isinstance(anchor.op, ConvWeightGradient)
    x, grad, out = (operand_of(value) for value in (*anchor.inputs, anchor.output))
    return Lowered(anchor.op.spec(x, grad, out, parts_of(grad.shape[0], out, anchor.algorithm, anchor.op.groups)), tuple(anchor.inputs))


def lower_pack(
    conv: ConvSpec | WinogradConv | WinogradProduct, weight: Value, maker: Kernel | None, operand_of: OperandOf, lanes: int
) -> Lowered:
    """The packing of a weight that is known only at run time, with the kernel that makes it computed on the way, if any is given."""
    inputs = maker.inputs if maker is not None else (weight,)
    operands = tuple(operand_of(value) for value in inputs)
    accesses = {value: from_operand(slot, operand) for slot, (value, operand) in enumerate(zip(inputs, operands, strict=True))}
    for node in maker.nodes if maker is not None else ():
        accesses[node.output] = _inline(node, accesses)
    axes = tuple(index(f"w{d}", size) for d, size in enumerate(weight.type.static_shape))
    return Lowered(canonical(PackSpec(conv, operands, axes, accesses[weight][axes], lanes)), inputs)


def _lower_matmul(kernel: Kernel, anchor: Node, operand_of: OperandOf) -> Lowered:
    assert isinstance(anchor.op, MatMul)
    a, b = anchor.inputs
    out = operand_of(kernel.output)
    axes = tuple(index(f"i{d}", size) for d, size in enumerate(out.shape))
    chain = _Epilogue(kernel, anchor, axes, operand_of, first_slot=2)
    acc = arg("acc", a.type.dtype)
    epilogue = Epilogue(axes, acc, chain.apply(acc))
    packed = b.is_constant and b.type.rank == 2
    spec = anchor.op.spec(operand_of(a), operand_of(b), a.type.static_shape, b.type.static_shape, packed, chain.operands, out, epilogue)
    if anchor.algorithm:
        spec = replace(spec, storage=anchor.algorithm)
    return Lowered(spec, (a, b, *chain.values), packed=(1,) if packed else ())


class _Epilogue:
    """Collects the extra operands of an epilogue and applies the fused nodes to the accumulator."""

    def __init__(self, kernel: Kernel, anchor: Node, logical: tuple[Expr, ...], operand_of: OperandOf, first_slot: int) -> None:
        self.kernel, self.anchor, self.logical, self.operand_of, self.first_slot = kernel, anchor, logical, operand_of, first_slot
        self.values: list[Value] = []

    @property
    def operands(self) -> tuple[Operand, ...]:
        return tuple(self.operand_of(value) for value in self.values)

    def access(self, value: Value) -> Access:
        if value not in self.values:
            self.values.append(value)
        return from_operand(self.first_slot + self.values.index(value), self.operand_of(value))

    def apply(self, start: Expr) -> Expr:
        made: dict[Value, Access] = {self.anchor.output: self._same(self.anchor, start)}
        for node in self.kernel.nodes:
            if node is self.anchor:
                continue
            inputs = [made[value] if value in made else self.access(value) for value in node.inputs]
            lowering = node.op.lower(inputs, node.output.type)
            assert lowering.value is not None
            made[node.output] = self._same(node, lowering.value(*self.logical))
        value = made[self.kernel.output]
        return value[self.logical]

    def _same(self, node: Node, value: Expr) -> Access:
        """A value that exists only at the accumulator's own index."""
        return Access(node.output.type.static_shape, node.output.type.dtype, lambda _: value)

    def place_channel(self, value: Expr, channel: Expr, position: Expr, clamp_to: int) -> Expr:
        """The channel variable becomes block*lanes + lane. Where the last block is not full, whole-map operands that are not blocked are
        read at the last channel instead of beyond their end; constants and state are stored with slack behind them."""
        replacements: dict[Expr, Expr] = {}
        for node in _loads(value):
            offset = node.args[0]
            source = self.values[node.attr - self.first_slot]
            safe = source.is_constant or source.kind is Kind.STATE or source.layout.is_blocked
            where = minimum(position, clamp_to - 1) if clamp_to and not safe else position
            replacements[node] = load(node.attr, simplify(substitute(offset, {channel: where})), node.dtype)
        return substitute(substitute(value, replacements), {channel: position})


def _loads(*values: Expr) -> list[Expr]:
    return [node for node in walk(*values) if node.fn == "load"]


def slice_of(parent: Operand, shape: tuple[int, ...]) -> Operand:
    """The operand of a channel slice of `parent`."""
    return replace(parent, shape=shape, pitch=parent.pitch or parent.shape[1])


