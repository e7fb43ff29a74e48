"""What a planner makes of a graph before memory is assigned: calls of kernels, and the marks between which a region of them repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Union

from graphc.ir.graph import Value
from graphc.kernel.spec import KernelSpec
from graphc.schedule.memory import Buffer, Temporary
from graphc.schedule.partition import Kernel
from graphc.schedule.plan import Ref

Argument = Union[Value, Ref, Temporary]


@dataclass(frozen=True, eq=False)
class Location:
    """`offset` bytes into a buffer of `nbytes`; `moves`: bytes farther with each iteration of a region."""

    buffer: Buffer
    nbytes: int
    offset: int = 0
    moves: tuple[tuple[Region, int], ...] = ()


class Scope(Protocol):
    """The graph, or sub-graph, that an entry's arguments belong to."""

    def locate(self, argument: Value | Temporary) -> Location: ...


@dataclass(frozen=True, eq=False)
class Region:
    """Entries that run again and again, or not at all; see `graphc.schedule.plan.Control`. `repeats`: whether they run more than once."""

    label: str
    repeats: bool
    trips: int = 1
    count: Argument | None = None
    limit: int = 0
    counter: Temporary = field(default_factory=lambda: Temporary(8))


@dataclass(frozen=True, eq=False)
class Mark:
    """Where a region begins or ends."""

    scope: Scope
    region: Region
    kind: str
    condition: Argument | None = None
    negate: bool = False

    @property
    def arguments(self) -> list[Argument]:
        return [argument for argument in (self.region.counter, self.region.count, self.condition) if argument is not None]


@dataclass(frozen=True, eq=False)
class Call:
    """A step, its output last. `part`: what its label says after the kernel's name, or instead of it.

    `samples`: of a step for a group of samples, the bytes from one sample to the next in each argument that has them; None: a step for
    the whole batch.
    """

    scope: Scope
    spec: KernelSpec
    arguments: list[Argument]
    kernel: Kernel | None
    overlaps: bool = False
    part: str = ""
    samples: Mapping[Value, int] | None = None

    def stores(self, value: Value) -> bool:
        return self.arguments[-1] is value or (self.kernel is not None and value in self.kernel.outputs and value in self.arguments)


Entry = Union[Call, Mark]


def locations(entry: Entry) -> Iterator[Location]:
    """Of all that it reads or writes in memory that the plan assigns."""
    for argument in entry.arguments:
        if not isinstance(argument, Ref):
            yield entry.scope.locate(argument)


def touches(entry: Entry, buffer: Buffer) -> bool:
    return any(location.buffer is buffer for location in locations(entry))
