"""Control flow: ops that run sub-graphs.

A sub-graph (`body`) reads nothing but its inputs and its own constants: what it uses of the graph around it is captured, as inputs of the
op and of the body behind the others. Back ends loop and branch natively; nothing is unrolled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Union

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.evaluate import evaluate_graph
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Cost, Op, register
from graphc.ir.text import graph_data, print_graph
from graphc.limits import endless
from graphc.ops.compose import transpose
from graphc.types.dtype import bool_, i64
from graphc.types.shape import Dim, DimLike, substitute
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

SCALAR = TensorType(i64, ())
FLAG = TensorType(bool_, ())


class Control(Op):
    """Base: an op of several results that runs sub-graphs. Two are equal where the text and the data of their sub-graphs are."""

    family: ClassVar[str] = "control"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(tuple(body.name for body in self.bodies()))

    def _key(self) -> list[object]:
        return [_body_key(value) if isinstance(value, Graph) else value for value in self.attributes().values()]


def _body_key(body: Graph) -> tuple[str, dict[str, bytes]]:
    return print_graph(body), {name: data.tobytes() for name, data in graph_data(body).items()}


@register
@dataclass(frozen=True, eq=False)
class Loop(Control):
    """(*last states, *ys, iterations): the body, again and again. ONNX Loop and Scan; the while of a program.

    inputs: [count i64 []] [condition bool []] *states *xs *captured
    body:   (number of the iteration i64 [], *states, *elements of xs, *captured) -> ([condition bool []], *states, *elements of ys)

    It runs while less than `trips` (-1: no such number) and, where it is `counted`, less than `count` iterations have run, and, where it is
    `conditional`, the last condition is true. Element t of an x is x[t] along its axis of `x_axes`, from the end where `x_reverse` says so;
    that axis has `trips` elements. A y holds the elements of all iterations along a new axis of `y_axes`, from the end where `y_reverse`;
    it has room for `trips`, zero behind the last one that ran. `limit`: a run that has not ended after so many iterations is a
    ResourceError (0: no limit). iterations: how many have run, i64 [].
    """

    body: Graph
    states: int = 0
    x_axes: tuple[int, ...] = ()
    x_reverse: tuple[bool, ...] = ()
    y_axes: tuple[int, ...] = ()
    y_reverse: tuple[bool, ...] = ()
    trips: Union[int, Dim] = -1
    counted: bool = False
    conditional: bool = False
    limit: int = 0

    name: ClassVar[str] = "loop"
    onnx: ClassVar[str] = "Loop, Scan"
    inputs: ClassVar[tuple[int, int]] = (0, -1)

    # parts ----------------------------------------------------------------------------------------------------------------------

    @property
    def first_state(self) -> int:
        """The input behind count and condition."""
        return self.counted + self.conditional

    @property
    def first_x(self) -> int:
        return self.first_state + self.states

    @property
    def first_captured(self) -> int:
        return self.first_x + len(self.x_axes)

    @property
    def is_dynamic(self) -> bool:
        """Whether the number of iterations is known at run time only."""
        return self.counted or self.conditional

    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def bind(self, sizes: Mapping[str, DimLike]) -> Loop:
        return replace(self, body=self.body.bind(sizes), trips=substitute(self.trips, sizes))

    # types ----------------------------------------------------------------------------------------------------------------------

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self._check_attributes()
        inside, outside = [value.type for value in self.body.inputs], [value.type for value in self.body.outputs]
        results = outside[self.conditional :]
        if len(inside) != 1 + len(types) - self.first_state or len(results) != self.states + len(self.y_axes):
            raise TypeMismatchError(f"loop over a body of {len(inside)} inputs and {len(outside)} outputs takes {len(types)} inputs")
        elements = [self._element(i, types[self.first_x + i]) for i in range(len(self.x_axes))]
        states = types[self.first_state : self.first_x]
        given = [SCALAR, *states, *elements, *types[self.first_captured :]]
        flags = [*([SCALAR] if self.counted else []), *([FLAG] if self.conditional else [])]
        _check_types("the loop", "takes", types[: self.first_state], flags)
        _check_types("the body of the loop", "gives", outside[: self.conditional], [FLAG] if self.conditional else [])
        _check_types("the body of the loop", "takes", given, inside)
        _check_types("the body of the loop", "gives as states", results[: self.states], states)
        ys = [self._stacked(type, axis) for type, axis in zip(results[self.states :], self.y_axes, strict=True)]
        return (*states, *ys, SCALAR)

    def _check_attributes(self) -> None:
        if len(self.x_axes) != len(self.x_reverse) or len(self.y_axes) != len(self.y_reverse) or self.states < 0:
            raise AttributeValueError("loop: one axis and one direction for each x and y")
        if self.trips == -1 and not self.is_dynamic:
            raise AttributeValueError("loop without an end", hint="a trip count or a condition")
        if self.trips == -1 and (self.x_axes or self.y_axes):
            raise ShapeError("loop with scanned or stacked values, and no known most number of iterations", hint="a constant trip count")
        if self.is_dynamic and (any(self.x_reverse) or any(self.y_reverse)):
            raise AttributeValueError("loop of an unknown number of iterations from the end", hint="scan forward, and flip the result")

    def _element(self, i: int, x: TensorType) -> TensorType:
        axis = self.x_axes[i]
        if not 0 <= axis < x.rank:
            raise ShapeError(f"loop over axis {axis} of {x}")
        if x.shape[axis] != self.trips:
            raise ShapeError(f"loop of {self.trips} iterations over axis {axis} of {x}", hint="scanned axes of one size")
        return x.with_shape((*x.shape[:axis], *x.shape[axis + 1 :]))

    def _stacked(self, element: TensorType, axis: int) -> TensorType:
        if not 0 <= axis <= element.rank:
            raise ShapeError(f"loop that stacks {element} along axis {axis}")
        return element.with_shape((*element.shape[:axis], self.trips, *element.shape[axis:]))

    # meaning --------------------------------------------------------------------------------------------------------------------

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        rest = iter(arrays)
        most = [int(next(rest))] if self.counted else []
        going = bool(next(rest)) if self.conditional else True
        states, xs = [next(rest) for _ in range(self.states)], [next(rest) for _ in self.x_axes]
        captured = list(rest)
        trips = xs[0].shape[self.x_axes[0]] if xs else self.trips.__index__()
        most += [trips] if trips >= 0 else []
        rows: list[list[Array]] = [[] for _ in self.y_axes]
        number = 0
        while going and all(number < end for end in most):
            if self.limit and number >= self.limit:
                raise endless(self.limit, self.name)
            at = (trips - 1 - number if back else number for back in self.x_reverse)
            elements = [x.take(t, axis) for x, t, axis in zip(xs, at, self.x_axes, strict=True)]
            results = list(evaluate_graph(self.body, [np.asarray(number, np.int64), *states, *elements, *captured]))
            going = bool(results.pop(0)) if self.conditional else True
            states = results[: self.states]
            for row, result in zip(rows, results[self.states :], strict=True):
                row.append(result)
            number += 1
        ys = [self._filled(i, row, trips) for i, row in enumerate(rows)]
        return (*states, *ys, np.asarray(number, np.int64))

    def _filled(self, i: int, rows: list[Array], trips: int) -> Array:
        """The elements stacked, zeros behind them."""
        type = self.body.outputs[self.conditional + self.states + i].type
        empty = np.zeros(rows[0].shape if rows else type.static_shape, type.dtype.numpy)
        whole = [*rows, *[empty] * (trips - len(rows))]
        axis = self.y_axes[i]
        if not whole:
            return np.zeros((*empty.shape[:axis], 0, *empty.shape[axis:]), empty.dtype)
        return np.stack(whole[::-1] if self.y_reverse[i] else whole, axis)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """A loop in reverse, see `graphc.autodiff.control`."""
        found: Sequence[Value | None] = import_module("graphc.autodiff.control").loop_gradient(builder, node, grads)  # imports only go down
        return found

    def decompose(self, builder: Builder, *inputs: Value) -> tuple[Value, ...] | None:
        """Over first axes, whose elements lie in one piece, with transposes around the loop."""
        if not any((*self.x_axes, *self.y_axes)):
            return None
        first = self.first_x
        xs = [transpose(builder, x, _to_front(axis, x.type.rank)) for x, axis in zip(inputs[first:], self.x_axes, strict=False)]
        op = replace(self, x_axes=(0,) * len(self.x_axes), y_axes=(0,) * len(self.y_axes))
        found = builder.add_many(op, *inputs[:first], *xs, *inputs[self.first_captured :], name=builder.source.node)
        pairs = zip(found[self.states : -1], self.y_axes, strict=True)
        ys = [transpose(builder, y, np.argsort(_to_front(axis, y.type.rank)).tolist()) for y, axis in pairs]
        return (*found[: self.states], *ys, found[-1])

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """The body's, as often as it runs at most; once where that is not known."""
        times = max(self.trips.__index__(), 1)
        once = graph_cost(self.body)
        return Cost(once.flops * times, once.bytes * times)


