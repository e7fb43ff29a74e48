"""fold-batchnorm: batch normalisation in inference is y = x*a + b per channel; it and other constant per-channel scales and shifts
after a convolution move into the convolution's weights and bias.

A batch normalisation that follows no convolution becomes one multiplication and one addition, which later fuse with their neighbours.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from graphc.ir.graph import Array, Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.conv import Conv
from graphc.ops.norm import BatchNorm
from graphc.ops.pointwise import op
from graphc.passes.base import Context

NAME = "fold-batchnorm"


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, NAME)
    for node in list(graph.nodes):
        if isinstance(node.op, BatchNorm):
            _split(patch, node)
    patch.commit()
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            if node.op.name in ("mul", "add", "sub", "div") and (_into_conv(patch, node) or _merge(patch, node)):
                changed = True
        patch.commit()
    return patch.count


def _split(patch: Patch, node: Node) -> None:
    """x*a + b with a = scale/sqrt(var + eps), b = bias - mean*a; computed in float64."""
    assert isinstance(node.op, BatchNorm)
    if not all(value.is_constant for value in node.inputs[1:]):
        return
    scale, bias, mean, var = (_data(value).astype(np.float64) for value in node.inputs[1:])
    with np.errstate(all="ignore"):
        a = scale / np.sqrt(var + node.op.epsilon)
    b = bias - mean * a
    x = node.inputs[0]
    shape = (-1,) + (1,) * (x.type.rank - 2)
    factor, shift = (_rounded(v.reshape(shape), x) for v in (a, b))
    if not (_is_faithful(factor, a) and np.all(np.isfinite(shift))):
        return
    scaled = patch.add(op("mul"), x, patch.constant(factor, node.inputs[1]), like=node)
    patch.replace(node.output, patch.add(op("add"), scaled, patch.constant(shift, node.inputs[2]), like=node))


def _operands(node: Node) -> tuple[Value, Array] | None:
    """(x, constant) of x*c, c*x, x+c, c+x, x-c or x/c."""
    x, c = node.inputs
    if x.is_constant and node.op.name in ("mul", "add"):
        x, c = c, x
    if not c.is_constant or x.is_constant or not x.type.dtype.is_float:
        return None
    data = _data(c)
    if node.op.name == "sub":
        data = -data
    elif node.op.name == "div":
        if not np.all(np.isfinite(data)) or not np.all(np.frexp(data)[0] == 0.5):
            return None  # a reciprocal is exact for powers of two only
        data = 1 / data
    return x, data


def _kind(node: Node) -> str:
    return "mul" if node.op.name in ("mul", "div") else "add"


def _per_channel(data: Array, value: Value) -> Array | None:
    """The constant as one number per channel of an (N, C, *spatial) value, or None."""
    rank = value.type.rank
    if data.ndim > rank or value.type.shape[1:2] == ():
        return None
    full = data.reshape((1,) * (rank - data.ndim) + data.shape)
    if any(size != 1 for i, size in enumerate(full.shape) if i != 1):
        return None
    channels = value.type.shape[1]
    return np.broadcast_to(full.reshape(-1), (int(channels),)) if isinstance(channels, int) and full.shape[1] in (1, channels) else None


def _into_conv(patch: Patch, node: Node) -> bool:
    found = _operands(node)
    if found is None:
        return False
    x, data = found
    conv = x.producer
    if conv is None or not isinstance(conv.op, Conv) or len(x.users) != 1 or x in patch.graph.roots or node.output.type != x.type:
        return False
    if not all(value.is_constant for value in conv.inputs[1:]):
        return False
    factor = _per_channel(data, x)
    if factor is None:
        return False
    weight, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    offset = _data(bias).astype(np.float64) if bias is not None else np.zeros(len(factor))
    weights = _data(weight)
    if _kind(node) == "mul":
        exact = weights * factor.astype(np.float64).reshape((-1,) + (1,) * (weight.type.rank - 1))
        weights = _rounded(exact, x)
        offset = offset * factor
        if not _is_faithful(weights, exact):
            return False
    else:
        offset = offset + factor
    shift = _rounded(offset, x)
    if not np.all(np.isfinite(shift)):
        return False
    inputs = [conv.inputs[0], patch.constant(weights, weight) if weights is not weight.data else weight]
    if bias is not None or np.any(shift):
        inputs.append(patch.constant(shift, bias if bias is not None else weight))
    patch.replace(node.output, patch.add(conv.op, *inputs, like=conv))
    return True


def _merge(patch: Patch, node: Node) -> bool:
    """(x*a + b)*c -> x*(a*c) + b*c, and sums of constants, where the inner result has no other use."""
    found = _operands(node)
    if found is None:
        return False
    x, data = found
    inner = x.producer
    if inner is None or inner.op.name not in ("mul", "add") or len(x.users) != 1 or x in patch.graph.roots:
        return False
    below = _operands(inner)
    if below is None or node.output.type != x.type or x.type != below[0].type:
        return False
    deep, inner_data = below
    with np.errstate(all="ignore"):
        product = np.multiply(inner_data, data)
    if _kind(node) == "mul" and not _is_faithful(product, np.multiply(inner_data, data, dtype=np.float64)):
        return False
    if _kind(node) == _kind(inner):
        combined = product if _kind(node) == "mul" else np.add(inner_data, data)
        patch.replace(node.output, patch.add(op(_kind(node)), deep, patch.constant(combined, node.inputs[1]), like=node))
    elif _kind(node) == "mul":  # (deep + b) * c
        scaled = patch.add(op("mul"), deep, patch.constant(data, node.inputs[1]), like=inner)
        patch.replace(node.output, patch.add(op("add"), scaled, patch.constant(product, node.inputs[1]), like=node))
    else:
        return False
    return True


def _rounded(exact: Array, like: Value) -> Array:
    """In the dtype of a value."""
    with np.errstate(all="ignore"):
        return exact.astype(like.type.dtype.numpy)


def _is_faithful(rounded: Array, exact: Array) -> bool:
    """Whether factors neither overflowed nor lost digits below the smallest normal number: x*(a*c) is then as good as (x*a)*c."""
    small = np.abs(rounded) < np.finfo(rounded.dtype).tiny
    return bool(np.all(np.isfinite(rounded)) and not np.any(small & (exact.reshape(small.shape) != 0)))


def _data(value: Value) -> Array:
    return cast(Array, value.data)
