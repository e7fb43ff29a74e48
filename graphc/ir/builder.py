"""Builds graphs: adds nodes with inferred types, and knows integer values at compile time (shape arithmetic).

`known(value)` evaluates a value from constants and shapes with the ops' numpy meaning, over object arrays of `Dim` where sizes are
symbolic. Front ends use it to turn shape-defining inputs into attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from graphc.errors import DynamicShapeError, GraphcError, UnsupportedError
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import Op
from graphc.source import UNKNOWN, Source
from graphc.types.dtype import DType, dtype
from graphc.types.shape import Dim, DimLike, Shape
from graphc.types.tensor import TensorType

KNOWN_LIMIT = 1 << 16  # elements; larger values are data, not shapes


class Builder:
    """Appends to `graph`. `source` and `origins` are attached to every node made while they are set (see `at`)."""

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = graph if graph is not None else Graph()
        self.source: Source = UNKNOWN
        self.origins: tuple[str, ...] = ()
        self._known: dict[Value, Array | None] = {}

    @contextmanager
    def at(self, source: Source, origins: tuple[str, ...] = ()) -> Iterator[None]:
        """Everything built inside comes from this place of the user's model."""
        before = self.source, self.origins
        self.source, self.origins = source, origins
        try:
            yield
        except GraphcError as error:
            raise error.at(str(source)) from error.__cause__
        finally:
            self.source, self.origins = before

    # leaves -----------------------------------------------------------------------------------------------------------------

    def input(self, name: str, dtype_: DType | str, shape: Shape) -> Value:
        return self.graph.add_value(name, TensorType(dtype(dtype_), tuple(shape)), Kind.INPUT)

    def constant(self, data: Array | Sequence[int] | Sequence[float] | float, dtype_: DType | None = None, name: str = "const") -> Value:
        return self._leaf(data, dtype_, name, Kind.CONSTANT)

    def parameter(self, name: str, data: Array) -> Value:
        return self._leaf(data, None, name, Kind.PARAMETER)

    def state(self, name: str, data: Array) -> Value:
        return self._leaf(data, None, name, Kind.STATE)

    def _leaf(self, data: object, dtype_: DType | None, name: str, kind: Kind) -> Value:
        array = np.asarray(data, dtype=dtype_.numpy if dtype_ else None)
        try:
            found = dtype(array.dtype)
        except KeyError as error:
            raise UnsupportedError(f"dtype {array.dtype} of {name!r}", hint="convert it to a dtype that `graphc ops` lists") from error
        type = TensorType(found, tuple(array.shape))
        unique = name if kind is not Kind.CONSTANT else self.graph.fresh_name(name)
        return self.graph.add_value(unique, type, kind, array)

    # nodes ------------------------------------------------------------------------------------------------------------------

    def add(self, op: Op, *inputs: Value, name: str = "") -> Value:
        """A node with one output."""
        (value,) = self.add_many(op, *inputs, name=name)
        return value

    def add_many(self, op: Op, *inputs: Value, name: str = "", names: Sequence[str] = ()) -> tuple[Value, ...]:
        """A node; its outputs get `names`, or names made from the node's."""
        label = name or op.name
        try:
            types = op.output_types(*(value.type for value in inputs))
        except GraphcError as error:
            raise error.at(str(self.source) if self.source is not UNKNOWN else f"{op.name} {label!r}") from error.__cause__
        own = op.bind({}) if op.bodies() else op  # sub-graphs belong to one node
        node = Node(label, own, inputs, self.source, self.origins)
        for i, type in enumerate(types):
            hint = names[i] if i < len(names) and names[i] else label if i == 0 else f"{label}:{i}"
            value = self.graph.add_value(self.graph.fresh_name(hint), type, Kind.RESULT)
            value.producer = node
            node.outputs.append(value)
        self.graph.nodes.append(node)
        return tuple(node.outputs)

    # compile-time values ----------------------------------------------------------------------------------------------------

    def known(self, value: Value) -> Array | None:
        """The value where it follows from constants and shapes (an object array where dims are symbolic), else None."""
        stack = [value]
        while stack:
            top = stack[-1]
            if top in self._known:
                stack.pop()
                continue
            node = top.producer
            if node is None:
                self._known[top] = top.data if top.is_constant else None
                continue
            needed = [] if node.op.name == "shape" else node.inputs
            waiting = [i for i in needed if i not in self._known]
            if waiting:
                stack.extend(waiting)
                continue
            self._evaluate(node)
        return self._known[value]

    def assume(self, value: Value, known: Array | None) -> None:
        """`known(value)` is this from now on: of an input of a sub-graph, what is known of the value that it stands for."""
        self._known[value] = known

    def _evaluate(self, node: Node) -> None:
        from graphc.ops.movement import ShapeOf  # late: ops are built on this package

        results: Sequence[Array | None] = [None] * len(node.outputs)
        if node.op.bodies():
            self._known.update(dict.fromkeys(node.outputs))
            return
        if isinstance(node.op, ShapeOf):
            results = [node.op.of(node.inputs[0].type.shape)]
        else:
            arrays = [self._known[i] for i in node.inputs]
            small = all(_is_small(v.type) for v in (*node.inputs, *node.outputs))
            if small and all(a is not None for a in arrays):
                try:
                    results = node.op.evaluate(*(a for a in arrays if a is not None))
                except (TypeError, ValueError, GraphcError):
                    if all(a is None or a.dtype != object for a in arrays):
                        raise
        for out, result in zip(node.outputs, results, strict=True):
            self._known[out] = result

    def known_ints(self, value: Value, what: str) -> tuple[DimLike, ...]:
        """A 1-d (or scalar) integer value as dims; a DynamicShapeError names the graph inputs that it depends on."""
        array = self.known(value)
        if array is None:
            inputs = tuple(v.name for v in ancestors(value) if v.kind is Kind.INPUT)
            raise DynamicShapeError(
                f"{what} depends on the data of {', '.join(map(repr, inputs)) or repr(value.name)}",
                inputs=inputs, where=str(self.source), hint="give the value when loading: load_onnx(..., values={name: array})",
            )  # fmt: skip
        return tuple(item if isinstance(item, Dim) else int(item) for item in array.reshape(-1))

    def finish(self, **outputs: Value) -> Graph:
        """Set the outputs (public name = value) and return the graph."""
        self.graph.set_outputs(outputs)
        return self.graph


def ancestors(value: Value) -> Iterator[Value]:
    """The leaves that a value depends on, each once."""
    seen = {value}
    stack = [value]
    while stack:
        top = stack.pop()
        if top.producer is None:
            yield top
            continue
        for parent in top.producer.inputs:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)


def _is_small(type: TensorType) -> bool:
    return all(isinstance(dim, int) for dim in type.shape) and int(type.size) <= KNOWN_LIMIT
