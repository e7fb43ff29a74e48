"""Measured choices: every candidate computes the convolution, the record is kept and obeyed, and the default does not depend on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import graphc
from cli.tools import call, call_json, save
from graphc.errors import BackendError
from graphc.kernel.canonical import spec_text
from graphc.kernel.choose import ALGORITHMS, Candidate, ConvShape, candidates, choose_algorithm, choose_form, machine_of
from graphc.kernel.chooser import Predicted
from graphc.target import TARGETS, Limits, named
from graphc_cpu import cache, host, jit, layer, machine, tune
from graphc_cpu.backend import backend
from graphc_cpu.kernel_code import compile_specs
from graphc_cpu.kernels.model import conv_model
from graphc_cpu.kernels.pack import pack_conv_weight
from graphc_cpu.kernels.winograd_pack import pack_winograd_weight
from graphc_cpu.runtime.pool import Pool

TARGET = host.host_target()
SHAPE = ConvShape(1, 24, 20, 9, 10)
SLOW = Limits((1e11, 2e11), (5e10, 1e11), (2e11, 4e11), (1e9, 2e9), (1e9, 2e9), (1e9, 1e9), (1e-9, 1e-3), (1e-7, 1e-6), threads=2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHC_CACHE", "1")
    monkeypatch.setattr(layer, "SECONDS", 1e-4)
    monkeypatch.setattr(tune, "_known", {})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two convolutions with a choice and one without."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("a", (32, 16, 3, 3)), ("b", (32, 32, 3, 3)))}
    weights["c"] = rng.standard_normal((8, 32, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["u"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["u", "b"], ["v"], "second", pads=[1] * 4),
        helper.make_node("Conv", ["v", "c"], ["y"], "third"),
    ]  # fmt: skip
    types = {"x": (TensorProto.FLOAT, (1, 16, 12, 12))}, {"y": (TensorProto.FLOAT, (1, 8, 12, 12))}
    return save(tmp_path / "m.onnx", nodes, *types, weights=weights)


def _computed(candidate: Candidate, arrays: dict[str, Any], weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    conv = layer.convolution(SHAPE, TARGET)
    plan = layer.calls(conv, candidate)
    library = jit.load(compile_specs([spec for spec, _ in plan], TARGET))
    for spec, names in plan:
        for name, operand in zip(names, spec.operands, strict=True):
            size = operand.elements * (2 if name == "scratch" else 1)
            arrays.setdefault(name, np.zeros(size + 64, np.float32))
        if "weights" in names:
            pack = pack_winograd_weight(spec, weights) if candidate.m else pack_conv_weight(spec, TARGET, weights)  # type: ignore[arg-type]
            assert pack.nbytes <= layer._weight_bytes(spec, TARGET)
            arrays["weights"] = pack
        library.call(cache.symbol(spec_text(spec)), [arrays[name] for name in names], threads=2)
    return arrays["output"][: conv.output.elements]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_timed_is_the_convolution(name: str) -> None:
    """All forms of one algorithm have the same bits, and are the convolution by its definition."""
    rng = np.random.default_rng(1)
    conv = layer.haloed(layer.convolution(SHAPE, TARGET))
    weights, bias = rng.standard_normal((20, 24, 3, 3)).astype(np.float32), rng.standard_normal(conv.extras[0].elements).astype(np.float32)
    x = np.zeros(conv.x.elements, np.float32)
    logical = rng.standard_normal(SHAPE.inputs * 90).astype(np.float32).reshape(24, 9, 10)
    view = x.reshape(conv.x.physical_shape)
    for c in range(24):
        view[0, c // TARGET.lanes(conv.x.dtype), 1:10, 1:11, c % TARGET.lanes(conv.x.dtype)] = logical[c]
    wanted = np.zeros(conv.output.elements, np.float32)
    conv_model(conv, [x, weights.ravel(), bias, wanted])
    if name == "direct":  # its own, smaller halo
        small = layer.convolution(SHAPE, TARGET).x
        x = np.ascontiguousarray(view[:, :, : small.physical_shape[2], : small.physical_shape[3]]).ravel()
    found = [_computed(c, {"x": x, "extra0": bias}, weights) for c in list(candidates(SHAPE, name, TARGET))[::3]]
    assert np.abs(found[0] - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_every_candidate_is_timed() -> None:
    conv = layer.convolution(SHAPE, TARGET)
    ways = [c for name in ALGORITHMS for c in list(candidates(SHAPE, name, TARGET))[:3]]
    with Pool(1) as pool:
        found = layer.time_candidates(conv, ways, replace(TARGET, l3=1 << 20), pool, seconds=1e-4)
    assert list(found) == ways
    assert all(0 < time.cold < 1 and 0 < time.hot < 1 for time in found.values())


def test_sets_of_weights_follow_each_other() -> None:
    conv = layer.convolution(SHAPE, TARGET)
    memory = layer._Memory(layer.calls(conv, Candidate("direct")), replace(TARGET, l3=1000), 1)
    size = memory.weights // 3
    assert [memory.next_set(size) for _ in range(5)] == [0, 1, 2, 0, 1]
    assert memory.next_set(size // 2) == 4  # behind what was used last


def test_tuned_choice_is_recorded_and_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune.Tuned(TARGET)
    times = first.times(SHAPE)
    assert {name: bool(forms) for name, forms in times.items()} == dict.fromkeys(ALGORITHMS, True)
    monkeypatch.setattr(tune, "_known", {})
    monkeypatch.setattr(tune.Tuned, "_measured", None)  # not measured again
    assert tune.Tuned(TARGET).times(SHAPE) == times
    store = cache.default()
    assert store is not None
    for name in ALGORITHMS:
        monkeypatch.setattr(tune, "_known", {})
        made = {other: [(Candidate(other, 0, 1), 2.0), (Candidate(other, 8, 1), 3.0)] for other in ALGORITHMS}
        made[name] = [(Candidate(name, 10, 2), 1.0)]
        store.put_record(tune.record_key(SHAPE, TARGET), tune.to_text(made))
        assert tune.Tuned(TARGET).algorithm(SHAPE, "default") == name
        assert tune.Tuned(TARGET).algorithm(SHAPE, "exact") == "direct"
        assert tune.Tuned(TARGET).form(SHAPE, name) == Candidate(name, 10, 2)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"direct": [], "winograd2": [], "winograd4": []}', '{"direct": 3}', "null"])
def test_broken_record_is_measured_again(text: str) -> None:
    assert tune.parse(text) is None


def test_tuned_program_is_right_for_any_number_of_threads(model: Path) -> None:
    x = np.random.default_rng(2).standard_normal((1, 16, 12, 12)).astype(np.float32)
    wanted = graphc.compile(str(model), accuracy="exact")(x)
    found = [graphc.compile(str(model), threads=threads, tune=True)(x) for threads in (1, 2, 3)]
    assert np.abs(found[0] - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert all(np.array_equal(found[0], other) for other in found)


def test_another_target_cannot_be_tuned(model: Path) -> None:
    other = TARGETS["neon" if TARGET.name != "neon" else "avx2"]
    with pytest.raises(BackendError, match="cannot run"):
        tune.Tuned(other)
    with pytest.raises(BackendError, match="reference"):
        graphc.compile(str(model), backend="reference", tune=True)


def test_measured_limits_change_forms_and_no_algorithm() -> None:
    shapes = [ConvShape(1, c, c, s, s) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7), (512, 14))]
    plain, measured = Predicted(TARGET), Predicted(TARGET, SLOW)
    assert [plain.algorithm(s, "default") for s in shapes] == [measured.algorithm(s, "default") for s in shapes]
    forms = [(plain.form(s, "winograd4"), measured.form(s, "winograd4")) for s in shapes]
    assert any((a.tiles, a.chunk) != (b.tiles, b.chunk) for a, b in forms)
    assert measured.form(shapes[0], "winograd2") == choose_form(shapes[0], "winograd2", TARGET, SLOW)
    assert machine_of(TARGET).l2 > machine_of(TARGET, SLOW).l2
    assert machine_of(TARGET, SLOW).step > machine_of(TARGET).step


def test_limits_apply_to_the_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "known", lambda target: SLOW)
    assert backend.chooser(TARGET, tune=False) == Predicted(TARGET, SLOW)
    assert backend.chooser(named("avx2"), tune=False) == Predicted(named("avx2"))
    assert backend.chooser(TARGET, tune=False).algorithm(SHAPE, "default") == choose_algorithm(SHAPE, TARGET, "default")


def test_bench_kernels(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "limits", lambda target: SLOW)
    data = call_json("bench", "kernels", model, "--threads", "1", "--forms", "1")
    assert [len(one["candidates"]) >= count for one, count in zip(data["layers"], (3, 3, 1), strict=True)] == [True] * 3
    for one in data["layers"]:
        assert sum(way["picked"] for way in one["candidates"]) == 1
        for way in one["candidates"]:
            assert way["gflops"] == pytest.approx(one["flops"] / way["cold_seconds"] / 1e9)
            assert way["of_peak"] == pytest.approx(way["gflops"] * 1e9 / SLOW.fma_f32[0])
    picks = [next(way["algorithm"] for way in one["candidates"] if way["picked"]) for one in data["layers"]]
    plan = graphc.compile(str(model)).plan
    assert [name.startswith("winograd") for name in picks[:2]] == [True, True] == ["winograd" in str(plan)] * 2
    text = call("bench", "kernels", model, "--threads", "1", "--forms", "1", "--accuracy", "exact").stdout
    assert "winograd" not in text
    assert "1x32x12x12 -> 8x12x12, 1x1" in text


def test_commands_take_tune(model: Path) -> None:
    call("compile", model, "--tune")
    assert call_json("bench", model, "--tune", "--runs", "1", "--calls", "1")["ok"]
    assert list(Path(cache._directory()).glob("*.record"))
