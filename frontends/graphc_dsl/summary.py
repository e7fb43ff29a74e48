"""What a model amounts to, and a first run of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphc.driver import compile as compile_model
from graphc.ir.graph import Array, Graph, Value
from graphc.ops.norm import BatchNorm
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc_dsl.models import Model


@dataclass(frozen=True)
class Summary:
    """`parameters`: trained numbers; `statistics`: running means and variances; `flops`: with symbolic dims 1, a multiply-add is 2."""

    name: str
    inputs: Mapping[str, TensorType]
    states: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    nodes: int
    parameters: int
    statistics: int
    flops: int

    def __str__(self) -> str:
        lines = [self.name]
        lines += [f"  input      {name}: {type}" for name, type in self.inputs.items()]
        lines += [f"  state      {name}: {type}" for name, type in self.states.items()]
        lines += [f"  output     {name}: {type}" for name, type in self.outputs.items()]
        statistics = f" and {self.statistics:,} batch statistics" if self.statistics else ""
        lines += [f"  parameters {self.parameters:,}{statistics}"]
        lines += [f"  work       {self.flops / 1e9:.3f} GFLOP for one sample, {self.nodes} nodes"]
        return "\n".join(lines)


def summarise(graph: Graph) -> Summary:
    """The summary of a graph; symbolic dims count as 1."""
    bound = graph.bind(dict.fromkeys(graph.symbols, 1))
    flops = sum(node.op.cost([v.type for v in node.inputs], [v.type for v in node.outputs]).flops for node in bound)
    counts = {name: int(value.type.size) for name, value in graph.parameters.items()}
    statistics = sum(count for name, count in counts.items() if is_statistic(graph.values[name]))
    inputs, states = ({value.name: value.type for value in values} for values in (graph.inputs, graph.states.values()))
    outputs = {name: value.type for name, value in zip(graph.output_names, graph.outputs, strict=True)}
    return Summary(graph.name, inputs, states, outputs, len(graph.nodes), sum(counts.values()) - statistics, statistics, flops)


def is_statistic(value: Value) -> bool:
    """A running mean or variance of batch normalisation: a parameter that no optimizer trains."""
    return bool(value.users) and all(isinstance(node.op, BatchNorm) and value not in node.inputs[:3] for node in value.users)


def random_inputs(graph: Graph, seed: int = 0) -> list[Array]:
    """Standard normal inputs (integers: 0 and 1) with every symbolic dim 1."""
    rng = np.random.default_rng(seed)
    types = [value.type.bind(dict.fromkeys(graph.symbols, 1)) for value in graph.inputs]
    drawn = [rng.standard_normal(t.static_shape) if t.dtype.is_float else rng.integers(0, 2, t.static_shape) for t in types]
    return [np.asarray(array, t.dtype.numpy) for array, t in zip(drawn, types, strict=True)]


def demo(model: Model, seed: int = 0) -> dict[str, Array]:
    """Print the summary, compile for one sample, run on random inputs, print times and outputs. Returns the outputs by name."""
    print(model.summary())
    graph = model.graph(seed)
    inputs = random_inputs(graph, seed)
    begun = time.perf_counter()
    run = compile_model(graph, dims=dict.fromkeys(graph.symbols, 1))
    compiled = time.perf_counter()
    run(*inputs)
    warm = time.perf_counter()
    outputs = run.run(dict(zip(run.inputs, inputs, strict=True)))
    done = time.perf_counter()
    print(f"  compiled   in {compiled - begun:.2f} s; one run {1e3 * (done - warm):.2f} ms")
    for name, array in outputs.items():
        spread = f"mean {array.mean():.4g}, standard deviation {array.std():.4g}, largest at {int(array.argmax())}"
        print(f"  {name:10} {list(array.shape)}, {spread}")
    return outputs
