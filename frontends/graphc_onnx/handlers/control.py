"""Control flow: decided while importing where that can be, else native ops that run sub-graphs.

* A condition that is known (constants, shapes, or graph inputs bound by `values`) chooses the branch of If now; else both are imported.
* A Loop or Scan whose number of iterations is known, with at most GRAPHC_UNROLL nodes when unrolled, is unrolled; so is one that carries
  values that change their shape, or sequences that change their length. Every other is one node `loop`, in the graph as in machine code.
* What branches give and loops carry may be sequences and optionals: the ops have their tensors one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from graphc.errors import DynamicShapeError, ModelError, ShapeError
from graphc.ir.builder import Builder, ancestors
from graphc.ir.graph import Kind, Value
from graphc.knobs import knob
from graphc.limits import MAX_ITERATIONS, check_iterations
from graphc.ops.compose import reshape
from graphc.ops.control import SCALAR, If, Loop
from graphc.ops.pointwise import Cast
from graphc.types.dtype import DType, bool_, i64
from graphc.types.shape import Dim, DimLike
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.handlers.sequence import AbsentElement
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import Item, onnx_op
from graphc_onnx.structure import describe, flat, like, structure
from graphc_onnx.unroll import Source, Undecided, element, may_decide, stacked, tensor, unroll, unroll_scan

if TYPE_CHECKING:
    from graphc.ir.body import Body
    from graphc.types.tensor import TensorType
    from graphc_onnx.tensors import Array

UNROLL = knob("GRAPHC_UNROLL", int, 128, "most nodes that a Loop or Scan with a known number of iterations becomes; else it stays a loop")


@onnx_op("If")
def if_(context: Context, node: OnnxNode) -> Sequence[Item]:
    condition = node.input(0)
    if _known_flag(context, condition, "the condition of If") is None:
        found = _choice(context, node, condition)
        if found is not None:
            return found
    chosen = _decided(context, condition, "the condition of If")
    taken, other = ("then_branch", "else_branch") if chosen else ("else_branch", "then_branch")
    node.graph(other)
    return context.inline(node.graph(taken), {})


def _choice(context: Context, node: OnnxNode, condition: Value) -> Sequence[Item] | None:
    """A native If over all tensors that its branches give; None where these are not the same, or have types that depend on data."""
    try:
        (then, results), (other, others) = (context.sub_graph(node.graph(name), []) for name in ("then_branch", "else_branch"))
    except (DynamicShapeError, AbsentElement):
        return None
    if len(results) != len(others):
        raise ModelError(f"the branches of If have {len(results)} and {len(others)} outputs")
    if structure(results) != structure(others):
        return None
    values = flat(results)
    if any(a.type != b.type for a, b in zip(values, flat(others), strict=True)):
        return None
    if not values:
        return results
    captured = [*_finish(then, results), *_finish(other, others)]
    made = context.builder.add_many(If(then.graph, other.graph), _scalar(context.builder, condition, bool_), *captured)
    return like(results, made)


@onnx_op("Loop")
def loop(context: Context, node: OnnxNode) -> Sequence[Item]:
    """Iterations until the trip count is reached or the condition is false; scan outputs are stacked along a new first axis."""
    body, carried = node.graph("body"), node.items[2:]
    if len(body.input) != 2 + len(carried) or len(body.output) < 1 + len(carried):
        raise ModelError("the body of Loop does not fit the carried values")
    count, condition = node.optional(0), node.optional(1)
    trips = _known_count(context, count)
    going = True if condition is None else _known_flag(context, condition, "the condition of Loop")
    decided = going is not None and (count is None or isinstance(trips, int))
    if decided and (not going or trips == 0 or may_decide(context, body, carried)):
        assert isinstance(trips, int) or trips is None
        endless = count is None and len(body.output) > 1 + len(carried)  # what it stacks has no known length before its end is known
        try:
            return unroll(context, node.name, body, carried, trips, bool(going), None if endless else UNROLL.get())
        except Undecided:
            pass
    given: list[TensorType | Array | Item] = [SCALAR, np.asarray(True), *carried]
    try:
        made, results = context.sub_graph(body, given)
    except DynamicShapeError as error:
        if isinstance(trips, int) and going:
            return _unrolled(context, node, trips, error.reason)
        raise _data_dependent(context, node, error.reason, inputs=error.inputs) from error
    return _native_loop(context, node, made, results, trips)


def _native_loop(context: Context, node: OnnxNode, made: Body, results: Sequence[Item], trips: DimLike | None) -> Sequence[Item]:
    """The op, over all tensors that are carried; unrolled after all where their number or their types change in a known number of
    iterations, or until a known condition."""
    count, condition = node.optional(0), node.optional(1)
    before, after = node.items[2:], results[1 : 1 + len(node.items[2:])]
    varying = _varying(before, after)
    carried, ys = flat(before), [tensor(item) for item in results[1 + len(before) :]]
    again, rest = tensor(results[0]), [*flat(after), *ys]
    fixed = condition is None or _known_flag(context, condition, "the condition of Loop") is True
    known = made.builder.known(again)
    inside = made.outside(again) if known is None else []
    conditional = not (fixed and known is not None and known.dtype != object and bool(known.all()))
    counted = count is not None and trips is None
    if count is None and not conditional:
        raise ModelError("a Loop without trip count, whose condition is always true", hint="export it with an end")
    if varying and fixed and (count is None or isinstance(trips, int)):
        return _unrolled(context, node, trips if isinstance(trips, int) else None, f"{varying}, depends on data", inside)
    what = varying or "the number of iterations, so the length of the scan outputs"
    unknown = _data_dependent(context, node, f"{what}, depends on data", inside, carries=known is None)
    if varying or (ys and trips is None):
        raise unknown
    flags = [_scalar(context.builder, count, i64)] if counted and count is not None else []
    if conditional:
        first = context.constant(np.asarray(True)) if condition is None else _scalar(context.builder, condition, bool_)
        flags.append(first)
        rest = [_scalar(made.builder, again, bool_), *rest]
    if isinstance(trips, int) and not conditional:
        check_iterations(trips, "")
    axes, back = (0,) * len(ys), (False,) * len(ys)
    most: DimLike = -1 if trips is None else trips
    captured = _finish(made, rest)
    op = Loop(made.graph, len(carried), (), (), axes, back, most, counted, conditional, MAX_ITERATIONS.get())
    *found, ran = context.builder.add_many(op, *flags, *carried, *captured)
    for y in found[len(carried) :] if op.is_dynamic else []:
        context.trim(y, ran, unknown)
    return [*like(before, found[: len(carried)]), *found[len(carried) :]]


def _unrolled(context: Context, node: OnnxNode, trips: int | None, why: str, inside: Sequence[Value] = ()) -> Sequence[Item]:
    """A Loop of any length, which cannot be native; `why` not, where its condition, which depends on the values `inside`, is not known."""
    try:
        return unroll(context, node.name, node.graph("body"), node.items[2:], trips, True, None)
    except Undecided:
        raise _data_dependent(context, node, why, inside) from None


def _varying(before: Sequence[Item], after: Sequence[Item]) -> str:
    """What says that a carried value changes its type, if one does."""
    for old, new in zip(before, after, strict=False):
        if structure([old]) != structure([new]):
            return f"the number of carried tensors, {describe(old)} before and {describe(new)} after an iteration"
        pairs = ((a, b) for a, b in zip(flat([old]), flat([new]), strict=True) if a.type != b.type)
        for a, b in pairs:
            return f"the shape of {a.name!r}, {a.type} before and {b.type} after an iteration"
    return ""


def _data_dependent(
    context: Context, node: OnnxNode, what: str, inside: Sequence[Value] = (), inputs: Sequence[str] = (), carries: bool = True
) -> DynamicShapeError:  # fmt: skip
    """With the graph inputs that decide how often the loop runs, of which the caller may give values. `inside`: what its condition reads
    of the graph around. `carries`: also what it carries."""
    given = [node.optional(0), node.optional(1), *inside, *(node.items[2:] if carries else [])]
    found = flat(item for item in given if item is not None)
    leaves = (leaf for value in found if context.known(value) is None for leaf in ancestors(value))
    names = tuple(dict.fromkeys((*inputs, *(leaf.name for leaf in leaves if leaf.kind is Kind.INPUT))))
    hint = "give what decides it when loading, load_onnx(..., values={name: array}), or export a loop that carries its results"
    return DynamicShapeError(what, inputs=names, hint=hint)


@onnx_op("Scan", since=9)
def scan(context: Context, node: OnnxNode) -> Sequence[Item]:
    """One iteration per element of the scanned axes."""
    scanned = node.integer("num_scan_inputs")
    states = len(node.items) - scanned
    body, outputs = _scan_body(node, len(node.items), states)
    axes, back = node.ints("scan_input_axes", [0] * scanned), node.ints("scan_input_directions", [0] * scanned)
    axes_out, back_out = node.ints("scan_output_axes", [0] * outputs), node.ints("scan_output_directions", [0] * outputs)
    if not len(axes) == len(back) == scanned or not len(axes_out) == len(back_out) == outputs:
        raise ModelError("axes and directions of Scan do not fit its inputs and outputs")
    sources = [Source(x, normal_axis(axis, x.type.rank), bool(b)) for x, axis, b in zip(node.inputs[states:], axes, back, strict=True)]
    lengths = {source.value.type.shape[source.axis] for source in sources}
    if len(lengths) != 1:
        raise ShapeError(f"the scanned axes have different sizes {sorted(map(str, lengths))}", hint="fix them, e.g. dims={'T': 100}")
    (length,) = lengths
    if not isinstance(length, int) or length * len(body.node) > UNROLL.get():
        native = _native_scan(context, node, body, sources, length, list(zip(axes_out, back_out, strict=True)))
        if native is not None:
            return native
    last, stacks = unroll_scan(context, body, list(node.inputs[:states]), sources)
    rows = zip(stacks, axes_out, back_out, body.output[states:], strict=True)
    return [*last, *(stacked(context, stack[::-1] if b else stack, axis, info) for stack, axis, b, info in rows)]


def _native_scan(
    context: Context, node: OnnxNode, body: onnx.GraphProto, sources: Sequence[Source], length: DimLike, outputs: Sequence[tuple[int, int]]
) -> Sequence[Item] | None:
    """`outputs`: axis and direction of each. None where a state changes its type, which needs a length that is known."""
    carried = list(node.inputs[: len(node.inputs) - len(sources)])
    elements = [s.value.type.with_shape((*s.value.type.shape[: s.axis], *s.value.type.shape[s.axis + 1 :])) for s in sources]
    try:
        made, found = context.sub_graph(body, [*(value.type for value in carried), *elements])
    except DynamicShapeError as error:
        if isinstance(length, int):
            return None
        raise _data_dependent(context, node, error.reason, inputs=error.inputs) from error
    results = [tensor(item) for item in found]
    varying = _varying(carried, results)
    if varying and not isinstance(length, int):
        raise _data_dependent(context, node, f"{varying}, depends on data")
    if varying:
        return None
    number = made.builder.input(made.graph.fresh_name("iteration"), i64, ())
    made.graph.inputs.insert(0, made.graph.inputs.pop(made.graph.inputs.index(number)))
    axes = tuple(normal_axis(axis, value.type.rank + 1) for (axis, _), value in zip(outputs, results[len(carried) :], strict=True))
    x_axes, x_back = tuple(s.axis for s in sources), tuple(s.back for s in sources)
    captured = _finish(made, results)
    op = Loop(made.graph, len(carried), x_axes, x_back, axes, tuple(bool(b) for _, b in outputs), length)
    return context.builder.add_many(op, *node.inputs, *captured)[:-1]


@onnx_op("Scan", until=8)
def scan_8(context: Context, node: OnnxNode) -> list[Item]:
    """Axis 0 of everything is the batch, axis 1 is scanned; each element of the batch on its own."""
    if node.optional(0) is not None:
        raise node.unsupported("Scan-8 with sequence_lens", hint="export with opset 9 or newer")
    inputs = [node.input(i) for i in range(1, len(node.items))]
    scanned = node.integer("num_scan_inputs")
    states = len(inputs) - scanned
    body, _ = _scan_body(node, len(inputs), states)
    back = node.ints("directions", [0] * scanned)
    if len(back) != scanned:
        raise ModelError("the directions of Scan do not fit its inputs")
    results: list[list[Value]] = [[] for _ in body.output]
    for n in range(inputs[0].type.shape[0].__index__() if inputs else 0):
        rows = [element(context, value, 0, n) for value in inputs]
        sources = [Source(x, 0, bool(b)) for x, b in zip(rows[states:], back, strict=True)]
        carried, stacks = unroll_scan(context, body, list(rows[:states]), sources, f"{n}/")
        joined = [stacked(context, stack, 0, info) for stack, info in zip(stacks, body.output[states:], strict=True)]
        for result, item in zip(results, [*map(tensor, carried), *joined], strict=True):
            result.append(item)
    return [stacked(context, result, 0, info) for result, info in zip(results, body.output, strict=True)]


def _scan_body(node: OnnxNode, inputs: int, states: int) -> tuple[onnx.GraphProto, int]:
    """The body and its number of scan outputs."""
    body = node.graph("body")
    if not 0 <= states < inputs or len(body.input) != inputs or len(body.output) < states:
        raise ModelError("the body of Scan does not fit its inputs")
    return body, len(body.output) - states


# conditions and counts ------------------------------------------------------------------------------------------------------


def _finish(body: Body, results: Sequence[Item]) -> list[Value]:
    """The body with these outputs; what it captures."""
    return body.finish((value.name, value) for value in flat(results))


def _scalar(builder: Builder, value: Value, dtype: DType) -> Value:
    """One element as a scalar of a dtype."""
    flat = reshape(builder, value, ())
    return flat if flat.type.dtype == dtype else builder.add(Cast(dtype), flat)


def _known_flag(context: Context, value: Value, what: str) -> bool | None:
    """A condition that is decided while importing, else None."""
    if isinstance(value.type.size, int) and value.type.size != 1:
        raise ModelError(f"{what} must be one element, got {value.type}")
    array = context.known(value)
    return None if array is None or array.dtype == object else bool(array.reshape(-1)[0])


def _decided(context: Context, value: Value, what: str) -> bool:
    return bool(context.array(value, what).reshape(-1)[0])


def _known_count(context: Context, value: Value | None) -> DimLike | None:
    """A trip count that is known, also as a symbolic size; None where there is none, or it depends on data."""
    array = None if value is None else context.known(value)
    if array is None:
        return None
    if array.size != 1:
        raise ModelError(f"the trip count of Loop must be one element, got {array.size}")
    found = array.reshape(-1)[0]
    return found if isinstance(found, Dim) else max(int(found), 0)
