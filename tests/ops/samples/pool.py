"""Samples of pooling. The oracle is PyTorch, or ONNX Runtime for what PyTorch lacks (pads that differ, column-major indices)."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops.pool import AvgPool, LpPool, MaxPool, MaxPoolIndices, MaxPoolScatter, Pool
from graphc.types.dtype import f16, f64, i8, i32, u8
from ops.oracles import Oracle, by_ort, by_torch
from ops.sample import Data, Sample

Size = tuple[int, ...]
# label, input, kernel, stride, dilation, pads before and after, ceil
CASES: tuple[tuple[str, Size, Size, Size, Size, Size, bool], ...] = (
    ("2x2/2", (2, 3, 6, 8), (2, 2), (2, 2), (1, 1), (0, 0), False),
    ("2x2/2, odd", (1, 3, 7, 9), (2, 2), (2, 2), (1, 1), (0, 0), False),
    ("2x2/2, odd, ceil", (1, 3, 7, 9), (2, 2), (2, 2), (1, 1), (0, 0), True),
    ("3x3/2, pad 1", (1, 17, 9, 10), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ("3x3/2, pad 1, ceil", (1, 4, 10, 11), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ("3x3/1, pad 1", (1, 2, 5, 6), (3, 3), (1, 1), (1, 1), (1, 1), False),
    ("(2, 1)", (1, 2, 8, 5), (2, 1), (2, 1), (1, 1), (0, 0), False),
    ("9x9, pad 4", (1, 2, 10, 9), (9, 9), (1, 1), (1, 1), (4, 4), False),
    ("3x2/(3, 1), pad (1, 0), ceil", (1, 2, 8, 7), (3, 2), (3, 1), (1, 1), (1, 0), True),
    ("stride beyond the kernel, ceil", (1, 2, 7, 8), (2, 2), (3, 3), (1, 1), (1, 1), True),
    ("the whole map", (2, 3, 4, 5), (4, 5), (1, 1), (1, 1), (0, 0), False),
    ("one pixel", (1, 1, 1, 1), (1, 1), (1, 1), (1, 1), (0, 0), False),
    ("1-d", (2, 3, 11), (3,), (2,), (1,), (1,), True),
    ("3-d", (1, 2, 5, 6, 4), (2, 3, 2), (2, 1, 2), (1, 1, 1), (1, 0, 1), False),
)
DILATED: tuple[tuple[str, Size, Size, Size, Size, Size, bool], ...] = (
    ("dilation 2", (1, 2, 9, 8), (3, 3), (1, 1), (2, 2), (1, 1), False),
    ("dilation (1, 3), stride 2, ceil", (1, 2, 9, 12), (2, 3), (2, 2), (1, 3), (1, 1), True),
    ("1-d, dilation 3", (1, 2, 13), (3,), (2,), (3,), (1,), False),
)


def _symbolic(shape: Size, ceil: bool) -> tuple[str, ...]:
    spatial = map(str, shape[2:]) if ceil else "DHW"[5 - len(shape) :]
    return (",".join(("N", "C", *spatial)),)


def _max(rank: int, kernel: Size, stride: Size, pad: Size, dilation: Size, ceil: bool, positions: bool = False) -> Oracle:
    def expected(torch: Any) -> Any:
        fn = getattr(torch.nn.functional, f"max_pool{rank}d")

        def run(x: Any) -> Any:
            values, where = fn(x, kernel, stride, pad, dilation, ceil, return_indices=True)
            planes = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * rank)
            return where + planes * x[0, 0].numel() if positions else values

        return run

    return by_torch(expected)


def _avg(rank: int, kernel: Size, stride: Size, pad: Size, ceil: bool, include: bool) -> Oracle:
    return by_torch(lambda torch: lambda x: getattr(torch.nn.functional, f"avg_pool{rank}d")(x, kernel, stride, pad, ceil, include))


def _pools() -> list[Sample]:
    found = []
    for label, shape, kernel, stride, dilation, pad, ceil in (*CASES, *DILATED):
        rank, x = len(shape) - 2, (Data(shape),)
        fields: tuple[Any, ...] = (kernel, stride, dilation, pad, pad, ceil)
        symbolic = _symbolic(shape, ceil)
        found.append(Sample(label, MaxPool(*fields), x, _max(rank, kernel, stride, pad, dilation, ceil), symbolic))
        found.append(Sample(label, MaxPoolIndices(*fields), x, _max(rank, kernel, stride, pad, dilation, ceil, True), symbolic))
        for include in (False, True) if max(dilation) == 1 else ():
            oracle = _avg(rank, kernel, stride, pad, ceil, include)
            found.append(Sample(f"{label}, count pad {include}", AvgPool(*fields, include), x, oracle, symbolic))
    return found


def _onnx(
    kind: type[Pool], label: str, shape: Size, kernel: Size, before: Size, after: Size, *, stride: Size = (1, 1), **more: Any
) -> Sample:
    """A sample against ONNX Runtime; `more`: fields of the op that are attributes of the same name, but for `ceil` and bools."""
    names = {"ceil": "ceil_mode", "dilation": "dilations"}
    attributes = {names.get(k, k): list(v) if isinstance(v, tuple) else int(v) for k, v in more.items()}
    oracle = by_ort(kind.onnx or "MaxPool", kernel_shape=kernel, strides=stride, pads=(*before, *after), opset=19, **attributes)
    fields = {"dilation": (1,) * len(kernel), **more}
    return Sample(label, kind(kernel=kernel, stride=stride, pad_before=before, pad_after=after, **fields), (Data(shape),), oracle)


COUNTED = {"ceil": True, "count_include_pad": True}
ONNX = [
    _onnx(MaxPool, "end-heavy pads", (1, 3, 6, 7), (3, 3), (0, 0), (1, 1), stride=(2, 2)),
    _onnx(AvgPool, "end-heavy pads", (1, 3, 6, 7), (3, 3), (0, 0), (1, 1), stride=(2, 2)),
    _onnx(AvgPool, "end-heavy pads, counted", (1, 3, 6, 7), (3, 3), (0, 1), (2, 1), stride=(2, 2), count_include_pad=True),
    _onnx(AvgPool, "dilation 2", (1, 2, 9, 8), (3, 2), (1, 1), (1, 1), dilation=(2, 2)),
    _onnx(AvgPool, "dilation 2, counted, ceil", (1, 2, 9, 8), (3, 2), (1, 1), (1, 0), stride=(2, 3), dilation=(2, 2), **COUNTED),
    _onnx(AvgPool, "kernel larger than the input", (1, 3, 7, 7), (640, 640), (0, 0), (0, 0), stride=(640, 640), **COUNTED),
    _onnx(LpPool, "p 2, pads", (1, 2, 7, 6), (3, 2), (1, 0), (1, 1), stride=(2, 1), p=2),
    _onnx(LpPool, "p 1", (1, 2, 6, 6), (2, 2), (0, 0), (0, 0), p=1),
    _onnx(LpPool, "p 3, dilation", (1, 2, 9, 9), (3, 3), (0, 0), (0, 0), dilation=(2, 2), p=3),
]  # fmt: skip


def _row(x: Any) -> Any:
    """Pairs of a vector, the way the samples below pool."""
    return x.reshape(*x.shape[:2], -1, 2)


PAIR: dict[str, Any] = {"kernel": (2,), "stride": (2,), "dilation": (1,), "pad_before": (0,), "pad_after": (0,)}
NAN = np.array([[[np.nan, 1, 2, np.nan, -np.inf, -np.inf, np.nan, np.nan]]], np.float32)


def _columns(x: Any) -> Any:
    """ONNX's storage_order 1 for a 2x2/2 pool of one plane: the position counted down the columns."""
    first = MaxPoolIndices((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)).reference(x)
    plane = first % (x.shape[2] * x.shape[3])
    return first - plane + plane % x.shape[3] * x.shape[2] + plane // x.shape[3]


