"""The weights of a program: constants of a plan, packed for their kernels, aligned, outside the machine code.

Packing costs more than compiling for large models, so packed weights are kept in the cache, under the fingerprint of their contents,
and mapped at the next start.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir.graph import Array
from graphc.kernel.canonical import spec_text
from graphc.kernel.spec import ConvSpec, MatmulSpec, WinogradConv, WinogradProduct
from graphc.schedule.plan import Plan, Weight
from graphc.target import Target
from graphc_cpu import cache
from graphc_cpu.fingerprint import fingerprint
from graphc_cpu.kernels.matmul import pack_matmul_weight
from graphc_cpu.kernels.pack import pack_conv_weight
from graphc_cpu.kernels.winograd_pack import pack_winograd_weight

ALIGN = 64
SLACK = 256  # bytes of zeros behind each constant that the vector loads of an epilogue may touch


class WeightBuffer:
    """`address(i)` is where weight i of the plan lies; `nbytes` is what they take together."""

    def __init__(self, plan: Plan) -> None:
        store = cache.default()
        self._parts: tuple[Array, ...] = ()
        key = _key(plan) if store is not None and plan.weights else ""
        found = store.weights(key) if store is not None and key else None
        if found is not None and len(found) == len(plan.weights):
            self._parts = found
        else:
            self._parts = tuple(_aligned(_packed(weight, plan.target)) for weight in plan.weights)
            if store is not None and key:
                store.put_weights(key, self._parts)
        self.nbytes = sum(part.nbytes for part in self._parts)

    def address(self, index: int) -> int:
        return int(self._parts[index].ctypes.data)


def _key(plan: Plan) -> str:
    packings = "\n".join("" if weight.spec is None else spec_text(weight.spec) for weight in plan.weights)
    return cache.key(fingerprint(weight.data for weight in plan.weights) + packings, plan.target)


def _aligned(part: Array) -> Array:
    """The bytes of an array at an aligned address, with slack behind."""
    size = part.nbytes + SLACK
    memory = np.empty(size + ALIGN, np.uint8)
    start = -int(memory.ctypes.data) % ALIGN
    made = memory[start : start + size]
    made[: part.nbytes] = part.reshape(-1).view(np.uint8)
    made[part.nbytes :] = 0
    return made


def _packed(weight: Weight, target: Target) -> Array:
    if weight.spec is None:
        return np.ascontiguousarray(weight.data)
    if isinstance(weight.spec, ConvSpec):
        return pack_conv_weight(weight.spec, target, weight.data)
    if isinstance(weight.spec, MatmulSpec):
        return pack_matmul_weight(weight.spec, target, _rows(weight.spec, weight.data))
    if isinstance(weight.spec, (WinogradConv, WinogradProduct)):
        return pack_winograd_weight(weight.spec, weight.data)
    raise UnsupportedError(f"weights of a {weight.spec.family} kernel cannot be packed", where=weight.name)


def _rows(spec: MatmulSpec, data: Array) -> Array:
    """The (K, N) view of a constant that is stored so or transposed."""
    flat = np.ascontiguousarray(data).reshape(-1)
    strides = tuple(step * flat.itemsize for step in spec.b_strides[-2:])
    view: Array = np.lib.stride_tricks.as_strided(flat, (spec.k, spec.n), strides, writeable=False)
    return view
