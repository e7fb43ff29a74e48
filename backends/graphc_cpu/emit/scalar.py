"""Primitives of the expression language as LLVM code, on scalars (lanes=1) and on vectors of any number of lanes.

`emit_primitive` finds the emitter of a primitive in the tables of the modules beside this one: floats here and in math_*.py, integers
in integer.py, conversions in convert.py. Nothing calls libm or any other function, whatever the target. Floats carry only the
`contract` flag. float16 is a storage type: it is loaded, stored and cast, and a pass widens what is computed in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.errors import UnsupportedError
from graphc.kernel.expr import Expr
from graphc.target import Target
from graphc.types.dtype import DType
from graphc_cpu.emit import math_arc, math_erf, math_exp, math_log, math_modulo, math_pow, math_trig
from graphc_cpu.emit.convert import emit_cast
from graphc_cpu.emit.integer import emit_bool, emit_integer
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.emit.lanes import Lanes, float_literal, splat_literal

__all__ = ["emit_cast", "emit_const", "emit_primitive", "splat"]


def splat(f: Function, value: Value, lanes: int) -> Value:
    """A scalar in every lane."""
    if lanes == 1:
        return value
    if not value.name.startswith("%"):
        return splat_literal(value.name, value.type, lanes)
    type = vector_type(value.type, lanes)
    first = f.op(f"insertelement {type} poison, {value}, i64 0", type)
    return f.op(f"shufflevector {first}, {type} poison, <{lanes} x i32> zeroinitializer", type)


def emit_const(expr: Expr, lanes: int) -> Value:
    """A literal for a `const` expression; integers wrap to the dtype's range."""
    dtype, value, element = expr.dtype, expr.attr, scalar_type(expr.dtype)
    if dtype.name == "float16":
        raise UnsupportedError("float16 constants are not computed with", hint="widen to float32 and cast at the store")
    if dtype.is_float:
        text = float_literal(float(value), element)
    elif dtype.kind == "b":
        text = "true" if value else "false"
    else:
        text = str(int(value) & ((1 << dtype.bits) - 1))
    return splat_literal(text, element, lanes)


def emit_primitive(
    f: Function, expr_fn: str, dtype: DType, out_dtype: DType, lanes: int, args: Sequence[Value], target: Target
) -> Value:  # fmt: skip
    """Apply the primitive `expr_fn` to `args`, values of `dtype` (for select: the condition, then two of them).

    Raises UnsupportedError for a primitive that the dtype does not have.
    """
    if expr_fn == "select":
        condition, yes, no = args
        return f.op(f"select {condition}, {yes}, {no}", yes.type)
    if dtype.name == "float16":
        raise UnsupportedError(f"{expr_fn} on float16", hint="widen to float32 and cast at the store")
    result: Value | None
    if dtype.is_float:
        emitter = _FLOAT.get(expr_fn)
        result = emitter(Lanes(f, dtype.bits, lanes, target), *args) if emitter else None
    elif dtype.kind == "b":
        result = emit_bool(f, expr_fn, args, lanes)
    else:
        result = emit_integer(f, expr_fn, dtype, args, lanes)
    if result is None:
        raise UnsupportedError(f"{expr_fn} has no meaning on {dtype}", hint="cast the operands first")
    return result


# floats -----------------------------------------------------------------------------------------------------------------------------


def _arithmetic(opcode: str) -> Callable[..., Value]:
    return lambda v, a, b: v.function.op(f"{opcode} contract {a}, {b.name}", v.type)


def _compare(predicate: str) -> Callable[..., Value]:
    return lambda v, a, b: v.compare(predicate, a, b)


def is_number(value: Value) -> bool:
    """Whether a value is a literal that is not NaN."""
    return not value.name.startswith("%") and "0x7FF8" not in value.name and "0xFFF8" not in value.name


def _extremum(predicate: str, native: str) -> Callable[..., Value]:
    """min or max with NaN winning: one instruction where the other operand is a number or the machine has it."""

    def emit(v: Lanes, a: Value, b: Value) -> Value:
        if not v.target.triple.startswith("x86"):
            return v.intrinsic(native, a, b)
        if is_number(b):
            a, b = b, a
        best = v.select(v.compare(predicate, a, b), a, b)  # b where either is NaN
        return best if is_number(a) else v.select(v.compare("ord", a, a), best, a)  # AVX-512: a masked instruction that keeps a

    return emit


def _sign(v: Lanes, x: Value) -> Value:
    one = v.copysign(1.0, x)
    return v.select(v.compare("one", x, 0.0), one, x)


_FLOAT: dict[str, Callable[..., Value]] = {
    "add": _arithmetic("fadd"), "sub": _arithmetic("fsub"), "mul": _arithmetic("fmul"), "div": _arithmetic("fdiv"),
    "fma": lambda v, a, b, c: v.fma(a, b, c), "neg": lambda v, x: v.neg(x), "abs": lambda v, x: v.abs(x), "sign": _sign,
    "min": _extremum("olt", "minimum"), "max": _extremum("ogt", "maximum"),
    "eq": _compare("oeq"), "ne": _compare("une"),
    "lt": _compare("olt"), "le": _compare("ole"), "gt": _compare("ogt"), "ge": _compare("oge"),
    "isnan": lambda v, x: v.compare("uno", x, x), "isinf": lambda v, x: v.compare("oeq", v.abs(x), math.inf),
    "sqrt": lambda v, x: v.sqrt(x), "floor": lambda v, x: v.floor(x), "ceil": lambda v, x: v.ceil(x),
    "round": lambda v, x: v.round_even(x), "trunc": lambda v, x: v.trunc(x),
    "fmod": math_modulo.fmod, "mod": math_modulo.mod, "floordiv": math_modulo.floordiv,
    "exp": math_exp.exp, "expm1": math_exp.expm1, "sinh": math_exp.sinh, "cosh": math_exp.cosh, "tanh": math_exp.tanh,
    "log": math_log.log, "log1p": math_log.log1p, "asinh": math_log.asinh, "acosh": math_log.acosh, "atanh": math_log.atanh,
    "pow": math_pow.pow, "erf": math_erf.erf,
    "sin": math_trig.sin, "cos": math_trig.cos, "tan": math_trig.tan,
    "asin": math_arc.asin, "acos": math_arc.acos, "atan": math_arc.atan,
}  # fmt: skip