DTYPES = [
    *(Sample(str(d), MaxPool(**PAIR), (Data((2, 3, 8), d, -9, 9),), lambda x: _row(x).max(-1)) for d in (i8, u8, i32, f16, f64)),
    *(Sample(str(d), AvgPool(**PAIR), (Data((2, 3, 8), d),), lambda x: _row(x).mean(-1, dtype=x.dtype), rtol=1e-3) for d in (f16, f64)),
    Sample("f64", LpPool(**PAIR), (Data((2, 3, 8), f64),), lambda x: np.sqrt((_row(x) ** 2).sum(-1)), rtol=1e-13),
    Sample("NaN and -inf", MaxPool(**PAIR), (NAN,), lambda x: _row(x).max(-1)),
    Sample("NaN and -inf", MaxPoolIndices(**PAIR), (NAN,), lambda x: np.array([[[0, 3, 4, 6]]])),
    Sample("equals", MaxPoolIndices(**PAIR), (np.ones((1, 2, 6), np.float32),), lambda x: np.array([[[0, 2, 4], [6, 8, 10]]])),
    Sample("i32", MaxPoolIndices(**PAIR), (-np.arange(8, dtype=np.int32).reshape(1, 1, 8),), lambda x: np.array([[[0, 2, 4, 6]]])),
    Sample("columns", MaxPoolIndices((2, 2), (2, 2), (1, 1), (0, 0), (0, 0), storage_order=1), (Data((2, 3, 6, 8)),), _columns),
    Sample("empty batch", MaxPool(**PAIR), (Data((0, 3, 8)),), lambda x: np.zeros((0, 3, 4), np.float32)),
    Sample("empty batch", AvgPool(**PAIR), (Data((0, 3, 8)),), lambda x: np.zeros((0, 3, 4), np.float32)),
    Sample("empty batch", LpPool(**PAIR), (Data((0, 3, 8)),), lambda x: np.zeros((0, 3, 4), np.float32)),
    Sample("empty batch", MaxPoolIndices(**PAIR), (Data((0, 3, 8)),), lambda x: np.zeros((0, 3, 4), np.int64)),
]


def _ort_columns() -> Sample:
    """The second output of ONNX Runtime's MaxPool with storage_order 1."""
    both = by_ort("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0], storage_order=1, outputs=2)
    op = MaxPoolIndices((3, 2), (2, 2), (1, 1), (1, 0), (1, 0), storage_order=1)
    return Sample("columns in ONNX", op, (Data((2, 2, 5, 6)),), lambda x: both(x)[1])


def _scatters() -> list[Sample]:
    """The gradient of max pooling; the oracle adds one window's gradient after the other."""
    found = []
    for label, shape, kernel, stride, dilation, pad, ceil in (*CASES, *DILATED):
        fields: tuple[Any, ...] = (kernel, stride, dilation, pad, pad, ceil)
        x = Data(shape, f64).array(np.random.default_rng(3))
        where = MaxPoolIndices(*fields).reference(x)
        op = MaxPoolScatter(*fields, shape)
        found.append(Sample(label, op, (where, Data(where.shape)), lambda where, grad, shape=shape: _added(shape, where, grad)))
    return found


def _added(shape: Size, where: Any, grad: Any) -> Any:
    result = np.zeros(shape, grad.dtype)
    for position, value in zip(where.reshape(-1), grad.reshape(-1), strict=True):
        result.flat[position] += value
    return result


SAMPLES = [*_pools(), *_scatters(), *ONNX, *DTYPES, _ort_columns()]
