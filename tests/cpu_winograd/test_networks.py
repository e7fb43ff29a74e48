"""Trained networks with every algorithm forced: errors against float64, the same bits for any number of threads, the plan's text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.driver import as_graph
from graphc.inspect.compare import widen
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.kernel.choose import ALGORITHMS, MAX_ERROR
from graphc.ops.conv import Conv
from graphc.types.dtype import f32
from graphc_cpu.host import host_target
from graphc_onnx import load_onnx

Array = np.ndarray[Any, Any]
NETWORKS = ("squeezenet1.1_fp32", "super_resolution-10", "ultraface_rfb320")


def _network(folder: Path, name: str) -> tuple[Graph, list[Array]]:
    """The graph at batch 1, and real inputs."""
    graph = load_onnx(folder / f"{name}.onnx")
    graph = graph.bind(dict.fromkeys(graph.symbols, 1))
    data = np.load(folder / f"{name}.io.npz")
    if "images_u8_rgb_224" not in data:
        return graph, [data[f"in__{graph.inputs[0].name}"]]
    images = data["images_u8_rgb_224"][:3, ..., ::-1].astype(np.float32) - data["mean_bgr"]
    return graph, [np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) for image in images]


def _run(executable: graphc.Executable, xs: list[Array], dtype: type[np.floating[Any]]) -> dict[str, Array]:
    """Outputs over all inputs, in float64; probabilities as logarithms, because a softmax near 0 or 1 hides every error."""
    found = [executable.run({next(iter(executable.inputs)): x.astype(dtype)}) for x in xs]
    joined = {name: np.concatenate([each[name] for each in found]).astype(np.float64) for name in found[0]}
    return {name: np.log(np.maximum(y, 1e-12)) if "softmax" in name else y for name, y in joined.items()}


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_accuracy_on_trained_weights(name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rms error of every output: at most MAX_ERROR times that of the direct sums, whatever the algorithm."""
    graph, xs = _network(shared_data / "onnx-models", name)
    exact = _run(graphc.compile(widen(graph), accuracy="exact"), xs, np.float64)
    errors: dict[str, dict[str, float]] = {}
    for algorithm in (*ALGORITHMS, ""):
        monkeypatch.setenv("GRAPHC_CONV", algorithm)
        executable = graphc.compile(graph)
        found = _run(executable, xs, np.float32)
        if ALGORITHMS.get(algorithm, 0):
            assert algorithm in {spec.family for spec in executable.plan.kernels}
        errors[algorithm] = {key: _rms(found[key] - exact[key]) for key in exact}
    for algorithm, found_errors in errors.items():
        for key, error in found_errors.items():
            limit = MAX_ERROR * max(errors["direct"][key], 2**-26 * _rms(exact[key]))
            assert error <= limit, (algorithm, key)


def _two_convolutions() -> Graph:
    graph = Graph("two")
    builder = Builder(graph)
    rng = np.random.default_rng(0)
    value = builder.input("x", f32, (2, 20, 13, 15))
    for name, (oc, ic) in {"c1": (40, 20), "c2": (24, 40)}.items():
        weight = builder.constant((rng.standard_normal((oc, ic, 3, 3)) / ic).astype(np.float32), name=f"{name}_w")
        value = builder.add(Conv((1, 1), (1, 1), (1, 1), (1, 1)), value, weight, name=name)
        value.producer.origins = (name,)  # type: ignore[union-attr]
    graph.set_outputs({"y": value})
    return graph


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@pytest.mark.parametrize("cores", [1, 64])
def test_compiled(algorithm: str, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused (1 core) and in three steps (64 cores): plan, ledger, fresh inputs, threads, callers at the same time."""
    monkeypatch.setenv("GRAPHC_CONV", algorithm)
    target = replace(host_target(), cores=cores)
    one, three = (graphc.compile(_two_convolutions(), target=target, threads=threads) for threads in (1, 3))
    families = [three.plan.kernels[step.kernel].family for step in three.plan.steps]
    assert families.count(algorithm) == (2 if cores == 1 else 6)
    assert (three.plan.scratch_bytes > 0) == (cores == 1)
    assert f" {algorithm} " in str(three.plan)
    assert {entry.node: entry.family for entry in three.ledger if entry.family.startswith("wino")}
    monkeypatch.setenv("GRAPHC_CONV", "direct")
    direct = graphc.compile(_two_convolutions(), accuracy="exact")
    rng = np.random.default_rng(1)
    for _ in range(3):
        x = rng.standard_normal((2, 20, 13, 15)).astype(np.float32)
        first = np.asarray(one(x))
        np.testing.assert_array_equal(first, three(x))
        np.testing.assert_allclose(first, direct(x), atol=2e-5)


def test_as_graph_keeps_the_choice() -> None:
    graph = as_graph(_two_convolutions())
    graph.nodes[0].algorithm = "winograd2"
    assert graph.copy().nodes[0].algorithm == "winograd2"
