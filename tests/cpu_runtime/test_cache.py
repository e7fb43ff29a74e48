"""The disk cache: keys, corruption, eviction, several processes; packed weights; the fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import ResourceError
from graphc.target import TARGETS
from graphc_cpu import cache, host, weight_file
from graphc_cpu.cache import Cache
from graphc_cpu.fingerprint import digest, emit, fingerprint, model

ROOT = Path(__file__).resolve().parents[2]
LARGE = 10**9


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", LARGE)


def the_file(store: Cache) -> Path:
    (entry,) = store.entries()
    return entry.path


def test_round_trip(store: Cache) -> None:
    assert store.get("a") is None
    assert store.put("a", b"code" * 1000)
    assert store.put("b", b"")
    assert (store.get("a"), store.get("b")) == (b"code" * 1000, b"")
    stats = store.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.corrupted, stats.failures) == (2, 2, 1, 0, 0)
    assert stats.nbytes == sum(path.stat().st_size for path in store.directory.iterdir())
    assert store.clear() == 2
    assert store.entries() == []


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d[:20], lambda d: b"", lambda d: d[:-5] + b"!" + d[-4:], lambda d: b"X" + d[1:]]
)
def test_a_broken_object_is_a_miss_and_written_again(store: Cache, change: Callable[[bytes], bytes]) -> None:
    store.put("a", b"code" * 1000)
    path = the_file(store)
    path.write_bytes(change(path.read_bytes()))
    assert store.get("a") is None
    assert store.stats().corrupted == 1
    store.put("a", b"code" * 1000)
    assert store.get("a") == b"code" * 1000


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    store = Cache(tmp_path / "cache", 10_000)
    for i in range(9):
        store.put(f"k{i}", bytes(1000))
        os.utime(tmp_path / "cache" / f"k{i}.object", (i + 1, i + 1))
    assert store.get("k0") is not None  # used now: the oldest is k1
    assert store.stats().evicted == 0
    store.put("new", bytes(1000))
    assert store.get("k1") is None
    assert store.get("k0") is not None
    assert store.get("new") is not None
    stats = store.stats()
    assert stats.nbytes <= 10_000
    assert stats.evicted >= 1


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    store = Cache(tmp_path / "cache", 1000)
    assert store.put("small", bytes(100))
    assert not store.put("large", bytes(2000))
    assert [entry.key for entry in store.entries()] == ["small"]
    assert store.stats().failures == 1
    assert len(list(store.directory.iterdir())) == 1


def test_a_file_is_complete_or_absent(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies half-way leaves nothing under the key; its partial file is removed once it is old."""

    def dies(source: object, destination: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        store.put("a", b"code")
    monkeypatch.undo()
    (partial,) = store.directory.iterdir()
    assert store.get("a") is None
    assert store.entries() == []
    os.utime(partial, (1, 1))
    small = Cache(store.directory, 1500)
    for i in range(3):
        small.put(f"k{i}", bytes(1000))
    assert not partial.exists()


def test_a_directory_that_cannot_be_written_only_misses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    store = Cache(tmp_path / "file" / "cache", LARGE)
    assert not store.put("a", b"code")
    assert not store.put_weights("a", [np.zeros(3)])
    assert store.get("a") is None
    assert store.weights("a") is None
    assert store.clear() == 0
    assert store.stats().failures >= 2


def test_a_directory_that_vanished_is_made_again(store: Cache) -> None:
    store.put("a", b"code")
    store.clear()
    store.directory.rmdir()
    assert store.get("a") is None
    assert store.put("a", b"code")
    assert store.get("a") == b"code"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ResourceError, match="other users"):
        Cache(tmp_path, LARGE)


PROCESS = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from graphc_cpu.cache import Cache
store = Cache(Path({directory!r}), 20_000)
for i in range(300):
    key = f"k{{i * 7 % 30}}"
    found = store.get(key)
    if found is None:
        store.put(key, key.encode() * 400)
    elif found != key.encode() * 400:
        sys.exit(f"wrong bytes for {{key}}")
stats = store.stats()
if stats.corrupted or stats.failures:
    sys.exit(str(stats))
