"""Recurrent layers: a node's kernel, and the packing of weights that are known only at run time."""

from __future__ import annotations

from collections.abc import Callable

from graphc.errors import UnsupportedError
from graphc.ir.graph import Value
from graphc.kernel.canonical import canonical
from graphc.kernel.expr import call, const, index, load, minimum, select
from graphc.kernel.index import simplify
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec, choose_tile
from graphc.kernel.spec import Nest, NestSpec, Operand, StoreAt
from graphc.ops.recurrent import Recurrent
from graphc.ops.recurrent_grad import RecurrentGrad
from graphc.schedule.lower import Lowered
from graphc.schedule.partition import Kernel
from graphc.target import Target

OperandOf = Callable[[Value], Operand]


def lower_recurrent(kernel: Kernel, operand_of: OperandOf, target: Target) -> Lowered:
    """Of a kernel that is one node: it stores those outputs that somebody reads."""
    node = kernel.anchor
    assert isinstance(node.op, (Recurrent, RecurrentGrad))
    op, (x, weights, *_) = node.op, node.inputs
    for value in (*node.inputs, *kernel.outputs):
        if operand_of(value) != Operand(value.type.dtype, value.type.static_shape):
            raise UnsupportedError(f"{node.op.cell} reads and writes plain tensors", where=node.where, hint="insert a layout change")
    names = tuple(name for name, value in zip(op.output_names, node.outputs, strict=True) if value in kernel.outputs)
    steps, batch = x.type.static_shape[:2][:: -1 if op.batch_first else 1]
    hidden = weights.type.static_shape[2]
    common = (x.type.dtype, steps, batch, hidden, op.gates, op.reverse, op.batch_first, op.input_names[2:], names)
    size = (hidden, batch, len(op.reverse), x.type.dtype, target)
    if isinstance(op, RecurrentGrad):
        grad = op.layer.grad_cell(x.type.dtype)
        depth = max(phase.gates for phase in grad.phases) * hidden
        return Lowered(RecurrentGradSpec(*common, choose_tile((1,), depth, *size), cell=grad), tuple(node.inputs), packed=(1,))
    cell = op.scalar_cell(x.type.dtype)
    tile = choose_tile(tuple(phase.gates for phase in cell.phases), hidden, *size)
    spec = RecurrentSpec(*common, tile, cell=cell)
    return Lowered(spec, tuple(node.inputs), packed=(1,))


def pack_spec(spec: RecurrentSpec | RecurrentGradSpec) -> NestSpec:
    """The weights (D, G*H, H) in the order of `packed_elements`, zeros where the last vectors of units end."""
    return _pack_forward(spec) if isinstance(spec, RecurrentSpec) else _pack_backward(spec)


def _pack_backward(spec: RecurrentGradSpec) -> NestSpec:
    tile, hidden, gates = spec.tile, spec.hidden, spec.gates
    weights = Operand(spec.dtype, (spec.directions, gates * hidden, hidden))
    packed = Operand(spec.dtype, (spec.packed_elements,))
    nests, start = [], 0
    for phase in spec.cell.phases:
        depth = phase.gates * hidden
        d, group, chunk = index("d", spec.directions), index("group", spec.unit_groups), index("chunk", tile.units // tile.vectors)
        k, vector, lane = index("k", depth), index("vector", tile.vectors), index("lane", tile.lanes)
        item = gates * hidden * tile.units * tile.lanes
        place = (d * spec.unit_groups + group) * item + start + ((chunk * depth + k) * tile.vectors + vector) * tile.lanes + lane
        unit = (group * tile.units + chunk * tile.vectors + vector) * tile.lanes + lane
        row = d * (gates * hidden) + k + phase.first * hidden
        value = load(0, simplify(row * hidden + minimum(unit, max(hidden - 1, 0))), spec.dtype)
        value = select(call("lt", unit, hidden), value, const(0, spec.dtype))
        nests.append(Nest((d, group, chunk, k, vector, lane), (StoreAt(1, simplify(place), value),)))
        start += depth * tile.units * tile.lanes
    return canonical(NestSpec("copy", (weights,), (packed,), tuple(nests)))


def _pack_forward(spec: RecurrentSpec) -> NestSpec:
    tile, hidden, gates = spec.tile, spec.hidden, spec.gates
    weights = Operand(spec.dtype, (spec.directions, gates * hidden, hidden))
    packed = Operand(spec.dtype, (spec.packed_elements,))
    nests, start = [], 0
    for phase in spec.cell.phases:
        chunks = tile.units * phase.gates // tile.vectors
        d, group, chunk = index("d", spec.directions), index("group", spec.unit_groups), index("chunk", chunks)
        k, vector, lane = index("k", hidden), index("vector", tile.vectors), index("lane", tile.lanes)
        item = hidden * spec.item_vectors * tile.lanes
        place = (d * spec.unit_groups + group) * item + start + ((chunk * hidden + k) * tile.vectors + vector) * tile.lanes + lane
        number = chunk * tile.vectors + vector
        unit = (group * tile.units + number // phase.gates) * tile.lanes + lane
        row = (number % phase.gates + phase.first) * hidden + minimum(unit, max(hidden - 1, 0))
        value = load(0, simplify((d * (gates * hidden) + row) * hidden + k), spec.dtype)
        value = select(call("lt", unit, hidden), value, const(0, spec.dtype))
        nests.append(Nest((d, group, chunk, k, vector, lane), (StoreAt(1, simplify(place), value),)))
        start += hidden * tile.units * phase.gates * tile.lanes
    return canonical(NestSpec("copy", (weights,), (packed,), tuple(nests)))
