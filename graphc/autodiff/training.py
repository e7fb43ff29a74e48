"""The training form of a graph: what inference folds away or leaves out comes back to life.

* Parameters become state, which the program owns and a step updates in place. Frozen ones stay constants.
* BatchNorm normalises with the statistics of the batch, and its running statistics become state that each step moves:
  running = momentum * running + (1 - momentum) * batch, with the unbiased variance n / (n - 1) of the batch, as PyTorch does.
  A BatchNorm whose running mean is frozen keeps the form of inference.
* Dropout drops: the mask is a function of (seed, step, layer, position) alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from graphc.errors import InputError, UnsupportedError
from graphc.ir.body import graphs
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.express import Arithmetic
from graphc.ops.norm import BatchNorm
from graphc.ops.norm_training import BatchNormTraining
from graphc.ops.pointwise import Cast, op
from graphc.ops.random import Dropout, dropped
from graphc.types.dtype import i64, u64
from graphc.types.shape import product

NAME = "training-form"
SEED, STEP = "train.seed", "train.step"


@dataclass(frozen=True)
class TrainingForm:
    """What a step works on: `parameters` are trained; `step` counts the runs done so far (i64 scalar state)."""

    graph: Graph
    parameters: tuple[Value, ...]
    step: Value


def trainable(graph: Graph, freeze: Sequence[str] = ()) -> list[Value]:
    """The parameters that an optimizer may train: floats that no pattern of `freeze` matches (shell wildcards), without statistics."""
    statistics = {value for node in graph.nodes if isinstance(node.op, BatchNorm) for value in node.inputs[3:]}
    _check_patterns(graph, freeze)
    candidates = (value for value in graph.parameters.values() if value.type.dtype.is_float and value not in statistics)
    return [value for value in candidates if value.users and not is_frozen(value.name, freeze)]


def is_frozen(name: str, freeze: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in freeze)


def _check_patterns(graph: Graph, freeze: Sequence[str]) -> None:
    for pattern in freeze:
        if not any(fnmatchcase(name, pattern) for name in graph.parameters):
            some = ", ".join(list(graph.parameters)[:5])
            raise InputError(f"no parameter matches the frozen pattern {pattern!r}", hint=f"the parameters are called {some}, ...")


def training_form(graph: Graph, freeze: Sequence[str] = (), seed: int = 0, counter: str = STEP) -> TrainingForm:
    """Rewrite `graph` (static shapes) in place; `counter`: the name of the state that counts runs, on which dropout depends.

    Raises InputError for a pattern of `freeze` that matches nothing, UnsupportedError for batch normalisation or dropout in a loop's body.
    """
    _check_bodies(graph)
    parameters = trainable(graph, freeze)
    patch = Patch(graph, NAME)
    builder = patch.builder
    step = builder.state(graph.fresh_name(counter), np.zeros((), np.int64))
    dropouts = [node for node in graph.nodes if isinstance(node.op, Dropout) and node.op.rate > 0]
    for node in [node for node in graph.nodes if isinstance(node.op, BatchNorm)]:
        if all(value.producer is None for value in node.inputs[3:]) and not is_frozen(node.inputs[3].name, freeze):
            _train_batch_norm(patch, node)
    if dropouts:
        key = builder.constant(np.asarray(seed % 2**64, np.uint64), u64, SEED)
        count = builder.add(Cast(u64), step)
        for stream, node in enumerate(dropouts):
            with builder.at(node.source, node.origins):
                assert isinstance(node.op, Dropout)
                patch.replace(node.output, dropped(builder, node.inputs[0], node.op.rate, key, count, stream))
    for value in parameters:
        value.kind = Kind.STATE
    graph.updates[step] = builder.add(op("add"), step, builder.constant(1, i64, "one"))
    patch.commit()
    return TrainingForm(graph, tuple(parameters), step)


def _check_bodies(graph: Graph) -> None:
    """Raises UnsupportedError for what has another form in training, inside of a loop or choice."""
    for inner in (inner for node in graph.nodes for body in node.op.bodies() for inner in graphs(body)):
        for node in inner.nodes:
            if isinstance(node.op, BatchNorm) or (isinstance(node.op, Dropout) and node.op.rate > 0):
                reason = f"{node.op.name} inside of a loop or choice cannot be trained: it would keep state of its own in each iteration"
                raise UnsupportedError(reason, where=node.where, hint="apply it to the whole sequence outside; inside, graphc.layer_norm")


def _train_batch_norm(patch: Patch, node: Node) -> None:
    assert isinstance(node.op, BatchNorm)
    x, scale, bias, *running = node.inputs
    builder = patch.builder
    with builder.at(node.source, node.origins):
        y, mean, var = builder.add_many(BatchNormTraining(node.op.epsilon), x, scale, bias, name=node.name)
        count = product(dim for axis, dim in enumerate(x.type.shape) if axis != 1).__index__()
        kept = (1.0, count / max(count - 1, 1))
        for state, batch, factor in zip(running, (mean, var), kept, strict=True):
            state.kind = Kind.STATE
            patch.graph.updates[state] = _moved(builder, patch.graph.updates.get(state, state), batch, node.op.momentum, factor)
    patch.replace(node.output, y)


def _moved(builder: Builder, state: Value, batch: Value, momentum: float, factor: float) -> Value:
    """momentum * state + (1 - momentum) * factor * batch; a layer that is used twice moves its statistics twice."""
    a = Arithmetic(builder)
    return a("add", a("mul", state, momentum), a("mul", batch, (1.0 - momentum) * factor))
