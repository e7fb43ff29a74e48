"""verify: the invariants of a graph (see `graphc.ir.graph`), each checked plainly. Run after every pass when GRAPHC_VERIFY=1."""

from __future__ import annotations

from graphc.errors import GraphcError, VerifyError
from graphc.ir.graph import Graph, Kind, Node, Value


def verify(graph: Graph) -> None:
    """Raises VerifyError naming the first node or value at which an invariant does not hold."""
    defined: set[Value] = set()
    for name, value in graph.values.items():
        _check(value.name == name, value.name, f"is stored under the name {name!r}")
        if value.producer is None:
            _check_leaf(graph, value)
            defined.add(value)
    names: set[int] = set()
    for node in graph.nodes:
        _check(id(node) not in names, node.where, "occurs twice")
        names.add(id(node))
        _check_node(graph, node, defined)
        defined.update(node.outputs)
    present = set(graph.nodes)
    for value in graph.values.values():
        _check(value.users.keys() <= present, value.name, "is used by a node outside the graph")
    _check(len(graph.outputs) == len(graph.output_names), graph.name, "has outputs without names")
    for value in graph.roots:
        _check(value in defined, value.name, "is an output that nothing computes")
    for state, update in graph.updates.items():
        _check(state.kind is Kind.STATE, state.name, "is updated but is no state")
        _check(state.type == update.type, state.name, f"of type {state.type} is updated with {update.type}")


def _check_leaf(graph: Graph, value: Value) -> None:
    _check(value.kind is not Kind.RESULT, value.name, "has no producer")
    _check((value in graph.inputs) == (value.kind is Kind.INPUT), value.name, "is an input, or not, but not listed so")
    if value.kind is not Kind.INPUT:
        data = value.data
        _check(data is not None, value.name, "has no data")
        assert data is not None
        _check(tuple(data.shape) == value.type.shape and data.dtype == value.type.dtype.numpy, value.name, f"holds other data than {value.type}")


def _check_node(graph: Graph, node: Node, defined: set[Value]) -> None:
    for value in node.inputs:
        _check(value in defined, node.where, f"uses {value.name!r} before it is computed")
        _check(value.users.get(node) == node.inputs.count(value), node.where, f"is not among the users of {value.name!r}")
    for value in node.outputs:
        _check(value.producer is node, node.where, f"is not the producer of its output {value.name!r}")
        _check(graph.values.get(value.name) is value, node.where, f"has an output {value.name!r} that the graph does not know")
    try:
        types = node.op.output_types(*(value.type for value in node.inputs))
    except GraphcError as error:
        raise VerifyError(f"has inputs that its op refuses: {error}", where=node.where) from error
    _check(types == tuple(value.type for value in node.outputs), node.where, f"infers {types}, has {[v.type for v in node.outputs]}")


def _check(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise VerifyError(what, where=where)
