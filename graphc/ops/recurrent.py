"""Recurrent layers: RNN, LSTM and GRU over a whole sequence, in one or both directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Op, need_float, register
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import arg
from graphc.kernel.recurrent import Cell, GradCell
from graphc.ops.movement import surely_differ
from graphc.ops.precision import accurate
from graphc.ops.recurrent_cell import ACTIVATIONS, GATES, activate, defaults, grad_cell, make_cell, parameters
from graphc.types.dtype import DType, dtype, i32
from graphc.types.shape import Shape
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
OPTIONAL = ("bias", "peepholes", "lengths", "h0", "c0")


@register
@dataclass(frozen=True)
class Recurrent(Op):
    """(y, y_h[, y_c, cells], sums) of a layer whose input product is made already. T steps, B rows, H units, D directions, G gates.

    Inputs: x (T, B, D*G*H), the product of the layer's input with its weights, with all biases, gates of each direction in order;
    weights (D, G*H, H); then those that `given` names, in this order: bias (D, H), inside the recurrent product of a gru with
    linear_before_reset; peepholes (D, 3*H) of an lstm; lengths (B) i32; h0 and c0 (D, B, H), zeros where not given.
    Outputs: y (T, D, B, H), all states h; y_h (D, B, H), the last one; of an lstm y_c, the last state c, and cells (T, D, B, H), all of
    them; sums (T, D, B, G*H), for gradients: x + r' (below) of each gate, but r' alone of the last one of a gru with linear_before_reset.
    `batch_first`: x is (B, T, D*G*H), h0, c0, y_h, y_c (B, D, H),
    y (B, T, D, H); cells and sums stay.

    A row takes part in steps 0 .. length-1, and `reverse` begins with the last of them; in the steps beyond its states stay and y is 0,
    so a row of length 0 ends with its initial states. A length below 0 counts as 0, one above T as T.
    With r' the recurrent product, P peepholes, `clip` on the input of every activation:
      rnn:  h = f(x + r')
      lstm: i, o, f, c:  i = f(x_i + r'_i + P_i c), f likewise (or 1 - i: input_forget), c = f c + i g(x_c + r'_c),
            o = f(x_o + r'_o + P_o c), h = o h(c)
      gru:  z, r, h:  z = f(x_z + r'_z), r likewise, n = g(x_h + R_h (r h)), or g(x_h + r (r'_h + bias)) where linear_before_reset,
            h = (1 - z) n + z h
    `activations`: f; f, g, h; f, g: names of pointwise rows, "affine" (alpha x + beta) or "scaled_tanh" (alpha tanh(beta x)); `alpha`,
    `beta`: one number for each (0 where it takes none). ONNX RNN, LSTM, GRU; Hochreiter and Schmidhuber 1997; Cho et al. 2014,
    arXiv:1406.1078.
    """

    cell: str
    direction: str = "forward"
    given: tuple[str, ...] = ()
    activations: tuple[str, ...] = ()
    alpha: tuple[float, ...] = ()
    beta: tuple[float, ...] = ()
    clip: float = math.inf
    linear_before_reset: bool = False
    input_forget: bool = False
    batch_first: bool = False

    name: ClassVar[str] = "recurrent"
    onnx: ClassVar[str] = "LSTM"
    inputs: ClassVar[tuple[int, int]] = (2, 7)
    family: ClassVar[str] = "recurrent"
    tolerance: ClassVar[float] = 8.0

    def __post_init__(self) -> None:
        if self.cell not in GATES or self.direction not in DIRECTIONS:
            hint = f"{', '.join(GATES)}; {', '.join(DIRECTIONS)}"
            raise AttributeValueError(f"recurrent layer {self.cell!r}, {self.direction!r}", hint=hint)
        if not self.clip > 0:
            raise AttributeValueError(f"{self.cell}: clip {self.clip}", hint="a number above 0")
        names = self.activations or ACTIVATIONS[self.cell]
        if len(names) != len(ACTIVATIONS[self.cell]):
            raise AttributeValueError(f"{self.cell} takes {len(ACTIVATIONS[self.cell])} activations, got {len(names)}")
        for name in names:
            parameters(name)
        usual = [defaults(name) for name in names]
        object.__setattr__(self, "activations", tuple(names))
        for k, key in enumerate(("alpha", "beta")):
            numbers = getattr(self, key) or tuple(pair[k] for pair in usual)
            if len(numbers) != len(names):
                raise AttributeValueError(f"{self.cell}: {len(numbers)} numbers {key} for {len(names)} activations")
            object.__setattr__(self, key, tuple(map(float, numbers)))
        self._check_given()

    def _check_given(self) -> None:
        allowed = [name for name in OPTIONAL if self._may_have(name)]
        if list(self.given) != [name for name in allowed if name in self.given]:
            raise AttributeValueError(f"{self.cell}: inputs {list(self.given)}", hint=f"some of {', '.join(allowed)}, in that order")

    def _may_have(self, name: str) -> bool:
        if name == "bias":
            return self.linear_before_reset and self.cell == "gru"
        return self.cell == "lstm" or name not in ("peepholes", "c0")

    # shapes ---------------------------------------------------------------------------------------------------------------------

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def reverse(self) -> tuple[bool, ...]:
        """Of each direction, whether it runs from the last step to the first."""
        return DIRECTIONS[self.direction]

    @property
    def input_names(self) -> tuple[str, ...]:
        return ("x", "weights", *self.given)

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("y", "y_h", "y_c", "cells", "sums") if self.cell == "lstm" else ("y", "y_h", "sums")

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, weights, *others = types
        if len(others) != len(self.given):
            raise TypeMismatchError(f"{self.cell} takes {2 + len(self.given)} inputs, got {len(types)}")
        named = dict(zip(self.given, others, strict=True))
        lengths = named.pop("lengths", None)
        need_float(self, x, weights, *named.values())
        d = len(self.reverse)
        if x.rank != 3 or weights.rank != 3:
            raise ShapeError(f"{self.cell} needs x (T, B, D*G*H) and weights (D, G*H, H), got {x} and {weights}")
        steps, batch = (x.shape[1], x.shape[0]) if self.batch_first else x.shape[:2]
        hidden = weights.shape[2]
        self._check("weights", weights, (d, self.gates * hidden, hidden))
        self._check("x", x, (*x.shape[:2], d * self.gates * hidden))
        state = (batch, d, hidden) if self.batch_first else (d, batch, hidden)
        shapes = {"bias": (d, hidden), "peepholes": (d, 3 * hidden), "h0": state, "c0": state}
        for name, type in named.items():
            self._check(name, type, shapes[name])
        if lengths is not None:
            if lengths.dtype != i32:
                raise TypeMismatchError(f"{self.cell}: lengths are {lengths.dtype}", hint="cast them to i32")
            self._check("lengths", lengths, (batch,))
        every = (steps, d, batch)
        y = (batch, steps, d, hidden) if self.batch_first else (*every, hidden)
        made: dict[str, Shape] = {"y": y, "y_h": state, "y_c": state, "cells": (*every, hidden), "sums": (*every, self.gates * hidden)}
        return tuple(x.with_shape(made[name]) for name in self.output_names)

    def _check(self, name: str, found: TensorType, wanted: Shape) -> None:
        if found.rank != len(wanted) or any(surely_differ(a, b) for a, b in zip(found.shape, wanted, strict=True)):
            text = ", ".join(map(str, wanted))
            raise ShapeError(f"{self.cell}, {self.direction}: {name} is {found}, and must be ({text})")

    # meaning --------------------------------------------------------------------------------------------------------------------

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """Step by step; every row is computed in every step, and kept where it takes part."""
        wide = [accurate(a) if a.dtype.kind == "f" else a for a in arrays]
        x, weights, named = wide[0], wide[1], dict(zip(self.given, wide[2:], strict=True))
        if self.batch_first:
            x = x.swapaxes(0, 1)
            named.update({key: named[key].swapaxes(0, 1) for key in ("h0", "c0") if key in named})
        steps, batch, hidden, d = x.shape[0], x.shape[1], weights.shape[2], len(self.reverse)
        x = x.reshape(steps, batch, d, self.gates * hidden)
        lengths = named.get("lengths", np.full(batch, steps))
        y, cells = np.zeros((2, steps, d, batch, hidden), x.dtype)
        sums = np.zeros((steps, d, batch, self.gates * hidden), x.dtype)
        last = np.zeros((2, d, batch, hidden), x.dtype)
        for k, reverse in enumerate(self.reverse):
            h, c = (named[key][k] if key in named else np.zeros((batch, hidden), x.dtype) for key in ("h0", "c0"))
            extra = {key: named[key][k] for key in ("bias", "peepholes") if key in named}
            for t in reversed(range(steps)) if reverse else range(steps):
                new_h, new_c, sums[t, k] = self._step(x[t, :, k], weights[k], h, c, **extra)
                live = (t < lengths)[:, None]
                h, c = np.where(live, new_h, h), np.where(live, new_c, c)
                y[t, k], cells[t, k] = np.where(live, h, 0), c
            last[:, k] = h, c
        if self.batch_first:
            y, last = y.transpose(2, 0, 1, 3), last.swapaxes(1, 2)
        made = {"y": y, "y_h": last[0], "y_c": last[1], "cells": cells, "sums": sums}
        return tuple(np.ascontiguousarray(made[name]).astype(arrays[0].dtype) for name in self.output_names)

    def _step(
        self, x: Array, weights: Array, h: Array, c: Array, bias: Array | None = None, peepholes: Array | None = None
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """The states after one step, and the sums: x (B, G*H), weights (G*H, H), states (B, H)."""
        sums = h @ weights.T
        gate, product = np.split(x, self.gates, axis=1), np.split(sums, self.gates, axis=1)
        if self.cell == "rnn":
            return self._activate(0, x + sums), c, x + sums
        if self.cell == "gru":
            update, reset = (self._activate(0, gate[i] + product[i]) for i in (0, 1))
            if self.linear_before_reset:
                inner, last = reset * (product[2] + (0 if bias is None else bias)), product[2]
            else:
                inner = (reset * h) @ weights[2 * h.shape[1] :].T
                last = gate[2] + inner
            fresh = self._activate(1, gate[2] + inner)
            return (1 - update) * fresh + update * h, c, np.concatenate([gate[0] + product[0], gate[1] + product[1], last], axis=1)
        to_i, to_o, to_f = (0, 0, 0) if peepholes is None else np.split(peepholes, 3)
        enter = self._activate(0, gate[0] + product[0] + to_i * c)
        keep = 1 - enter if self.input_forget else self._activate(0, gate[2] + product[2] + to_f * c)
        c = keep * c + enter * self._activate(1, gate[3] + product[3])
        out = self._activate(0, gate[1] + product[1] + to_o * c)
        return out * self._activate(2, c), c, x + sums

    def _activate(self, number: int, x: Array) -> Array:
        leaf = arg("x", dtype(x.dtype))
        value = activate(self.activations[number], leaf, self.alpha[number], self.beta[number])
        return evaluate(value, {leaf: np.clip(x, -self.clip, self.clip)})

    def scalar_cell(self, element: DType) -> Cell:
        """What a kernel computes for one unit in one step."""
        functions = tuple(zip(self.activations, self.alpha, self.beta, strict=True))
        return make_cell(
            self.cell, functions, element, clip=self.clip, peepholes="peepholes" in self.given, bias="bias" in self.given,
            linear_before_reset=self.linear_before_reset, input_forget=self.input_forget,
        )  # fmt: skip

    def grad_cell(self, element: DType) -> GradCell:
        """What the backward kernel computes for one unit in one step."""
        return grad_cell(self.scalar_cell(element), element, "peepholes" in self.given)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """One backward node, see `graphc.ops.recurrent_grad`."""
        from graphc.ops.recurrent_grad import recurrent_gradient  # late: its op is a kind of this one

        return recurrent_gradient(builder, node, grads)

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per recurrent weight, step and row; ten per gate."""
        sums = int(outputs[-1].size)
        hidden = int(types[1].shape[2])
        moved = sum(t.nbytes for t in (*types, *outputs[: 3 if self.cell == "lstm" else 2]))
        return Cost(sums * (2 * hidden + 10), moved)
