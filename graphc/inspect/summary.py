"""summary: the nodes of a graph with shapes, parameters and FLOPs, and their totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from graphc.inspect.sizes import assume_one
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.source import UNKNOWN
from graphc.types.tensor import TensorType


@dataclass(frozen=True)
class Row:
    """One node. `parameters`: elements of the parameters that it is the first to use. `flops`: a multiply-add is 2."""

    name: str
    op: str
    outputs: tuple[TensorType, ...]
    parameters: int
    flops: int
    source: str


@dataclass(frozen=True)
class Summary:
    """`sizes`: the sizes of symbolic dims at which FLOPs and bytes are counted."""

    name: str
    inputs: tuple[tuple[str, TensorType], ...]
    states: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    rows: tuple[Row, ...]
    sizes: Mapping[str, int]
    parameter_bytes: int
    activation_bytes: int
    metadata: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def ops(self) -> dict[str, int]:
        """Op -> number of nodes, most frequent first."""
        return dict(Counter(row.op for row in self.rows).most_common())


def summarize(graph: Graph) -> Summary:
    """What the graph holds. Shapes are shown as they are; FLOPs and bytes count every symbolic dim as 1."""
    sizes = assume_one(graph)
    bound = graph.bind(sizes) if sizes else graph
    seen: set[Value] = set()
    rows = tuple(_row(node, twin, seen) for node, twin in zip(graph.nodes, bound.nodes, strict=True))
    outputs = tuple((name, value.type) for name, value in zip(graph.output_names, graph.outputs, strict=True))
    activations = sum(value.type.nbytes for node in bound.nodes for value in node.outputs)
    inputs, states = (tuple((value.name, value.type) for value in values) for values in (graph.inputs, graph.states.values()))
    return Summary(
        graph.name, inputs, states, outputs, rows, sizes,
        sum(value.type.nbytes for value in seen), activations, dict(graph.metadata),
    )  # fmt: skip


def _row(node: Node, bound: Node, seen: set[Value]) -> Row:
    new = [value for value in dict.fromkeys(node.inputs) if value.kind is Kind.PARAMETER and value not in seen]
    seen.update(new)
    cost = bound.op.cost([value.type for value in bound.inputs], [value.type for value in bound.outputs])
    source = str(node.source) if node.source is not UNKNOWN else ""
    types = tuple(value.type for value in node.outputs)
    return Row(node.name, node.op.name, types, sum(int(value.type.size) for value in new), cost.flops, source)
