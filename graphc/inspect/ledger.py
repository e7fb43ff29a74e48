"""The fusion ledger, kernel by kernel: where every node of the user's model ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.executable import LedgerEntry
from graphc.schedule.plan import Plan


@dataclass(frozen=True)
class KernelUse:
    """One step of the plan and the nodes of the model that it computes."""

    step: int
    kernel: int
    label: str
    family: str
    origins: tuple[str, ...]
    flops: int
    bytes: int


def kernels(plan: Plan) -> list[KernelUse]:
    """The steps in the order of execution."""
    return [
        KernelUse(number, step.kernel, step.label, plan.kernels[step.kernel].family, step.origins, step.cost.flops, step.cost.bytes)
        for number, step in enumerate(plan.steps)
    ]


def families(plan: Plan) -> list[tuple[str, int, int, int]]:
    """(family, steps, distinct kernels, FLOPs), most FLOPs first."""
    found: dict[str, tuple[int, set[int], int]] = {}
    for use in kernels(plan):
        steps, numbers, flops = found.get(use.family, (0, set(), 0))
        found[use.family] = (steps + 1, numbers | {use.kernel}, flops + use.flops)
    rows = [(family, steps, len(numbers), flops) for family, (steps, numbers, flops) in found.items()]
    return sorted(rows, key=lambda row: (-row[3], row[0]))


def ledger_text(entries: Iterable[LedgerEntry]) -> str:
    """One line per node of the model: node, family, kernel, reason; in columns."""
    rows = [(entry.node, entry.family, entry.kernel or "-", entry.reason) for entry in entries]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
