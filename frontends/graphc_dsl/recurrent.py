"""Recurrent layers over whole sequences: rnn, lstm, gru; stacked, in one or both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.graph import Value
from graphc.ops.compose import reshape, slice_axis
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat
from graphc.ops.pointwise import Cast, op
from graphc.ops.random import Dropout
from graphc.ops.recurrent import OPTIONAL, Recurrent
from graphc.ops.recurrent_cell import GATES
from graphc.ops.recurrent_mask import WithinLengths
from graphc.types.dtype import i32
from graphc_dsl.arguments import whole
from graphc_dsl.init import InitLike, uniform
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor


def rnn(
    x: Tensor, units: int, layers: int = 1, *, bidirectional: bool = False, reverse: bool = False, activation: str = "tanh",
    dropout: float = 0.0, lengths: Tensor | None = None, h0: Tensor | None = None, bias: bool = True,
    weight_init: InitLike | None = None, bias_init: InitLike = "zeros", name: str = "",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(y, h) of h = tanh(W x + R h + bias) in each step: (N, T, in) -> y (N, T, D*units), h (N, layers*D, units). Elman 1990.

    D is 2 where `bidirectional` (the second direction runs from the last step to the first), else 1; `reverse`: that one alone. y holds
    the last layer's states of all steps, h the last states of each layer and direction. `lengths` (N) integers: the steps of each
    row; beyond them its y is 0, and h is the state at its own end (of a row of 0 steps: the initial one). `h0`: the states before the
    first step, as h; else 0. `dropout`: the rate between layers, in training.
    Parameters of layer k: name.k.weight (D, units, in), name.k.recurrent_weight (D, units, units), name.k.bias (D, units); by default
    uniform within 1 / sqrt(units), biases 0. Raises ShapeError where x has no three axes or its last one is symbolic,
    or h0 does not fit; TypeMismatchError where lengths are no integers.
    """
    stack = _Stack("rnn", whole(units, "units", 1), layers, bidirectional, reverse, dropout, bias, weight_init, bias_init)
    with Building("rnn", name, x, lengths, h0) as new:
        y, h = stack.build(new, x, {"lengths": lengths, "h0": h0}, activations=(activation,))
        return y, h


def lstm(
    x: Tensor, units: int, layers: int = 1, *, bidirectional: bool = False, reverse: bool = False, peepholes: bool = False,
    dropout: float = 0.0, lengths: Tensor | None = None, h0: Tensor | None = None, c0: Tensor | None = None, bias: bool = True,
    weight_init: InitLike | None = None, bias_init: InitLike = "zeros", name: str = "",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(y, h, c): as `rnn`, of a long short-term memory. Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate).

    c (N, layers*D, units) is the last state of the cells, and `c0` the one before the first step. The gates are i, o, f, c in the rows of
    name.k.weight (D, 4*units, in), name.k.recurrent_weight (D, 4*units, units), name.k.bias (D, 4*units). `peepholes`: gates see the
    cell through name.k.peepholes (D, 3*units: i, o, f).
    """
    stack = _Stack("lstm", whole(units, "units", 1), layers, bidirectional, reverse, dropout, bias, weight_init, bias_init)
    with Building("lstm", name, x, lengths, h0, c0) as new:
        y, h, c = stack.build(new, x, {"lengths": lengths, "h0": h0, "c0": c0}, peepholes=peepholes)
        return y, h, c


def gru(
    x: Tensor, units: int, layers: int = 1, *, bidirectional: bool = False, reverse: bool = False, reset_after: bool = True,
    dropout: float = 0.0, lengths: Tensor | None = None, h0: Tensor | None = None, bias: bool = True,
    weight_init: InitLike | None = None, bias_init: InitLike = "zeros", name: str = "",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(y, h): as `rnn`, of gated recurrent units, whose gates are z, r, h. Cho et al. 2014, arXiv:1406.1078.

    `reset_after`: the reset gate acts on the product of the state (as in PyTorch and cuDNN; then name.k.recurrent_bias (D, units) is inside
    it), not on the state itself (as in the paper).
    """
    stack = _Stack("gru", whole(units, "units", 1), layers, bidirectional, reverse, dropout, bias, weight_init, bias_init)
    with Building("gru", name, x, lengths, h0) as new:
        y, h = stack.build(new, x, {"lengths": lengths, "h0": h0}, linear_before_reset=reset_after)
        return y, h


