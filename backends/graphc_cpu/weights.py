"""The weight buffer: constants of a plan, packed for their kernels, in one aligned block outside the machine code."""

from __future__ import annotations

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir.graph import Array
from graphc.kernel.spec import ConvSpec, MatmulSpec
from graphc.schedule.plan import Plan, Weight
from graphc.target import Target
from graphc_cpu.kernels.pack import pack_conv_weight, pack_matmul_weight

ALIGN = 64
SLACK = 256  # bytes behind each constant that vector loads of an epilogue may touch; zeros


class WeightBuffer:
    """`address(i)` is where weight i of the plan lies."""

    def __init__(self, plan: Plan) -> None:
        parts = [_packed(weight, plan.target) for weight in plan.weights]
        self.offsets: list[int] = []
        size = 0
        for part in parts:
            self.offsets.append(size)
            size += -(-(part.nbytes + SLACK) // ALIGN) * ALIGN
        self._memory = np.zeros(size + ALIGN, np.uint8)
        start = -self._memory.ctypes.data % ALIGN
        self.data = self._memory[start : start + size]
        for offset, part in zip(self.offsets, parts, strict=True):
            self.data[offset : offset + part.nbytes] = part.reshape(-1).view(np.uint8)

    def address(self, index: int) -> int:
        return int(self.data.ctypes.data) + self.offsets[index]


def _packed(weight: Weight, target: Target) -> Array:
    if weight.spec is None:
        return np.ascontiguousarray(weight.data).reshape(-1)
    if isinstance(weight.spec, ConvSpec):
        return pack_conv_weight(weight.spec, target, weight.data)
    if isinstance(weight.spec, MatmulSpec):
        return pack_matmul_weight(weight.spec, target, weight.data)
    raise UnsupportedError(f"weights of a {weight.spec.family} kernel cannot be packed", where=weight.name)
