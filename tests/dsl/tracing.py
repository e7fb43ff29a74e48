"""Helpers of the DSL's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from graphc.ir.graph import Graph
from graphc.types.tensor import TensorType
from graphc_dsl import Model
from graphc_reference import ReferenceExecutable


def model_of(build: Callable[..., Any], *types: TensorType) -> Model:
    """`build` as a model with inputs x, y, ... of these types."""

    def one(x):
        return build(x)

    def two(x, y):
        return build(x, y)

    function = one if len(types) == 1 else two
    function.__annotations__ = dict(zip("xy", types, strict=False))
    return graphc.model(function)


def graph_of(build: Callable[..., Any], *types: TensorType) -> Graph:
    """The graph of `build` with initial values of seed 0."""
    return model_of(build, *types).graph()


def evaluate(build: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """`build` on arrays, by the reference."""
    graph = graph_of(build, *(TensorType(graphc.bool_ if a.dtype == bool else getattr(graphc, _short(a)), a.shape) for a in arrays))
    result = ReferenceExecutable(graph)(*arrays)
    assert isinstance(result, np.ndarray)
    return result


def _short(array: np.ndarray) -> str:
    return f"{array.dtype.kind}{array.dtype.itemsize * 8}"
