"""Convolutions, pools, normalisations, matrix products, resize."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir.graph import Node
from graphc.types.shape import is_static
from graphc_onnx.emitter import Emitter, exports


@exports("conv")
def conv(emitter: Emitter, node: Node, op: Any) -> None:
    kernel = [int(k) for k in node.inputs[1].type.shape[2:]]
    emitter.result(
        "Conv", *emitter.inputs(node), kernel_shape=kernel, strides=op.stride, dilations=op.dilation, pads=[*op.pad_before, *op.pad_after],
        group=op.groups,
    )  # fmt: skip


@exports("conv_transpose")
def conv_transpose(emitter: Emitter, node: Node, op: Any) -> None:
    if min((*op.pad_before, *op.pad_after), default=0) < 0:
        raise UnsupportedError("ConvTranspose with negative pads", hint="pad the result instead")
    kernel = [int(k) for k in node.inputs[1].type.shape[2:]]
    emitter.result(
        "ConvTranspose", *emitter.inputs(node), kernel_shape=kernel, strides=op.stride, dilations=op.dilation,
        pads=[*op.pad_before, *op.pad_after], output_padding=op.output_padding, group=op.groups,
    )  # fmt: skip


def _window(op: Any) -> dict[str, Any]:
    return {
        "kernel_shape": op.kernel,
        "strides": op.stride,
        "dilations": op.dilation,
        "pads": [*op.pad_before, *op.pad_after],
        "ceil_mode": int(op.ceil),
    }


@exports("max_pool")
def max_pool(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("MaxPool", *emitter.inputs(node), **_window(op))


@exports("max_pool_indices")
def max_pool_indices(emitter: Emitter, node: Node, op: Any) -> None:
    """The second output of MaxPool; the first one is not used."""
    name = emitter.name(node.output)
    emitter.write("MaxPool", emitter.inputs(node), [emitter.fresh(f"{name}/maxpool"), name], **_window(op), storage_order=op.storage_order)


@exports("avg_pool")
def avg_pool(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("AveragePool", *emitter.inputs(node), **_window(op), count_include_pad=int(op.count_include_pad))


@exports("lp_pool")
def lp_pool(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("LpPool", *emitter.inputs(node), **_window(op), p=op.p)


@exports("batch_norm")
def batch_norm(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("BatchNormalization", *emitter.inputs(node), epsilon=op.epsilon, momentum=op.momentum)


@exports("instance_norm")
def instance_norm(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("InstanceNormalization", *emitter.inputs(node), epsilon=op.epsilon)


@exports("group_norm")
def group_norm(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("GroupNormalization", *emitter.inputs(node), num_groups=op.groups, epsilon=op.epsilon)


@exports("layer_norm")
def layer_norm(emitter: Emitter, node: Node, op: Any) -> None:
    """ONNX wants a scale of the normalised shape; another one is applied by Mul and Add."""
    x, *affine = node.inputs
    shape = x.type.shape[op.axis :]
    names = emitter.inputs(node)
    if affine and all(value.type.shape == shape for value in affine):
        emitter.result("LayerNormalization", *names, axis=op.axis, epsilon=op.epsilon)
        return
    if is_static(shape):
        ones = emitter.constant(np.ones(x.type.static_shape[op.axis :], x.type.dtype.numpy))
    else:
        ones = emitter.temp("Expand", emitter.like(1, x), emitter.dims(shape))
    if not affine:
        emitter.result("LayerNormalization", names[0], ones, axis=op.axis, epsilon=op.epsilon)
        return
    y = emitter.temp("LayerNormalization", names[0], ones, axis=op.axis, epsilon=op.epsilon)
    if len(affine) == 2:
        emitter.result("Add", emitter.temp("Mul", y, names[1]), names[2])
    else:
        emitter.result("Mul", y, names[1])


@exports("rms_norm")
def rms_norm(emitter: Emitter, node: Node, op: Any) -> None:
    """x / sqrt(mean(x^2) + epsilon) [* scale], composed: the operator exists from opset 23 only."""
    x = node.inputs[0]
    name = emitter.name(x)
    mean = emitter.temp("ReduceMean", emitter.temp("Mul", name, name), emitter.ints(range(op.axis, x.type.rank)), keepdims=1)
    root = emitter.temp("Sqrt", emitter.temp("Add", mean, emitter.like(op.epsilon, x)))
    if len(node.inputs) == 1:
        emitter.result("Div", name, root)
    else:
        emitter.result("Mul", emitter.temp("Div", name, root), emitter.name(node.inputs[1]))


@exports("lrn")
def lrn(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("LRN", *emitter.inputs(node), size=op.size, alpha=op.alpha, beta=op.beta, bias=op.bias)


@exports("softmax")
def softmax(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Softmax", *emitter.inputs(node), axis=op.axis)


@exports("log_softmax")
def log_softmax(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("LogSoftmax", *emitter.inputs(node), axis=op.axis)


@exports("matmul")
def matmul(emitter: Emitter, node: Node, op: Any) -> None:
    """Gemm for transposed matrices of floats, else MatMul of transposed operands."""
    names = emitter.inputs(node)
    a, b = node.inputs
    if a.type.rank == b.type.rank == 2 and (op.trans_a or op.trans_b) and a.type.dtype.is_float:
        emitter.result("Gemm", *names, transA=int(op.trans_a), transB=int(op.trans_b))
        return
    for i, (value, swap) in enumerate(((a, op.trans_a), (b, op.trans_b))):
        if swap:
            perm = [*range(value.type.rank - 2), value.type.rank - 1, value.type.rank - 2]
            names[i] = emitter.temp("Transpose", names[i], perm=perm)
    emitter.result("MatMul", *names)


@exports("resize")
def resize(emitter: Emitter, node: Node, op: Any) -> None:
    """Only the axes that change are named; by sizes where the scales follow from them, else by scales (positions depend on these)."""
    x = node.inputs[0]
    rows = list(zip(range(x.type.rank), x.type.shape, op.scales, op.out_shape, strict=True))
    if not op.roi:
        rows = [row for row in rows if not (row[1] == row[3] and row[2] == 1.0)]
    if not rows:
        emitter.result("Identity", emitter.name(x))
        return
    by_size = all(isinstance(have, int) and isinstance(out, int) and (have == 0 or out / have == scale) for _, have, scale, out in rows)
    if not by_size and not op.roi and not all(_gives(have, scale, out) for _, have, scale, out in rows):
        raise UnsupportedError(f"resize by {op.scales} to {list(op.out_shape)} is neither by scales nor by sizes")
    roi = emitter.constant(np.asarray(op.roi, np.float32)) if op.roi else ""
    scales = "" if by_size else emitter.constant(np.asarray([scale for _, _, scale, _ in rows], np.float32))
    given = [emitter.name(x), roi, scales, *([emitter.dims([out for *_, out in rows])] if by_size else [])]
    emitter.result(
        "Resize", *given, mode=op.mode, coordinate_transformation_mode=op.coordinate_transformation_mode,
        nearest_mode=op.nearest_mode if op.mode == "nearest" else None, cubic_coeff_a=op.cubic_coeff_a if op.mode == "cubic" else None,
        exclude_outside=int(op.exclude_outside), antialias=int(op.antialias), axes=[axis for axis, *_ in rows],
        extrapolation_value=op.extrapolation_value if op.roi else None,
    )  # fmt: skip


def _gives(have: Any, scale: float, out: Any) -> bool:
    if not isinstance(have, int):
        return True
    return bool(floor(np.float32(have) * np.float32(scale)) == out)


@exports("grid_sample")
def grid_sample(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("GridSample", *emitter.inputs(node), mode=op.mode, padding_mode=op.padding_mode, align_corners=int(op.align_corners))


@exports("dropout")
def dropout(emitter: Emitter, node: Node, op: Any) -> None:
    """For inference: nothing is dropped, the ratio is kept."""
    emitter.result("Dropout", emitter.name(node.inputs[0]), emitter.constant(np.asarray(op.rate, np.float32)))


@exports("batch_norm_training")
def batch_norm_training(emitter: Emitter, node: Node, op: Any) -> None:
    """Composed: ONNX Runtime's BatchNormalization in training mode divides the variance by n - 1."""
    rank = node.inputs[0].type.rank
    name, scale, bias = emitter.inputs(node)
    y, mean, var = (emitter.name(value) for value in node.outputs)
    axes, shape = emitter.ints([axis for axis in range(rank) if axis != 1]), emitter.ints([1, -1, *[1] * (rank - 2)])
    emitter.write("ReduceMean", [name, axes], [mean], keepdims=0)
    centred = emitter.temp("Sub", name, emitter.temp("Reshape", mean, shape))
    emitter.write("ReduceMean", [emitter.temp("Mul", centred, centred), axes], [var], keepdims=0)
    emitter.write("BatchNormalization", [name, scale, bias, mean, var], [y], epsilon=op.epsilon)
