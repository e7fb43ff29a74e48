"""Where a node came from: a line of the user's Python file, or a node of an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """`file` and `line` for DSL nodes; `node` (name) and `op` (original operator type) for imported ones."""

    file: str = ""
    line: int = 0
    node: str = ""
    op: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        node = f"{self.op} {self.node!r}" if self.op and self.node else self.op or self.node
        return " at ".join(part for part in (node, place) if part) or "unknown"


UNKNOWN = Source()
