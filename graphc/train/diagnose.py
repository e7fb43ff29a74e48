"""Which node first made a NaN or an infinity: a program that computes a step and one flag for every value in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from graphc.executable import Compiled, Executable
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Graph, Node, Value
from graphc.ops.express import Arithmetic
from graphc.train.build import Recipe, build_gradients, signature

Build = Callable[[Graph, Recipe], Graph]
Compiler = Callable[[Build], Callable[[Mapping[str, int]], Compiled]]


def first_nonfinite(model: Graph, recipe: Recipe, compiler: Compiler, feeds: Mapping[str, Any], state: Mapping[str, Array]) -> str:
    """A sentence, or "" where every number is finite. compiler: of step programs; state: what the parameters are now."""
    given: dict[str, Array] = {f"input {name!r}": np.asarray(array) for name, array in feeds.items()}
    given |= {f"parameter {name!r}": np.asarray(state.get(name, value.data)) for name, value in model.parameters.items()}
    given |= {f"state {name!r}": np.asarray(state.get(name, value.data)) for name, value in model.states.items()}
    for name, array in given.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} holds numbers that are NaN or infinite"
    watched: list[Node] = []
    flags = Executable(signature(model, recipe, False), compiler(partial(_build_flags, watched=watched))).run(feeds)
    for number, node in enumerate(watched):
        if not np.isfinite(flags[str(number)]):
            return f"{node.where} is the first node that makes NaN or infinity"
    return ""


def _build_flags(model: Graph, recipe: Recipe, watched: list[Node]) -> Graph:
    """Edit `model` into a program whose output `i` is 0 where all floats that the node watched[i] makes are finite, else NaN."""
    graph = build_gradients(model, recipe)
    a = Arithmetic(Builder(graph))
    outputs: dict[str, Value] = {}
    for node in list(graph.nodes):
        floats = [value for value in node.outputs if value.type.dtype.is_float]
        if floats:
            outputs[str(len(watched))] = _flag(a, floats)
            watched.append(node)
    graph.set_outputs(outputs)
    return graph


def _flag(a: Arithmetic, values: list[Value]) -> Value:
    """The sum of x - x."""
    parts = [a.reduce("sum", a("sub", value, value), tuple(range(value.type.rank)), keepdims=False) for value in values]
    total = parts[0]
    for part in parts[1:]:
        total = a("add", total, part)
    return total
