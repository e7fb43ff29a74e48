"""The light fold after import: what depends on constants and shapes only becomes a constant where it is used.

TorchScript writes shape arithmetic as hundreds of small integer nodes; after this none of them is left. Parameters are never folded:
they may be trained.
"""

from __future__ import annotations

from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Graph, Kind, Value
from graphc.ir.patch import Patch


def fold_known(builder: Builder) -> Graph:
    """Replace uses of known values by constants and sweep the nodes that nothing needs any more."""
    graph = builder.graph
    patch = Patch(graph, "import")
    trained: set[Value] = {value for value in graph.values.values() if value.kind is Kind.PARAMETER}
    for node in graph.nodes:
        if node.op.name != "shape" and any(value in trained for value in node.inputs):
            trained.update(node.outputs)
    for node in list(graph.nodes):
        for value in node.outputs:
            if value in trained or not value.users:
                continue
            array = _known(builder, value)
            if array is not None and any(_known(builder, out) is None for user in value.users for out in user.outputs):
                constant = patch.constant(array, value)
                users = list(value.users)
                for user in users:
                    patch.set_inputs(user, [constant if item is value else item for item in user.inputs])
    patch.commit()
    return graph


def _known(builder: Builder, value: Value) -> Array | None:
    """The value as numbers; None where it is unknown or symbolic."""
    try:
        array = builder.known(value)
    except GraphcError:
        return None
    return None if array is None or array.dtype == object else array
