"""ONNX to graphc: `load` reads a model and builds the graph, node by node, with the handlers of `graphc_onnx.handlers`.

Invariants of the result: value names are those of the ONNX model (values made on the way are called node/op); every node carries the
name of the ONNX node that it came from in `origins` (a node without a name is called op_index); float initialisers are parameters,
others constants; nodes whose integer value is known are folded (`fold.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import onnx

from graphc.errors import DynamicShapeError, GraphcError, InputError, ModelError, ResourceError
from graphc.ir.body import Body
from graphc.ir.builder import Builder, ancestors
from graphc.ir.graph import Graph, Kind, Value
from graphc.ir.parts import Parts
from graphc.knobs import knob
from graphc.limits import MemoryFor
from graphc.source import Source
from graphc.types.dtype import dtype
from graphc.types.shape import is_static
from graphc.types.tensor import TensorType
from graphc_onnx import functions
from graphc_onnx.context import Context
from graphc_onnx.fold import fold_known
from graphc_onnx.inputs import InputTypes, Typed, type_of
from graphc_onnx.names import free_name, rename_new, unique_node_names
from graphc_onnx.node import OnnxNode
from graphc_onnx.read import Source as ModelSource
from graphc_onnx.read import check_structure, check_versions, is_standard, opsets, read
from graphc_onnx.registry import Absent, Item, TensorList, find
from graphc_onnx.structure import flat, like
from graphc_onnx.support import check_supported
from graphc_onnx.tensors import Array, Storage, check_size, dense, to_array

_UNEXPECTED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, OSError, onnx.checker.ValidationError
)  # fmt: skip
MAX_NODES = knob("GRAPHC_MAX_NODES", int, 100_000, "most nodes of an imported model, with functions inlined and loops unrolled")


def load(
    model: ModelSource, *, dims: Mapping[str, int] | None = None, values: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
) -> Graph:  # fmt: skip
    """Import an ONNX model: a path, the file's bytes, or a ModelProto.

    `dims` fixes symbolic dimensions by name (`{"N": 8}`); `values` turns graph inputs into constants, which inputs that decide shapes
    (axes, pads, sizes) need: an array each, a list of arrays for a sequence, None for an optional that is absent.

    `shapes` says of inputs that are sequences or optional what they are given as, and of those without a declared rank which shape they
    have: `{"seq": 3, "points": [(2, 3), ("N", 3)], "opt": None, "x": (2, 3)}`: a number of elements, a list of their shapes, None for
    an optional that is absent, a shape (dims: sizes, names, None for what the file says). The graph holds tensors, here seq[0], seq[1]
    and so on; a compiled one takes and returns lists of arrays again (see `graphc.ir.parts`).

    Raises ModelError for a broken model, UnsupportedError listing everything that is not supported, DynamicShapeError naming the inputs
    that must be given as `values` or `shapes`, InputError for wrong `dims`, `values` or `shapes`.
    """
    proto, storage = read(model)
    try:
        versions = check_versions(proto)
        check_structure(proto)
        check_supported(proto, versions)
        with MemoryFor("to import the model"):
            graph = Importer(proto, storage, versions).run(dims or {}, values or {}, shapes or {})
        graph.files = tuple(sorted(storage.used))
        return graph
    except RecursionError as error:
        raise ModelError("the model nests subgraphs or functions too deeply", hint="export it again") from error
    except _UNEXPECTED as error:
        raise ModelError(f"the model is damaged: {type(error).__name__}: {error}", hint="export or download it again") from error


@dataclass
class Scope:
    """Names that are visible while a node list is imported: its own, then the enclosing graph's. `body`: the sub-graph that it builds,
    which captures what it finds outside."""

    versions: Mapping[str, int]
    prefix: str = ""
    outer: Scope | None = None
    items: dict[str, Item] = field(default_factory=dict)
    body: Body | None = None

    def find(self, name: str) -> Item:
        if name in self.items:
            return self.items[name]
        if self.outer is None:
            raise ModelError(f"the input {name!r} is not defined", hint="export the model again")
        return self._captured(self.outer.find(name))

    def _captured(self, found: Item) -> Item:
        if self.body is None or found is None:
            return found
        return like([found], [self.body.capture(value) for value in flat([found])])[0]


class Importer:
    """Builds one graph. `inline_graph` serves the control flow handlers, `inline_function` what is defined by a function body."""

    def __init__(self, proto: onnx.ModelProto, storage: Storage, versions: Mapping[str, int]) -> None:
        self.proto = proto
        self.storage = storage
        self.builder = Builder(Graph(proto.graph.name or "graph"))
        self.context = Context(self.builder, self)
        self.functions = functions.table(proto)
        self.scope = Scope(versions)
        self.origin: str | None = None  # the node of the main graph that is being imported
        self.reserved = functions.all_value_names(proto.graph)
        self.imported = 0
        self.leaves: dict[tuple[int, Body | None], tuple[onnx.GraphProto, dict[str, Item]]] = {}  # holds what its keys are the ids of
        self.made: dict[int, tuple[object, Value]] = {}  # initializers that have been read, by the id of what the value is kept with
        self.lengths: dict[Value, tuple[Value, GraphcError]] = {}  # results with room for more than counts: how many, why no node reads it
        self.bodies: list[Body] = []  # sub-graphs under construction, the innermost last
        self.node_names = unique_node_names(proto.graph.node)
        self.elements: dict[str, str] = {}  # element of a sequence -> the input that it is part of

    @property
    def graph(self) -> Graph:
        return self.builder.graph

    def run(self, dims: Mapping[str, int], values: Mapping[str, Any], shapes: Mapping[str, Any]) -> Graph:
        proto = self.proto.graph
        self.graph.metadata = {entry.key: entry.value for entry in self.proto.metadata_props}
        self._inputs(proto, dims, values, shapes)
        self._initializers(proto)
        try:
            self._nodes(proto.node, self.node_names)
            self._outputs([info.name for info in proto.output])
        except DynamicShapeError as error:
            error.inputs = tuple(dict.fromkeys(self.elements.get(name, name) for name in error.inputs))
            raise
        return fold_known(self.builder)

    def _outputs(self, names: Sequence[str]) -> None:
        outputs: dict[str, Value] = {}
        gives: dict[str, Parts] = {}
        for name in names:
            item = self.scope.find(name)
            labels = self._names(name, item, {*names, *outputs})
            outputs |= zip(labels, flat([item]), strict=True)
            gives[name] = _parts(item, labels)
        self.graph.set_outputs(outputs | self._lengths(outputs))
        self.graph.trims = {name: (0, f"{name}:length") for name, value in outputs.items() if value in self.lengths}
        self.graph.gives = gives if any(part != name for name, part in gives.items()) else {}

    def _names(self, name: str, item: Item, taken: Collection[str]) -> list[str]:
        """What the tensors are called of which an input or output consists."""
        if not isinstance(item, TensorList):
            return [name] if isinstance(item, Value) else []
        return [free_name(f"{name}[{i}]", taken) for i in range(len(item.items))]

    def _lengths(self, outputs: Mapping[str, Value]) -> dict[str, Value]:
        """Further outputs that say how long what a loop stacks has become. Raises what was kept, where a node reads such a result."""
        for value, (_, error) in self.lengths.items():
            if value.users:
                raise error
        return {f"{name}:length": self.lengths[value][0] for name, value in outputs.items() if value in self.lengths}

    # leaves -----------------------------------------------------------------------------------------------------------------

    def _inputs(self, proto: onnx.GraphProto, dims: Mapping[str, int], values: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
        initialized = {tensor.name for tensor in proto.initializer} | {sparse.values.name for sparse in proto.sparse_initializer}
        infos = [info for info in proto.input if info.name not in initialized]
        names = [info.name for info in infos]
        for name in values:
            if name not in names:
                raise InputError(f"values: there is no input {name!r}", hint=f"the inputs are {', '.join(map(repr, names))}")
        types = InputTypes(infos, dims, shapes, values)
        takes: dict[str, Parts] = {}
        for name in names:
            given = types.check_value(name, values[name]) if name in values else types.of(name)
            made = [self._input(label, part) for label, part in self._tensors(name, given)]
            self.scope.items[name] = types.item(name, given, made)
            if name not in values:
                takes[name] = _parts(self.scope.items[name], [value.name for value in made])
        self.graph.takes = takes if any(part != name for name, part in takes.items()) else {}
        types.check_dims_used()

    def _tensors(self, name: str, given: Typed | Array | list[Array]) -> list[tuple[str, TensorType | Array]]:
        """The tensors of an input, with their names."""
        if given is None:
            return []
        if not isinstance(given, list):
            return [(name, given)]
        taken = {*self.reserved, *self.graph.values}
        labels = [free_name(f"{name}[{i}]", taken) for i in range(len(given))]
        self.elements |= dict.fromkeys(labels, name)
        return list(zip(labels, given, strict=True))

    def _input(self, name: str, given: TensorType | Array) -> Value:
        """An input of that type, or a constant."""
        if isinstance(given, TensorType):
            return self.builder.input(name, given.dtype, given.shape)
        return self.graph.add_value(name, type_of(given), Kind.CONSTANT, given)

    def _initializers(self, proto: onnx.GraphProto) -> None:
        for tensor in proto.initializer:
            read = partial(to_array, tensor, self.storage, f"initializer {tensor.name!r}")
            self.scope.items[tensor.name] = self._leaf(tensor, tensor.name, read)
        for sparse in proto.sparse_initializer:
            self.scope.items[sparse.values.name] = self._leaf(sparse, sparse.values.name, partial(dense, sparse, self.storage))

    def _leaf(self, proto: object, name: str, read: Callable[[], Array]) -> Value:
        """Of an initializer, once for each: parameters belong to the model; a sub-graph captures them."""
        if id(proto) not in self.made:
            root, array = self.bodies[0].outer if self.bodies else self.builder, read()
            unique = root.graph.fresh_name(self.scope.prefix + name)
            value = root.parameter(unique, array) if dtype(array.dtype).is_float else root.constant(array, name=unique)
            self.made[id(proto)] = proto, value
        _, made = self.made[id(proto)]
        for body in self.bodies:
            made = body.capture(made)
        return made

    # nodes ------------------------------------------------------------------------------------------------------------------

    def _nodes(self, nodes: Sequence[onnx.NodeProto], names: Sequence[str]) -> None:
        for proto, name in zip(nodes, names, strict=True):
            self._count_node()
            top = self.origin is None
            if top:
                self.origin = name
            with self.builder.at(Source(node=name, op=proto.op_type), (self.origin or name,)), _guarded(proto, name):
                self._node(proto, name)
            if top:
                self.origin = None

    def _count_node(self) -> None:
        self.imported += 1
        if self.imported > MAX_NODES.get():
            raise ResourceError(
                f"the model has more than {MAX_NODES.name}={MAX_NODES.get()} nodes, functions and loops unrolled",
                hint=f"set {MAX_NODES.name} higher if that is meant",
            )

    def _node(self, proto: onnx.NodeProto, name: str) -> None:
        inputs = [self.scope.find(i) if i else None for i in proto.input]
        before = len(self.graph.values), len(self.graph.nodes)
        results = self._build(proto, name, inputs)
        if len(results) < len([o for o in proto.output if o]):
            raise ModelError(f"{proto.op_type} has {len(results)} outputs, and the model uses {len(proto.output)}")
        named: dict[str, Item] = {}
        for output, result in zip(proto.output, results, strict=False):
            if output:
                if result is None:
                    raise ModelError(f"the output {output!r} cannot be computed in this form")
                named[output] = result
        self.scope.items.update(named)
        rename_new(self.graph, before, self.scope.prefix, name, named, self.reserved)
        self._check_sizes(before[0])
        if len(self.graph.nodes) == before[1] and self.origin is not None:
            self.graph.eliminated.setdefault(self.origin, "import")

    def _build(self, proto: onnx.NodeProto, name: str, inputs: Sequence[Item]) -> list[Item]:
        domain = "" if is_standard(proto.domain) else proto.domain
        local = self.functions.get((domain, proto.op_type, proto.overload))
        if local is not None:
            return self.inline_function(local, proto, name, inputs)
        opset = self.scope.versions.get(domain, 1)
        handler = find(domain, proto.op_type, opset)
        if handler is None:
            body = functions.schema_body(proto, domain, opset, inputs)
            return self.inline_function(body, proto, name, inputs)
        node = OnnxNode(proto, name, inputs, opset, self.storage)
        result = handler(self.context, node)
        node.check_attributes()
        return [result] if result is None or isinstance(result, (Value, TensorList, Absent)) else list(result)

    def _check_sizes(self, first: int) -> None:
        values = self.graph.values
        for name in islice(reversed(values), len(values) - first):
            value = values[name]
            if is_static(value.type.shape):
                check_size(value.type.shape, value.type.dtype, f"the value {value.name!r}")

    # nested node lists ------------------------------------------------------------------------------------------------------

    def inline_function(self, body: onnx.FunctionProto, call: onnx.NodeProto, name: str, inputs: Sequence[Item]) -> list[Item]:
        """Import a function body in place of a call. The body's own opset imports hold inside."""
        if len(inputs) > len(body.input):
            raise ModelError(f"{len(inputs)} inputs for function {body.name!r}, which takes {len(body.input)}")
        given = dict(zip(body.input, [*inputs, *[None] * len(body.input)], strict=False))
        nodes = functions.specialise(body, call)
        versions = {**self.scope.versions, **opsets(body.opset_import)}
        with self._inside(Scope(versions, f"{self.scope.prefix}{name}/", None, given)) as scope:
            self._nodes(nodes, unique_node_names(nodes))
            return [scope.items.get(output) for output in body.output]  # what a call does not ask for may be undefined

    def inline_graph(self, graph: onnx.GraphProto, inputs: Mapping[str, Item], label: str = "") -> list[Item]:
        """Import a subgraph in place: its outputs, in order. `label` tells repeated imports of one node apart."""
        prefix = f"{self.scope.prefix}{self.builder.source.node}/{label}"
        with self._inside(Scope(self.scope.versions, prefix, self.scope, dict(inputs))) as scope:
            key = (id(graph), self.bodies[-1] if self.bodies else None)
            if key not in self.leaves:  # the body of a loop is imported many times
                self._initializers(graph)
                self.leaves[key] = graph, {name: item for name, item in scope.items.items() if name not in inputs}
            scope.items.update(self.leaves[key][1])
            self._nodes(graph.node, unique_node_names(graph.node))
            return [scope.find(info.name) for info in graph.output]

    def build_graph(self, graph: onnx.GraphProto, given: Sequence[TensorType | Array | Item]) -> tuple[Body, list[Item]]:
        """Import a sub-graph as a graph of its own: an input for each type and each tensor of an item, a constant for each array; and its
        outputs, in order."""
        if len(graph.input) != len(given):
            raise ModelError(f"the sub-graph {graph.name!r} takes {len(graph.input)} inputs, not {len(given)}")
        body = Body(self.builder, graph.name or "body")
        prefix = f"{self.scope.prefix}{self.builder.source.node}/"
        with self._inside(Scope(self.scope.versions, prefix, self.scope, {}, body)) as scope, self._building(body):
            for info, item in zip(graph.input, given, strict=True):
                scope.items[info.name] = _stand_in(body.builder, info.name, item)
            self._initializers(graph)
            self._nodes(graph.node, unique_node_names(graph.node))
            return body, [scope.find(info.name) for info in graph.output]

    @contextmanager
    def _building(self, body: Body) -> Iterator[None]:
        """Everything that is built inside belongs to the sub-graph. An error names inputs of the graph around."""
        before = self.builder
        self.bodies.append(body)
        self.builder = self.context.builder = body.builder
        try:
            yield
        except DynamicShapeError as error:
            found = body.outside(*(value for value in body.graph.inputs if value.name in error.inputs))
            leaves = (leaf for value in found for leaf in ancestors(value))
            error.inputs = tuple(dict.fromkeys(leaf.name for leaf in leaves if leaf.kind is Kind.INPUT))
            raise
        finally:
            self.builder = self.context.builder = before
            self.bodies.pop()

    @contextmanager
    def _inside(self, scope: Scope) -> Iterator[Scope]:
        before, self.scope = self.scope, scope
        try:
            yield scope
        finally:
            self.scope = before


