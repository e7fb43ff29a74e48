"""Convolution, its transpose, and their integer forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.conv import Conv, ConvTranspose
from graphc.types.shape import DimLike
from graphc_onnx.context import Context
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op

AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Window:
    """A sliding window's attributes, one entry per spatial dim, pads resolved."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


def same_pads(
    sizes: Sequence[DimLike], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool
) -> list[tuple[int, int]]:
    """(before, after) so that the output size is ceil(size / stride); an odd pixel goes to the end where `upper`."""
    pads: list[tuple[int, int]] = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        extent = (k - 1) * d + 1
        if s == 1:
            total = extent - 1
        elif isinstance(size, int):
            total = max((-(-size // s) - 1) * s + extent - size, 0)
        else:
            raise ShapeError(f"auto_pad with stride {s} over the symbolic size {size}", hint=f"fix it, e.g. dims={{{str(size)!r}: 224}}")
        small, large = total // 2, total - total // 2
        pads.append((small, large) if upper else (large, small))
    return pads


def window(node: OnnxNode, sizes: Sequence[DimLike], kernel: Sequence[int] | None = None) -> Window:
    """The window attributes of a convolution or pooling over spatial `sizes`, with auto_pad resolved."""
    rank = len(sizes)
    shape = node.ints("kernel_shape", kernel)
    if kernel is not None and shape != tuple(kernel):
        raise ModelError(f"kernel_shape {list(shape)} does not fit the weight's {list(kernel)}")
    stride, dilation = node.ints("strides", [1] * rank), node.ints("dilations", [1] * rank)
    auto = node.string("auto_pad", "NOTSET", choices=("", *AUTO_PAD))
    flat = node.ints("pads", [0] * (2 * rank))
    for name, value in (("kernel_shape", shape), ("strides", stride), ("dilations", dilation), ("pads", flat)):
        if len(value) != (2 * rank if name == "pads" else rank):
            raise ModelError(f"{name}={list(value)} does not fit {rank} spatial dimensions")
    if min((*shape, *stride, *dilation), default=1) < 1:
        raise ModelError("kernel, strides and dilations must be at least 1")
    if min(flat, default=0) < 0:
        raise ModelError(f"negative pads {list(flat)}", hint="use Slice or Pad to crop")
    pads = list(zip(flat[:rank], flat[rank:], strict=True))
    if auto == "VALID":
        pads = [(0, 0)] * rank
    elif auto.startswith("SAME"):
        pads = same_pads(sizes, shape, stride, dilation, upper=auto == "SAME_UPPER")
    return Window(shape, stride, dilation, tuple(b for b, _ in pads), tuple(a for _, a in pads))


def kernel_of(weight: Value) -> tuple[int, ...]:
    if weight.type.rank < 3:
        raise ShapeError(f"the weight {weight.type} needs shape (M, C, *kernel)")
    return tuple(dim.__index__() for dim in weight.type.shape[2:])


@onnx_op("Conv")
def conv(context: Context, node: OnnxNode) -> Value:
    x, weight, bias = node.input(0), node.input(1), node.optional(2)
    made = window(node, x.type.shape[2:], kernel_of(weight))
    op = Conv(made.stride, made.dilation, made.before, made.after, node.integer("group", 1))
    return context.add(op, x, weight, *([bias] if bias is not None else []))


@onnx_op("ConvTranspose")
def conv_transpose(context: Context, node: OnnxNode) -> Value:
    """`output_shape` decides the pads where it is given; auto_pad SAME makes the output size * stride."""
    x, weight, bias = node.input(0), node.input(1), node.optional(2)
    sizes, kernel = x.type.shape[2:], kernel_of(weight)
    rank = len(kernel)
    stride, dilation = node.ints("strides", [1] * rank), node.ints("dilations", [1] * rank)
    extra = node.ints("output_padding", [0] * rank)
    flat = node.ints("pads", [0] * (2 * rank))
    lengths = {len(sizes), len(stride), len(dilation), len(extra), len(flat) // 2, rank}
    if len(lengths) != 1 or node.ints("kernel_shape", kernel) != kernel:
        raise ModelError(f"kernel_shape, strides, dilations, pads or output_padding do not fit {rank} spatial dimensions")
    auto = node.string("auto_pad", "NOTSET", choices=("", *AUTO_PAD))
    before, after = flat[:rank], flat[rank:]
    if auto == "VALID":
        before = after = (0,) * rank
    if node.has("output_shape") or auto.startswith("SAME"):
        wanted = node.ints("output_shape")[-rank:] if node.has("output_shape") else [n * s for n, s in zip(sizes, stride, strict=True)]
        full = [(n - 1) * s + e + (k - 1) * d + 1 for n, s, e, k, d in zip(sizes, stride, extra, kernel, dilation, strict=True)]
        before, after = _pads_for(full, wanted, auto)
    op = ConvTranspose(stride, dilation, before, after, extra, node.integer("group", 1))
    return context.add(op, x, weight, *([bias] if bias is not None else []))


def _pads_for(full: Sequence[DimLike], wanted: Sequence[DimLike], auto: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pads that crop the full output to the wanted one; an odd pixel goes to the end for SAME_UPPER, else to the beginning."""
    before, after = [], []
    for have, want in zip(full, wanted, strict=True):
        total = (have - want).__index__()
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return tuple(before), tuple(after)
