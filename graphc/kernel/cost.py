"""What a computation costs, whatever computes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Floating point operations (a multiply-add is 2) and bytes that must move at least once."""

    flops: int
    bytes: int
