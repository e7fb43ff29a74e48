"""The computation graph: SSA values and nodes.

Invariants (held by `graphc.ir.verify`):
* a Value has one producer, or none (input, constant, parameter, state); its name is unique in the graph;
* `graph.nodes` is in topological order; every use is recorded in `value.users`;
* the types of a node's outputs are what its op infers from its inputs;
* what a caller gives and gets is made of the inputs and outputs, each in one place (`takes`, `gives`: see `graphc.ir.parts`);
* parameters, constants and state hold their data in `value.data`; its shape and dtype are the value's type;
* a node's `origins` name the nodes of the user's model that it stands for; no pass may lose one.
Editing goes through `graphc.ir.patch`, building through `graphc.ir.builder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import ModelError
from graphc.ir.parts import Parts, put_together, without_missing
from graphc.source import UNKNOWN, Source
from graphc.types.layout import PLAIN, Layout
from graphc.types.shape import DimLike, symbols_of
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.op import Op

Array = np.ndarray[Any, np.dtype[Any]]


class Kind(Enum):
    """Where a value comes from."""

    INPUT = "input"  # given at each call
    CONSTANT = "const"  # part of the program
    PARAMETER = "param"  # a constant in inference, trained in training
    STATE = "state"  # owned by the program, updated in place by each run
    RESULT = "result"  # computed by a node


class Value:
    """One tensor of the graph. `layout` is set by the machine form; `data` by constants, parameters and state."""

    __slots__ = ("data", "kind", "layout", "name", "producer", "type", "users")

    def __init__(self, name: str, type: TensorType, kind: Kind, data: Array | None = None) -> None:
        self.name = name
        self.type = type
        self.kind = kind
        self.data = data
        self.producer: Node | None = None
        self.users: dict[Node, int] = {}  # node -> how many of its inputs are this value
        self.layout: Layout = PLAIN

    @property
    def is_constant(self) -> bool:
        """Known at compile time in inference."""
        return self.kind in (Kind.CONSTANT, Kind.PARAMETER)

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Node:
    """One application of an op. `kernel` is the fusion group that a pass put the node into (None: a kernel of its own); `algorithm` is
    how a convolution is computed (a key of `graphc.kernel.choose.ALGORITHMS`) or how a product's weights are stored (see
    `graphc.passes.compress_weights`); "" where there is no choice."""

    __slots__ = ("algorithm", "inputs", "kernel", "name", "op", "origins", "outputs", "source")

    def __init__(self, name: str, op: Op, inputs: Iterable[Value], source: Source, origins: tuple[str, ...]) -> None:
        self.name = name
        self.op = op
        self.inputs: list[Value] = list(inputs)
        self.outputs: list[Value] = []
        self.source = source
        self.origins = origins
        self.kernel: int | None = None
        self.algorithm = ""
        for value in self.inputs:
            value.users[self] = value.users.get(self, 0) + 1

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    @property
    def all_origins(self) -> tuple[str, ...]:
        """Its own, and those of all that its op's sub-graphs hold or have held."""
        inside = (origin for body in self.op.bodies() for origin in (*body.origins(), *body.eliminated))
        return tuple(dict.fromkeys((*self.origins, *inside)))

    @property
    def where(self) -> str:
        """For error messages: op, name and place."""
        place = f" ({self.source})" if self.source is not UNKNOWN else ""
        return f"{self.op.name} {self.name!r}{place}"

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.name}>"