def _parts(item: Item, names: Sequence[str]) -> Parts:
    """How a caller sees an input or output that consists of the tensors of these names."""
    return tuple(names) if isinstance(item, TensorList) else names[0] if names else None


def _stand_in(builder: Builder, name: str, given: TensorType | Array | Item) -> Item:
    """What a sub-graph has for what it is given."""
    if isinstance(given, np.ndarray):
        return builder.constant(given, name=builder.graph.fresh_name(name))
    if isinstance(given, TensorType):
        return builder.input(builder.graph.fresh_name(name), given.dtype, given.shape)
    values = flat([given])
    labels = [f"{name}[{i}]" for i in range(len(values))] if isinstance(given, TensorList) else [name] * len(values)
    made = [builder.input(builder.graph.fresh_name(label), v.type.dtype, v.type.shape) for label, v in zip(labels, values, strict=True)]
    return like([given], made)[0]


@contextmanager
def _guarded(proto: onnx.NodeProto, name: str) -> Iterator[None]:
    """Whatever goes wrong in a handler ends in a GraphcError that names the node."""
    where = f"{proto.op_type} {name!r}"
    try:
        yield
    except GraphcError as error:
        raise error.at(where) from error.__cause__
    except MemoryError as error:
        raise ResourceError("not enough memory", where=where, hint="import on a machine with more memory") from error
    except _UNEXPECTED as error:
        reason = f"cannot be imported: {type(error).__name__}: {error}"
        raise ModelError(reason, where=where, hint="check the node's inputs and attributes") from error
