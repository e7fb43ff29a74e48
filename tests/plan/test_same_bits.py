"""Promise 3: one machine-code level gives one result, for any number of threads, on every run, in every process, for concurrent callers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.ir.graph import Array
from ops.accuracy import check_tolerance
from ops.runners import run_reference
from plan.networks import NETWORKS, image

RUNS = 20
each_network = pytest.mark.parametrize("name", list(NETWORKS))


def _bits(outputs: dict[str, Array]) -> bytes:
    return b"".join(array.tobytes() for array in outputs.values())


@each_network
def test_any_number_of_threads_and_every_run(name: str) -> None:
    graph = NETWORKS[name]()
    images = [image(graph, seed) for seed in range(3)]
    wanted: list[bytes] = []
    for threads in (1, 2, 4):
        program = graphc.compile(NETWORKS[name](), threads=threads)
        for run in range(RUNS):
            number = run % len(images)
            bits = _bits(program.run({"x": images[number]}))
            if len(wanted) == number:
                wanted.append(bits)
            assert bits == wanted[number], f"run {run} with {threads} threads differs"
    assert len(set(wanted)) == len(images), "different images give one result"


@each_network
@pytest.mark.parametrize("level", ["avx512", "avx2", "sse2"])
def test_it_is_also_right(name: str, level: str) -> None:
    graph = NETWORKS[name]()
    try:
        program = graphc.compile(graph, target=level, threads=2)
    except graphc.GraphcError as error:
        pytest.skip(str(error))  # a level that this machine has not
    first, x = image(graph, 100), image(graph, 101)
    program.run({"x": first})  # what a run leaves in the arena must not matter
    naive = run_reference(NETWORKS[name](), [x])
    exact = _reference64(name, x)
    for got, near, true in zip(program.run({"x": x}).values(), naive, exact, strict=True):
        check_tolerance(got, near, true, 8.0)


def _reference64(name: str, x: Array) -> tuple[Array, ...]:
    """The network in float64, with the float32 weights."""
    from graphc.ir.graph import Kind
    from graphc.types.dtype import f64

    graph = NETWORKS[name]()
    for value in graph.values.values():
        value.type = f64[value.type.shape]
        if value.data is not None and value.kind is not Kind.INPUT:
            value.data = value.data.astype(np.float64)
    return run_reference(graph, [x.astype(np.float64)])


@each_network
def test_concurrent_callers(name: str) -> None:
    """Four threads call one executable, each with images of its own."""
    program = graphc.compile(NETWORKS[name](), threads=2)
    images = [image(NETWORKS[name](), seed) for seed in range(8)]
    wanted = [_bits(program.run({"x": x})) for x in images]

    def work(worker: int) -> list[bool]:
        order = [(worker + i) % len(images) for i in range(3 * len(images))]
        return [_bits(program.run({"x": images[i]})) == wanted[i] for i in order]

    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(work, range(4)))
    assert len(results) == 4
    assert all(all(result) for result in results)


def test_concurrent_first_calls_of_a_symbolic_model() -> None:
    """The first calls bring four sizes at once: each is compiled, none is mixed up."""
    from graphc.ir.builder import Builder
    from graphc.ops.norm import Softmax
    from graphc.types.dtype import f32
    from graphc.types.shape import symbol

    builder = Builder()
    x = builder.input("x", f32, (symbol("N"), 33))
    program = graphc.compile(builder.finish(y=builder.add(Softmax(1), x)), threads=2)
    images = [np.random.default_rng(n).standard_normal((n, 33)).astype(np.float32) for n in (1, 2, 5, 16)]
    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(lambda array: np.asarray(program(array)), images * 3))
    for array, result in zip(images * 3, results, strict=True):
        e = np.exp(array - array.max(1, keepdims=True))
        np.testing.assert_allclose(result, e / e.sum(1, keepdims=True), rtol=1e-5)


_SCRIPT = """
import hashlib, sys
import graphc
from plan.networks import NETWORKS, image
program = graphc.compile(NETWORKS["branching"](), threads=int(sys.argv[1]))
outputs = program.run({"x": image(NETWORKS["branching"](), 7)})
print(hashlib.sha256(str(program.plan).encode()).hexdigest())
print(hashlib.sha256(b"".join(array.tobytes() for array in outputs.values())).hexdigest())
"""


def test_every_process(root: Path, tmp_path: Path) -> None:
    """Other processes, with other hash seeds and an empty cache, plan and compute the same."""
    program = graphc.compile(NETWORKS["branching"](), threads=2)
    here = [str(program.plan).encode(), _bits(program.run({"x": image(NETWORKS["branching"](), 7)}))]
    wanted = [hashlib.sha256(part).hexdigest() for part in here]
    paths = os.pathsep.join(str(root / folder) for folder in ("", "frontends", "backends", "tests"))
    for seed in ("1", "2"):
        variables = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed, "GRAPHC_CACHE_DIR": str(tmp_path / seed)}
        command = [sys.executable, "-c", _SCRIPT, seed]
        done = subprocess.run(command, env=variables, cwd=root, capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout.split() == wanted