class Graph:
    """A computation graph. `metadata` travels from and to ONNX (metadata_props)."""

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.output_names: list[str] = []  # public names, parallel to outputs (a value may be returned twice)
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.trims: dict[str, tuple[int, str]] = {}  # output -> axis, and the output that says how many elements of it count
        self.takes: dict[str, Parts] = {}  # inputs as a caller gives them, see graphc.ir.parts
        self.gives: dict[str, Parts] = {}  # outputs as a caller gets them
        self.updates: dict[Value, Value] = {}  # state -> its value after a run
        self.metadata: dict[str, str] = {}
        self.files: tuple[str, ...] = ()  # that the model refers to beside its own (external data), relative to its folder
        self.eliminated: dict[str, str] = {}  # origin that no node stands for any more -> which pass removed it, and why

        self._numbers: dict[str, int] = {}  # name -> the last number that `fresh_name` put behind it

    # queries ----------------------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> dict[str, Value]:
        return {name: value for name, value in self.values.items() if value.kind is Kind.PARAMETER}

    @property
    def states(self) -> dict[str, Value]:
        return {name: value for name, value in self.values.items() if value.kind is Kind.STATE}

    @property
    def symbols(self) -> set[str]:
        """Names of the symbolic dims of the inputs."""
        return symbols_of(dim for value in self.inputs for dim in value.type.shape)

    @property
    def public_outputs(self) -> dict[str, Value]:
        """The tensors that a caller gets: without those that only say how many elements of others count."""
        hidden = {length for _, length in self.trims.values()}
        return {name: value for name, value in zip(self.output_names, self.outputs, strict=True) if name not in hidden}

    def trimmed(self, results: Mapping[str, Array]) -> dict[str, Array]:
        """What a caller gets of the results by name: those that are longer than they count, cut."""
        if not self.trims:
            return dict(results)
        hidden = {length for _, length in self.trims.values()}
        found = {name: array for name, array in results.items() if name not in hidden}
        for name, (axis, length) in self.trims.items():
            found[name] = found[name][(slice(None),) * axis + (slice(int(results[length])),)].copy()
        return found

    def delivered(self, results: Mapping[str, Array]) -> dict[str, Any]:
        """What a caller gets, in order: arrays, lists of arrays, None for what is absent."""
        found = self.trimmed(results)
        return put_together(self.gives, found) if self.gives else found

    @property
    def roots(self) -> list[Value]:
        """What must be computed: outputs and state updates."""
        return [*self.outputs, *self.updates.values()]

    def origins(self) -> list[str]:
        """Every original node that some node, also of a sub-graph, stands for, in order, once."""
        return list(dict.fromkeys(origin for node in self.nodes for origin in node.all_origins))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __repr__(self) -> str:
        return f"<graphc.Graph {self.name!r}: {len(self.nodes)} nodes, {len(self.parameters)} parameters>"

    # construction (used by builder and patch) --------------------------------------------------------------------------------

    def fresh_name(self, hint: str) -> str:
        if hint not in self.values:
            return hint
        number = self._numbers.get(hint, 0) + 1
        while f"{hint}.{number}" in self.values:
            number += 1
        self._numbers[hint] = number
        return f"{hint}.{number}"

    def add_value(self, name: str, type: TensorType, kind: Kind, data: Array | None = None) -> Value:
        if name in self.values:
            raise ModelError(f"the value {name!r} is defined twice", hint="give every value a name of its own")
        value = Value(name, type, kind, data)
        self.values[name] = value
        if kind is Kind.INPUT:
            self.inputs.append(value)
        return value

    def set_outputs(self, outputs: Mapping[str, Value]) -> None:
        self.output_names = list(outputs)
        self.outputs = list(outputs.values())
        self.trims = {name: trim for name, trim in self.trims.items() if name in outputs and trim[1] in outputs}
        self.gives = without_missing(self.gives, outputs)

    # copies -----------------------------------------------------------------------------------------------------------------

    def copy(self) -> Graph:
        """A copy that shares ops and data (both immutable) and nothing else."""
        return self.bind({})

    def flat(self) -> Graph:
        """A copy whose inputs and outputs are its tensors."""
        made = self.copy()
        made.takes, made.gives = {}, {}
        return made

    def bind(self, sizes: Mapping[str, DimLike]) -> Graph:
        """A copy with symbolic dims replaced, in types and attributes."""
        made = Graph(self.name)
        made.metadata = dict(self.metadata)
        made.files = self.files
        made.eliminated = dict(self.eliminated)
        new: dict[Value, Value] = {}
        for value in self.values.values():
            if value.producer is None:
                new[value] = made.add_value(value.name, value.type.bind(sizes), value.kind, value.data)
        made.inputs = [new[value] for value in self.inputs]
        for node in self.nodes:
            twin = Node(node.name, node.op.bind(sizes), (new[value] for value in node.inputs), node.source, node.origins)
            twin.kernel, twin.algorithm = node.kernel, node.algorithm
            for value in node.outputs:
                new[value] = made.add_value(value.name, value.type.bind(sizes), Kind.RESULT)
                new[value].producer = twin
                new[value].layout = value.layout
                twin.outputs.append(new[value])
            made.nodes.append(twin)
        made.output_names, made.trims = list(self.output_names), dict(self.trims)
        made.takes, made.gives = dict(self.takes), dict(self.gives)
        made.outputs = [new[value] for value in self.outputs]
        made.updates = {new[state]: new[value] for state, value in self.updates.items()}
        made._numbers = dict(self._numbers)  # the same edits give the same names in both
        return made