@register
@dataclass(frozen=True, eq=False)
class If(Control):
    """The results of `then_body` where the condition is true, else those of `else_body`; only that one runs. ONNX If.

    inputs: condition bool [], *inputs of then_body, *inputs of else_body. The bodies give the same types.
    """

    then_body: Graph
    else_body: Graph

    name: ClassVar[str] = "if"
    onnx: ClassVar[str] = "If"
    inputs: ClassVar[tuple[int, int]] = (1, -1)

    def bodies(self) -> tuple[Graph, ...]:
        return (self.then_body, self.else_body)

    def bind(self, sizes: Mapping[str, DimLike]) -> If:
        return replace(self, then_body=self.then_body.bind(sizes), else_body=self.else_body.bind(sizes))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        _check_types("if", "takes", types[:1], [FLAG])
        inside = [value.type for body in self.bodies() for value in body.inputs]
        _check_types("the branches of if", "take", types[1:], inside)
        then, other = ([value.type for value in body.outputs] for body in self.bodies())
        if then != other:
            listed = " and ".join(f"({', '.join(map(str, types))})" for types in (then, other))
            hint = "results of one type, or a condition that is known when the model is loaded"
            raise ShapeError(f"the branches of if give {listed}: results whose type depends on data", hint=hint)
        return tuple(then)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        count = len(self.then_body.inputs)
        if bool(arrays[0]):
            return evaluate_graph(self.then_body, arrays[1 : 1 + count])
        return evaluate_graph(self.else_body, arrays[1 + count :])

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The choice between the gradients of its branches, see `graphc.autodiff.control`."""
        found: Sequence[Value | None] = import_module("graphc.autodiff.control").choice_gradient(builder, node, grads)
        return found

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Of the dearer branch."""
        return max((graph_cost(body) for body in self.bodies()), key=lambda cost: cost.flops)


def _to_front(axis: int, rank: int) -> list[int]:
    """The order of axes that brings one to the front."""
    return [axis, *(other for other in range(rank) if other != axis)]


def graph_cost(graph: Graph) -> Cost:
    """Of all nodes."""
    costs = [node.op.cost([v.type for v in node.inputs], [v.type for v in node.outputs]) for node in graph.nodes]
    return Cost(sum(cost.flops for cost in costs), sum(cost.bytes for cost in costs))


def _check_types(what: str, verb: str, given: Sequence[TensorType], wanted: Sequence[TensorType]) -> None:
    """Raise ShapeError, or TypeMismatchError for another dtype, at the first that differs."""
    if len(given) != len(wanted):
        raise TypeMismatchError(f"{what} {verb} {len(wanted)} values, not {len(given)}")
    for number, (have, want) in enumerate(zip(given, wanted, strict=True)):
        if have.dtype != want.dtype:
            raise TypeMismatchError(f"{what} {verb} {want} at {number}, not {have}", hint="insert a cast")
        if have.shape != want.shape:
            raise ShapeError(f"{what} {verb} {want} at {number}, not {have}", hint="a state keeps its shape in all iterations")
