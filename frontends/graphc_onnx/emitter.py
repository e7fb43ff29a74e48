"""Emitter: what an exporter writes ONNX nodes with, and the table of exporters by op name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from graphc.errors import UnsupportedError
from graphc.ir.graph import Array, Graph, Node, Value
from graphc.types.shape import Atom, Dim, DimLike, is_static
from graphc.types.tensor import TensorType
from graphc_onnx.tensors import ELEM_TYPES

OPSET = 21  # of the exported models; GroupNormalization per channel needs it
IR_VERSION = 10

Store = Callable[[onnx.TensorProto, Array], None]
Export = Callable[["Emitter", Node, Any], None]
Absorb = Callable[[Graph, Node], Sequence[Node]]
_exports: dict[str, Export] = {}
_absorbs: dict[str, Absorb] = {}


def exports(*names: str) -> Callable[[Export], Export]:
    """Register the exporter of ops: `(emitter, node, op)` writes the nodes that compute `node.outputs`."""

    def decorate(function: Export) -> Export:
        for name in names:
            if name in _exports:
                raise ValueError(f"two exporters for {name}")
            _exports[name] = function
        return function

    return decorate


def absorbs(name: str) -> Callable[[Absorb], Absorb]:
    """Register what of the graph the ONNX node of an op stands for beside the op's own node: `(graph, node)` gives these nodes."""

    def decorate(function: Absorb) -> Absorb:
        _absorbs[name] = function
        return function

    return decorate


def absorbed(graph: Graph) -> set[Node]:
    """The nodes that become part of others."""
    return {inner for node in graph.nodes if node.op.name in _absorbs for inner in _absorbs[node.op.name](graph, node)}


def export_of(name: str) -> Export | None:
    import graphc_onnx.exports  # the table is filled by importing the exporters

    assert graphc_onnx.exports.__name__
    return _exports.get(name)


def info(name: str, type: TensorType) -> onnx.ValueInfoProto:
    """What a graph declares of an input or output."""
    shape = [dim if isinstance(dim, int) else str(dim) for dim in type.shape]
    return helper.make_tensor_value_info(name, ELEM_TYPES[type.dtype.name], shape)


def write_nodes(emitter: Emitter, graph: Graph, nodes: Sequence[Node]) -> None:
    """The nodes of a graph, whose leaves have names. An UnsupportedError names the node."""
    inside = absorbed(graph)
    for node in nodes:
        if node in inside:
            continue
        export = export_of(node.op.name)
        assert export is not None
        emitter.node = node
        try:
            export(emitter, node, node.op)
        except UnsupportedError as error:
            raise error.at(node.where) from error.__cause__
    emitter.node = None


