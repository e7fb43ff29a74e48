"""What the machine is: levels, caches, usable CPUs; with made-up system files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from graphc.errors import BackendError
from graphc.target import TARGETS
from graphc_cpu import host


def test_host_is_the_best_level_that_runs() -> None:
    target = host.host_target()
    better = list(TARGETS)[: list(TARGETS).index(target.name)]
    assert all(host.missing_features(TARGETS[name]) for name in better)
    assert 1 <= target.cores <= (os.cpu_count() or 1)
    assert 4096 <= target.l1 <= target.l2
    host.check_runs(target)


def test_a_missing_feature_takes_the_level_away(monkeypatch: pytest.MonkeyPatch) -> None:
    if host.host_target().triple.split("-")[0] != "x86_64":
        pytest.skip("levels of x86-64")
    everything = set(host._V4.split(",")) | {"sse2"}
    for lacking, best in ((None, "avx512"), ("avx512vl", "avx2"), ("f16c", "sse2"), ("movbe", "sse2")):
        have = frozenset(everything - {lacking})
        monkeypatch.setattr(host, "_features", lambda have=have: have)
        host.host_target.cache_clear()
        assert host.host_target().name == best
        if lacking:
            with pytest.raises(BackendError, match=lacking):
                host.check_runs(TARGETS["avx512"])
    monkeypatch.undo()
    host.host_target.cache_clear()


def test_resolve() -> None:
    mine = dataclasses.replace(TARGETS["sse2"], l2=12345)
    assert host.resolve(mine) is mine
    assert host.resolve("host") == host.host_target()
    assert host.resolve("neon") == TARGETS["neon"]
    with pytest.raises(BackendError, match="unknown target"):
        host.resolve("mmx")


def test_caches_are_read(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate((("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"))):
        folder = tmp_path / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    (tmp_path / "cpu0" / "cache" / "index9").mkdir()  # incomplete: skipped
    assert host.cache_sizes(tmp_path) == {"l1": 48 << 10, "l2": 2 << 20}
    assert host.cache_sizes(tmp_path / "nowhere") == {}


def quota(root: Path, membership: str, files: dict[str, str]) -> float | None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "membership").write_text(membership)
    return host.cgroup_quota(root, root / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n", "cpu.max": "800000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/not/visible\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "150000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 1.5),
        ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/x\n", {"memory/x/cpu.max": "100000 100000"}, None),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, None),
    ],
)
def test_cgroup_quota(tmp_path: Path, membership: str, files: dict[str, str], expected: float | None) -> None:
    assert quota(tmp_path, membership, files) == expected


def test_quota_limits_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "affinity", lambda: tuple(range(8)))
    for limit, cpus in ((None, 8), (2.9, 2), (0.3, 1), (64.0, 8)):
        monkeypatch.setattr(host, "cgroup_quota", lambda limit=limit: limit)
        assert host.usable_cpus() == cpus
