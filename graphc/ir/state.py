"""State in memory: the arrays that a program updates in place, aligned and with slack, shared by all programs of one owner."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np

from graphc.ir.graph import Array, Graph

ALIGN = 64
SLACK = 256  # bytes behind each array that a vector load may touch


def aligned(array: Array) -> Array:
    """A C-contiguous copy at an aligned address, with zeroed slack behind it."""
    memory = np.zeros(array.nbytes + SLACK + ALIGN, np.uint8)
    start = -int(memory.ctypes.data) % ALIGN
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def own_state(graph: Graph, store: MutableMapping[str, Array]) -> None:
    """The graph's state lives in `store` from now on: arrays that are there already are kept, others start as the graph says."""
    for name, value in graph.states.items():
        assert value.data is not None
        if name not in store:
            store[name] = aligned(value.data)
        value.data = store[name]
