"""Inputs to try a model with: reproducible random arrays of the right types."""

from __future__ import annotations

import numpy as np

from graphc.ir.graph import Array, Graph
from graphc.types.tensor import TensorType

_SMALL = 2  # integers may be indices or lengths: 0 and 1 are nearly always valid


def random_inputs(graph: Graph, seed: int) -> dict[str, Array]:
    """Floats from the standard normal distribution, bytes from all 256, bools from both, other integers from {0, 1}.

    The graph's dims must be static (a ShapeError names one that is not).
    """
    generator = np.random.default_rng(seed)
    return {value.name: _array(generator, value.type) for value in graph.inputs}


def _array(generator: np.random.Generator, type: TensorType) -> Array:
    shape, kind = type.static_shape, type.dtype.numpy
    if type.dtype.is_float:
        return generator.standard_normal(shape).astype(kind)
    high = 256 if type.dtype.name == "uint8" else _SMALL
    return generator.integers(0, high, shape).astype(kind)
