"""Comparing results: by how much they differ from the truth, and whether that is what rounding explains.

The rule (promise 1 of graphc): the error against a float64 evaluation is at most k times the error of a naive evaluation in the model's
own precision. `widen` makes the graph of the float64 evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import Op
from graphc.types.dtype import DType, f64
from graphc.types.tensor import TensorType


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference; `relative` to the largest absolute value of what was wanted; elements that differ at all.

    Infinite where shapes or dtypes differ, or where one is NaN or infinite and the other is not the same.
    """

    absolute: float
    relative: float
    unequal: int
    elements: int


def difference(got: Array, want: Array) -> Difference:
    """Of two arrays; NaN equals NaN. `want` may have a wider float dtype."""
    if got.shape != want.shape or got.dtype.kind != want.dtype.kind:
        return Difference(np.inf, np.inf, max(got.size, want.size), want.size)
    same = got == want
    if want.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(want)
    if same.all():
        return Difference(0.0, 0.0, 0, want.size)
    wide = want.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(same, 0.0, np.abs(got.astype(np.float64) - wide))
    absolute = float(np.where(np.isnan(apart), np.inf, apart).max())
    finite = np.abs(wide[np.isfinite(wide)])
    scale = float(finite.max()) if finite.size else 0.0
    return Difference(absolute, absolute / scale if scale else np.inf, int(np.count_nonzero(~same)), want.size)


@dataclass(frozen=True)
class Verdict:
    """`limit` is what `difference.absolute` may be."""

    output: str
    against: str
    difference: Difference
    limit: float

    @property
    def ok(self) -> bool:
        return self.difference.absolute <= self.limit


def compare(
    got: Mapping[str, Array], exact: Mapping[str, Array], naive: Mapping[str, Array], *, factor: float, against: str
) -> list[Verdict]:  # fmt: skip
    """The rule for each output: `exact` is the float64 evaluation, `naive` the one in the model's precision, `factor` is k.

    A rounding error is at least one unit in the last place of the largest value, so that much is always allowed, times k. Integer and
    bool outputs must be equal to the naive ones.
    """
    verdicts = []
    for name, array in got.items():
        if array.dtype.kind != "f":
            verdicts.append(Verdict(name, against, difference(array, naive[name]), 0.0))
            continue
        wide = exact[name].astype(np.float64)
        finite = np.abs(wide[np.isfinite(wide)])
        unit = float(np.finfo(array.dtype).eps) * (float(finite.max()) if finite.size else 0.0)
        rounding = difference(naive[name], wide).absolute
        limit = factor * max(rounding if np.isfinite(rounding) else 0.0, unit)
        verdicts.append(Verdict(name, against, difference(array, wide), limit))
    return verdicts


def widen(graph: Graph) -> Graph:
    """A copy in which float16 and float32 are float64: inputs, parameters, constants and attributes.

    Raises UnsupportedError where an op does not exist in float64.
    """
    made = Graph(graph.name)
    new: dict[Value, Value] = {}
    for value in graph.values.values():
        if value.producer is None:
            data = None if value.data is None else value.data.astype(_wide(value.type.dtype).numpy)
            new[value] = made.add_value(value.name, _wide_type(value.type), value.kind, data)
    made.inputs = [new[value] for value in graph.inputs]
    for node in graph.nodes:
        made.nodes.append(_widen_node(made, node, new))
    made.output_names, made.trims = list(graph.output_names), dict(graph.trims)
    made.takes, made.gives = dict(graph.takes), dict(graph.gives)
    made.outputs = [new[value] for value in graph.outputs]
    made.updates = {new[state]: new[value] for state, value in graph.updates.items()}
    return made


def _widen_node(made: Graph, node: Node, new: dict[Value, Value]) -> Node:
    twin = Node(node.name, _wide_op(node.op), (new[value] for value in node.inputs), node.source, node.origins)
    try:
        types = twin.op.output_types(*(value.type for value in twin.inputs))
    except GraphcError as error:
        raise UnsupportedError(f"cannot be evaluated in float64: {error.reason}", where=node.where) from error
    for value, type in zip(node.outputs, types, strict=True):
        new[value] = made.add_value(value.name, type, Kind.RESULT)
        new[value].producer = twin
        twin.outputs.append(new[value])
    return twin


def _wide(dtype: DType) -> DType:
    return f64 if dtype.is_float else dtype


def _wide_type(type: TensorType) -> TensorType:
    return replace(type, dtype=_wide(type.dtype))


def _wide_op(op: Op) -> Op:
    given = op.attributes().items()
    changed: dict[str, Any] = {name: _wide(value) for name, value in given if isinstance(value, DType)}
    changed |= {name: widen(value) for name, value in given if isinstance(value, Graph)}
    return replace(op, **changed) if changed else op


def widen_inputs(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The same inputs for the widened graph."""
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in feeds.items()}
