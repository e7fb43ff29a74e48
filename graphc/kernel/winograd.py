"""Winograd's minimal filtering F(m, 3): m outputs of a 3-tap filter from m + 2 products, applied along rows and columns of a tile.

    y = A^T [ (G g G^T) * (B^T d B) ] A     for an input tile d of m + 2 by m + 2 and a 3 by 3 kernel g

m = 2 uses the points {0, 1, -1, inf} of Lavin and Gray (arXiv:1509.09308): its rounding errors are no larger than those of the direct sum.
m = 4 uses {0, 5/8, -5/8, 3/2, -3/2, inf}: half the error of the textbook points {0, 1, -1, 2, -2, inf} (points near the optimum of
Barabasz et al., arXiv:1803.10986, whose squares and products are exact in binary), twice that of the direct sum. Larger tiles lose too
many digits in float32 and do not exist here.

The gradient with respect to g is the transpose of all that, G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G: the same 16 products.

Each transform is written once, over an `Arithmetic`: numpy arrays (weights, tests) and registers (kernels) go through the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
TILES = (2, 4)
_A, _B = 5 / 8, 3 / 2
_AA, _BB = _A * _A, _B * _B


class Arithmetic(Protocol[T]):
    """What the transforms need of a number."""

    def add(self, x: T, y: T) -> T: ...
    def sub(self, x: T, y: T) -> T: ...
    def scale(self, c: float, x: T) -> T:
        """c * x."""
        ...

    def fma(self, c: float, x: T, y: T) -> T:
        """c * x + y, in one rounding or two."""
        ...


def transform_input(m: int, d: Sequence[T], o: Arithmetic[T]) -> list[T]:
    """B^T d: m + 2 numbers -> m + 2."""
    if m == 2:
        return [o.sub(d[0], d[2]), o.add(d[1], d[2]), o.sub(d[2], d[1]), o.sub(d[1], d[3])]
    even_a, odd_a = o.fma(-_BB, d[2], d[4]), o.fma(-_BB, d[1], d[3])
    even_b, odd_b = o.fma(-_AA, d[2], d[4]), o.fma(-_AA, d[1], d[3])
    return [
        o.fma(_AA * _BB, d[0], o.fma(-(_AA + _BB), d[2], d[4])),
        o.fma(_A, odd_a, even_a),
        o.fma(-_A, odd_a, even_a),
        o.fma(_B, odd_b, even_b),
        o.fma(-_B, odd_b, even_b),
        o.fma(_AA * _BB, d[1], o.fma(-(_AA + _BB), d[3], d[5])),
    ]


def transform_kernel(m: int, g: Sequence[T], o: Arithmetic[T]) -> list[T]:
    """G g: 3 numbers -> m + 2."""
    if m == 2:
        outer = o.add(g[0], g[2])
        return [g[0], o.scale(0.5, o.add(outer, g[1])), o.scale(0.5, o.sub(outer, g[1])), g[2]]
    pairs = []
    for point, square, other in ((_A, _AA, _BB), (_B, _BB, _AA)):
        factor = 1 / (2 * square * (square - other))
        even = o.scale(factor, o.fma(square, g[2], g[0]))
        pairs += [o.fma(factor * point, g[1], even), o.fma(-factor * point, g[1], even)]
    return [o.scale(1 / (_AA * _BB), g[0]), *pairs, g[2]]


def transform_gradient(m: int, d: Sequence[T], o: Arithmetic[T]) -> list[T]:
    """A d: the transpose of `transform_output`, m = 2 only: what the gradient of an output tile is to the products."""
    assert m == 2
    return [d[0], o.add(d[0], d[1]), o.sub(d[0], d[1]), o.scale(-1.0, d[1])]


def transform_sums(m: int, p: Sequence[T], o: Arithmetic[T]) -> list[T]:
    """G^T p: the transpose of `transform_kernel`, m = 2 only: what the summed gradients of products are to the weights."""
    assert m == 2
    even, odd = o.scale(0.5, o.add(p[1], p[2])), o.scale(0.5, o.sub(p[1], p[2]))
    return [o.add(p[0], even), odd, o.add(even, p[3])]


def transform_output(m: int, p: Sequence[T], o: Arithmetic[T]) -> list[T]:
    """A^T p: m + 2 numbers -> m."""
    if m == 2:
        return [o.add(o.add(p[0], p[1]), p[2]), o.sub(o.sub(p[1], p[2]), p[3])]
    even_a, odd_a = o.add(p[1], p[2]), o.sub(p[1], p[2])
    even_b, odd_b = o.add(p[3], p[4]), o.sub(p[3], p[4])
    return [
        o.add(p[0], o.add(even_a, even_b)),
        o.fma(_A, odd_a, o.scale(_B, odd_b)),
        o.fma(_AA, even_a, o.scale(_BB, even_b)),
        o.fma(_A * _AA, odd_a, o.fma(_B * _BB, odd_b, p[5])),
    ]
