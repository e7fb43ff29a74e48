"""Interleaving: the parts of a strided map, put back where they belong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product as positions
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.op import Array, Cost, Lowering, Op, register, same_dtype
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, const, equal, minimum, select
from graphc.ops.movement import Slice
from graphc.types.dtype import bool_
from graphc.types.shape import DimLike
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class Interleave(Op):
    """y[n, c, a + stride * j] = part a [n, c, j] for each phase a with 0 <= a < stride: the inverse of slicing with steps.

    Inputs: the parts of the phases of which `present` is true, phases in row-major order; the others are 0. `shape` is that of y,
    (N, C, *spatial), spatial dims known; the part of phase a has ceil((size - a) / stride) positions per dim. Any dtype.
    """

    stride: tuple[int, ...]
    present: tuple[bool, ...]
    shape: tuple[DimLike, ...]

    name: ClassVar[str] = "interleave"
    inputs: ClassVar[tuple[int, int]] = (1, -1)
    family: ClassVar[str] = "copy"
    keeps_layout: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0

    def infer(self, *types: TensorType) -> TensorType:
        dtype = same_dtype(self, *types)
        phases = [phase for phase, there in zip(self._phases(), self.present, strict=True) if there]
        if len(phases) != len(types):
            raise ShapeError(f"{self.name}: {len(types)} parts for {len(phases)} phases")
        for phase, part in zip(phases, types, strict=True):
            wanted = (*self.shape[:2], *self._sizes(phase))
            if part.shape != wanted:
                raise ShapeError(f"{self.name}: the part of phase {phase} is {part}, and must be {list(wanted)}")
        return TensorType(dtype, self.shape)

    def reference(self, *arrays: Array) -> Array:
        result = np.zeros([int(n) for n in self.shape], arrays[0].dtype)
        parts = iter(arrays)
        for phase, there in zip(self._phases(), self.present, strict=True):
            if there:
                at: tuple[Any, ...] = tuple(slice(a, None, s) for a, s in zip(phase, self.stride, strict=True))
                result[(..., *at)] = next(parts)
        return result

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The slices that were put together."""
        found: list[Value | None] = []
        for phase, there in zip(self._phases(), self.present, strict=True):
            if there:
                sizes = (*self.shape[:2], *self._sizes(phase))
                found.append(builder.add(Slice((0, 0, *phase), (1, 1, *self.stride), sizes), grads[0]))
        return found

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Moves bytes, computes nothing."""
        return Cost(0, 2 * outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """All parts are read at the position's quotient by the stride, kept in bounds; the remainders say which one counts."""

        def value(n: Expr, c: Expr, *i: Expr) -> Expr:
            made: Expr = const(0, output.dtype)
            parts = iter(inputs)
            for phase, there in zip(self._phases(), self.present, strict=True):
                if not there:
                    continue
                part, mine = next(parts), const(True, bool_)
                for at, a, s in zip(i, phase, self.stride, strict=True):
                    mine = mine & equal(at % s, a) if s > 1 else mine
                place = [minimum(at // s, size - 1) for at, s, size in zip(i, self.stride, part.shape[2:], strict=True)]
                made = select(mine, part[(n, c, *place)], made)
            return made

        return Lowering(value)

    def _phases(self) -> Iterator[tuple[int, ...]]:
        return positions(*map(range, self.stride))

    def _sizes(self, phase: Sequence[int]) -> tuple[DimLike, ...]:
        return tuple((size - a + s - 1) // s for size, a, s in zip(self.shape[2:], phase, self.stride, strict=True))
