"""A graph with other sizes of its leaves: an open batch, or other weights. Every type is inferred anew; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from graphc.errors import GraphcError, ShapeError, UnsupportedError
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import Op
from graphc.ops.movement import Expand, Reshape
from graphc.types.shape import DimLike, symbol
from graphc.types.tensor import TensorType

BATCH = "N"
Revise = Callable[[Node, list[Value]], Op]  # (node of the old graph, its inputs in the new one) -> its op in the new one


def retyped(graph: Graph, types: Mapping[str, TensorType], data: Mapping[str, Array], revise: Revise) -> Graph:
    """A copy whose leaves have these types and data where given, and whose other types follow. Names, origins and order stay.

    Raises ShapeError that names the node for which the sizes do not fit.
    """
    made = Graph(graph.name)
    made.metadata, made.files, made.eliminated = dict(graph.metadata), graph.files, dict(graph.eliminated)
    new: dict[Value, Value] = {}
    for value in graph.values.values():
        if value.producer is None:
            new[value] = made.add_value(value.name, types.get(value.name, value.type), value.kind, data.get(value.name, value.data))
    made.inputs = [new[value] for value in graph.inputs]
    for node in graph.nodes:
        inputs = [new[value] for value in node.inputs]
        try:
            op = revise(node, inputs)
            op = op.bind({}) if op.bodies() else op  # sub-graphs belong to one node
            found = op.output_types(*(value.type for value in inputs))
        except GraphcError as error:
            raise ShapeError(f"the node does not take other sizes: {error.reason}", where=node.where) from error
        twin = Node(node.name, op, inputs, node.source, node.origins)
        for value, type in zip(node.outputs, found, strict=True):
            new[value] = made.add_value(value.name, type, Kind.RESULT)
            new[value].producer = twin
            twin.outputs.append(new[value])
        made.nodes.append(twin)
    made.takes, made.gives = dict(graph.takes), dict(graph.gives)
    made.set_outputs({name: new[value] for name, value in zip(graph.output_names, graph.outputs, strict=True)})
    made.updates = {new[state]: new[value] for state, value in graph.updates.items()}
    return made


def resized(op: Op, old: Value, new: Value, axis: int, size: DimLike) -> Op:
    """The op with `size` at an axis of a shape among its attributes, where the operand's size at that axis was changed to it."""
    if isinstance(op, (Reshape, Expand)) and old.type != new.type and axis < len(op.shape) and op.shape[axis] == old.type.shape[axis]:
        return replace(op, shape=(*op.shape[:axis], size, *op.shape[axis + 1 :]))
    return op


def fixed_batch(graph: Graph) -> int | None:
    """The first size that all inputs share, where it is a number; None: it is open, or they differ."""
    first = {value.type.shape[0] if value.type.rank else None for value in graph.inputs}
    (size,) = first if len(first) == 1 else (None,)
    return size if isinstance(size, int) else None


def open_batch(graph: Graph, name: str = BATCH) -> Graph:
    """The graph of a fixed batch with the symbol `name` for the first size of every input; `graph.bind({name: size})` closes it again.

    Raises UnsupportedError for a node that is not known to treat the samples of a batch one by one: a reduction over the first axis, a
    transposition that moves it, a shape that does not begin with it.
    """
    size = fixed_batch(graph)
    if size is None:
        raise UnsupportedError("the inputs have no fixed batch in common", where=graph.name, hint="a model whose inputs are batches")
    if name in graph.symbols:
        raise UnsupportedError(f"the model has a size {name!r} already", where=graph.name, hint="another name for the batch")
    opened: DimLike = symbol(name)

    def batched(value: Value) -> bool:
        return value.type.rank > 0 and value.type.shape[0] == opened

    def revise(node: Node, inputs: list[Value]) -> Op:
        op = node.op
        if any(map(batched, inputs)):
            _check_apart(node)
        return resized(op, node.inputs[0], inputs[0], 0, opened) if inputs else op

    types = {value.name: replace(value.type, shape=(opened, *value.type.shape[1:])) for value in graph.inputs}
    hint = "export the model with a symbolic batch, or train it with its own batch size"
    try:
        made = retyped(graph, types, {}, revise)
    except ShapeError as error:
        raise UnsupportedError(error.reason, where=error.where, hint=hint) from error
    for old, node in zip(graph.nodes, made.nodes, strict=True):
        if any(map(batched, node.inputs)) and not all(map(batched, node.outputs)):
            raise UnsupportedError("the node mixes the samples of a batch", where=node.where, hint=hint)
        for before, after in zip(old.outputs, node.outputs, strict=True):
            if before.type.shape[1:] != after.type.shape[1:]:
                raise UnsupportedError(f"a batch would make {after.type} of {before.type}", where=node.where, hint=hint)
    if not all(map(batched, made.outputs)):
        raise UnsupportedError("an output does not depend on the batch", where=graph.name, hint=hint)
    return made


def _check_apart(node: Node) -> None:
    """Raises UnsupportedError for an op that says that it works along the first axis."""
    given = node.op.attributes()
    axes = given.get("axes", ())
    ranks = {value.type.rank for value in node.inputs}
    along = {given.get("axis"), *(axes if isinstance(axes, tuple) else ())}
    if 0 in along or along & {-rank for rank in ranks}:
        raise UnsupportedError(f"{node.op.name} works along the axis of the batch", where=node.where)
    if node.op.name == "matmul" and node.inputs[0].type.rank == 2 and given["trans_a"]:
        raise UnsupportedError("the product sums over the batch", where=node.where)
