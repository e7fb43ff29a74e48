"""Constants of a plan in the order in which their kernels read them."""

from __future__ import annotations

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir.graph import Array
from graphc.kernel.canonical import spec_text
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec
from graphc.kernel.spec import ChainBands, ConvSpec, MatmulSpec, WinogradConv, WinogradProduct
from graphc.schedule.plan import Plan, Weight
from graphc.target import Target
from graphc_cpu import cache
from graphc_cpu.fingerprint import fingerprint
from graphc_cpu.kernels.chain import pack_chain_weight
from graphc_cpu.kernels.matmul import pack_matmul_weight
from graphc_cpu.kernels.pack import pack_conv_weight
from graphc_cpu.kernels.recurrent_pack import pack_for_gradient, pack_recurrent_weight
from graphc_cpu.kernels.winograd_pack import pack_winograd_weight


def key(plan: Plan) -> str:
    """Of the contents of all weights and how they are packed."""
    packings = "\n".join("" if weight.spec is None else spec_text(weight.spec) for weight in plan.weights)
    return cache.key(fingerprint(weight.data for weight in plan.weights) + packings, plan.target)


def packed(weight: Weight, target: Target) -> Array:
    """Raises UnsupportedError for a kernel that has no packed weights."""
    if weight.spec is None:
        return np.ascontiguousarray(weight.data)
    if isinstance(weight.spec, ConvSpec):
        return pack_conv_weight(weight.spec, target, weight.data)
    if isinstance(weight.spec, ChainBands):  # of its first convolution; the second's are those of a convolution of its own
        return pack_chain_weight(weight.spec, target, weight.data)
    if isinstance(weight.spec, MatmulSpec):
        return pack_matmul_weight(weight.spec, target, _rows(weight.spec, weight.data))
    if isinstance(weight.spec, RecurrentSpec):
        return pack_recurrent_weight(weight.spec, weight.data)
    if isinstance(weight.spec, RecurrentGradSpec):
        return pack_for_gradient(weight.spec, weight.data)
    if isinstance(weight.spec, (WinogradConv, WinogradProduct)):
        return pack_winograd_weight(weight.spec, weight.data)
    raise UnsupportedError(f"weights of a {weight.spec.family} kernel cannot be packed", where=weight.name)


def _rows(spec: MatmulSpec, data: Array) -> Array:
    """The (K, N) view of a constant that is stored so or transposed."""
    flat = np.ascontiguousarray(data).reshape(-1)
    strides = tuple(step * flat.itemsize for step in spec.b_strides[-2:])
    view: Array = np.lib.stride_tricks.as_strided(flat, (spec.k, spec.n), strides, writeable=False)
    return view
