"""Drawing class numbers from logits: temperature, the k best, the nucleus.

A draw is the place of the largest logit plus Gumbel noise (Gumbel 1954; Maddison, Tarlow and Minka 2014, arXiv:1411.0030): its
distribution is the softmax. The noise of an element is a function of seed, step and its place alone (see `random`), so what is drawn does
not depend on threads, nor on how many classes `top_k` and `top_p` leave out: a draw that they leave in stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Op, need_float, register
from graphc.ops.express import Arithmetic
from graphc.ops.gather import GatherElements
from graphc.ops.movement import Reshape, Slice
from graphc.ops.pointwise import Cast
from graphc.ops.precision import wide
from graphc.ops.random import RandomBits, RandomBitsAt
from graphc.ops.reduce import ArgReduce, CumSum, Reduce
from graphc.ops.softmax import Softmax
from graphc.ops.sort import TopK
from graphc.types.dtype import DType, dtype, i64, u64
from graphc.types.shape import static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Value

LARGEST = 23.0  # of -log of a uniform number: 32 bits reach 22.9, and the last of them are 1 in single precision


@register
@dataclass(frozen=True)
class Sample(Op):
    """A class number for each row of logits (..., C): i64 (...). Further inputs: seed and step, u64 scalars (see `RandomBits`).

    Drawn from softmax(logits / temperature) over the `top_k` largest logits (0: all; of equals the first), and of those over the nucleus:
    the fewest most probable whose probabilities sum to at least `top_p`. Holtzman et al. 2020, arXiv:1904.09751. Temperature 0: the
    largest, of equals the first. A class whose logit is -inf is never drawn. -1 where the largest logit of a row is no finite number:
    the row holds a NaN or +inf, or -inf only. `stream` tells the uses of one program apart.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stream: int = 0

    name: ClassVar[str] = "sample"
    inputs: ClassVar[tuple[int, int]] = (3, 3)
    not_differentiable: ClassVar[str] = "what is drawn is an integer"

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise AttributeValueError(f"sample: temperature {self.temperature}", hint="a number of at least 0; 0 takes the largest")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise AttributeValueError(f"sample: top_k {self.top_k!r}", hint="a whole number of classes; 0: all")
        if not 0 < self.top_p <= 1:
            raise AttributeValueError(f"sample: top_p {self.top_p}", hint="a part of the probability: above 0, at most 1")

    def infer(self, *types: TensorType) -> TensorType:
        logits, *counters = types
        need_float(self, logits)
        if not logits.rank or logits.shape[-1] == 0:
            raise ShapeError(f"sample of {logits}", hint="logits (..., C) of at least one class")
        if any(t.dtype != u64 or t.rank for t in counters):
            raise TypeMismatchError(f"sample takes seed and step as scalars of u64, got {counters[0]} and {counters[1]}")
        return TensorType(i64, logits.shape[:-1])

    def reference(self, *arrays: Array) -> Array:
        """Row by row."""
        logits, seed, step = arrays
        x = logits.astype(wide(dtype(logits.dtype)).numpy).reshape(-1, logits.shape[-1])
        bits = RandomBits(logits.shape, self.stream).reference(seed, step).reshape(x.shape)
        uniform = (bits.astype(x.dtype) + x.dtype.type(0.5)) * x.dtype.type(2.0**-32)
        noise = -np.log(np.minimum(-np.log1p(-uniform), x.dtype.type(LARGEST)))
        rows = [self._draw(row, own) for row, own in zip(x, noise, strict=True)]
        return np.asarray(rows, np.int64).reshape(logits.shape[:-1])

    def _draw(self, row: Array, noise: Array) -> int:
        if not np.isfinite(row.max()):
            return -1
        if self.temperature == 0:
            return int(row.argmax())
        x = (row - row.max()) / row.dtype.type(self.temperature)
        best = np.argsort(-row, kind="stable")[: self.top_k or None]
        share = np.exp(x[best]) / np.exp(x[best]).sum()
        before = np.concatenate([[0], np.cumsum(share)[:-1]])
        score = np.where(before < self.top_p, x[best] + noise[best], -inf) if self.top_p < 1 else x[best] + noise[best]
        return int(best[score.argmax()])

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """A random number and two logarithms per class, at most."""
        logits = types[0]
        return Cost(int(logits.size) * 100, logits.nbytes + outputs[0].nbytes)

    def decompose(self, builder: Builder, *inputs: Value) -> Value:
        given, *counters = inputs
        a, last = Arithmetic(builder), given.type.rank - 1
        x = builder.add(Cast(wide(given.type.dtype)), given) if wide(given.type.dtype) != given.type.dtype else given
        classes = static(x.type.shape)[last]
        if self.temperature > 0 and (0 < self.top_k < classes or self.top_p < 1):
            peak, place = self._of_best(builder, x, min(self.top_k or classes, classes), counters)
        else:
            peak = builder.add(Reduce("max", (last,), keepdims=True), x)
            score = x
            if self.temperature > 0:
                bits = builder.add(RandomBits(tuple(x.type.shape), self.stream), *counters)
                score = a("add", a("div", a("sub", x, peak), self.temperature), self._noise(builder, bits, x.type.dtype))
            place = builder.add(ArgReduce("max", last), score)
        return builder.add(Reshape(tuple(given.type.shape[:-1])), a("where", a("less", a("abs", peak), inf), place, -1))

    def _of_best(self, builder: Builder, x: Value, k: int, counters: Sequence[Value]) -> tuple[Value, Value]:
        """The largest logit, and the class drawn from the best k: (..., 1) both."""
        a, last = Arithmetic(builder), x.type.rank - 1
        best, places = builder.add_many(TopK(k, last), x)
        one = (*static(x.type.shape)[:last], 1)
        peak = builder.add(Slice((0,) * x.type.rank, (1,) * x.type.rank, one), best)
        rows = np.arange(prod(one), dtype=np.int64).reshape(one) * static(x.type.shape)[last]
        bits = builder.add(RandomBitsAt(self.stream), a("add", places, builder.constant(rows)), *counters)
        scaled = a("div", a("sub", best, peak), self.temperature)
        score = a("add", scaled, self._noise(builder, bits, x.type.dtype))
        if self.top_p < 1:
            share = CumSum(last, exclusive=True).over(builder, builder.add(Softmax(last), scaled))
            score = a("where", a("less", share, self.top_p), score, -inf)
        return peak, builder.add(GatherElements(last), places, builder.add(ArgReduce("max", last), score))

    def _noise(self, builder: Builder, bits: Value, dtype: DType) -> Value:
        """-log(-log(1 - u)) for u uniform in (0, 1), which is precise where it is large."""
        a = Arithmetic(builder)
        uniform = a("mul", a("add", builder.add(Cast(dtype), bits), 0.5), 2.0**-32)
        return a("neg", a("log", a("min", a("neg", a("log1p", a("neg", uniform))), LARGEST)))
