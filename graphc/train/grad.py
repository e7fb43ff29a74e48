"""graphc.grad: a model as a graph that also returns the gradients of its scalar output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.autodiff.reverse import differentiate
from graphc.driver import as_graph
from graphc.errors import InputError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ops.movement import Expand
from graphc.train.losses import scalar


def grad(model: Any, wrt: Sequence[str] | str | None = None, of: str | None = None) -> Graph:
    """A graph with the model's outputs and, for each value of `wrt`, the output `grad(name)`: the derivative of the scalar output `of`.

    wrt: names of float inputs or parameters; None: all parameters, or all float inputs where there are none. of: an output name (the
    first by default). What the output does not depend on has gradient 0. The result is a graph like any other: `grad` of it gives second
    derivatives. Raises ShapeError where `of` is no scalar, InputError for an unknown name, UnsupportedError that lists the nodes that have
    no gradient.
    """
    graph = as_graph(model)
    output = _output(graph, of)
    values = _wanted(graph, wrt)
    builder = Builder(graph)
    one = builder.constant(np.ones((), output.type.dtype.numpy), name="one")
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    for value, found in differentiate(graph, {output: one}, values).items():
        name = f"grad({value.name})"
        while name in outputs:
            name += "'"
        outputs[name] = found if found is not None else _zero(builder, value)
    graph.set_outputs(outputs)
    return graph


def _output(graph: Graph, name: str | None) -> Value:
    if name is None:
        return scalar(graph.outputs[0])
    if name not in graph.output_names:
        raise InputError(f"the model has no output {name!r}", hint=f"one of {', '.join(graph.output_names)}")
    return scalar(graph.outputs[graph.output_names.index(name)])


def _wanted(graph: Graph, wrt: Sequence[str] | str | None) -> list[Value]:
    leaves = {value.name: value for value in (*graph.inputs, *graph.parameters.values())}
    if wrt is None:
        floats = [value for value in leaves.values() if value.type.dtype.is_float]
        return [value for value in floats if value.name in graph.parameters] or floats
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    for name in names:
        if name not in leaves:
            raise InputError(f"the model has no input or parameter {name!r}", hint=f"one of {', '.join(list(leaves)[:8])}")
    return [leaves[name] for name in names]


def _zero(builder: Builder, like: Value) -> Value:
    return builder.add(Expand(tuple(like.type.shape)), builder.constant(np.zeros((), like.type.dtype.numpy), name="zero"))