print(stats.evicted)
"""


def test_processes_share_a_directory(tmp_path: Path) -> None:
    script = PROCESS.format(paths=[str(ROOT), str(ROOT / "backends")], directory=str(tmp_path / "cache"))
    command = [sys.executable, "-W", "error", "-c", script]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    results = [(*process.communicate(timeout=60), process.returncode) for process in running]
    assert [(errors, code) for _, errors, code in results] == [("", 0)] * 3
    assert sum(int(evicted) for evicted, _, _ in results) > 0  # by whichever process found the directory too large


def test_keys_tell_apart_whatever_changes_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS["avx2"]
    keys = [cache.key("conv", target), cache.key("conv2", target), cache.key("conv", TARGETS["sse2"])]
    keys += [
        cache.key("conv", dataclasses.replace(target, **{name: value})) for name, value in (("l2", 5), ("cores", 9), ("features", "+x"))
    ]
    monkeypatch.setattr(cache, "generator_version", lambda: "another")
    keys.append(cache.key("conv", target))
    monkeypatch.undo()
    monkeypatch.setattr("llvmlite.__version__", "99")
    keys.append(cache.key("conv", target))
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert cache.key("conv", target) == keys[0]


def test_knobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "there"))
    monkeypatch.setenv("GRAPHC_CACHE_MB", "3")
    store = cache.default()
    assert store is not None
    assert store.directory.parent == tmp_path / "there"
    assert store.limit == 3_000_000
    monkeypatch.delenv("GRAPHC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    xdg = cache.default()
    assert xdg is not None
    assert xdg.directory.parent == tmp_path / "xdg" / "graphc"
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    assert cache.default() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_compiling_through_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, enabled: bool) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("GRAPHC_CACHE", str(int(enabled)))
    target = host.host_target()
    emitted: list[int] = []

    def module(i: int) -> str:
        emitted.append(i)
        return f"define void @f{i}() {{\n ret void\n}}"

    def compile_all() -> dict[str, bytes]:
        return cache.compile_objects([(f"spec {i}", lambda i=i: module(i)) for i in range(6)], target)

    first = compile_all()
    assert sorted(emitted) == list(range(6))
    assert compile_all() == first
    assert len(emitted) == (6 if enabled else 12)
    assert list(first) == [f"spec {i}" for i in range(6)]
    assert len(list(tmp_path.rglob("*.object"))) == (6 if enabled else 0)


def parts() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        random.standard_normal((70, 30)).astype(np.float32),
        np.zeros(0, np.int8),
        np.arange(5, dtype=np.int8),
        random.integers(0, 99, (300, 40)).T,
    ]


def test_weights_are_mapped_aligned_and_read_only(store: Cache) -> None:
    assert store.weights("w") is None
    assert store.put_weights("w", parts())
    found = store.weights("w")
    assert found is not None
    for view, part in zip(found, parts(), strict=True):
        np.testing.assert_array_equal(view.view(part.dtype).reshape(part.shape), part)
        assert view.ctypes.data % weight_file.ALIGNMENT == 0 or not view.size
        assert not view.flags.writeable
    weight_file.verify(the_file(store))
    store.clear()
    np.testing.assert_array_equal(found[0].view(np.float32), parts()[0].ravel())  # the mapping outlives the file


def test_no_parts(store: Cache) -> None:
    assert store.put_weights("w", [])
    assert store.weights("w") == ()


@pytest.mark.parametrize("position", [0, 9, 20, 60, 200, -1, -2])
def test_broken_weights_are_a_miss(store: Cache, position: int) -> None:
    """A flipped byte in header or sampled data is found when mapping; one in the checksum at the end by `verify`."""
    store.put_weights("w", parts())
    path = the_file(store)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(weight_file.BrokenFileError):
        weight_file.verify(path)
    if position >= 0 and position != 200:
        assert store.weights("w") is None
        assert store.stats().corrupted == 1


@pytest.mark.parametrize("size", [0, 7, 100, 4000, -1])
def test_weights_cut_off_are_a_miss(store: Cache, size: int) -> None:
    store.put_weights("w", parts())
    path = the_file(store)
    path.write_bytes(path.read_bytes()[:size])
    assert store.weights("w") is None
    assert store.stats().corrupted == 1
    assert store.put_weights("w", parts())
    assert store.weights("w") is not None


@given(st.binary(max_size=3000))
def test_fingerprint_is_its_model(data: bytes) -> None:
    array = np.frombuffer(data, np.uint8)
    assert digest(array) == model(array)


def test_fingerprint_on_every_level_that_runs() -> None:
    array = np.random.default_rng(0).standard_normal(1000)
    expected = model(array)
    for level in TARGETS.values():
        if host.missing_features(level):
            continue
        lanes = (np.arange(1, 33, dtype=np.uint64) * np.uint64(0x9E3779B185EBCA87)).copy()
        args = np.array([lanes.ctypes.data, array.ctypes.data, array.nbytes // 256], np.uint64)
        cache.build({"fingerprint": emit(level.triple)}, level).function("fingerprint")(args.ctypes.data, 0, 1)
        rest = array.view(np.uint8)[array.nbytes // 256 * 256 :].tobytes()
        assert hashlib.sha256(lanes.tobytes() + rest + array.nbytes.to_bytes(8, "little")).digest() == expected


def test_fingerprint_sees_every_change() -> None:
    """Single bits, pairs of sign bits, exchanged values, shapes, dtypes, order."""
    base = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    variants = [base, base.T, base.reshape(96, 64), base.view(np.int32), base[:-1], np.concatenate([base, np.zeros((1, 96), np.float32)])]
    for i, j in ((0, 1), (0, 64), (5, 2053), (6143, 6079)):
        signs, swapped, bit = base.copy(), base.copy(), base.copy()
        signs.reshape(-1)[[i, j]] *= -1
        swapped.reshape(-1)[[i, j]] = base.reshape(-1)[[j, i]]
        bit.reshape(-1).view(np.uint32)[j] ^= 1
        variants += [signs, swapped, bit]
    keys = [fingerprint([variant]) for variant in variants]
    keys += [fingerprint([base, base[0]]), fingerprint([base[0], base]), fingerprint([])]
    assert len(set(keys)) == len(keys)
    assert fingerprint([base.copy()]) == fingerprint([base]) == keys[0]
