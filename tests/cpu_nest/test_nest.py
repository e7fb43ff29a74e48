"""The generic kernel generator against the numpy model, at every machine level."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from cpu_nest.harness import LEVELS, check, object_code, output_nest, over_output, runs, tensor
from cpu_nest.samples import SAMPLES, lanes_sample
from graphc.errors import VerifyError
from graphc.ir.builder import Builder
from graphc.kernel.canonical import canonical
from graphc.kernel.expr import arg, call, cast, index, load, reduce
from graphc.kernel.spec import Nest, NestSpec, StoreAt
from graphc.ops.gather import Gather
from graphc.ops.movement import Pad, Reshape
from graphc.ops.pointwise import Cast
from graphc.target import TARGETS, named
from graphc.types.dtype import DType, bool_, f32, f64, i16, i32, i64, u8
from graphc_cpu import jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernels.nest import emit_nest


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str) -> None:
    spec = SAMPLES[name]()
    written = check(spec)
    inputs = len(spec.inputs)
    for slot, operand in enumerate(spec.outputs, start=inputs):
        assert not operand.elements or written[slot].size == operand.elements


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 63, 64, 65, 66, 127, 130])
def test_sizes_around_the_lanes(size: int) -> None:
    check(lanes_sample(size), tolerance=4e-6)


@pytest.mark.parametrize("name", SAMPLES)
def test_neon_objects_need_nothing(name: str) -> None:
    assert object_code(SAMPLES[name](), "neon")


@pytest.mark.parametrize("name", [name for k, name in enumerate(SAMPLES) if k % 4 == 0])
def test_canonical_specs_compute_the_same(name: str) -> None:
    check(canonical(SAMPLES[name]()), levels=["avx2"])


def test_outside_lanes_are_never_touched() -> None:
    """Reading or writing one element too many in either direction would hit a page that is not there."""
    import mmap

    page = mmap.PAGESIZE
    spec = SAMPLES["softmax over 33"]()
    for level in TARGETS:
        if level == "neon" or not runs(level):
            continue
        library = jit.load([object_code(spec, level)])
        rng = np.random.default_rng(0)
        for at_end in (False, True):
            guarded = [_guarded(operand.elements, page, at_end) for operand in spec.operands]
            guarded[0][:] = rng.standard_normal(guarded[0].size)
            library.call("k", guarded, 2)
            assert np.allclose(guarded[1].reshape(5, 33).sum(1), 1.0)


def _guarded(elements: int, page: int, at_end: bool) -> np.ndarray:
    """f32 elements directly before (after) a page without access."""
    import ctypes
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    pages = -(-elements * 4 // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (address, address + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(guard), page, 0) == 0
    start = page + (pages * page - elements * 4 if at_end else 0)
    return np.frombuffer(memory, np.float32, elements, start)


@pytest.mark.parametrize(("of", "to"), [(i32, u8), (i32, i16), (i16, u8), (i64, f64)], ids=str)
@pytest.mark.parametrize("size", [9, 17, 33])
def test_a_single_last_lane_is_stored_alone(size: int, of: DType, to: DType) -> None:
    """Under a mask it would be stored in the width that it had before the cast."""
    spec = over_output([tensor(size, dtype=of)], tensor(size, dtype=to), lambda x: lambda i: cast(x(i), to))
    check(spec, [np.arange(1, size + 1, dtype=of.numpy), np.full(size + 8, 77, to.numpy)])


@pytest.mark.parametrize(("of", "to"), [(i64, f64), (f64, i64), (f64, i32), (i32, f32), (i32, u8)], ids=str)
@pytest.mark.parametrize("shape", [(9, 10), (17, 18), (25, 7)], ids=str)
def test_a_last_column_is_transposed_and_converted(shape: tuple[int, int], of: DType, to: DType) -> None:
    n, m = shape
    spec = over_output([tensor(n, m, dtype=of)], tensor(m, n, dtype=to), lambda x: lambda i, j: cast(x(j, i), to))
    check(spec, [(np.arange(n * m) % 120).astype(of.numpy), np.full(n * m + 8, 77, to.numpy)])


def test_the_only_lane_of_a_part_is_read_from_a_fixed_place() -> None:
    """The last column of padding, whose place in the padded rows behind it is a quotient."""
    builder = Builder()
    x = builder.input("x", i16, (9, 15))
    rows = builder.add(Reshape((18, 10)), builder.add(Pad((1, 2), (0, 1)), x))
    row = builder.add(Cast(bool_), builder.add(Gather(0), rows, builder.constant([3], i64)))
    builder.graph.set_outputs({"y": builder.add(Pad((0, 0), (2, 1)), row)})
    array = np.arange(135, dtype=np.int16).reshape(9, 15) % 3
    wanted = np.pad(np.pad(array, ((1, 0), (2, 1))).reshape(18, 10)[3:4] != 0, ((0, 2), (0, 1)))
    for level in filter(runs, LEVELS):
        np.testing.assert_array_equal(graphc.compile(builder.graph, target=level)(array), wanted)


def test_long_sums_are_accurate() -> None:
    """Partial sums per lane: the error grows far slower than that of one accumulator."""
    spec = over_output([tensor(100_000)], tensor(), lambda x: lambda: reduce("sum", [100_000], lambda r: x(r)))
    x = np.random.default_rng(1).random(100_000).astype(np.float32)
    library = jit.load([object_code(spec, "sse2")])
    out = np.zeros(1, np.float32)
    library.call("k", [x, out])
    assert abs(out[0] - x.astype(np.float64).sum()) < 2e-6 * x.sum()


def test_nan_and_infinity_pass_through_reductions() -> None:
    spec = over_output([tensor(4, 21)], tensor(4), lambda x: lambda i: reduce("max", [21], lambda r: x(i, r)))
    x = np.zeros((4, 21), np.float32)
    x[0, 3], x[1, 20], x[2] = np.nan, np.inf, -np.inf
    check(spec, [x.reshape(-1), np.zeros(4, np.float32)])


def test_in_place() -> None:
    """An elementwise kernel may write over its input."""
    spec = over_output([tensor(3, 211)], tensor(3, 211), lambda x: lambda i, j: call("exp", x(i, j)) - 1.0)
    x = np.random.default_rng(2).standard_normal(3 * 211).astype(np.float32)
    for level in ("avx512", "avx2", "sse2"):
        if runs(level):
            buffer = x.copy()
            jit.load([object_code(spec, level)]).call("k", [buffer, buffer], 2)
            np.testing.assert_allclose(buffer, np.exp(x) - 1, rtol=1e-5, atol=1e-6)


def test_shares_of_threads_are_disjoint_and_complete() -> None:
    """With 7 threads every element is written exactly once: by a spec that counts up its output."""
    out = tensor(37, 1001)
    nest = output_nest(1, out, lambda i, j: cast(i * 1001 + j, f64))
    spec = NestSpec("map", (tensor(1),), (tensor(37, 1001, dtype=f64),), (nest,))
    library = jit.load([object_code(spec, "avx2")]) if runs("avx2") else None
    if library is None:
        pytest.skip("this machine has no AVX2")
    one, parts = np.zeros(1, np.float32), []
    for thread in range(7):
        buffer = np.full(37 * 1001, np.nan)
        kernel_of_one_thread(library, [one, buffer], thread, 7)
        parts.append(buffer)
    written = ~np.isnan(np.array(parts))
    assert (written.sum(0) == 1).all()
    assert (written.sum(1) > 0).all()


def kernel_of_one_thread(library: jit.Library, arrays: list[np.ndarray], thread: int, threads: int) -> None:
    import ctypes

    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    library.function("k")(ctypes.addressof(pointers), thread, threads)


@pytest.mark.parametrize("name", ["large flat map", "max pool blocked", "softmax over 130", "layer norm"])
def test_code_is_small_and_does_not_spill(name: str) -> None:
    target = named("avx512")
    text = module(target.triple, [emit_nest(SAMPLES[name](), target, "k")])
    assert text.count("\n") < 900
    assembly = jit.assembly(text, target)
    spills = [line for line in assembly.splitlines() if "Spill" in line and "zmm" in line]
    assert not spills


def test_index_data_of_i64_stays_exact() -> None:
    spec = over_output([tensor(33, dtype=i64)], tensor(33, dtype=i64), lambda x: lambda i: x(i) * 3 + i)
    big = (np.arange(33) << 40).astype(np.int64)
    check(spec, [big, np.zeros(33, np.int64)])


def test_broken_specs_are_refused() -> None:
    i = index("i", 4)
    for value in (arg("x", f32), load(0, i, f64), load(0, i, i32)):
        spec = NestSpec("map", (tensor(4),), (tensor(4, dtype=value.dtype),), (Nest((i,), (StoreAt(1, i, value),)),))
        with pytest.raises(VerifyError):
            emit_nest(spec, named("avx2"), "k")
    wrong = NestSpec("map", (tensor(4),), (tensor(4, dtype=f64),), (Nest((i,), (StoreAt(1, i, load(0, i, f32)),)),))
    with pytest.raises(VerifyError, match="stored"):
        emit_nest(wrong, named("avx2"), "k")
