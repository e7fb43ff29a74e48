"""Backward through time: the gradient of a recurrent layer as one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import TypeMismatchError, UnsupportedError
from graphc.ir.op import Array, Cost, Op, register
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr, arg
from graphc.ops.express import Arithmetic, is_zero
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat
from graphc.ops.precision import accurate
from graphc.ops.recurrent import Recurrent
from graphc.types.dtype import dtype
from graphc.types.shape import DimLike
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class RecurrentGrad(Recurrent):
    """(dx, ds, before, dh0[, dc0][, gated][, holes]): gradients of a layer with the same attributes, see `recurrent`.

    Inputs: those of the layer, then its results y, cells (of an lstm) and sums, then the gradients dy, dy_h and (of an lstm) dy_c.
    Outputs: dx as x; ds (D, T, B, G*H), of the recurrent products; before (D, T, B, H), the states h before each step; dh0 and dc0 as y_h;
    gated (D, T, B, H), what the last gate of a gru multiplies, where that is not h itself; holes (D, T, B, 3*H), of the peepholes in each
    step. `batch_first`: those of (D, T, B, ...) are (D, B, T, ...). Gradients of weights follow as one product of ds, or of dx where it
    is the same, and before. In steps in which a row takes no part all is 0, but for
    before, which then is some state.
    """

    name: ClassVar[str] = "recurrent_grad"
    onnx: ClassVar[str] = ""
    inputs: ClassVar[tuple[int, int]] = (6, 13)
    not_differentiable: ClassVar[str] = "second derivatives of recurrent layers are not written"
    gradient = Op.gradient  # not that of a layer

    @property
    def layer(self) -> Recurrent:
        return Recurrent(**self.attributes())

    @property
    def input_names(self) -> tuple[str, ...]:
        lstm = self.cell == "lstm"
        return (*self.layer.input_names, "y", *(["cells"] if lstm else []), "sums", "dy", "dy_h", *(["dy_c"] if lstm else []))

    @property
    def output_names(self) -> tuple[str, ...]:
        some = ("dc0",) if self.cell == "lstm" else () if self.linear_before_reset or self.cell == "rnn" else ("gated",)
        return ("dx", "ds", "before", "dh0", *some, *(("holes",) if "peepholes" in self.given else ()))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if len(types) != len(self.input_names):
            raise TypeMismatchError(f"{self.name} takes {len(self.input_names)} inputs, got {len(types)}")
        named = dict(zip(self.input_names, types, strict=True))
        made = dict(zip(self.layer.output_names, self.layer.infer(*types[: 2 + len(self.given)]), strict=True))
        for name in self.input_names[2 + len(self.given) :]:
            self._check(name, named[name], made[name.removeprefix("d")].shape)
        x, state = types[0], made["y_h"]
        steps, d, batch, sums = made["sums"].shape
        hidden = types[1].shape[2]
        every = (d, batch, steps) if self.batch_first else (d, steps, batch)
        shapes = {"dx": x.shape, "ds": (*every, sums), "dh0": state.shape, "dc0": state.shape}
        shapes |= {"before": (*every, hidden), "gated": (*every, hidden), "holes": (*every, 3 * hidden)}
        return tuple(x.with_shape(shapes[name]) for name in self.output_names)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Step by step, from the last to the first."""
        wide = (accurate(a) if a.dtype.kind == "f" else a for a in arrays)
        named = dict(zip(self.input_names, wide, strict=True))
        if self.batch_first:
            named |= {key: named[key].swapaxes(0, 1) for key in ("x", "h0", "c0", "dy_h", "dy_c") if key in named}
            named |= {key: named[key].transpose(1, 2, 0, 3) for key in ("y", "dy")}
        steps, d, batch, sums = named["sums"].shape
        x, hidden = named["x"], named["weights"].shape[2]
        made = {
            "dx": np.zeros((steps, batch, d, sums), x.dtype), "ds": np.zeros((d, steps, batch, sums), x.dtype),
            "before": np.zeros((d, steps, batch, hidden), x.dtype), "gated": np.zeros((d, steps, batch, hidden), x.dtype),
            "holes": np.zeros((d, steps, batch, 3 * hidden), x.dtype), "dh0": np.zeros((d, batch, hidden), x.dtype),
        }  # fmt: skip
        made["dc0"] = made["dh0"].copy()
        for k in range(d):
            self._backward(k, named, made)
        made["dx"] = made["dx"].reshape(x.shape)
        if self.batch_first:
            made |= {key: made[key].swapaxes(0, 1) for key in ("dx", "dh0", "dc0")}
            made |= {key: made[key].swapaxes(1, 2) for key in ("ds", "before", "gated", "holes")}
        return tuple(np.ascontiguousarray(made[name]).astype(arrays[0].dtype) for name in self.output_names)

    def _backward(self, k: int, named: Mapping[str, Array], made: Mapping[str, Array]) -> None:
        """One direction."""
        steps, _, batch, sums = named["sums"].shape
        hidden, x = named["weights"].shape[2], named["x"].reshape(steps, batch, len(self.reverse), sums)
        element = dtype(x.dtype)
        grad = self.grad_cell(element)
        zero = np.zeros((batch, hidden), x.dtype)
        lengths = named.get("lengths", np.full(batch, steps))
        weights = named["weights"][k].reshape(self.gates, hidden, hidden)
        dh, dc = named["dy_h"][k], named["dy_c"][k] if "dy_c" in named else zero
        for t in range(steps) if self.reverse[k] else reversed(range(steps)):
            other = t + 1 if self.reverse[k] else t - 1
            first = (other >= np.minimum(lengths, steps)) if self.reverse[k] else np.full(batch, other < 0)
            near = min(max(other, 0), steps - 1)
            h = np.where(first[:, None], named["h0"][k] if "h0" in named else 0, named["y"][near, k])
            live = (t < lengths)[:, None]
            env = {"h": h, "dh": dh + named["dy"][t, k], "dc": dc, "dgated": zero}
            if "cells" in named:
                env["c"] = np.where(first[:, None], named["c0"][k] if "c0" in named else 0, named["cells"][near, k])
            for letter, rows in (("x", x[t, :, k]), ("s", named["sums"][t, k])):
                env |= {f"{letter}{gate}": part for gate, part in enumerate(np.split(rows, self.gates, axis=1))}
            if "peepholes" in named:
                env |= dict(zip(("pi", "po", "pf"), np.split(named["peepholes"][k], 3), strict=True))
            if "bias" in named:
                env["b"] = named["bias"][k]

            def value(expr: Expr, env: dict[str, Array] = env, live: Array = live) -> Array:
                found = evaluate(expr, {arg(name, element): array for name, array in env.items()})
                return np.where(live, np.broadcast_to(found, zero.shape), 0)

            through = zero
            for phase in grad.phases:
                gates = range(phase.first, phase.first + phase.gates)
                through = sum((value(grad.ds[gate]) @ weights[gate] for gate in gates), zero)
                if phase.of_gated:
                    env["dgated"] = through
            made["before"][k, t] = h
            made["ds"][k, t] = np.concatenate([value(part) for part in grad.ds], axis=1)
            made["dx"][t, :, k] = np.concatenate([value(part) for part in grad.dx], axis=1)
            if grad.holes:
                made["holes"][k, t] = np.concatenate([value(part) for part in grad.holes], axis=1)
            if grad.gated is not None:
                made["gated"][k, t] = value(grad.gated)
            direct = value(grad.direct) if grad.direct is not None else 0
            dh = np.where(live, direct + through, dh)
            dc = dc if grad.dc is None else np.where(live, value(grad.dc), dc)
        made["dh0"][k], made["dc0"][k] = dh, dc

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per recurrent weight, step and row; twenty per gate."""
        return Cost(int(outputs[1].size) * (2 * int(types[1].shape[2]) + 20), sum(t.nbytes for t in (*types, *outputs)))


def recurrent_gradient(builder: Builder, node: Node, grads: Sequence[Value]) -> list[Value | None]:
    """Of each input of a `recurrent` node: one RecurrentGrad, and sums over all steps as products."""
    op = node.op
    assert isinstance(op, Recurrent)
    results = dict(zip(op.output_names, node.outputs, strict=True))
    incoming = dict(zip(op.output_names, grads, strict=True))
    if any(not is_zero(incoming[name]) for name in ("cells", "sums") if name in incoming):
        raise UnsupportedError("the inner results of a recurrent layer have no gradient", where=node.where)
    back = RecurrentGrad(**op.attributes())
    saved = [results[name] for name in ("y", "cells", "sums") if name in results]
    seeds = [incoming[name] for name in ("y", "y_h", "y_c") if name in incoming]
    made = dict(zip(back.output_names, builder.add_many(back, *node.inputs, *saved, *seeds), strict=True))
    weights = _weights(builder, made, _of_sums(builder, made, back), op)
    found = {"x": made["dx"], "weights": weights, "h0": made["dh0"], "c0": made.get("dc0")}
    a, hidden = Arithmetic(builder), node.inputs[1].type.shape[2]
    if "holes" in made:
        found["peepholes"] = a.reduce("sum", made["holes"], (1, 2), keepdims=False)
    if "bias" in op.given:
        found["bias"] = a.reduce("sum", _part(builder, made["ds"], hidden * 2, hidden), (1, 2), keepdims=False)
    return [found.get(name) for name in op.input_names]


def _of_sums(builder: Builder, made: Mapping[str, Value], op: RecurrentGrad) -> Value:
    """ds, or dx where it holds the same numbers in the same order: then nobody reads ds, and it is not stored."""
    from graphc.ops.compose import reshape  # late: it builds on ops

    cell = op.layer.grad_cell(made["dx"].type.dtype)
    return reshape(builder, made["dx"], made["ds"].type.shape) if len(op.reverse) == 1 and cell.dx == cell.ds else made["ds"]


def _weights(builder: Builder, made: Mapping[str, Value], ds: Value, op: Recurrent) -> Value:
    """One product over all steps and rows for each direction, (D, G*H, H); two where the last gate multiplies gated rows."""
    hidden = made["before"].type.shape[3]
    if "gated" not in made:
        return _product(builder, ds, made["before"])
    first = _product(builder, _part(builder, ds, 0, hidden * 2), made["before"])
    return builder.add(Concat(1), first, _product(builder, _part(builder, ds, hidden * 2, hidden), made["gated"]))


def _product(builder: Builder, ds: Value, rows: Value) -> Value:
    """ds^T rows, over the steps and rows of (D, T, B, ...) or (D, B, T, ...)."""
    from graphc.ops.compose import reshape  # late: it builds on ops

    flat = [reshape(builder, v, (v.type.shape[0], v.type.shape[1] * v.type.shape[2], v.type.shape[3])) for v in (ds, rows)]
    return builder.add(MatMul(trans_a=True), *flat)


def _part(builder: Builder, value: Value, start: DimLike, size: DimLike) -> Value:
    from graphc.ops.compose import slice_axis

    return slice_axis(builder, value, 3, start, size)
