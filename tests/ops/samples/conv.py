"""Samples of convolutions. The oracle is PyTorch, or ONNX Runtime for pads that differ at the two ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops.conv import Conv, ConvTranspose
from graphc.types.dtype import DType, f16, f32, f64, i32
from ops.oracles import by_ort, by_torch
from ops.sample import Data, Sample


def _conv(
    label: str, x: tuple[int, ...], w: tuple[int, ...], *, stride: int | tuple[int, ...] = 1, dilation: int | tuple[int, ...] = 1,
    pad: int | tuple[int, ...] = 0, groups: int = 1, bias: bool = False, dtype: DType = f32, symbolic: bool = True,
) -> Sample:  # fmt: skip
    """A sample against PyTorch: the same pad at both ends."""
    rank = len(x) - 2
    s, d, p = (v if isinstance(v, tuple) else (v,) * rank for v in (stride, dilation, pad))

    def expected(torch: Any) -> Any:
        fn = getattr(torch.nn.functional, f"conv{rank}d")
        return lambda x, w, b=None: fn(x, w, b, s, p, d, groups)

    inputs = (Data(x, dtype), Data(w, dtype), *((Data(w[:1], dtype),) if bias else ()))
    texts = (",".join(("N", str(x[1]), *"DHW"[3 - rank :])), ",".join(map(str, w)), *([str(w[0])] if bias else []))
    close = {"rtol": 1e-12, "atol": 1e-13} if dtype == f64 else {"rtol": 2e-2, "atol": 4e-3} if dtype == f16 else {}
    op = Conv(s, d, p, p, groups)
    return Sample(label, op, inputs, by_torch(expected), texts if symbolic else (), **close)


def _onnx(label: str, x: tuple[int, ...], w: tuple[int, ...], op: Conv, **attributes: Any) -> Sample:
    return Sample(label, op, (Data(x), Data(w)), by_ort("Conv", group=op.groups, **attributes))


CONVS = [
    _conv("1x1", (2, 5, 6, 7), (4, 5, 1, 1)),
    _conv("1x1, stride 2, bias", (1, 16, 7, 7), (8, 16, 1, 1), stride=2, bias=True),
    _conv("3x3", (1, 3, 8, 9), (4, 3, 3, 3)),
    _conv("3x3, pad 1, bias", (2, 4, 6, 5), (5, 4, 3, 3), pad=1, bias=True),
    _conv("3x3, stride 2, pad 1", (1, 3, 9, 8), (4, 3, 3, 3), stride=2, pad=1),
    _conv("3x3, channels of 16 and 17", (1, 16, 5, 5), (17, 16, 3, 3), pad=1),
    _conv("5x5, pad 2", (1, 2, 7, 7), (3, 2, 5, 5), pad=2),
    _conv("7x7, stride 2, pad 3", (1, 3, 15, 15), (4, 3, 7, 7), stride=2, pad=3),
    _conv("2x2, stride 2", (1, 3, 6, 6), (4, 3, 2, 2), stride=2),
    _conv("4x4, stride 4", (1, 3, 8, 8), (6, 3, 4, 4), stride=4),
    _conv("11x11, stride 4", (1, 1, 23, 19), (2, 1, 11, 11), stride=4),
    _conv("the whole map", (2, 3, 5, 4), (6, 3, 5, 4)),
    _conv("kernel larger than the map", (1, 2, 3, 3), (2, 2, 5, 5), pad=2),
    _conv("pad larger than the kernel", (1, 2, 3, 3), (2, 2, 2, 2), pad=3),
    _conv("dilation 2", (1, 3, 9, 9), (4, 3, 3, 3), dilation=2, pad=2),
    _conv("kernel 3x2, stride (2, 1), dilation (1, 3), pad (0, 2)", (1, 2, 8, 9), (3, 2, 3, 2), stride=(2, 1), dilation=(1, 3), pad=(0, 2)),
    _conv("groups 2", (1, 6, 5, 5), (4, 3, 3, 3), groups=2, pad=1, bias=True),
    _conv("groups 4 of 4 channels, odd width", (1, 16, 4, 7), (8, 4, 1, 1), groups=4),
    _conv("groups 3, dilation 2, odd width", (1, 9, 7, 9), (6, 3, 3, 3), groups=3, dilation=2),
    _conv("depthwise", (2, 17, 6, 6), (17, 1, 3, 3), groups=17, pad=1, bias=True),
    _conv("depthwise, stride 2", (1, 16, 7, 7), (16, 1, 3, 3), groups=16, pad=1, stride=2),
    _conv("depthwise, two outputs each", (1, 5, 6, 6), (10, 1, 3, 3), groups=5),
    _conv("one pixel", (1, 1, 1, 1), (1, 1, 1, 1), bias=True),
    _conv("empty batch", (0, 3, 5, 5), (4, 3, 3, 3), bias=True, symbolic=False),
    _conv("1-d", (2, 3, 20), (4, 3, 10), stride=5, bias=True),
    _conv("1-d, groups, pad", (1, 8, 9), (8, 2, 3), groups=4, pad=1),
    _conv("1-d, long kernel", (1, 1, 130), (3, 1, 128)),
    _conv("3-d", (1, 2, 4, 5, 6), (3, 2, 3, 2, 1), pad=1, stride=(1, 2, 1), bias=True),
    _conv("3-d, groups, dilation", (1, 4, 5, 5, 4), (4, 2, 2, 2, 2), groups=2, dilation=(1, 2, 1)),
    _conv("f64", (1, 3, 6, 6), (4, 3, 3, 3), pad=1, bias=True, dtype=f64),
    _onnx("end-heavy pads", (1, 3, 6, 7), (2, 3, 3, 3), Conv((2, 2), (1, 1), (0, 0), (1, 1)), strides=[2, 2], pads=[0, 0, 1, 1]),
    _onnx("asymmetric pads", (1, 3, 6, 7), (2, 3, 3, 3), Conv((1, 1), (1, 1), (2, 0), (1, 3)), pads=[2, 0, 1, 3]),
    _onnx("SAME_UPPER", (1, 3, 6, 7), (2, 3, 3, 2), Conv((2, 2), (1, 1), (0, 0), (1, 1)), strides=[2, 2], auto_pad="SAME_UPPER"),
    _onnx("VALID", (1, 3, 6, 7), (2, 3, 3, 3), Conv((2, 2), (1, 1), (0, 0), (0, 0)), strides=[2, 2], auto_pad="VALID"),
]


def _exact(x: Any, w: Any) -> Any:
    """The sum over kernel positions and channels, element by element."""
    y = np.zeros((x.shape[0], w.shape[0], x.shape[2] - w.shape[2] + 1), x.dtype)
    for n, m, o in np.ndindex(*y.shape):
        y[n, m, o] = (x[n, :, o : o + w.shape[2]] * w[m]).sum()
    return y


CONVS += [
    Sample("i32", Conv((1,), (1,), (0,), (0,)), (Data((2, 3, 8), i32, -9, 9), Data((4, 3, 3), i32, -9, 9)), _exact),
    Sample("no input channel", Conv((1,), (1,), (0,), (0,)), (Data((2, 0, 8)), Data((4, 0, 3))), _exact),
    Sample("no output channel", Conv((1,), (1,), (0,), (0,)), (Data((2, 3, 8)), Data((0, 3, 3))), _exact),
]


def _transposed(
    label: str, x: tuple[int, ...], w: tuple[int, ...], *, stride: int | tuple[int, ...] = 1, dilation: int | tuple[int, ...] = 1,
    pad: int | tuple[int, ...] = 0, extra: int | tuple[int, ...] = 0, groups: int = 1, bias: bool = False, dtype: DType = f32,
) -> Sample:  # fmt: skip
    rank = len(x) - 2
    s, d, p, e = (v if isinstance(v, tuple) else (v,) * rank for v in (stride, dilation, pad, extra))

    def expected(torch: Any) -> Any:
        fn = getattr(torch.nn.functional, f"conv_transpose{rank}d")
        return lambda x, w, b=None: fn(x, w, b, s, p, e, groups, d)

    channels = w[1] * groups
    inputs = (Data(x, dtype), Data(w, dtype), *((Data((channels,), dtype),) if bias else ()))
    texts = (",".join(("N", str(x[1]), *"DHW"[3 - rank :])), ",".join(map(str, w)), *([str(channels)] if bias else []))
    close = {"rtol": 1e-12, "atol": 1e-13} if dtype == f64 else {}
    return Sample(label, ConvTranspose(s, d, p, p, e, groups), inputs, by_torch(expected), texts, lowers=False, **close)


TRANSPOSED = [
    _transposed("2x2, stride 2", (1, 4, 5, 6), (4, 3, 2, 2), stride=2),
    _transposed("3x3", (2, 3, 4, 5), (3, 2, 3, 3), bias=True),
    _transposed("3x3, stride 2, pad 1, output padding 1", (1, 3, 5, 4), (3, 2, 3, 3), stride=2, pad=1, extra=1, bias=True),
    _transposed("4x4, stride 2, pad 1", (1, 6, 4, 4), (6, 5, 4, 4), stride=2, pad=1),
    _transposed("1x1", (1, 3, 4, 4), (3, 2, 1, 1)),
    _transposed("pad beyond the kernel", (1, 2, 6, 6), (2, 2, 2, 2), pad=2),
    _transposed("dilation 2, stride 3", (1, 2, 4, 3), (2, 3, 3, 2), stride=3, dilation=2, pad=1),
    _transposed("groups 2", (1, 6, 4, 4), (6, 2, 3, 3), groups=2, stride=2, bias=True),
    _transposed("depthwise", (1, 5, 4, 4), (5, 1, 3, 3), groups=5, stride=2, pad=1),
    _transposed("1-d", (2, 3, 7), (3, 4, 5), stride=3, pad=2, extra=1),
    _transposed("3-d", (1, 2, 3, 4, 2), (2, 3, 2, 3, 2), stride=(1, 2, 2), bias=True),
    _transposed("one pixel", (1, 2, 1, 1), (2, 3, 3, 3)),
    _transposed("f64", (1, 3, 4, 4), (3, 2, 3, 3), stride=2, dtype=f64),
    Sample(
        "asymmetric pads", ConvTranspose((2, 2), (1, 1), (0, 1), (2, 0), (0, 0)), (Data((1, 2, 5, 4)), Data((2, 3, 3, 3))),
        by_ort("ConvTranspose", strides=[2, 2], pads=[0, 1, 2, 0]), lowers=False,
    ),
    Sample(
        "output shape by negative pads", ConvTranspose((2, 2), (1, 1), (0, 0), (-1, 0), (0, 0)), (Data((1, 1, 3, 3)), Data((1, 2, 2, 2))),
        by_ort("ConvTranspose", strides=[2, 2], output_shape=[7, 6], auto_pad="SAME_UPPER"), lowers=False,
    ),
]  # fmt: skip

SAMPLES = [*CONVS, *TRANSPOSED]
