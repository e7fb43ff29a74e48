"""The same bits for any number of threads, on every run, in every process, wherever it may run: on networks with every kind of kernel."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc

THREADS = (1, 2, 4)
RUNS = 20


def network() -> graphc.Model:
    """3x3, depthwise, grouped, strided and 1x1 convolutions, pools, a concat, normalisations, products, reductions."""

    @graphc.model
    def mixed(image: graphc.f32["N", 3, 45, 39]):
        x = graphc.conv2d(image, 32, kernel=7, stride=2, padding=3, activation="relu", name="stem")
        a = graphc.conv2d(x, 48, kernel=3, padding=1, activation="silu", name="wide")
        b = graphc.conv2d(graphc.depthwise_conv2d(x, kernel=5, padding=2, name="depth"), 40, kernel=1, activation="gelu", name="point")
        c = graphc.conv2d(graphc.max_pool2d(x, 3, stride=1, padding=1), 24, kernel=3, padding=1, groups=8, name="grouped")
        x = graphc.concat([a, b, c], axis=1)
        x = graphc.conv2d(x, 112, kernel=3, padding=1, name="same") + x
        x = graphc.instance_norm(graphc.avg_pool2d(graphc.relu(x), 2), name="norm")
        sums = [graphc.mean(x, (2, 3)), graphc.sum(x * x, (2, 3)), graphc.log_sum_exp(x, (2, 3)), graphc.prod(x * 1e-3 + 1.0, (2, 3))]
        x = graphc.layer_norm(graphc.linear(graphc.concat(sums, axis=1), 200, activation="tanh", name="hidden"), name="rows")
        return graphc.softmax(graphc.linear(x, 17, name="classes")), graphc.sum(graphc.exp(x * 0.01))

    return mixed


def image() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((3, 3, 45, 39), np.float32)


def digest(exe: graphc.Executable, x: np.ndarray) -> str:
    """Of all outputs; finite, and not all the same number."""
    outputs = list(exe.run({"image": x}).values())
    assert all(np.isfinite(y).all() for y in outputs)
    assert len(np.unique(outputs[0])) > 10
    return hashlib.sha256(b"".join(y.tobytes() for y in outputs)).hexdigest()


@pytest.mark.parametrize("accuracy", ["default", "exact"])
def test_threads_and_runs(accuracy: str) -> None:
    graph, x = network().graph(), image()
    found = {digest(exe, x) for exe in (graphc.compile(graph, threads=t, accuracy=accuracy) for t in THREADS) for _ in range(RUNS)}
    assert len(found) == 1


def test_runs_of_different_inputs_leave_nothing_behind() -> None:
    """NaN, infinity and large numbers in one run do not show in the next."""
    exe, x = graphc.compile(network().graph(), threads=2), image()
    first = digest(exe, x)
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        exe(np.full_like(x, bad))
        assert digest(exe, x) == first


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a CPU mask")
def test_processes_with_fewer_cpus(root: Path) -> None:
    """Another process, bound to one CPU: which algorithm computes a convolution does not depend on where it runs."""
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "import graphc; from promises.test_same_bits import digest, image, network\n"
        "print(digest(graphc.compile(network().graph()), image()))"
    )
    path = os.pathsep.join(str(root / folder) for folder in (".", "frontends", "backends", "tests"))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(graphc.compile(network().graph()), image())
