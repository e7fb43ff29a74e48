"""Recurrent layers: the input product of all steps, then one node for each set of activations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat
from graphc.ops.recurrent import DIRECTIONS, OPTIONAL, Recurrent
from graphc.ops.recurrent_cell import ACTIVATIONS, GATES, defaults, parameters
from graphc.ops.recurrent_mask import WithinLengths
from graphc.types.dtype import i32
from graphc_onnx.context import Context
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op

_FUNCTIONS = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "affine": "affine", "leakyrelu": "leaky_relu", "scaledtanh": "scaled_tanh",
    "thresholdedrelu": "thresholded_relu", "hardsigmoid": "hard_sigmoid", "elu": "elu", "softsign": "softsign", "softplus": "softplus",
}  # fmt: skip
_Functions = tuple[tuple[str, float, float], ...]


@onnx_op("RNN", "LSTM", "GRU")
def recurrent(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Y, Y_h and of an LSTM Y_c. Directions whose activations differ become nodes of their own.

    `clip` bounds the input of every activation, as ONNX says; ONNX Runtime leaves out that of an LSTM's h. Of a row of length 0, of which
    ONNX says nothing, Y is 0 and Y_h and Y_c are the initial states; ONNX Runtime gives zeros.
    """
    layer = _Layer(context, node)
    per_direction = layer.functions()
    if len(set(per_direction)) == 1:
        return layer.build(layer.direction, per_direction[0], layer.tensors)
    parts = [
        layer.build(direction, functions, {name: layer.part(name, value, d) for name, value in layer.tensors.items()})
        for d, (direction, functions) in enumerate(zip(("forward", "reverse"), per_direction, strict=True))
    ]
    axes = (2 if layer.batch_first else 1, layer.state_axis, layer.state_axis)
    return tuple(context.add(Concat(axis), *pair) for axis, pair in zip(axes, zip(*parts, strict=True), strict=False))


