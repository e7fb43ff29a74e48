"""Pointwise ops: mostly one ONNX operator; the rest is composed, in forms that lose no accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from graphc.errors import UnsupportedError
from graphc.ir.graph import Node
from graphc.ops.pointwise import rows
from graphc.types.dtype import f16
from graphc_onnx.emitter import Emitter, exports
from graphc_onnx.tensors import ELEM_TYPES

# ops whose ONNX operator takes the same inputs, and its attributes by our names
_ATTRIBUTES: dict[str, dict[str, str]] = {
    "leaky_relu": {"alpha": "alpha"},
    "thresholded_relu": {"alpha": "alpha"},
    "elu": {"alpha": "alpha"},
    "celu": {"alpha": "alpha"},
    "selu": {"alpha": "alpha", "gamma": "gamma"},
    "hard_sigmoid": {"alpha": "alpha", "beta": "beta"},
    "shrink": {"lambd": "lambd", "bias": "bias"},
    "isinf": {"detect_negative": "detect_negative", "detect_positive": "detect_positive"},
}
_COMPOSED = {"silu", "gelu_tanh", "shift_left", "shift_right", "mod", "clip", "relu", "prelu"}
_DIRECT = {name: row.onnx for name, row in rows().items() if row.onnx and name not in _COMPOSED}


@exports(*_DIRECT)
def direct(emitter: Emitter, node: Node, op: Any) -> None:
    attributes = {onnx: getattr(op, name) for name, onnx in _ATTRIBUTES.get(op.name, {}).items()}
    attributes = {name: int(value) if isinstance(value, bool) else value for name, value in attributes.items()}
    emitter.result(_DIRECT[op.name], *emitter.inputs(node), **attributes)


@exports("gelu_tanh")
def gelu_tanh(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Gelu", *emitter.inputs(node), approximate="tanh")


@exports("relu")
def relu(emitter: Emitter, node: Node, op: Any) -> None:
    """ONNX Runtime has Relu for floats only."""
    x = emitter.name(node.inputs[0])
    if node.inputs[0].type.dtype.is_float:
        emitter.result("Relu", x)
    else:
        emitter.result("Max", x, emitter.like(0, node.inputs[0]))


@exports("prelu")
def prelu(emitter: Emitter, node: Node, op: Any) -> None:
    """PRelu, or where the slope does not broadcast to x: where(x < 0, x * slope, x)."""
    x, slope = emitter.inputs(node)
    if node.inputs[0].type.shape == node.output.type.shape:
        emitter.result("PRelu", x, slope)
        return
    negative = emitter.temp("Less", x, emitter.like(0, node.inputs[0]))
    emitter.result("Where", negative, emitter.temp("Mul", x, slope), x)


@exports("silu")
def silu(emitter: Emitter, node: Node, op: Any) -> None:
    x = emitter.name(node.inputs[0])
    scaled = x if op.alpha == 1.0 else emitter.temp("Mul", x, emitter.like(op.alpha, node.inputs[0]))
    emitter.result("Mul", x, emitter.temp("Sigmoid", scaled))


@exports("clip")
def clip(emitter: Emitter, node: Node, op: Any) -> None:
    """Infinite bounds, and those beyond an integer dtype, are left out."""
    x = node.inputs[0]
    lo, hi = op.lo, op.hi
    if x.type.dtype.is_int:
        limits = np.iinfo(x.type.dtype.numpy)
        lo = -np.inf if lo <= limits.min else int(np.ceil(lo))
        hi = np.inf if hi >= limits.max else int(np.floor(hi))
    low = "" if lo == -np.inf else emitter.like(lo, x)
    high = "" if hi == np.inf else emitter.like(hi, x)
    emitter.result("Clip", emitter.name(x), *([low, high] if high else [low] if low else []))


@exports("cast")
def cast(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Cast", emitter.name(node.inputs[0]), to=ELEM_TYPES[op.to.name])


@exports("mod")
def mod(emitter: Emitter, node: Node, op: Any) -> None:
    """Mod of floats exists with the sign of the dividend only."""
    a, b = emitter.inputs(node)
    if op.fmod or not node.inputs[0].type.dtype.is_float:
        emitter.result("Mod", a, b, fmod=int(op.fmod))
        return
    a, b = _widened(emitter, node, a), _widened(emitter, node, b)
    rest, wrong = _remainder(emitter, node, a, b)
    _narrowed(emitter, node, emitter.temp("Where", wrong, emitter.temp("Add", rest, b), rest))


@exports("floor_div")
def floor_div(emitter: Emitter, node: Node, op: Any) -> None:
    a, b = emitter.inputs(node)
    if not node.inputs[0].type.dtype.is_float:
        emitter.result("Div", emitter.temp("Sub", a, emitter.temp("Mod", a, b)), b)
        return
    a, b = _widened(emitter, node, a), _widened(emitter, node, b)
    rest, wrong = _remainder(emitter, node, a, b)
    whole = emitter.temp("Round", emitter.temp("Div", emitter.temp("Sub", a, rest), b))  # an integer but for rounding
    less = emitter.temp("Sub", whole, _number(emitter, node, 1.0))
    by_zero = emitter.temp("Equal", b, _number(emitter, node, 0.0))
    _narrowed(emitter, node, emitter.temp("Where", by_zero, emitter.temp("Div", a, b), emitter.temp("Where", wrong, less, whole)))


def _remainder(emitter: Emitter, node: Node, a: str, b: str) -> tuple[str, str]:
    """fmod(a, b), and whether it is neither zero nor of the sign of b."""
    rest, zero = emitter.temp("Mod", a, b, fmod=1), _number(emitter, node, 0.0)
    other = emitter.temp("Xor", emitter.temp("Less", rest, zero), emitter.temp("Less", b, zero))
    return rest, emitter.temp("And", other, emitter.temp("Not", emitter.temp("Equal", rest, zero)))


def _number(emitter: Emitter, node: Node, number: float) -> str:
    dtype = node.inputs[0].type.dtype
    return emitter.constant(np.asarray(number, np.float32 if dtype == f16 else dtype.numpy))


def _widened(emitter: Emitter, node: Node, x: str) -> str:
    """float16 is computed in float32."""
    return emitter.temp("Cast", x, to=onnx.TensorProto.FLOAT) if node.inputs[0].type.dtype == f16 else x


def _narrowed(emitter: Emitter, node: Node, y: str) -> None:
    if node.inputs[0].type.dtype == f16:
        emitter.result("Cast", y, to=onnx.TensorProto.FLOAT16)
    else:
        emitter.result("Identity", y)


@exports("shift_left", "shift_right")
def shift(emitter: Emitter, node: Node, op: Any) -> None:
    if node.inputs[0].type.dtype.kind != "u":
        raise UnsupportedError("ONNX has no shift of signed integers in this opset", hint="cast to an unsigned dtype")
    emitter.result("BitShift", *emitter.inputs(node), direction="LEFT" if op.name == "shift_left" else "RIGHT")


@exports("not_equal")
def not_equal(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Not", emitter.temp("Equal", *emitter.inputs(node)))


@exports("step")
def step(emitter: Emitter, node: Node, op: Any) -> None:
    x = node.inputs[0]
    at_least = emitter.temp("GreaterOrEqual", emitter.name(x), emitter.like(0, x))
    emitter.result("Cast", at_least, to=ELEM_TYPES[x.type.dtype.name])


@exports("trunc")
def trunc(emitter: Emitter, node: Node, op: Any) -> None:
    x = emitter.name(node.inputs[0])
    emitter.result("Mul", emitter.temp("Sign", x), emitter.temp("Floor", emitter.temp("Abs", x)))


@exports("expm1")
def expm1(emitter: Emitter, node: Node, op: Any) -> None:
    """tanh(x / 2) (exp(x) + 1), which is exact for small x too."""
    x = node.inputs[0]
    half = emitter.temp("Mul", emitter.name(x), emitter.like(0.5, x))
    above = emitter.temp("Add", emitter.temp("Exp", emitter.name(x)), emitter.like(1, x))
    emitter.result("Mul", emitter.temp("Tanh", half), above)


@exports("log1p")
def log1p(emitter: Emitter, node: Node, op: Any) -> None:
    """2 atanh(x / (2 + x)) where |x| < 1/2, else log(1 + x)."""
    x = node.inputs[0]
    name, two = emitter.name(x), emitter.like(2, x)
    ratio = emitter.temp("Div", name, emitter.temp("Add", name, two))
    near = emitter.temp("Mul", emitter.temp("Atanh", ratio), two)
    far = emitter.temp("Log", emitter.temp("Add", name, emitter.like(1, x)))
    small = emitter.temp("Less", emitter.temp("Abs", name), emitter.like(0.5, x))
    emitter.result("Where", small, near, far)


@exports("log_sigmoid")
def log_sigmoid(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Neg", emitter.temp("Softplus", emitter.temp("Neg", emitter.name(node.inputs[0]))))


@exports("gaussian")
def gaussian(emitter: Emitter, node: Node, op: Any) -> None:
    x = emitter.name(node.inputs[0])
    emitter.result("Exp", emitter.temp("Neg", emitter.temp("Mul", x, x)))
