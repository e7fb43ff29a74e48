"""Measured limits: the kernels do the work that is counted, records survive, and a broken or foreign record counts as none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.tools import call, call_json
from graphc.errors import BackendError
from graphc.target import TARGETS, Limits
from graphc.types.dtype import f32, f64
from graphc_cpu import cache, host, jit, machine

TARGET = host.host_target()
FIELDS = ("fma_f32", "fma_f64", "l1", "l2", "l3", "memory", "barrier", "fork_join")
LIMITS = Limits(*[(1.0, 2.0)] * len(FIELDS), threads=2)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("GRAPHC_CACHE", "1")


def test_every_figure_is_measured() -> None:
    found = machine.measured(replace(TARGET, l3=TARGET.l2), 2, seconds=1e-5, tries=1)
    assert found.threads == 2
    for name in FIELDS:
        one, every = getattr(found, name)
        assert 0 < one < 1e16, name
        assert 0 < every < 1e16, name


def test_reading_kernel_reads_everything() -> None:
    """The last of its sums is the exclusive or of every eighth vector; each thread has its own part."""
    library = jit.build({"machine": machine.kernels_ir(TARGET)}, TARGET)
    lanes, threads, turns = TARGET.vector_bytes // 8, 3, 3
    data = np.random.default_rng(0).integers(0, 1 << 62, (threads, 10, 8, lanes))
    sink = np.zeros((threads, 8), np.int64)
    args = np.array([data.ctypes.data, data[0].nbytes, turns, sink.ctypes.data], np.uint64)
    for thread in range(threads):
        library.function("read")(args.ctypes.data, thread, threads)
    assert np.array_equal(sink[:, :lanes], np.bitwise_xor.reduce(data[:, :, 7], axis=1))


@pytest.mark.parametrize("level", TARGETS)
def test_multiply_adds_are_all_there_and_in_registers(level: str) -> None:
    """A loop of the assembly has as many as are counted, and touches no stack."""
    target = TARGETS[level]
    text = jit.assembly(machine.kernels_ir(target), target)
    body = text[text.index("fma_f32:") : text.index("fma_f64:")]
    names = ("fmla",) if level == "neon" else ("vfmadd",) if target.has_fma else ("mulps",)
    adds = sum(line.split()[0].startswith(names) for line in body.splitlines() if line.split())
    assert adds == machine.flops_per_turn(f32, target) // (2 * target.lanes(f32))
    assert "(%rsp)" not in body
    assert machine.flops_per_turn(f32, target) == 2 * machine.flops_per_turn(f64, target)


def test_record_is_kept_and_read() -> None:
    assert machine.known(TARGET) is None
    store = cache.default()
    assert store is not None
    store.put_record(machine.record(TARGET), json.dumps({**dict.fromkeys(FIELDS, (1.0, 2.0)), "threads": 2}))
    assert machine.known(TARGET) == LIMITS
    assert machine.limits(TARGET) == LIMITS
    assert machine.known(replace(TARGET, name="other")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"threads": 2}', json.dumps({**dict.fromkeys(FIELDS, (0, 1)), "threads": 2})])
def test_broken_record_counts_as_none(text: str) -> None:
    store = cache.default()
    assert store is not None
    store.put_record(machine.record(TARGET), text)
    assert machine.known(TARGET) is None


def test_records_are_listed_cleared_and_not_evicted(tmp_path: Path) -> None:
    store = cache.Cache(tmp_path / "small", limit=3000)
    store.put_record("a" * 64, "measured")
    for key in "bcdefg":
        store.put(key * 64, bytes(900))
    assert store.stats().evicted
    assert store.record("a" * 64) == "measured"
    assert "record" in {entry.kind for entry in store.entries()}
    assert store.clear()
    assert not store.entries()
    assert store.record("a" * 64) is None


def test_another_architecture_is_refused() -> None:
    other = TARGETS["neon" if TARGET.name != "neon" else "avx2"]
    with pytest.raises(BackendError, match="cannot run"):
        machine.measured(other)


def test_working_sets_lie_in_their_caches() -> None:
    sizes = [machine.working_set(level, TARGET, 2) for level in ("l1", "l2", "l3", "memory")]
    assert sizes == sorted(sizes)
    assert sizes[0] < TARGET.l1 < sizes[1] < TARGET.l2 < sizes[2]
    assert sizes[3] * 2 > TARGET.l3


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = machine.measured
    monkeypatch.setattr(machine, "measured", lambda target: measured(target, 2, seconds=1e-5, tries=1))
    data = call_json("bench", "machine")
    assert data["threads"] == 2
    assert data["fma_f32"]["one_thread"] > 0
    assert call_json("bench", "machine") == data  # from the cache
    text = call("bench", "machine").stdout
    assert "multiply-adds, f64" in text
    assert "2 threads" in text
    assert "record" in call("cache", "list").stdout
