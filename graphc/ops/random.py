"""Random numbers from counters, and dropout.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds turn a 128-bit counter and a
64-bit key into 128 random bits. There is no state to carry: element i of stream s at step t under a seed is always the same number,
whatever the batch, the threads or the order. The counter is (i, i >> 32, t, s), the key the seed; the first word is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Lowering, Op, need_float, register
from graphc.kernel.access import Access, flat_index
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr, arg, call, cast, const
from graphc.types.dtype import i64, u32, u64
from graphc.types.shape import DimLike
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: what the key grows by in each round
Words = tuple[Expr, Expr, Expr, Expr]


def philox(counter: Words, key: tuple[Expr, Expr]) -> Words:
    """Philox4x32-10 of u32 expressions."""
    for _ in range(ROUNDS):
        high0, low0 = _product(_MULTIPLIERS[0], counter[0])
        high1, low1 = _product(_MULTIPLIERS[1], counter[2])
        counter = (_xor(high1, counter[1], key[0]), low1, _xor(high0, counter[3], key[1]), low0)
        key = (key[0] + _WEYL[0], key[1] + _WEYL[1])
    return counter


def _product(factor: int, word: Expr) -> tuple[Expr, Expr]:
    """The 64-bit product as (high, low)."""
    whole = cast(word, u64) * factor
    return cast(call("shr", whole, 32), u32), cast(whole, u32)


def _xor(*words: Expr) -> Expr:
    total = words[0]
    for word in words[1:]:
        total = call("xor", total, word)
    return total


@register
@dataclass(frozen=True)
class RandomBits(Op):
    """32 random bits per element of `shape`, u32. Inputs: seed and step, u64 scalars; `stream` tells the uses of one program apart.

    Element i (row-major) is the first word of Philox4x32-10 with counter (i mod 2^32, i >> 32, step mod 2^32, stream) and the seed as key.
    """

    shape: tuple[DimLike, ...]
    stream: int = 0

    name: ClassVar[str] = "random_bits"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "map"
    not_differentiable: ClassVar[str] = "random bits depend on no float"

    def infer(self, *types: TensorType) -> TensorType:
        if any(t.dtype != u64 or t.rank for t in types):
            raise ShapeError(f"{self.name} takes seed and step as scalars of u64, got {types[0]} and {types[1]}")
        return TensorType(u32, self.shape)

    def reference(self, *arrays: Array) -> Array:
        sizes = tuple(int(n) for n in self.shape)
        names = arg("i", i64), arg("seed", u64), arg("step", u64)
        flat = np.arange(int(np.prod(sizes, dtype=np.int64)), dtype=np.int64).reshape(sizes)
        return np.asarray(evaluate(_bits(*names, self.stream), dict(zip(names, (flat, *arrays), strict=True))))

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two products and four exclusive ors per round."""
        return Cost(6 * ROUNDS * int(outputs[0].size), outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        return Lowering(lambda *index: _bits(flat_index(index, output.static_shape), inputs[0][()], inputs[1][()], self.stream))


@register
@dataclass(frozen=True)
class RandomBitsAt(Op):
    """Those random bits (u32) of a `RandomBits` of the same stream that are at `positions` (i64, row-major). Further inputs: seed, step."""

    stream: int = 0

    name: ClassVar[str] = "random_bits_at"
    inputs: ClassVar[tuple[int, int]] = (3, 3)
    family: ClassVar[str] = "map"
    not_differentiable: ClassVar[str] = RandomBits.not_differentiable

    def infer(self, *types: TensorType) -> TensorType:
        positions, *counters = types
        if positions.dtype != i64 or any(t.dtype != u64 or t.rank for t in counters):
            found = ", ".join(map(str, types))
            raise TypeMismatchError(f"{self.name} takes positions of i64, seed and step as scalars of u64, got {found}")
        return TensorType(u32, positions.shape)

    def reference(self, *arrays: Array) -> Array:
        names = arg("i", i64), arg("seed", u64), arg("step", u64)
        return np.asarray(evaluate(_bits(*names, self.stream), dict(zip(names, arrays, strict=True))))

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Of each element as in `RandomBits`."""
        return Cost(6 * ROUNDS * int(outputs[0].size), types[0].nbytes + outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        return Lowering(lambda *index: _bits(inputs[0][index], inputs[1][()], inputs[2][()], self.stream))


def _bits(position: Expr, seed: Expr, step: Expr, stream: int) -> Expr:
    i = cast(position, u64)
    counter = (cast(i, u32), cast(call("shr", i, 32), u32), cast(step, u32), const(stream, u32))
    return philox(counter, (cast(seed, u32), cast(call("shr", seed, 32), u32)))[0]


@register
@dataclass(frozen=True)
class Dropout(Op):
    """x itself: dropout (Srivastava et al. 2014) acts in training only, where it becomes `dropped` (see `graphc.autodiff.training`).

    `rate`: the part that training sets to 0, at least 0 and below 1. ONNX Dropout without training_mode.
    """

    rate: float = 0.5
    name: ClassVar[str] = "dropout"
    onnx: ClassVar[str] = "Dropout"
    tolerance: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise AttributeValueError(f"dropout rate {self.rate}", hint="the part that is dropped: at least 0, below 1")

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        return types[0]

    def reference(self, *arrays: Array) -> Array:
        return arrays[0]

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Of the inference form: the gradient itself."""
        return [grads[0]]

    def decompose(self, builder: Builder, *inputs: Value) -> Value:
        return inputs[0]


def dropped(builder: Builder, x: Value, rate: float, seed: Value, step: Value, stream: int) -> Value:
    """x / (1 - rate) where a random number in [0, 1) is at least `rate`, else 0 (inverted dropout, as PyTorch scales)."""
    from graphc.ops.express import Arithmetic

    a = Arithmetic(builder)
    bits = builder.add(RandomBits(tuple(x.type.shape), stream), seed, step)
    keep = a("greater_equal", bits, builder.constant(np.asarray(threshold(rate), u32.numpy), name="rate"))
    return a("where", keep, a("mul", x, 1.0 / (1.0 - rate)), 0.0)


def threshold(rate: float) -> int:
    """Bits below this number are dropped: a part `rate` of all 2^32, to the nearest."""
    return min(round(rate * 2**32), 2**32 - 1)

