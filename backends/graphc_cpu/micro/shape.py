"""How big a register tile is: pixels (rows of the output) x vector blocks of output channels (columns), chosen by a small cost model.

A tile of P pixels and B blocks keeps P*B accumulators in registers. Each reduction step loads B weight vectors and broadcasts P
inputs for P*B multiply-adds, so square-ish tiles load least; what decides most often is the waste at the edges of the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.target import Target

MAX_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Split:
    """`total` cut into `parts` contiguous pieces of `width` (the first `wide` of them) and `width - 1` (the others)."""

    total: int
    parts: int

    @property
    def width(self) -> int:
        return -(-self.total // self.parts)

    @property
    def wide(self) -> int:
        return self.total - self.parts * (self.width - 1)

    @property
    def ranges(self) -> tuple[tuple[int, int, int], ...]:
        """(first part, last part + 1, width) for each distinct width."""
        if self.wide == self.parts:
            return ((0, self.parts, self.width),)
        return ((0, self.wide, self.width), (self.wide, self.parts, self.width - 1))


def split(total: int, most: int) -> Split:
    """The fewest nearly equal pieces of at most `most`."""
    return Split(total, -(-total // most))


def max_pixels(target: Target, blocks: int) -> int:
    """The most pixels of a tile with `blocks` blocks that LLVM keeps in registers beside the weights and the broadcast inputs.

    Code for 16-byte vectors (SSE2, NEON) cannot take a broadcast from memory and keeps several in registers: half of them is left.
    """
    if target.vector_bytes == 16:
        return max(1, min(7, target.registers // 2 // blocks))
    return max(1, (target.registers - blocks - 1) // blocks)


def step_cost(pixels: int, blocks: int) -> float:
    """Relative time of one reduction step of a tile: multiply-adds, or loads, or the latency of the accumulator chains.

    The small terms break ties: a weight vector comes from the second-level cache, an input from the first.
    """
    return max(pixels * blocks, pixels + blocks, 8) + 0.03 * pixels + 0.3 * blocks


def tile_cost(pixels: int, blocks: int, steps: int) -> float:
    """Relative time of a whole tile of `steps` reduction steps, its start and its epilogue included."""
    return steps * step_cost(pixels, blocks) + 2 * pixels * blocks + 12


def block_choices(blocks: int, most: int = MAX_BLOCKS) -> Iterator[int]:
    """Numbers of vector blocks per tile that are worth a try."""
    return iter(range(1, min(blocks, most) + 1))