class _Layer:
    """One node: its tensors by name, checked, and its attributes."""

    def __init__(self, context: Context, node: OnnxNode) -> None:
        self.context, self.node = context, node
        self.kind = node.op.lower()
        self.gates = GATES[self.kind]
        self.direction = node.string("direction", "forward", choices=tuple(DIRECTIONS))
        self.batch_first = node.flag("layout")
        self.state_axis = 1 if self.batch_first else 0
        names = ("x", "w", "weights", "b", "lengths", "h0", "c0", "peepholes")
        found = {name: node.optional(i) for i, name in enumerate(names) if i < 6 or self.kind == "lstm"}
        self.tensors = {name: value for name, value in found.items() if value is not None}
        self._check()

    @property
    def directions(self) -> int:
        return len(DIRECTIONS[self.direction])

    def _check(self) -> None:
        x, w, r = (self.node.input(i) for i in range(3))
        if x.type.rank != 3 or w.type.rank != 3 or r.type.rank != 3:
            raise ShapeError(f"{self.node.op} takes X, W and R of rank 3, got {x.type}, {w.type} and {r.type}")
        hidden = self.node.integer("hidden_size", -1)
        if hidden >= 0 and r.type.shape[2] != hidden:
            raise ShapeError(f"hidden_size {hidden}, but R is {r.type}")
        if w.type.shape[:2] != r.type.shape[:2] or w.type.shape[0] != self.directions:
            raise ShapeError(f"{self.direction} {self.node.op}: W is {w.type} and R is {r.type}", hint="(directions, gates * hidden, ...)")
        if "b" in self.tensors and self.tensors["b"].type.shape != (self.directions, r.type.shape[1] * 2):
            raise ShapeError(f"B is {self.tensors['b'].type}", hint=f"({self.directions}, {r.type.shape[1] * 2})")
        if "lengths" in self.tensors:
            self._check_lengths(self.tensors["lengths"], x)

    def _check_lengths(self, lengths: Value, x: Value) -> None:
        """Lengths that are known; those of run time count as the nearest that there are."""
        steps, known = x.type.shape[1 if self.batch_first else 0], self.context.known(lengths)
        if known is not None and isinstance(steps, int) and known.size and (known.min() < 0 or known.max() > steps):
            raise ModelError(f"sequence_lens {known.tolist()} of sequences of {steps} steps", hint=f"0 to {steps}")

    # activations ----------------------------------------------------------------------------------------------------------------

    def functions(self) -> list[_Functions]:
        """Per direction its activations with alpha and beta, which are consumed by those functions that take one."""
        usual = ACTIVATIONS[self.kind]
        count = len(usual) * self.directions
        given = self.node.strings("activations", ())
        names = [self._function(name) for name in given] if given else list(usual) * self.directions
        if len(names) != count:
            raise ModelError(f"{len(names)} activations of a {self.direction} {self.node.op}", hint=f"{count} are needed")
        columns = [self._numbers(key, k, names) for k, key in enumerate(("alpha", "beta"))]
        rows = list(zip(names, *columns, strict=True))
        return [tuple(rows[start : start + len(usual)]) for start in range(0, count, len(usual))]

    def _function(self, name: str) -> str:
        if name.lower() not in _FUNCTIONS:
            raise ModelError(f"unknown activation {name!r}", hint=f"one of {', '.join(_FUNCTIONS)}")
        return _FUNCTIONS[name.lower()]

    def _numbers(self, key: str, column: int, names: Sequence[str]) -> list[float]:
        given = list(self.node.floats(f"activation_{key}", ()))
        takers = [name for name in names if key in parameters(name)]
        if len(given) > len(names):
            raise ModelError(f"{len(given)} numbers activation_{key} for {len(names)} activations")
        if len(given) == len(names) > len(takers):  # one for each function, as some exporters write it
            return given
        left = iter(given)
        return [next(left, defaults(name)[column]) if name in takers else 0.0 for name in names]

    # nodes ----------------------------------------------------------------------------------------------------------------------

    def part(self, name: str, value: Value, direction: int) -> Value:
        """What belongs to one direction."""
        if name in ("x", "lengths"):
            return value
        axis = self.state_axis if name in ("h0", "c0") else 0
        return self.context.slice_axis(value, axis, direction, 1)

    def build(self, direction: str, functions: _Functions, tensors: dict[str, Value]) -> tuple[Value, ...]:
        """The node for some directions, with `tensors` of these."""
        op, node, names = self.context, self.node, dict(tensors)
        inner = node.flag("linear_before_reset") and self.kind == "gru"
        x, w, r = names.pop("x"), names.pop("w"), names.pop("weights")
        d, rows, hidden = r.type.shape
        if "lengths" in names:
            names["lengths"] = op.cast(names["lengths"], i32)
            x = op.add(WithinLengths(self.batch_first), x, names["lengths"])
        product = op.add(MatMul(trans_b=True), x, op.reshape(w, (d * rows, w.type.shape[2])))
        if "b" in names:
            outer, inside = self._biases(names.pop("b"), hidden, inner)
            product = op.pointwise("add", product, outer)
            if inside is not None:
                names["bias"] = inside
        given = tuple(name for name in OPTIONAL if name in names)
        activations, alpha, beta = zip(*functions, strict=True)
        kind = Recurrent(
            self.kind, direction, given, activations, alpha, beta, clip=node.number("clip", math.inf), linear_before_reset=inner,
            input_forget=node.flag("input_forget") and self.kind == "lstm", batch_first=self.batch_first,
        )  # fmt: skip
        values = op.builder.add_many(kind, product, r, *(names[name] for name in given))
        return values[: 3 if self.kind == "lstm" else 2]

    def _biases(self, b: Value, hidden: object, inner: bool) -> tuple[Value, Value | None]:
        """What is added to the input product, (D*G*H), and what is inside the recurrent product, (D, H) or None."""
        op = self.context
        d, both = b.type.shape
        half = both // 2
        of_input, of_state = (op.slice_axis(b, 1, start, half) for start in (0, half))
        if not inner:
            return op.reshape(op.pointwise("add", of_input, of_state), (d * half,)), None
        size = half // self.gates
        outer = op.pointwise("add", op.slice_axis(of_input, 1, 0, size * 2), op.slice_axis(of_state, 1, 0, size * 2))
        outer = op.add(Concat(1), outer, op.slice_axis(of_input, 1, size * 2, size))
        return op.reshape(outer, (d * half,)), op.slice_axis(of_state, 1, size * 2, size)
