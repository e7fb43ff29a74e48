"""Control flow: loops over the steps of a sequence, loops with a condition, and choices, whose parts are functions of tensors.

Each function is called once, when the model is traced, with tensors of its own; what it uses of the model around it is captured. Its
parameters are made once and shared by all steps; their names begin with the name of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Union

from graphc.errors import AttributeValueError, ModelError, ShapeError, TypeMismatchError
from graphc.ir.body import Body, inline
from graphc.ir.graph import Value
from graphc.limits import MAX_ITERATIONS
from graphc.ops.control import FLAG, If, Loop
from graphc.types.dtype import i64
from graphc.types.shape import DimLike
from graphc.types.tensor import TensorType
from graphc_dsl.arguments import whole
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Tensors = Union["Tensor", Sequence["Tensor"]]


def scan(
    cell: Callable[..., Any], xs: Tensors, init: Tensors, *, reverse: bool = False, axis: int = 1, steps: int | None = None, name: str = ""
) -> tuple[Any, Any]:
    """(ys, last states) of a cell of one's own: `*states, *ys = cell(*states, *elements)` in each step of a sequence.

    xs: (N, T, ...), or several such; an element is x[:, t] (N, ...). init: the states before the first step, one or several, each of which
    keeps its shape and dtype. The cell returns the new states, then any number of results; each becomes y (N, T, ...). ys and last states
    are single tensors where there is one, and where `init` is one, else tuples. `reverse`: from the last step to the first, y[:, t] still
    beside x[:, t]. `axis`: of the steps, in xs and ys. Without xs (an empty tuple), `steps` says how many there are.

        def cell(h, c, x):
            i, f, g, o = graphc.split(graphc.linear(graphc.concat([x, h], 1), 4 * 64, name="gates"), 4, axis=1)
            c = graphc.sigmoid(f) * c + graphc.sigmoid(i) * graphc.tanh(g)
            h = graphc.sigmoid(o) * graphc.tanh(c)
            return h, c, h

        y, (h, c) = graphc.scan(cell, x, (h0, c0))

    Raises ShapeError where the steps of xs differ in number, or a state changes its type; ModelError where the cell returns anything else.
    """
    sequences, states = _listed(xs), _listed(init)
    with Building("scan", name, *sequences, *states, loose=True) as new:
        values, inits = [new.value(x) for x in sequences], [new.value(state) for state in states]
        length = _length(values, axis, steps)
        elements = [v.type.with_shape((*v.type.shape[:axis], *v.type.shape[axis + 1 :])) for v in values]
        body, results = _traced(new, cell, [v.type for v in inits], elements)
        if len(results) < len(inits):
            raise ModelError(f"the cell returns {len(results)} tensors for {len(inits)} states", hint="the new states, then results")
        _check_states(inits, results)
        count = len(results) - len(inits)
        captured = _finish(body, results)
        op = Loop(body.graph, len(inits), (axis,) * len(values), (reverse,) * len(values), (axis,) * count, (reverse,) * count, length)
        made = new.builder.add_many(op, *inits, *values, *captured)
        tensors = new.tensors(made)[:-1]
        last, ys = tensors[: len(inits)], tensors[len(inits) :]
        return ys[0] if len(ys) == 1 else tuple(ys), tuple(last) if isinstance(init, (tuple, list)) else last[0]


def while_loop(
    condition: Callable[..., Any], body: Callable[..., Any], init: Tensors, *, limit: int | None = None, name: str = ""
) -> Any:
    """`while condition(*states): states = body(*states)`: the states after the last iteration, one or several as `init` is.

    condition: gives a bool scalar. States keep their shape and dtype. `limit`: a run that has not ended after so many iterations is a
    ResourceError; default: GRAPHC_MAX_ITERATIONS. Not differentiable: how often it runs is not known.
    """
    states = _listed(init)
    with Building("while", name, *states, loose=True) as new:
        most = MAX_ITERATIONS.get() if limit is None else whole(limit, "limit", 1)
        inits = [new.value(state) for state in states]
        types = [value.type for value in inits]
        asked, flags = _traced(new, condition, types, [], part="condition", numbered=False)
        if len(flags) != 1 or flags[0].type != FLAG:
            listed = ", ".join(str(flag.type) for flag in flags)
            raise TypeMismatchError(f"the condition gives {listed}, not a bool scalar", hint="compare, then graphc.all or graphc.any")
        asks = _finish(asked, flags)
        made, results = _traced(new, body, types, [], part="body")
        if len(results) != len(inits):
            raise ModelError(f"the body returns {len(results)} tensors for {len(inits)} states", hint="the new states")
        _check_states(inits, results)
        again = inline(made.builder, asked.graph, [*results, *(made.capture(value) for value in asks)])
        captured = _finish(made, [*again, *results])
        first = inline(new.builder, asked.graph, [*inits, *asks])
        op = Loop(made.graph, len(inits), conditional=True, limit=most)
        last = new.tensors(new.builder.add_many(op, *first, *inits, *captured))[:-1]
        return tuple(last) if isinstance(init, (tuple, list)) else last[0]


def cond(pred: Tensor, then: Callable[[], Any], other: Callable[[], Any], *, name: str = "") -> Any:
    """`then()` where the bool scalar `pred` is true, else `other()`; only that one is computed.

    Both return a tensor, or a tuple of tensors, of the same types. Raises ShapeError where those differ.
    """
    with Building("cond", name, pred) as new:
        flag = new.value(pred)
        parts = [_traced(new, function, [], [], part=part, numbered=False) for function, part in ((then, "then"), (other, "else"))]
        captured = [value for body, results in parts for value in _finish(body, results)]
        made = new.tensors(new.builder.add_many(If(parts[0][0].graph, parts[1][0].graph), flag, *captured))
        return made[0] if len(made) == 1 else tuple(made)


def _listed(tensors: Tensors) -> list[Any]:
    return list(tensors) if isinstance(tensors, (tuple, list)) else [tensors]


def _length(values: Sequence[Value], axis: int, steps: int | None) -> DimLike:
    """The number of steps."""
    if not values:
        if steps is None:
            raise AttributeValueError("a scan over nothing", hint="xs, or steps=")
        return whole(steps, "steps", 0)
    for value in values:
        if not 0 <= axis < value.type.rank:
            raise ShapeError(f"input {value.type} has no axis {axis} of steps", hint="(N, T, ...), or axis=")
    lengths = [value.type.shape[axis] for value in values]
    if any(length != lengths[0] for length in lengths) or (steps is not None and steps != lengths[0]):
        listed = ", ".join(map(str, [*lengths, *([] if steps is None else [steps])]))
        raise ShapeError(f"the inputs have {listed} steps", hint="sequences of one length")
    return lengths[0]


def _traced(
    new: Building, function: Callable[..., Any], states: Sequence[TensorType], elements: Sequence[TensorType], part: str = "",
    numbered: bool = True,
) -> tuple[Body, list[Value]]:  # fmt: skip
    """The function as a sub-graph, and what it returns there. `numbered`: the sub-graph takes the number of the iteration first."""
    from graphc_dsl.tensor import Tensor  # late: tensors build with this package

    trace, name = new.trace, new.name.rpartition(".")[2]
    with trace.body(name) as body, trace.scope(part) if part else nullcontext():
        if numbered:
            body.iteration = body.builder.input("iteration", i64, ())
        named = [*((f"state{i}", type) for i, type in enumerate(states)), *((f"x{i}", type) for i, type in enumerate(elements))]
        given = [body.builder.input(label, type.dtype, type.shape) for label, type in named]
        returned = function(*(Tensor(trace, value) for value in given))
        results = []
        for item in returned if isinstance(returned, (tuple, list)) else [returned]:
            if not isinstance(item, Tensor) or item.trace is not trace:
                raise ModelError(f"the function of {new.kind} returns {item.__class__.__name__}", hint="tensors")
            results.append(trace.local(item.value))
    return body, results


def _finish(body: Body, results: Sequence[Value]) -> list[Value]:
    return body.finish((value.name, value) for value in results)


def _check_states(inits: Sequence[Value], results: Sequence[Value]) -> None:
    for number, (before, after) in enumerate(zip(inits, results, strict=False)):
        if before.type != after.type:
            raise ShapeError(f"state {number} is {before.type} before a step and {after.type} after it", hint="one type for all steps")
