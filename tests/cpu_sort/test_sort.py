"""The sorting kernel against numpy's stable sort: every dtype and level, sizes around its parts, data that its selection is worst at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from cpu_conv.cases import LEVELS, compile_one
from graphc.kernel.operand import Operand
from graphc.kernel.sort import SortSpec
from graphc.passes.base import Context
from graphc.passes.pipeline import PORTABLE, run_passes
from graphc.target import named
from graphc.types.dtype import DType, dtype, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from graphc_cpu import elf, host, jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernel_code import emit_kernel

Array = np.ndarray[Any, Any]
DTYPES = (i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64)
ROWS, BOTH = 3, ("values", "positions")
N, M = "N", "M"
SIZES = [
    (1, 1), (2, 2), (10, 3), (16, 16), (17, 5), (31, 31), (33, 16), (64, 64), (65, 30), (65, 65), (127, 64), (128, 128), (129, 1),
    (129, 129), (200, 100), (255, 2), (257, 128), (257, 129), (640, 80), (1000, 16), (1001, 17), (1025, 200), (3000, 3), (4000, 1000),
    (3000, 3000),
]  # fmt: skip


def expected(x: Array, k: int, largest: bool) -> tuple[Array, Array]:
    """NaNs are one value, beyond all others; so are zeros."""
    _, ranks = np.unique(x, return_inverse=True)
    ranks = ranks.reshape(x.shape)
    places = np.argsort(-ranks if largest else ranks, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(x, places, 1), places


def data(kind: str, shape: tuple[int, int], of: DType, rng: np.random.Generator) -> Array:
    n = shape[1]
    if kind == "random" and not of.is_float:
        info = np.iinfo(of.numpy)
        x = rng.integers(info.min, info.max, shape, of.numpy, endpoint=True)
        x[:, :: max(n // 2, 1)] = info.max
        x[:, 1 :: max(n // 2, 1)] = info.min
        return x
    plain: dict[str, Array] = {
        "random": rng.standard_normal(shape), "equals": rng.integers(0, 4, shape), "one": np.ones(shape),
        "rising": np.broadcast_to(np.arange(n) % 120, shape).copy(),
        "sparse": np.where(rng.random(shape) < 0.01, rng.random(shape) * 99, 0),
        "one class": np.where(np.arange(n) % 64 == 0, 100 - np.arange(n) % 97, rng.integers(0, 3, shape)),
    }  # fmt: skip
    x = plain[kind].astype(of.numpy)
    if of.is_float and kind == "random":
        count = min(n, 40)
        special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-7, -1e-7], of.numpy)
        x[:, rng.permutation(n)[:count]] = special[rng.integers(0, len(special), (shape[0], count))]
    return x


KINDS = ("random", "equals", "one", "rising", "sparse", "one class")


def run(spec: SortSpec, level: str, rows: list[Array]) -> list[list[Array]]:
    """The outputs for each of `rows`: the same bits for 1, 2 and 4 threads, and nothing written beyond."""
    library, found = compile_one(emit_kernel(spec, named(level), "kernel"), named(level)), []
    if not _runs(level):
        return []
    for x in rows:
        results = []
        for threads in (1, 2, 4):
            outputs = [np.full(operand.elements + 8, 77, operand.dtype.numpy) for operand in spec.operands[1:-1]]
            scratch = np.full(spec.scratch.elements * threads + 8, 2**63 + 5, np.uint64)
            library.call("kernel", [x, *outputs, scratch], threads)
            assert all((output[-8:] == 77).all() for output in outputs)
            assert (scratch[-8:] == 2**63 + 5).all()
            results.append(outputs)
        assert all(a.tobytes() == b.tobytes() for other in results[1:] for a, b in zip(results[0], other, strict=True))
        found.append([output[:-8].reshape(spec.rows, spec.k) for output in results[0]])
    return found


def _runs(level: str) -> bool:
    try:
        host.check_runs(named(level))
    except graphc.GraphcError:
        return False
    return True


def check(n: int, k: int, of: DType, level: str, largest: bool, kinds: tuple[str, ...] = KINDS) -> None:
    rng = np.random.default_rng(n * 31 + k)
    rows = [data(kind, (ROWS, n), of, rng) for kind in kinds]
    for kind, x, (values, places) in zip(kinds, rows, run(SortSpec(Operand(of, (ROWS, n)), k, largest, BOTH), level, rows), strict=False):
        wanted, at = expected(x, k, largest)
        np.testing.assert_array_equal(places, at, err_msg=kind)
        assert values.tobytes() == wanted.tobytes(), f"{kind}: not the elements' own bits"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_sizes(n: int, k: int, level: str) -> None:
    for largest in (True, False):
        check(n, k, f32, level, largest)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("of", DTYPES, ids=str)
def test_dtypes(of: DType, level: str) -> None:
    for largest in (True, False):
        for n, k in ((20, 20), (150, 7), (700, 90), (700, 700)):
            check(n, k, of, level, largest)


@pytest.mark.parametrize("of", [f32, i64], ids=str)
def test_a_long_row(of: DType) -> None:
    for k in (1, 50, 1000, 100_000):
        check(100_000, k, of, host.host_target().name, True, ("random", "equals", "sparse"))


@pytest.mark.parametrize("outputs", [("values",), ("positions",)])
def test_only_what_is_asked_for_is_stored(outputs: tuple[str, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, 300)).astype(np.float32)
    for k in (3, 300):
        ((found,),) = run(SortSpec(Operand(f32, (ROWS, 300)), k, True, outputs), host.host_target().name, [x])
        np.testing.assert_array_equal(found, expected(x, k, True)[BOTH.index(outputs[0])])


@pytest.mark.parametrize("level", [*LEVELS, "neon"])
def test_code_needs_no_library(level: str) -> None:
    target = named(level)
    for of in DTYPES:
        for k in (5, 900):
            function = emit_kernel(SortSpec(Operand(of, (2, 901)), k, True, BOTH), target, "k")
            code = jit.compile_objects([("k", lambda function=function: module(target.triple, [function]))], target)["k"]
            assert not elf.symbols(code).undefined


_exes: dict[tuple[int, int, int, bool], Any] = {}


def _compiled(n: int, k: int, axis: int, largest: bool) -> Any:
    def net(x: graphc.f32[2, n, 3]) -> Any:  # type: ignore[valid-type]
        return graphc.topk(x, k, axis, largest)

    def rows(x: graphc.f32[2, 3, n]) -> Any:  # type: ignore[valid-type]
        return graphc.topk(x, k, axis, largest)

    key = (n, k, axis, largest)
    if key not in _exes:
        _exes[key] = graphc.compile(graphc.model(net if axis == 1 else rows), threads=2)
    return _exes[key]


@given(st.sampled_from([(5, 2), (90, 40), (300, 9)]), st.sampled_from([1, 2]), st.booleans(), st.data())
def test_any_floats_along_any_axis(size: tuple[int, int], axis: int, largest: bool, draw: st.DataObject) -> None:
    n, k = size
    few = draw.draw(st.lists(st.floats(width=32), min_size=1, max_size=12))
    seed = draw.draw(st.integers(0, 99))
    x = np.random.default_rng(seed).choice(np.array(few, np.float32), (2, n, 3) if axis == 1 else (2, 3, n))
    values, places = _compiled(n, k, axis, largest)(x)
    wanted, at = expected(np.moveaxis(x, axis, -1).reshape(6, n), k, largest)
    np.testing.assert_array_equal(np.moveaxis(places, axis, -1).reshape(6, k), at)
    np.testing.assert_array_equal(np.moveaxis(values, axis, -1).reshape(6, k), wanted)


@pytest.mark.parametrize("largest", [True, False])
def test_as_pytorch(largest: bool) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(3).standard_normal((4, 2000)).astype(np.float32)
    for k in (1, 7, 300, 2000):

        @graphc.model
        def net(x: graphc.f32[4, 2000], k: int = k) -> Any:
            return graphc.topk(x, k, largest=largest)

        values, places = graphc.compile(net, threads=2)(x)
        wanted, at = torch.sort(torch.from_numpy(x), dim=1, descending=largest, stable=True)
        np.testing.assert_array_equal(places, at[:, :k].numpy())
        np.testing.assert_array_equal(values, wanted[:, :k].numpy())


def test_a_state_is_not_written_while_it_is_read() -> None:
    """The results take a place of their own where the old value is still needed."""

    @graphc.model
    def net(x: graphc.f32[2, 200]) -> Any:
        kept = graphc.state((2, 200), name="kept")
        values, places = graphc.topk(kept + x, 200)
        kept.assign(values)
        return places

    exe, rng, kept = graphc.compile(net, threads=2), np.random.default_rng(0), np.zeros((2, 200), np.float32)
    for _ in range(3):
        x = rng.standard_normal((2, 200)).astype(np.float32)
        wanted, at = expected(kept + x, 200, True)
        np.testing.assert_array_equal(exe(x), at)
        kept = wanted
        np.testing.assert_array_equal(exe.state["kept"], kept)


def test_an_axis_before_others_of_one_element() -> None:
    x = np.random.default_rng(0).standard_normal((2, 500, 1, 1)).astype(np.float32)

    @graphc.model
    def net(x: graphc.f32[2, 500, 1, 1]) -> Any:
        return graphc.topk(x, 20, axis=1)

    exe = graphc.compile(net, threads=2)
    values, places = exe(x)
    assert len(exe.plan.steps) == 1
    wanted, at = expected(x[:, :, 0, 0], 20, True)
    np.testing.assert_array_equal(places[:, :, 0, 0], at)
    np.testing.assert_array_equal(values[:, :, 0, 0], wanted)


def test_empty_rows_and_no_results() -> None:
    for shape, k in (((0, 5, 1), 3), ((2, 5, 1), 0), ((2, 0, 1), 0), ((2, 5, 0), 3)):

        def net(x: graphc.f32[shape], k: int = k) -> Any:  # type: ignore[valid-type]
            return graphc.topk(x, k, axis=1)

        values, places = graphc.compile(graphc.model(net), threads=2)(np.zeros(shape, np.float32))
        assert values.shape == places.shape == (shape[0], k, shape[2])
        assert dtype(places.dtype) == i64


def test_the_portable_form_keeps_symbols() -> None:
    """Top-k, and running sums of a long axis, along an axis of known size beside one that is not known."""

    @graphc.model
    def net(x: graphc.f32[N, 300], y: graphc.f32[300, M]) -> Any:
        return *graphc.topk(x, 3), *graphc.topk(y, 3, axis=0), graphc.cumsum(x, 1), graphc.cumsum(y, 0)

    graph = run_passes(net.graph(), PORTABLE, Context())
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((4, 300), np.float32), "y": rng.standard_normal((300, 7), np.float32)}
    found, expected = (list(graphc.compile(model).run(feeds).values()) for model in (graph, net))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))
