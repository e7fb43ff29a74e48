"""Compiling in parallel and loading: same bytes on every path, clear errors, code that lives as long as it is used."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.errors import BackendError, GraphcError
from graphc.target import TARGETS, Target
from graphc.types.dtype import f32
from graphc_cpu import codegen, elf, host, jit
from graphc_cpu.emit.ir import Function, module
from graphc_cpu.micro.outer import OuterTile, Pixels


def fill_ir(name: str, value: float, target: Target) -> str:
    """kernel(args): args[0][0..15] = value."""
    f = Function(name, [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])
    out = f.load("ptr", f.parameters[0], 8)
    f.do(f"store <16 x float> splat (float {value}), ptr {out.name}, align 4")
    return module(target.triple, [f])


def modules(target: Target, count: int = 12) -> list[tuple[str, Callable[[], str]]]:
    return [(f"fill{i}", lambda i=i: fill_ir(f"fill{i}", float(i), target)) for i in range(count)]


def test_threads_and_locked_path_give_the_same_bytes() -> None:
    target = host.host_target()
    serial = jit.compile_objects(modules(target), target, threads=1)
    assert codegen.raw_functions() is not None, "this llvmlite is known to have the unlocked functions"
    locked = {key: codegen.Generator(target, unlocked=False).object(emit()) for key, emit in modules(target)}
    assert jit.compile_objects(modules(target), target, threads=4) == serial == locked
    assert list(serial) == [f"fill{i}" for i in range(12)]


def test_falls_back_where_llvmlite_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    target = host.host_target()
    expected = codegen.Generator(target).object(fill_ir("f", 1.0, target))
    monkeypatch.setattr(codegen, "_EXPECTED", {"LLVMPY_ParseAssembly": 7})
    codegen.raw_functions.cache_clear()
    try:
        assert codegen.raw_functions() is None
        assert codegen.Generator(target).object(fill_ir("f", 1.0, target)) == expected
    finally:
        monkeypatch.undo()
        codegen.raw_functions.cache_clear()


def outer_ir(target: Target) -> str:
    """A loop full of multiply-adds, whose code depends on the passes that are off on some machines."""
    f = Function("outer", [("ptr", "x"), ("ptr", "g"), ("ptr", "sums")])
    x, g, sums = f.parameters
    lanes = target.lanes(f32)
    places = [f.pointer(sums, i * lanes, "float") for i in range(24)]
    OuterTile(f, f32, lanes, range(12), [0, 1000], [Pixels(9, 100, 3000), Pixels(60, 12, 2 * lanes)]).emit(x, g, places)
    return module(target.triple, [f])


def test_levels_that_are_compiled_at_once_do_not_disturb_each_other() -> None:
    texts = {level: outer_ir(target) for level, target in TARGETS.items()}
    alone = {level: codegen.Generator(TARGETS[level]).object(text) for level, text in texts.items()}
    done: list[bool] = []

    def compile_often(level: str) -> None:
        target = TARGETS[level]
        for _ in range(5):
            found = jit.compile_objects([(level, lambda: texts[level])] * 2, target, threads=2)
            done.append(found[level] == alone[level])

    threads = [threading.Thread(target=compile_often, args=(level,)) for level in (*TARGETS, *TARGETS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [True] * 10 * len(TARGETS)


def test_code_of_others_is_generated_as_ever() -> None:
    target = TARGETS["avx512"]
    text = outer_ir(target)

    def foreign() -> str:
        parsed = llvm.parse_assembly(text)
        assembly: str = codegen.target_machine(target).emit_assembly(parsed)
        return assembly

    before = foreign()
    assert jit.assembly(text, target) != before
    assert foreign() == before


@pytest.mark.parametrize("level", sorted(TARGETS))
def test_every_level_compiles_here(level: str) -> None:
    data = jit.compile_objects(modules(TARGETS[level], 1), TARGETS[level])["fill0"]
    assert elf.symbols(data) == (("fill0",), ())
    assert "fill0" in jit.assembly(fill_ir("fill0", 1.0, TARGETS[level]), TARGETS[level])


def test_loaded_kernels_run() -> None:
    target = host.host_target()
    with jit.load(jit.compile_objects(modules(target), target)) as library:
        assert len(library) == 12
        assert all(library[name] == library.address(name) for name in library)
        for i in range(12):
            out = np.full(16, -1, np.float32)
            library.call(f"fill{i}", [out])
            np.testing.assert_array_equal(out, np.float32(i))


def test_a_function_keeps_its_library() -> None:
    target = host.host_target()
    function = jit.build({"fill": fill_ir("fill", 3.0, target)}, target).function("fill")
    gc.collect()
    out = np.zeros(16, np.float32)
    pointers = np.array([out.ctypes.data], np.uint64)
    function(pointers.ctypes.data, 0, 1)
    np.testing.assert_array_equal(out, np.float32(3))


def test_libm_resolves_in_the_process() -> None:
    f = Function("use", [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])
    slot = f.load("ptr", f.parameters[0], 8)
    value = f.load("double", slot, 8)
    f.store(f.call("fmod", "double", value, value._replace(name="1.5")), slot, 8)
    target = host.host_target()
    data = np.array([4.0])
    jit.build({"use": module(target.triple, [f])}, target).call("use", [data])
    assert data[0] == 1.0


def raises(text: str, *objects_or_ir: str) -> None:
    target = host.host_target()
    with pytest.raises(BackendError, match=text):
        jit.build({f"m{i}": ir for i, ir in enumerate(objects_or_ir)}, target)


def test_undefined_symbol_is_named() -> None:
    raises(
        "undefined symbol: nowhere_defined",
        "declare void @nowhere_defined()\ndefine void @f() {\n call void @nowhere_defined()\n ret void\n}",
    )


def test_symbol_defined_twice_is_named() -> None:
    raises("symbol defined twice: f", "define void @f() {\n ret void\n}", "define void @f() {\n unreachable\n}")


@pytest.mark.parametrize("ir", ["nonsense", "define i32 @f(i1 %c) {\n %x = add i32 1, %y\n ret i32 %x\n}"])
def test_text_that_does_not_parse_names_the_kernel(ir: str) -> None:
    raises("(?s)LLVM rejects generated code.*error", ir)
    with pytest.raises(BackendError) as info:
        jit.compile_objects([("conv 3x3", lambda: ir)], host.host_target())
    assert "kernel conv 3x3" in str(info.value)


def test_text_that_does_not_verify_is_rejected() -> None:
    broken = "define i32 @f(i1 %c) {\ne:\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n br label %b\nb:\n ret i32 %x\n}"
    raises("does not dominate", broken)


def test_an_error_while_emitting_reaches_the_caller() -> None:
    def fails() -> str:
        raise GraphcError("no such tile")

    good = modules(host.host_target(), 3)
    with pytest.raises(GraphcError, match="no such tile") as info:
        jit.compile_objects([*good, ("bad", fails)], host.host_target(), threads=2)
    assert info.value.where == "kernel bad"


def test_broken_object_is_an_error() -> None:
    data = jit.compile_objects(modules(host.host_target(), 1), host.host_target())["fill0"]
    for broken in (b"", b"garbage", data[:100], data[: len(data) // 2]):
        with pytest.raises(BackendError):
            jit.load([broken])


def test_closed_library_and_unknown_symbol() -> None:
    target = host.host_target()
    library = jit.build({"fill": fill_ir("fill", 3.0, target)}, target)
    with pytest.raises(BackendError, match="no symbol 'other'"):
        library.address("other")
    library.close()
    library.close()
    with pytest.raises(BackendError, match="closed"):
        library.address("fill")


def test_foreign_code_is_not_executed() -> None:
    foreign = next(level for level in TARGETS.values() if host.missing_features(level))
    with pytest.raises(BackendError, match="cannot run code for target"):
        jit.build({"fill": fill_ir("fill", 1.0, foreign)}, foreign)
