"""Samples of drawing from logits. The oracle works in Python's numbers: Philox in integers, the rest in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ops.sampling import Sample as Draw
from graphc.types.dtype import f16, f32, f64
from ops.sample import Array, Data, Sample
from ops.samples.training import _philox


def _drawn(op: Draw, logits: Array, seed: int, step: int) -> Array:
    bits = _philox(seed, step, op.stream, logits.shape).reshape(-1, logits.shape[-1])
    rows = [_row(op, row.astype(float).tolist(), own.tolist()) for row, own in zip(logits.reshape(bits.shape), bits, strict=True)]
    return np.array(rows, np.int64).reshape(logits.shape[:-1])


def _row(op: Draw, row: list[float], bits: list[int]) -> int:
    if any(math.isnan(x) or x == math.inf for x in row) or max(row) == -math.inf:
        return -1
    order = sorted(range(len(row)), key=lambda c: -row[c])
    if op.temperature == 0:
        return order[0]
    kept = order[: op.top_k or len(row)]
    share = {c: math.exp((row[c] - row[order[0]]) / op.temperature) for c in kept}
    total, before, nucleus = sum(share.values()), 0.0, []
    for c in kept:
        if before / total < op.top_p:
            nucleus.append(c)
        before += share[c]
    noise = {c: -math.log(-math.log1p(-(bits[c] + 0.5) / 2**32)) for c in nucleus}
    return max(nucleus, key=lambda c: (row[c] - row[order[0]]) / op.temperature + noise[c])


def _sample(label: str, op: Draw, logits: Data | Array, seed: int = 7, step: int = 3, symbolic: tuple[str, ...] = ()) -> Sample:
    inputs = (logits, np.array(seed, np.uint64), np.array(step, np.uint64))
    return Sample(label, op, inputs, lambda x, *_: _drawn(op, x, seed, step), symbolic)


_OPS = (
    Draw(), Draw(0.0), Draw(0.5, stream=2), Draw(3.0, top_k=3), Draw(1.0, top_k=1), Draw(0.8, top_p=0.6), Draw(1.0, 5, 0.9),
    Draw(1.0, 99, 1e-6),
)  # fmt: skip
_INF, _NAN = np.inf, np.nan
_SPECIAL: Any = np.array(
    [[0, 1, 2, 3], [_NAN, 1, 2, 3], [-_INF, -_INF, 1, -_INF], [-_INF] * 4, [_INF, 1, 2, 3], [5, 5, 5, 5], [3e38, -3e38, 0, 3e38]],
    np.float32,
)

SAMPLES: list[Sample] = [
    *(_sample("f32", op, Data((5, 17)), symbolic=("N,17", "", "")) for op in _OPS),
    *(_sample(f"{d}, rank 3, a large seed", op, Data((2, 3, 9), d), 2**64 - 5, 2**40 + 1) for op in _OPS[4:7] for d in (f64, f16)),
    *(_sample("one row", op, Data((33,))) for op in (_OPS[0], _OPS[5])),
    *(_sample("NaN, infinities, equals", op, _SPECIAL) for op in (*_OPS[:4], _OPS[5], Draw(1e-30, stream=1))),
    _sample("one class", Draw(1.0, top_p=0.5), Data((4, 1), f32)),
]
