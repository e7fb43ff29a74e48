"""Vectors from and to memory: contiguous, strided, and with only the first lanes valid. bool is i1 in registers and i8 in memory."""

from __future__ import annotations

from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, memory_type, scalar_type, vector_type
from graphc_cpu.emit.lanes import intrinsic_suffix


def broadcast(f: Function, scalar: Value, lanes: int) -> Value:
    """All lanes the same: a shape that instruction selection folds into the multiply's memory operand."""
    if lanes == 1:
        return scalar
    vector = vector_type(scalar.type, lanes)
    one = f.op(f"insertelement {vector} poison, {scalar}, i64 0", vector)
    return f.op(f"shufflevector {one}, {vector} poison, <{lanes} x i32> zeroinitializer", vector)


def load_lanes(f: Function, pointer: Value, dtype: DType, lanes: int, stride: int, valid: int) -> Value:
    """`valid` lanes from pointer + lane * stride (elements); the other lanes are zero and their memory is not touched."""
    element = memory_type(dtype)
    if stride == 0 or lanes == 1:
        return broadcast(f, load_scalar(f, pointer, dtype), lanes)
    vector = vector_type(element, lanes)
    if stride == 1 and valid == lanes:
        loaded = f.load(vector, pointer, dtype.itemsize)
    elif stride == 1:
        loaded = _masked_load(f, pointer, dtype, vector, lanes, valid)
    else:
        loaded = Value("zeroinitializer", vector)
        for lane in range(valid):
            scalar = f.load(element, f.pointer(pointer, lane * stride, element), dtype.itemsize)
            loaded = f.op(f"insertelement {loaded}, {scalar}, i64 {lane}", vector)
    return _to_register(f, loaded, dtype, lanes)


def load_transposed(f: Function, pointer: Value, dtype: DType, lanes: int, pitch: int, valid: int) -> list[Value]:
    """The columns of a square of `lanes` rows that lie `pitch` elements apart: result[j][lane] = pointer[lane * pitch + j].

    Rows from `valid` on count as zero. log2(lanes) rounds of interleaving pairs of registers.
    """
    element = memory_type(dtype)
    vector = vector_type(element, lanes)
    rows = [f.load(vector, f.pointer(pointer, row * pitch, element), dtype.itemsize) for row in range(valid)]
    rows += [Value("zeroinitializer", vector)] * (lanes - valid)
    half = lanes // 2
    low = [lane // 2 + lane % 2 * lanes for lane in range(lanes)]
    for _ in range(lanes.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [_shuffle(f, a, b, [lane + start for lane in low]) for a, b in pairs for start in (0, half)]
    return rows


def _shuffle(f: Function, a: Value, b: Value, lanes: list[int]) -> Value:
    mask = ", ".join(f"i32 {lane}" for lane in lanes)
    return f.op(f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{mask}>", a.type)


def load_scalar(f: Function, pointer: Value, dtype: DType) -> Value:
    return _to_register(f, f.load(memory_type(dtype), pointer, dtype.itemsize), dtype, 1)


def store_lanes(f: Function, value: Value, pointer: Value, dtype: DType, lanes: int, stride: int, valid: int) -> None:
    """The first `valid` lanes to pointer + lane * stride (elements). A single one is stored without a mask: LLVM 22 stores it in the width
    that it had before a conversion."""
    value = _to_memory(f, value, dtype, lanes)
    element = memory_type(dtype)
    if lanes == 1 or (stride == 1 and valid == lanes):
        f.store(value, pointer, dtype.itemsize)
    elif stride == 1 and valid > 1:
        name = f"llvm.masked.store.{intrinsic_suffix(element, lanes)}.p0"
        f.declare(f"declare void @{name}({value.type}, ptr, <{lanes} x i1>)")
        f.do(f"call void @{name}({value}, ptr align {dtype.itemsize} {pointer.name}, {mask_literal(lanes, valid)})")
    else:
        for lane in range(valid):
            scalar = f.op(f"extractelement {value}, i64 {lane}", element)
            f.store(scalar, f.pointer(pointer, lane * stride, element), dtype.itemsize)


def zero_tail(f: Function, value: Value, lanes: int, valid: int) -> Value:
    """The value with zeros in the lanes from `valid` on."""
    if valid == lanes:
        return value
    return f.op(f"select {mask_literal(lanes, valid)}, {value}, {value.type} zeroinitializer", value.type)


def mask_literal(lanes: int, valid: int) -> Value:
    """<i1 true, ..., i1 false, ...>: the first `valid` lanes."""
    bits = ", ".join(f"i1 {'true' if lane < valid else 'false'}" for lane in range(lanes))
    return Value(f"<{bits}>", f"<{lanes} x i1>")


def _masked_load(f: Function, pointer: Value, dtype: DType, vector: str, lanes: int, valid: int) -> Value:
    name = f"llvm.masked.load.{intrinsic_suffix(memory_type(dtype), lanes)}.p0"
    f.declare(f"declare {vector} @{name}(ptr, <{lanes} x i1>, {vector})")
    arguments = f"ptr align {dtype.itemsize} {pointer.name}, {mask_literal(lanes, valid)}, {vector} zeroinitializer"
    return f.op(f"call {vector} @{name}({arguments})", vector)


def _to_register(f: Function, value: Value, dtype: DType, lanes: int) -> Value:
    if dtype.kind != "b":
        return value
    zero = "zeroinitializer" if lanes > 1 else "0"
    return f.op(f"icmp ne {value}, {zero}", vector_type(scalar_type(dtype), lanes))


def _to_memory(f: Function, value: Value, dtype: DType, lanes: int) -> Value:
    if dtype.kind != "b":
        return value
    wide = vector_type("i8", lanes)
    return f.op(f"zext {value} to {wide}", wide)
