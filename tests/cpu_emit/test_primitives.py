"""Every primitive and cast, on every dtype that has it, on scalars and vectors, for every machine level, against its numpy meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphc.kernel.evaluate import apply, convert
from graphc.kernel.expr import COMPARISONS, PRIMITIVES, const
from graphc.types.dtype import ALL, DType, bool_, f16, f32, f64, i64, u8
from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.scalar import emit_cast, emit_const, emit_primitive, splat

Array = np.ndarray[Any, Any]

LEVELS = ("avx512", "avx2", "sse2")
EXACT = [
    "add", "sub", "mul", "div", "neg", "abs", "sign", "idiv", "floordiv", "mod", "fmod", "min", "max", "sqrt", "floor", "ceil", "round",
    "trunc", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "and", "or", "xor", "not", "shl", "shr", "select", "fma", "pow",
]  # fmt: skip
FLOAT_MATH = [
    "exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
]  # fmt: skip


def samples(dtype: DType, count: int, seed: int) -> Array:
    """The special values of a dtype against each other, then random ones."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(np.bool_)
    if dtype.is_float:
        special = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1e-42, 3e38, -3e38, 127.5, -128.5, 65520.0, 8388609.0]
        special += [np.inf, -np.inf, np.nan]
        spread = rng.normal(size=count) * 10.0 ** rng.uniform(-9, 9, count)
        whole = rng.integers(-9, 10, count // 2) / 2
        with np.errstate(over="ignore"):
            return np.resize(np.concatenate([rng.permutation(special * 3), spread, whole]), count).astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    edges = np.array([limits.min, limits.min + 1, limits.max, 0, 1, 2, 3, 7, dtype.bits - 1, dtype.bits], dtype.numpy)
    ends = [limits.max] if dtype.kind == "u" else [limits.max, -1]
    return np.concatenate([
        rng.choice(np.append(edges, np.array(ends, dtype.numpy)), count // 2),
        rng.integers(limits.min, limits.max, count // 4, dtype.numpy),
        rng.integers(0, 12, count - count // 2 - count // 4).astype(dtype.numpy),
    ])  # fmt: skip


def arguments(fn: str, dtype: DType, tools: Any, count: int = 96) -> list[Array]:
    return [samples(source, count, seed) for seed, source in enumerate(tools.sources_of(fn, dtype))]


def same(result: Array, expected: Array, tolerance: float = 0.0) -> Array:
    """Elementwise: equal, or both NaN, or within a relative tolerance."""
    with np.errstate(all="ignore"):
        equal = result == expected
        if result.dtype.kind == "f":
            equal |= np.isnan(result) & np.isnan(expected)
            if tolerance:
                equal |= np.abs(result - expected) <= tolerance * np.abs(expected)
    return np.asarray(equal)


def meaning(fn: str, dtype: DType, inputs: Sequence[Array]) -> Array:
    with np.errstate(all="ignore"):
        return apply(fn, bool_ if fn in COMPARISONS else dtype, *inputs)


def test_exact_and_math_make_up_all_primitives() -> None:
    assert sorted(EXACT + FLOAT_MATH) == sorted(PRIMITIVES)


@pytest.mark.parametrize("level", LEVELS)
def test_primitives(tools: Any, level: str) -> None:
    """Exact, but for what the machine may fuse (fma) and float pow, which has its own test."""
    names = [(fn, dtype) for fn in EXACT for dtype in ALL if tools.has_primitive(fn, dtype)]
    assert len(names) > 240
    cases = [tools.primitive(fn, dtype, lanes, arguments(fn, dtype, tools)) for fn, dtype in names for lanes in (1, 16)]
    results = tools.run_cases(cases, level)
    for number, (fn, dtype) in enumerate(names):
        inputs = cases[2 * number].inputs
        loose = dtype.is_float and fn in ("fma", "pow")
        tolerance = (1e-5 if fn == "fma" else 1e-6) if loose else 0.0
        for lanes, result in zip((1, 16), results[2 * number : 2 * number + 2], strict=True):
            fits = same(result, meaning(fn, dtype, inputs), tolerance)
            wrong = [(*(array[i] for array in inputs), result[i]) for i in np.flatnonzero(~fits)[:3]]
            assert not wrong, f"{fn} {dtype} lanes={lanes}: {wrong}, expected {meaning(fn, dtype, inputs)[~fits][:3]}"


@pytest.mark.parametrize("level", LEVELS)
def test_casts(tools: Any, level: str) -> None:
    pairs = [(source, to) for source in ALL for to in ALL]
    cases = [tools.conversion(source, to, lanes, [samples(source, 160, 5)]) for source, to in pairs for lanes in (1, 16)]
    results = tools.run_cases(cases, level)
    for number, (source, to) in enumerate(pairs):
        with np.errstate(all="ignore"):
            expected = convert(cases[2 * number].inputs[0], to)
        for result in results[2 * number : 2 * number + 2]:
            fits = same(result, expected)
            assert fits.all(), (source, to, cases[2 * number].inputs[0][~fits][:4], result[~fits][:4], expected[~fits][:4])


@pytest.mark.parametrize("level", LEVELS)
def test_every_float16(tools: Any, level: str) -> None:
    """All 65536 bit patterns to float32; and float32 and float64 values on, beside and half way between float16 ones back."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.unique(halves[np.isfinite(halves)].astype(np.float64))
    middle = (finite[1:] + finite[:-1]) / 2
    near = np.concatenate([finite, middle, np.nextafter(middle, 0), np.nextafter(middle, 1e9), [65519.99, 65520.0, 1e9, 1e-12]])
    with np.errstate(over="ignore"):
        pairs = ((f16, f32, halves), (f32, f16, near.astype(np.float32)), (f64, f16, near))
        cases = [tools.conversion(source, to, 16, [values]) for source, to, values in pairs]
        for case, result in zip(cases, tools.run_cases(cases, level), strict=True):
            expected = case.inputs[0].astype(case.out.numpy)
            assert same(result, expected).all()
            assert (np.signbit(result) == np.signbit(expected))[~np.isnan(expected)].all()


def test_cast_without_target_is_the_same(tools: Any) -> None:
    """emit_cast without a target converts float16 in integer arithmetic, on every machine."""
    values = samples(f32, 320, 9)
    portable = tools.Case(lambda f, args, n, target: emit_cast(f, args[0], f32, f16, n), [f32], f16, 16, [values])
    native = tools.conversion(f32, f16, 16, [values])
    a, b = tools.run_cases([portable, native], "avx2")
    assert same(a, b).all()
    assert "fptrunc" not in tools.element_loop(portable, tools.TARGETS["avx2"])


def test_relu_is_one_instruction(tools: Any) -> None:
    """max(x, 0) with NaN winning is the bare vmaxps, without a compare."""
    body = lambda f, args, n, target: emit_primitive(f, "max", f32, f32, n, [args[0], emit_const(const(0.0, f32), n)], target)  # noqa: E731
    x = np.array([-1.0, 2.0, np.nan, -0.0], np.float32)
    case = tools.Case(body, [f32], f32, 16, [x])
    np.testing.assert_array_equal(tools.run_cases([case], "avx512")[0], [0, 2, np.nan, 0])
    machine = tools.target_machine(tools.TARGETS["avx512"])
    assembly = machine.emit_assembly(tools.parsed(tools.element_loop(case, tools.TARGETS["avx512"]), machine))
    assert "vmaxps" in assembly
    assert "vcmp" not in assembly


def test_constants_wrap(tools: Any) -> None:
    assert emit_const(const(-1, u8), 1) == ("255", "i8")
    assert emit_const(const(True, bool_), 4) == ("splat (i1 true)", "<4 x i1>")
    assert splat(None, emit_const(const(3, i64), 1), 2) == ("splat (i64 3)", "<2 x i64>")


def test_helpers_are_defined_once(tools: Any) -> None:
    """sin, cos and fmod share scalar functions; a kernel may use them all, beside the same intrinsics."""

    def body(f: Any, args: Any, n: int, target: Any) -> Any:
        f.call("llvm.ctlz.i64", "i64", i64_value(1), i1_false())
        x = emit_primitive(f, "sin", f32, f32, n, args, target)
        y = emit_primitive(f, "cos", f32, f32, n, [x], target)
        z = emit_primitive(f, "fmod", f32, f32, n, [x, y], target)
        return emit_primitive(f, "mod", f32, f32, n, [z, y], target)

    x = np.linspace(-1e9, 1e9, 64, dtype=np.float32)
    result = tools.run_cases([tools.Case(body, [f32], f32, 16, [x])], "avx2")[0]
    sine = np.sin(x.astype(np.float64)).astype(np.float32)
    cosine = np.cos(sine.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(result, np.mod(np.fmod(sine, cosine), cosine), atol=2e-7)


def i64_value(value: int) -> Value:
    return Value(str(value), "i64")


def i1_false() -> Value:
    return Value("false", "i1")