class Emitter:
    """Collects nodes and initialisers. Values keep their names; those made on the way are called value/operator."""

    def __init__(self, graph: Graph, store: Store) -> None:
        self.graph = graph
        self.store = store
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names: dict[Value, str] = {}
        self._taken: set[str] = {*graph.values, *graph.output_names, *graph.takes, *graph.gives}
        self._node_names: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._sizes: dict[str, str] = {}
        self.node: Node | None = None

    def inside(self) -> Emitter:
        """For a sub-graph of the present node: what is written so far is visible there, and its names are no names of it."""
        made = Emitter(self.graph, self.store)
        made.names, made._taken, made._node_names = dict(self.names), self._taken, self._node_names
        made._constants, made._sizes = dict(self._constants), dict(self._sizes)
        return made

    # names ------------------------------------------------------------------------------------------------------------------

    def fresh(self, hint: str, taken: set[str] | None = None) -> str:
        taken = self._taken if taken is None else taken
        name, number = hint, 1
        while name in taken:
            name, number = f"{hint}.{number}", number + 1
        taken.add(name)
        return name

    def name(self, value: Value) -> str:
        return self.names[value]

    def inputs(self, node: Node) -> list[str]:
        return [self.names[value] for value in node.inputs]

    # writing ----------------------------------------------------------------------------------------------------------------

    def write(self, op: str, inputs: Iterable[str], outputs: Sequence[str], **attributes: Any) -> None:
        """One node with named outputs; attributes that are None are left out."""
        label = self.node.name if self.node is not None else op
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), name=self.fresh(label, self._node_names), **given))

    def result(self, op: str, *inputs: str, **attributes: Any) -> None:
        """The node that computes the outputs of the present graph node."""
        assert self.node is not None
        self.write(op, inputs, [self.names[value] for value in self.node.outputs], **attributes)

    def temp(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node whose output is used by the nodes that follow."""
        base = self.names[self.node.outputs[0]] if self.node is not None else "graphc"
        name = self.fresh(f"{base}/{op.lower()}")
        self.write(op, inputs, [name], **attributes)
        return name

    def constant(self, data: Array, name: str = "") -> str:
        """A Constant node (not an initialiser: those are parameters, or integer data). Equal small ones are shared."""
        key = (data.dtype.str, data.shape, data.tobytes()) if data.nbytes <= 1024 and not name else None
        if key is not None and key in self._constants:
            return self._constants[key]
        made = name or self.fresh(f"graphc/const{len(self._constants)}")
        before, self.node = self.node, None
        self.write("Constant", [], [made], value=self.tensor(made, data))
        self.node = before
        if key is not None:
            self._constants[key] = made
        return made

    def ints(self, numbers: Sequence[int]) -> str:
        return self.constant(np.asarray(numbers, np.int64))

    def like(self, number: float, value: Value) -> str:
        """A 0-d constant of the value's dtype."""
        return self.constant(np.asarray(number, value.type.dtype.numpy))

    def tensor(self, name: str, data: Array) -> onnx.TensorProto:
        made = onnx.TensorProto(name=name, data_type=ELEM_TYPES[data.dtype.name], dims=data.shape)
        made.raw_data = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()
        return made

    def initializer(self, name: str, data: Array) -> None:
        made = onnx.TensorProto(name=name, data_type=ELEM_TYPES[data.dtype.name], dims=data.shape)
        self.store(made, data)
        self.initializers.append(made)

    # symbolic sizes ---------------------------------------------------------------------------------------------------------

    def dims(self, dims: Sequence[DimLike]) -> str:
        """A 1-d int64 tensor of sizes; symbolic ones are computed from the shapes of the graph's inputs."""
        if is_static(tuple(dims)):
            return self.ints([int(dim) for dim in dims])
        parts = [self._dim(dim) for dim in dims]
        return parts[0] if len(parts) == 1 else self.temp("Concat", *parts, axis=0)

    def _dim(self, dim: DimLike) -> str:
        if isinstance(dim, int):
            return self.ints([dim])
        total = ""
        for monomial, coefficient in dim.terms:
            term = ""
            for atom in monomial:
                factor = self._atom(atom)
                term = self.temp("Mul", term, factor) if term else factor
            if coefficient != 1 or not term:
                number = self.ints([coefficient])
                term = self.temp("Mul", term, number) if term else number
            total = self.temp("Add", total, term) if total else term
        return total

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, str):
            return self._symbol(atom)
        _, numerator, denominator = atom
        return self.temp("Div", self._dim(numerator), self._dim(denominator))

    def _symbol(self, symbol: str) -> str:
        if symbol not in self._sizes:
            for value in self.graph.inputs:
                for axis, dim in enumerate(value.type.shape):
                    if isinstance(dim, Dim) and str(dim) == symbol:
                        self._sizes[symbol] = self.temp("Shape", self.names[value], start=axis, end=axis + 1)
                        return self._sizes[symbol]
            raise UnsupportedError(f"the size {symbol} is not a dimension of any input", hint="fix it with dims={...} before exporting")
        return self._sizes[symbol]
