"""What a pass is: a named rewrite of the graph that counts what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphc.ir.graph import Graph
from graphc.target import Target


@dataclass(frozen=True)
class Context:
    """What passes may know besides the graph. `target` is None for the portable form."""

    target: Target | None = None
    accuracy: str = "default"


@dataclass(frozen=True)
class Pass:
    """`run(graph, context)` edits the graph in place and returns the number of rewrites; `reason` says why it stands where it stands."""

    name: str
    reason: str
    run: Callable[[Graph, Context], int] = field(repr=False)