@dataclass(frozen=True)
class _Stack:
    """Layers of one kind above each other."""

    cell: str
    units: int
    layers: int
    bidirectional: bool
    reverse: bool
    dropout: float
    bias: bool
    weight_init: InitLike | None
    bias_init: InitLike

    @property
    def direction(self) -> str:
        return "bidirectional" if self.bidirectional else "reverse" if self.reverse else "forward"

    def build(self, new: Building, x: Tensor, tensors: dict[str, Tensor | None], **attributes: object) -> list[Tensor]:
        """y and the last states. `tensors`: lengths, and initial states of all layers."""
        count, d = whole(self.layers, "layers", 1), 2 if self.bidirectional else 1
        if self.bidirectional and self.reverse:
            raise AttributeValueError("bidirectional and reverse", hint="one of them")
        if self.dropout and count == 1:
            raise AttributeValueError(f"dropout={self.dropout} between one layer", hint="layers=2 or more, or graphc.dropout behind it")
        if x.ndim != 3 or not isinstance(x.shape[2], int):
            raise ShapeError(f"input {x.type} is no batch of sequences", hint="(N, T, features)")
        given = {key: new.value(tensor) for key, tensor in tensors.items() if tensor is not None}
        if "lengths" in given:
            if not given["lengths"].type.dtype.is_int:
                raise TypeMismatchError(f"lengths are {given['lengths'].type}", hint="integers: numbers of steps")
            given["lengths"] = new.add(Cast(i32), given["lengths"])
            x = new.tensor(new.add(WithinLengths(batch_first=True), new.value(x), given["lengths"]))
        for key in ("h0", "c0"):
            if key in given and given[key].type.shape[1:] != (count * d, self.units):
                raise ShapeError(f"{key} is {given[key].type}", hint=f"(N, {count * d}, {self.units})")
        value, last = new.value(x), []
        for layer in range(count):
            if layer and self.dropout:
                value = new.add(Dropout(self.dropout), value)
            own = {key: slice_axis(new.builder, v, 1, layer * d, d) if key in ("h0", "c0") else v for key, v in given.items()}
            value, *states = self._layer(new, layer, value, own, dict(attributes))
            last.append(states)
        joined = [states[0] if count == 1 else new.add(Concat(1), *states) for states in zip(*last, strict=True)]
        return new.tensors([value, *joined])

    def _layer(self, new: Building, layer: int, x: Value, given: dict[str, Value], attributes: dict[str, object]) -> list[Value]:
        """y (N, T, D*units) and the last states (N, D, units)."""
        d, rows, units = 2 if self.bidirectional else 1, GATES[self.cell] * self.units, self.units
        init = uniform(-(units**-0.5), units**-0.5) if self.weight_init is None else self.weight_init
        width = int(x.type.shape[2].__index__())
        weight = new.parameter(f"{layer}.weight", (d, rows, width), init, x.type.dtype, (width, rows))
        recurrent = new.parameter(f"{layer}.recurrent_weight", (d, rows, units), init, x.type.dtype, (units, rows))
        product = new.add(MatMul(trans_b=True), x, reshape(new.builder, weight, (d * rows, width)))
        if self.bias:
            bias = new.parameter(f"{layer}.bias", (d, rows), self.bias_init, x.type.dtype)
            product = new.add(op("add"), product, reshape(new.builder, bias, (d * rows,)))
        if self.bias and attributes.get("linear_before_reset"):
            given = given | {"bias": new.parameter(f"{layer}.recurrent_bias", (d, units), self.bias_init, x.type.dtype)}
        if attributes.pop("peepholes", False):
            given = given | {"peepholes": new.parameter(f"{layer}.peepholes", (d, 3 * units), init, x.type.dtype, (1, 1))}
        names = tuple(name for name in OPTIONAL if name in given)
        made = Recurrent(self.cell, self.direction, names, batch_first=True, **attributes)  # type: ignore[arg-type]
        y, *states = new.builder.add_many(made, product, recurrent, *(given[name] for name in names))
        n, steps = y.type.shape[:2]
        return [reshape(new.builder, y, (n, steps, d * units)), *states[: 2 if self.cell == "lstm" else 1]]
