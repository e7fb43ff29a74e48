"""verify: the invariants of a graph (see `graphc.ir.graph`), each checked plainly. Run after every pass when GRAPHC_VERIFY=1.

Beyond those: leaves lie plain; output names are distinct; the nodes of a kernel store one value, which another kernel or the caller
reads; an update has the type of its state; what a caller gives and gets is made of the graph's inputs and outputs, each in one place;
sub-graphs hold the same invariants, and have neither parameters nor state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from graphc.errors import GraphcError, VerifyError
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.parts import Parts, names_in
from graphc.types.dtype import i64
from graphc.types.layout import PLAIN
from graphc.types.tensor import TensorType


def verify(graph: Graph) -> None:
    """Raises VerifyError naming the first node or value at which an invariant does not hold."""
    present = set(graph.nodes)
    defined: set[Value] = set()
    for name, value in graph.values.items():
        _check_value(value, name, present)
        if value.producer is None:
            _check_leaf(graph, value)
            defined.add(value)
    _check_inputs(graph)
    _check(len(present) == len(graph.nodes), _repeated(graph), "occurs twice")
    for node in graph.nodes:
        _check_node(graph, node, defined)
        defined.update(node.outputs)
    _check_roots(graph, defined)
    _check_parts(graph, graph.takes, {value.name for value in graph.inputs}, "takes")
    _check_parts(graph, graph.gives, set(graph.public_outputs), "gives")
    _check_kernels(graph)


def accounted(graph: Graph) -> set[str]:
    """The original nodes that some node stands for, or that a pass removed with a reason: a pass may only add to these."""
    return {*graph.origins(), *graph.eliminated}


def _check_value(value: Value, name: str, present: set[Node]) -> None:
    _check(value.name == name, value.name, f"is stored under the name {name!r}")
    _check(value.producer is None or value.producer in present, value.name, "is computed by a node outside the graph")
    _check(value.producer is None or value in value.producer.outputs, value.name, "is not among the outputs of its producer")
    _check(value.users.keys() <= present, value.name, "is used by a node outside the graph")
    for user, count in value.users.items():
        _check(user.inputs.count(value) == count, value.name, f"has {count} uses by {user.where} on record, not {user.inputs.count(value)}")
    _check(all(not isinstance(dim, int) or dim >= 0 for dim in value.type.shape), value.name, f"has a negative size: {value.type}")


def _check_leaf(graph: Graph, value: Value) -> None:
    _check(value.kind is not Kind.RESULT, value.name, "has no producer")
    _check((value in graph.inputs) == (value.kind is Kind.INPUT), value.name, "is an input, or not, but not listed so")
    _check(value.layout == PLAIN, value.name, f"is a leaf and has the layout {value.layout}")
    if value.kind is Kind.INPUT:
        return
    data = value.data
    _check(data is not None, value.name, "has no data")
    assert data is not None
    fits = tuple(data.shape) == value.type.shape and data.dtype == value.type.dtype.numpy
    _check(fits, value.name, f"holds other data than {value.type}: {data.dtype}{list(data.shape)}")


def _check_inputs(graph: Graph) -> None:
    _check(len(set(graph.inputs)) == len(graph.inputs), graph.name, "has an input twice")
    for value in graph.inputs:
        _check(graph.values.get(value.name) is value, value.name, "is an input that the graph does not know")


def _repeated(graph: Graph) -> str:
    return next((node.where for node, times in Counter(graph.nodes).items() if times > 1), graph.name)


def _check_node(graph: Graph, node: Node, defined: set[Value]) -> None:
    for value in node.inputs:
        _check(value in defined, node.where, f"uses {value.name!r} before it is computed")
        _check(node in value.users, node.where, f"is not among the users of {value.name!r}")
    for value in node.outputs:
        _check(value.producer is node, node.where, f"is not the producer of its output {value.name!r}")
        _check(value.kind is Kind.RESULT, node.where, f"computes {value.name!r}, a leaf")
        _check(graph.values.get(value.name) is value, node.where, f"has an output {value.name!r} that the graph does not know")
    try:
        types = node.op.output_types(*(value.type for value in node.inputs))
    except GraphcError as error:
        raise VerifyError(f"has inputs that its op refuses: {error}", where=node.where) from error
    for body in node.op.bodies():
        _check_body(node, body)
    inferred, found = (", ".join(map(str, t)) for t in (types, [value.type for value in node.outputs]))
    _check(types == tuple(value.type for value in node.outputs), node.where, f"infers {inferred}, has {found}")


def _check_body(node: Node, body: Graph) -> None:
    try:
        verify(body)
    except VerifyError as error:
        raise VerifyError(error.reason, where=f"{node.where}, in its body: {error.where}") from error
    leaves = (value for value in body.values.values() if value.kind in (Kind.PARAMETER, Kind.STATE))
    names = ", ".join(repr(value.name) for value in leaves) or ("an update" if body.updates else "")
    _check(not names, node.where, f"has a body with {names} of its own: parameters and state belong to the graph, and are captured")


def _check_roots(graph: Graph, defined: set[Value]) -> None:
    _check(len(graph.outputs) == len(graph.output_names), graph.name, "has outputs without names, or names without outputs")
    _check(len(set(graph.output_names)) == len(graph.output_names), graph.name, f"has an output name twice: {graph.output_names}")
    for name, (axis, length) in graph.trims.items():
        types = {n: value.type for n, value in zip(graph.output_names, graph.outputs, strict=True)}
        fits = name in types and length in types and 0 <= axis < types[name].rank and types[length] == TensorType(i64, ())
        _check(fits, graph.name, f"trims {name!r} along axis {axis} by {length!r}")
    for value in graph.roots:
        _check(value in defined, value.name, "is an output that nothing computes")
    for state, update in graph.updates.items():
        _check(state.kind is Kind.STATE, state.name, "is updated but is no state")
        _check(state.type == update.type, state.name, f"of type {state.type} is updated with {update.type}")


def _check_parts(graph: Graph, parts: Mapping[str, Parts], tensors: set[str], verb: str) -> None:
    inside = names_in(parts)
    for name, part in parts.items():
        _check(tensors.issuperset(names_in({name: part})), graph.name, f"{verb} {name!r} made of {part!r}, not all of which are tensors")
        fits = part == name if isinstance(part, str) else name not in tensors
        _check(fits, graph.name, f"{verb} {name!r} made of {part!r}, and a tensor has that name")
    _check(len(set(inside)) == len(inside), graph.name, f"{verb} a tensor twice: {inside}")


def _check_kernels(graph: Graph) -> None:
    groups: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if node.kernel is not None:
            groups.setdefault(node.kernel, []).append(node)
    roots = set(graph.roots)
    for number, nodes in groups.items():
        inside = set(nodes)
        stored = [value for node in nodes for value in node.outputs if value in roots or not value.users.keys() <= inside]
        names = ", ".join(repr(value.name) for value in stored) or "nothing"
        _check(len(stored) == 1, nodes[-1].where, f"is in kernel {number}, which stores {names}; a kernel stores one value")


def _check(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise VerifyError(what, where=where)
