"""What a pass is: a named rewrite of the graph that counts what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from graphc.errors import VerifyError
from graphc.ir.graph import Graph
from graphc.kernel.chooser import Chooser, Predicted
from graphc.target import Target


@dataclass(frozen=True)
class Context:
    """What passes may know besides the graph. `target` is None for the portable form. `chooser`: None for predictions from the target."""

    target: Target | None = None
    accuracy: str = "default"
    chooser: Chooser | None = None
    weights: str = "float32"  # how dense layers keep theirs, see compress_weights

    @property
    def choose(self) -> Chooser:
        """How convolutions are computed. Raises VerifyError for the portable form."""
        if self.target is None:
            raise VerifyError("a choice needs a target")
        return self.chooser or Predicted(self.target)


@dataclass(frozen=True)
class Pass:
    """`run(graph, context)` edits the graph in place and returns the number of rewrites; `reason` says why it stands where it stands."""

    name: str
    reason: str
    run: Callable[[Graph, Context], int] = field(repr=False)
