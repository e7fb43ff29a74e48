"""Casts between element types over lanes, as numpy's astype; float to integer truncates and saturates, NaN gives 0.

float16 <-> float32 is the machine's conversion where the target has one, else integer arithmetic on the bits: LLVM would call
compiler-rt for it, which is not there.
"""

from __future__ import annotations

from graphc.target import TARGETS, Target
from graphc.types.dtype import DType, f16, f32
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.emit.lanes import Lanes, float_literal, intrinsic_suffix, splat_literal


def emit_cast(f: Function, value: Value, source: DType, to: DType, lanes: int, target: Target | None = None) -> Value:
    """`value` of dtype `source` as dtype `to`. Without a target, float16 is converted with integer arithmetic (right everywhere)."""
    if source == to:
        return value
    if "float16" in (source.name, to.name):
        return _cast_half(f, value, source, to, lanes, target)
    old, new = scalar_type(source), scalar_type(to)
    type = vector_type(new, lanes)
    if to.kind == "b":
        zero = splat_literal(float_literal(0.0, old) if source.is_float else "0", old, lanes)
        return f.op(f"{'fcmp une' if source.is_float else 'icmp ne'} {value}, {zero.name}", vector_type("i1", lanes))
    if source.is_float and to.is_float:
        return f.op(f"{'fpext' if to.bits > source.bits else 'fptrunc'} {value} to {type}", type)
    if source.is_float:
        name = "fptosi" if to.kind == "i" else "fptoui"
        return f.call(f"llvm.{name}.sat.{intrinsic_suffix(new, lanes)}.{intrinsic_suffix(old, lanes)}", type, value)
    if to.is_float:
        return f.op(f"{'sitofp' if source.kind == 'i' else 'uitofp'} {value} to {type}", type)
    if source.kind != "b" and source.bits == to.bits:
        return value
    shrinks = source.kind != "b" and to.bits < source.bits
    return f.op(f"{'trunc' if shrinks else 'sext' if source.kind == 'i' else 'zext'} {value} to {type}", type)


def _native_half(target: Target | None) -> bool:
    return target is not None and (not target.triple.startswith("x86") or "+f16c" in target.features)


def _cast_half(f: Function, value: Value, source: DType, to: DType, lanes: int, target: Target | None) -> Value:
    """Through float32: exact from float16, from integers (what float32 rounds is beyond float16) and, rounding to odd, from float64."""
    if to != f16:
        single = _extend(f, value, lanes, target)
        return emit_cast(f, single, f32, to, lanes, target)
    if source.name == "float64":
        single = _to_odd(Lanes(f, 32, lanes, target or TARGETS["sse2"]), value)
    else:
        single = emit_cast(f, value, source, f32, lanes, target)
    return _truncate(f, single, lanes, target)


def _to_odd(v: Lanes, value: Value) -> Value:
    """float64 to float32, rounded to odd: rounding that once more to float16 is as good as rounding once."""
    near = v.narrow(value)
    back, wide = v.widen(near), v.wide()
    bits = v.bits(near)
    above = wide.compare("ogt", wide.abs(back), wide.abs(value))
    below = v.integer_select(above, v.integer_op("sub", bits, 1), bits)
    return v.from_bits(v.integer_select(wide.compare("one", back, value), v.integer_op("or", below, 1), bits))


def _extend(f: Function, value: Value, lanes: int, target: Target | None) -> Value:
    single = vector_type("float", lanes)
    if _native_half(target):
        return f.op(f"fpext {value} to {single}", single)
    v = Lanes(f, 32, lanes, target or TARGETS["sse2"])
    short = f.op(f"bitcast {value} to {vector_type('i16', lanes)}", vector_type("i16", lanes))
    half = f.op(f"zext {short} to {v.integer}", v.integer)
    size = v.integer_op("and", half, 0x7FFF)
    sign = v.integer_op("shl", v.integer_op("and", half, 0x8000), 16)
    shifted = v.integer_op("shl", size, 13)
    normal = v.integer_op("add", shifted, (127 - 15) << 23)
    special = v.integer_op("or", shifted, 0x7F800000)
    tiny = v.bits(v.mul(v.from_int(size), 2.0**-24))  # denormal: its integer times the smallest one
    bits = v.integer_select(v.integer_compare("ult", size, 0x7C00), normal, special)
    bits = v.integer_select(v.integer_compare("ult", size, 0x0400), tiny, bits)
    return v.from_bits(v.integer_op("or", bits, sign))


def _truncate(f: Function, value: Value, lanes: int, target: Target | None) -> Value:
    half = vector_type("half", lanes)
    if _native_half(target):
        return f.op(f"fptrunc {value} to {half}", half)
    v = Lanes(f, 32, lanes, target or TARGETS["sse2"])
    bits = v.bits(value)
    size = v.integer_op("and", bits, 0x7FFFFFFF)
    sign = v.integer_op("and", v.integer_op("lshr", bits, 16), 0x8000)
    odd = v.integer_op("and", v.integer_op("lshr", size, 13), 1)
    rounded = v.integer_op("add", v.integer_op("add", size, 0xFFF - ((127 - 15) << 23)), odd)
    normal = v.integer_op("lshr", rounded, 13)
    half_bits = 0x3F000000  # of 0.5, whose last bit is worth one float16 denormal step: the addition rounds to even
    tiny = v.integer_op("sub", v.bits(v.add(v.from_bits(size), 0.5)), half_bits)
    nan = v.integer_compare("ugt", size, 0x7F800000)
    special = v.integer_select(nan, 0x7E00, 0x7C00)
    result = v.integer_select(v.integer_compare("ult", size, 0x38800000), tiny, normal)
    result = v.integer_select(v.integer_compare("uge", size, 0x47800000), special, result)
    result = v.integer_op("or", result, sign)
    short = f.op(f"trunc {result} to {vector_type('i16', lanes)}", vector_type("i16", lanes))
    return f.op(f"bitcast {short} to {half}", half)
