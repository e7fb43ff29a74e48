"""Samples of the pointwise table and cast. The oracle is the formula in numpy float64, rounded once, or PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ops.pointwise import Cast, op
from graphc.types.dtype import DType, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from ops.oracles import by_ort, by_torch
from ops.sample import Array, Data, Sample

ODD = (3, 5, 7)
FUNCTIONAL: Callable[[str], Callable[..., Any]] = lambda name: by_torch(lambda torch: getattr(torch.nn.functional, name))  # noqa: E731


def exactly(formula: Callable[..., Any]) -> Callable[..., Array]:
    """The formula in float64 (integers and bool as they are), rounded to the dtype of the first float input."""

    def oracle(*arrays: Array) -> Array:
        result = np.asarray(formula(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays)))
        to = next((a.dtype for a in arrays if a.dtype.kind == "f"), result.dtype)
        return result.astype(to) if result.dtype.kind == "f" else result

    return oracle


def by_element(formula: Callable[..., Any]) -> Callable[..., Array]:
    """The formula on Python numbers, element by element, wrapped into the dtype of the first input."""

    def oracle(*arrays: Array) -> Array:
        to = arrays[0].dtype
        span, low = (1 << to.itemsize * 8, -(1 << to.itemsize * 8 - 1) if to.kind == "i" else 0)
        rows = zip(*(a.reshape(-1).tolist() for a in np.broadcast_arrays(*arrays)), strict=True)
        values = [(formula(*row) - low) % span + low for row in rows]
        return np.array(values, dtype=to).reshape(np.broadcast_shapes(*(a.shape for a in arrays)))

    return oracle


def _truncated(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


ERF = np.vectorize(math.erf, otypes=[float])
# name -> (formula in float64, low, high): one input, floats
UNARY: dict[str, tuple[Callable[..., Any], float, float]] = {
    "identity": (lambda x: x, -2, 2), "neg": (np.negative, -2, 2), "abs": (np.abs, -2, 2), "sign": (np.sign, -2, 2),
    "exp": (np.exp, -5, 5), "expm1": (np.expm1, -1, 1), "log": (np.log, 0, 9), "log1p": (np.log1p, -0.9, 9), "sqrt": (np.sqrt, 0, 9),
    "reciprocal": (np.reciprocal, 0.5, 9), "floor": (np.floor, -9, 9), "ceil": (np.ceil, -9, 9), "round": (np.rint, -9, 9),
    "trunc": (np.trunc, -9, 9), "sin": (np.sin, -9, 9), "cos": (np.cos, -9, 9), "tan": (np.tan, -1.2, 1.2),
    "asin": (np.arcsin, -1.1, 1.1), "acos": (np.arccos, -1.1, 1.1), "atan": (np.arctan, -9, 9),
    "sinh": (np.sinh, -5, 5), "cosh": (np.cosh, -5, 5),
    "tanh": (np.tanh, -5, 5), "asinh": (np.arcsinh, -9, 9), "acosh": (np.arccosh, 0.9, 9), "atanh": (np.arctanh, -1.1, 1.1),
    "erf": (ERF, -3, 3), "isnan": (np.isnan, -2, 2), "isinf": (np.isinf, -2, 2),
    "step": (lambda x: np.where(x >= 0, 1.0, 0.0), -2, 2), "gaussian": (lambda x: np.exp(-x * x), -3, 3),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -9, 9), "relu": (lambda x: np.maximum(x, 0), -2, 2),
    "softplus": (lambda x: np.logaddexp(0, x), -9, 9), "log_sigmoid": (lambda x: -np.logaddexp(0, -x), -9, 9),
    "hard_swish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), -5, 5),
    "leaky_relu": (lambda x: np.where(x < 0, 0.01 * x, x), -2, 2), "elu": (lambda x: np.where(x < 0, np.exp(x) - 1, x), -3, 3),
    "clip": (lambda x: x, -2, 2), "gelu": (lambda x: x / 2 * (1 + ERF(x / math.sqrt(2))), -4, 4),
}  # fmt: skip
# name -> (formula, low, high): two inputs, floats
BINARY: dict[str, tuple[Callable[..., Any], float, float]] = {
    "add": (np.add, -2, 2), "sub": (np.subtract, -2, 2), "mul": (np.multiply, -2, 2), "div": (np.divide, 0.5, 2), "pow": (np.power, 0.1, 3),
    "floor_div": (np.floor_divide, 0.5, 9), "mod": (np.mod, -9, 9), "min": (np.minimum, -2, 2), "max": (np.maximum, -2, 2),
    "equal": (np.equal, -2, 2), "not_equal": (np.not_equal, -2, 2), "less": (np.less, -2, 2), "less_equal": (np.less_equal, -2, 2),
    "greater": (np.greater, -2, 2), "greater_equal": (np.greater_equal, -2, 2), "prelu": (lambda x, s: np.where(x < 0, s * x, x), -2, 2),
}  # fmt: skip
INTEGER: dict[str, Callable[..., Any]] = {
    "add": by_element(lambda a, b: a + b), "sub": by_element(lambda a, b: a - b), "mul": by_element(lambda a, b: a * b),
    "div": by_element(_truncated), "floor_div": by_element(lambda a, b: a // b if b else 0),
    "mod": by_element(lambda a, b: a % b if b else 0), "min": np.minimum, "max": np.maximum,
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "bit_and": np.bitwise_and, "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor, "prelu": lambda x, s: np.where(x < 0, x * s, x),
}  # fmt: skip
INTEGER_UNARY: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x, "abs": np.abs, "sign": np.sign, "bit_not": np.invert, "neg": np.negative,
    "relu": lambda x: np.maximum(x, 0), "step": lambda x: (x >= 0).astype(x.dtype),
}  # fmt: skip
BOOLEAN: dict[str, Callable[..., Any]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "equal": np.equal, "not_equal": np.not_equal,
}  # fmt: skip
# op -> torch.nn.functional equivalent, for inputs of -6 .. 6
ACTIVATIONS: list[tuple[Any, Callable[..., Any]]] = [
    (op("leaky_relu", alpha=0.2), by_torch(lambda torch: lambda x: torch.nn.functional.leaky_relu(x, 0.2))),
    (op("thresholded_relu", alpha=0.7), by_torch(lambda torch: lambda x: torch.nn.functional.threshold(x, 0.7, 0.0))),
    (op("elu", alpha=1.5), by_torch(lambda torch: lambda x: torch.nn.functional.elu(x, 1.5))),
    (op("selu"), FUNCTIONAL("selu")),
    (op("celu", alpha=2.0), by_torch(lambda torch: lambda x: torch.nn.functional.celu(x, 2.0))),
    (op("softplus"), by_torch(lambda torch: torch.nn.functional.softplus)),
    (op("softsign"), FUNCTIONAL("softsign")),
    (op("hard_sigmoid", alpha=1 / 6, beta=0.5), FUNCTIONAL("hardsigmoid")),
    (op("hard_swish"), FUNCTIONAL("hardswish")),
    (op("silu"), FUNCTIONAL("silu")),
    (op("gelu"), FUNCTIONAL("gelu")),
    (op("gelu_tanh"), by_torch(lambda torch: lambda x: torch.nn.functional.gelu(x, approximate="tanh"))),
    (op("mish"), FUNCTIONAL("mish")),
    (op("log_sigmoid"), FUNCTIONAL("logsigmoid")),
    (op("clip", lo=0.0, hi=6.0), FUNCTIONAL("relu6")),
    (op("clip", lo=-1.0), by_torch(lambda torch: lambda x: torch.clamp(x, min=-1.0))),
    (op("clip", lo=2.0, hi=-1.0), by_torch(lambda torch: lambda x: torch.clamp(x, 2.0, -1.0))),
]
ROUGH: dict[DType, float] = {f16: 2e-3, f32: 2e-6, f64: 1e-13}


def _float_samples() -> list[Sample]:
    found = []
    for d in (f32, f64, f16):
        rtol = ROUGH[d]
        for name, (formula, low, high) in UNARY.items():
            data = Data(ODD, d, low, high, special=name not in ("tan", "sin", "cos") or d == f32)
            found.append(Sample(str(d), op(name), (data,), exactly(formula), ("N,5,W",), rtol=rtol, atol=rtol / 10))
        for name, (formula, low, high) in BINARY.items():
            pair = (Data(ODD, d, low, high, special=True), Data((5, 1), d, low, high))
            found.append(Sample(f"{d}, broadcast", op(name), pair, exactly(formula), ("N,5,W", "5,1"), rtol=rtol, atol=rtol / 10))
        for activation, oracle in ACTIVATIONS:
            # PyTorch's gelu and hardswish overflow early; their formulas above are held against special values
            special = Data((40,), d, -6, 6, special=activation.name not in ("gelu", "hard_swish"))
            label = f"{d}, {activation.attributes()}"
            found.append(Sample(label, activation, (special,), oracle, ("N",), rtol=4 * rtol, atol=rtol))
    return found


def _integer_samples() -> list[Sample]:
    found = []
    for d in (i8, i16, i32, i64, u8, u16, u32, u64):
        high = 100 if d.itemsize == 1 else 30000
        for name, formula in INTEGER.items():
            pair = (Data(ODD, d, -high, high), Data((1, 5, 7), d, -4, 5))
            found.append(Sample(f"{d}, broadcast", op(name), pair, formula, ("N,5,7", "1,5,7")))
        found.extend(
            Sample(str(d), op(name), (Data((2, 9), d, -high, high),), formula, ("N,9",))
            for name, formula in INTEGER_UNARY.items() if d.kind == "i" or name not in ("neg", "relu")
        )  # fmt: skip
        found.append(Sample(f"{d}, bounds", op("clip", lo=-3, hi=50.5), (Data((9,), d, -high, high),), _np_clip(-3, 50)))
        if d.kind == "u":
            amount = Data((2, 9), d, 0, d.bits)
            found.append(Sample(str(d), op("shift_left"), (Data((2, 9), d, 0, high), amount), np.left_shift))
            found.append(Sample(str(d), op("shift_right"), (Data((2, 9), d, 0, high), amount), np.right_shift))
    return found


def _np_clip(lo: int, hi: int) -> Callable[[Array], Array]:
    return lambda x: np.clip(x.astype(np.int64), lo, hi).astype(x.dtype)


def _ints(*values: int, d: DType = i32) -> Array:
    return np.array(values, dtype=d.numpy)


def _floats(*values: float, d: DType = f32) -> Array:
    return np.array(values, dtype=d.numpy)


INF, NAN = math.inf, math.nan
TYPES = (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64)


def _astype(to: DType) -> Callable[[Array], Array]:
    return lambda x: x.astype(to.numpy)


def _cast_samples() -> list[Sample]:
    found = []
    for source in TYPES:
        data = Data((3, 11), source, 0, 100)
        found.extend(Sample(f"{source}", Cast(to), (data,), _astype(to), ("N,11",), rtol=1e-3) for to in TYPES)
    hard = _floats(NAN, INF, -INF, 3e9, -3e9, 2.9, -2.9, 0.5, -0.0, 1e-30)
    saturated = _ints(0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 2, -2, 0, 0, 0)
    nonzero = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 1], bool)
    found.append(Sample("NaN and out of range", Cast(i32), (hard,), lambda x: saturated))
    found.append(Sample("to bool is not zero", Cast(bool_), (hard,), lambda x: nonzero))
    found.append(Sample("negative to unsigned saturates", Cast(u8), (_floats(-1, 256, 255, NAN),), lambda x: _ints(0, 255, 255, 0, d=u8)))
    found.append(Sample("integers wrap", Cast(i8), (_ints(200, -129, 255),), lambda x: _ints(-56, 127, -1, d=i8)))
    found.append(Sample("overflow to inf", Cast(f16), (_floats(1e6, -1e6, 65504),), lambda x: _floats(INF, -INF, 65504, d=f16)))
    return found


EXTREME = _ints(-(2**31), -7, 7, 2**31 - 1, 5)
SAMPLES: list[Sample] = [
    *_float_samples(),
    *_integer_samples(),
    *_cast_samples(),
    *(Sample("bool", op(name), (Data((4, 3), bool_), Data((3,), bool_)), formula, ("N,3", "3")) for name, formula in BOOLEAN.items()),
    Sample("bool", op("not"), (Data((4, 3), bool_),), np.logical_not, ("N,3",)),
    Sample("bool", op("identity"), (Data((4, 3), bool_),), lambda x: x),
    *(Sample(f"{d}", op("where"), (Data((5, 1), bool_), Data(ODD, d), Data((7,), d)), np.where, ("5,1", "N,5,7", "7")) for d in TYPES),
    Sample("division at the edges", op("div"), (EXTREME, _ints(-1, 2, -2, 0, -5)), lambda a, b: _ints(-(2**31), -3, -3, 0, -1)),
    Sample("floor division at the edges", op("floor_div"), (EXTREME, _ints(-1, 2, -2, 0, -5)), lambda a, b: _ints(-(2**31), -4, -4, 0, -1)),
    Sample("signs", op("mod"), (_ints(-7, 7, -7, 7, 3), _ints(3, -3, -3, 3, 0)), lambda a, b: _ints(2, -2, -1, 1, 0)),
    Sample("signs, fmod", op("mod", fmod=True), (_ints(-7, 7, -7, 7, 3), _ints(3, -3, -3, 3, 0)), lambda a, b: _ints(-1, 1, -1, 1, 0)),
    Sample("float, fmod", op("mod", fmod=True), (Data((40,), low=-9, high=9), Data((40,), low=-3, high=3)), by_ort("Mod", fmod=1)),
    Sample("f32 to i64 exponents", op("pow"), (Data((5, 4)), _ints(0, 1, 2, 3, d=i64)), by_ort("Pow")),
    Sample("i32 to i32", op("pow"), (_ints(-3, 2, 5, 0, 7), _ints(3, 10, 2, 0, 0)), lambda a, b: _ints(-27, 1024, 25, 1, 1)),
    Sample("i32 to f32", op("pow"), (_ints(4, 2, 9), _floats(0.5, 3, 1.5)), lambda a, b: _ints(2, 8, 27)),
    Sample("special", op("pow"), (_floats(0, 0, -8, INF, NAN, 1, -2, 2), _floats(0, -1, 1 / 3, -1, 0, NAN, 3, INF)), exactly(np.power)),
    Sample("positive only", op("isinf", detect_negative=False), (_floats(INF, -INF, NAN, 1),), by_ort("IsInf", detect_negative=0)),
    Sample("negative only", op("isinf", detect_positive=False), (_floats(INF, -INF, NAN, 1),), by_ort("IsInf", detect_positive=0)),
    Sample("neither", op("isinf", detect_positive=False, detect_negative=False), (_floats(INF, NAN),), lambda x: np.zeros(2, bool)),
    Sample("defaults", op("hard_sigmoid"), (Data(ODD, low=-4, high=4),), by_ort("HardSigmoid")),
    Sample("parameters", op("selu", alpha=2.0, gamma=3.0), (Data(ODD, special=True),), by_ort("Selu", alpha=2.0, gamma=3.0)),
    Sample("lambd, bias", op("shrink", lambd=1.0, bias=0.5), (Data(ODD),), by_ort("Shrink", lambd=1.0, bias=0.5)),
    Sample("alpha", op("silu", alpha=1.7), (Data(ODD),), exactly(lambda x: x / (1 + np.exp(-1.7 * x)))),
    Sample("half to even", op("round"), (_floats(0.5, 1.5, 2.5, -0.5, -1.5, 2.4999),), by_ort("Round")),
    Sample("large arguments", op("sin"), (_floats(1e3, 1e6, -1e9, 3e15, 1e30),), exactly(np.sin)),
    Sample("both stretch", op("add"), (Data((3, 1, 5)), Data((1, 4, 1))), np.add, ("N,1,5", "1,4,1")),
    Sample("scalar", op("mul"), (Data(()), Data((2, 3))), np.multiply, ("", "N,3")),
    Sample("both scalars", op("sub"), (Data(()), Data(())), np.subtract),
    Sample("empty", op("div"), (Data((0, 3)), Data((1, 3))), np.divide),
    Sample("empty by broadcast", op("add"), (Data((0, 1)), Data((1, 3))), np.add),
    Sample("one element", op("exp"), (Data((1, 1)),), np.exp),
    Sample("clip beyond the range of i8", op("clip", lo=-1000, hi=1000), (Data((9,), i8, -100, 100),), lambda x: x),
    Sample("exact 64-bit bound", op("clip", hi=2**62 + 1), (_ints(2**62 + 5, 3, d=i64),), lambda x: _ints(2**62 + 1, 3, d=i64)),
]
