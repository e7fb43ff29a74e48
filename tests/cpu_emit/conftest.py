"""Compile one emitted expression for a machine level and run it on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.errors import UnsupportedError
from graphc.kernel.expr import COMPARISONS, PRIMITIVES
from graphc.target import TARGETS, Target
from graphc.types.dtype import DType, bool_
from graphc_cpu.emit import ir
from graphc_cpu.emit.ir import Function, Value
from graphc_cpu.emit.scalar import emit_cast, emit_primitive

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

Body = Callable[[Function, list[Value], int, Target], Value]
Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    """`body` applied to every element of `inputs` (1-d, equally long), `lanes` elements at a time."""

    body: Body
    sources: Sequence[DType]
    out: DType
    lanes: int
    inputs: Sequence[Array] = ()


def element_loop(case: Case, target: Target, name: str = "apply") -> str:
    """The text of `void name(ptr in..., ptr out, i64 count)`, count a multiple of lanes."""
    lanes, sources = case.lanes, case.sources
    f = Function(name, [("ptr", f"p{i}") for i in range(len(sources) + 1)] + [("i64", "count")])

    def turn(i: Value, _: tuple[Value, ...]) -> tuple[Value, ...]:
        args = [read(f, pointer, i, dtype, lanes) for pointer, dtype in zip(f.parameters, sources, strict=False)]
        write(f, case.body(f, args, lanes, target), f.parameters[len(sources)], i, case.out, lanes)
        return ()

    f.loop(0, f.parameters[-1], lanes, turn)
    return ir.module(target.triple, [f])


def read(f: Function, base: Value, i: Value, dtype: DType, lanes: int) -> Value:
    memory = ir.memory_type(dtype)
    value = f.load(ir.vector_type(memory, lanes), f.pointer(base, i, memory), dtype.itemsize)
    if dtype.kind != "b":
        return value
    return f.op(f"trunc {value} to {ir.vector_type('i1', lanes)}", ir.vector_type("i1", lanes))


def write(f: Function, value: Value, base: Value, i: Value, dtype: DType, lanes: int) -> None:
    memory = ir.memory_type(dtype)
    if dtype.kind == "b":
        value = f.op(f"zext {value} to {ir.vector_type('i8', lanes)}", ir.vector_type("i8", lanes))
    f.store(value, f.pointer(base, i, memory), dtype.itemsize)


def target_machine(target: Target, jit: bool = False) -> Any:
    model = {"reloc": "default", "codemodel": "jitdefault"} if jit else {"reloc": "pic", "codemodel": "default"}
    return llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, features=target.features, opt=1, jit=jit, **model)


def parsed(text: str, machine: Any) -> Any:
    module = llvm.parse_assembly(text)
    module.data_layout = str(machine.target_data)
    module.verify()
    return module


def linked(texts: Sequence[str], machine: Any) -> Any:
    first, *rest = [parsed(text, machine) for text in texts]
    for module in rest:
        first.link_in(module)
    return first


def emit_object(texts: Sequence[str], level: str) -> bytes:
    machine = target_machine(TARGETS[level])
    return bytes(machine.emit_object(linked(texts, machine)))


def run_cases(cases: Sequence[Case], level: str) -> list[Array]:
    """Compile all cases as one module for a machine level and run each."""
    machine = target_machine(TARGETS[level], jit=True)
    module = linked([element_loop(case, TARGETS[level], f"apply{i}") for i, case in enumerate(cases)], machine)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return [run(case, engine.get_function_address(f"apply{i}")) for i, case in enumerate(cases)]


def run(case: Case, address: int) -> Array:
    count = len(case.inputs[0])
    padded = [np.ascontiguousarray(np.resize(array, -(-count // case.lanes) * case.lanes)) for array in case.inputs]
    result = np.empty(len(padded[0]), case.out.numpy)
    pointers = [array.ctypes.data for array in (*padded, result)]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64)(address)(*pointers, result.size)
    return result[:count]


def sources_of(fn: str, dtype: DType) -> list[DType]:
    return [bool_ if fn == "select" and i == 0 else dtype for i in range(PRIMITIVES[fn])]


def primitive(fn: str, dtype: DType, lanes: int, inputs: Sequence[Array] = ()) -> Case:
    out = bool_ if fn in COMPARISONS else dtype
    return Case(lambda f, args, n, target: emit_primitive(f, fn, dtype, out, n, args, target), sources_of(fn, dtype), out, lanes, inputs)


def conversion(source: DType, to: DType, lanes: int, inputs: Sequence[Array] = ()) -> Case:
    return Case(lambda f, args, n, target: emit_cast(f, args[0], source, to, n, target), [source], to, lanes, inputs)


def has_primitive(fn: str, dtype: DType) -> bool:
    try:
        element_loop(primitive(fn, dtype, 1), TARGETS["avx2"])
    except UnsupportedError:
        return False
    return True


@pytest.fixture(scope="session")
def tools() -> Any:
    """The functions of this file, for the test modules beside it."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
