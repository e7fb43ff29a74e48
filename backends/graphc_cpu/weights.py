"""The weights of a program: constants of a plan, packed for their kernels, aligned, outside the machine code.

Packing costs more than compiling for large models, so packed weights are kept in the cache, under the fingerprint of their contents,
and mapped at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.graph import Array
from graphc.schedule.plan import Plan
from graphc_cpu import cache

ALIGN = 64
SLACK = 256  # bytes of zeros behind each constant that the vector loads of an epilogue may touch


class WeightBuffer:
    """`address(i)`: where weight i of the plan lies; `nbytes`: what they take together; `key`: theirs in the cache, "" without one."""

    def __init__(self, plan: Plan) -> None:
        from graphc_cpu import packing  # late: a start of a known program packs nothing

        store = cache.default()
        key = packing.key(plan) if store is not None and plan.weights else ""
        found = store.weights(key) if store is not None and key else None
        if found is None or len(found) != len(plan.weights):
            found = tuple(_aligned(packing.packed(weight, plan.target)) for weight in plan.weights)
            if store is not None and key:
                store.put_weights(key, found)
        self._keep(key, found)

    @classmethod
    def of_parts(cls, key: str, parts: Sequence[Array]) -> WeightBuffer:
        """Weights that are packed already; `key`: where the cache has them."""
        made = cls.__new__(cls)
        made._keep(key, parts)
        return made

    def _keep(self, key: str, parts: Sequence[Array]) -> None:
        self.key = key
        self._parts = tuple(parts)
        self.nbytes = sum(part.nbytes for part in parts)

    def address(self, index: int) -> int:
        return int(self._parts[index].ctypes.data)


def _aligned(part: Array) -> Array:
    """The bytes of an array at an aligned address, with slack behind."""
    size = part.nbytes + SLACK
    memory = np.empty(size + ALIGN, np.uint8)
    start = -int(memory.ctypes.data) % ALIGN
    made = memory[start : start + size]
    made[: part.nbytes] = part.reshape(-1).view(np.uint8)
    made[part.nbytes :] = 0
    return made
