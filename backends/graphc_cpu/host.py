"""The machine this process runs on: its Target, its caches, the CPUs it may use."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from graphc.errors import BackendError
from graphc.target import TARGETS, Target, named

_V2 = "cx16,popcnt,sahf,sse3,sse4.1,sse4.2,ssse3"
_V3 = f"{_V2},avx,avx2,bmi,bmi2,f16c,fma,lzcnt,movbe,xsave"
_V4 = f"{_V3},avx512bw,avx512cd,avx512dq,avx512f,avx512vl"
_IMPLIED = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}  # x86-64 psABI, section "Low Level System Information"
_BEST_FIRST = ("avx512", "avx2", "sse2", "neon")
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_CACHES = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_CPU_NAMES = ("vendor_id", "model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
_CPU_FEATURES = ("microcode", "flags", "Features")


@lru_cache(maxsize=1)
def host_target() -> Target:
    """The best Target that this CPU and operating system run, with real cache sizes and `cores` = `usable_cpus()`.

    Raises BackendError on a CPU that is neither x86-64 nor AArch64.
    """
    for name in _BEST_FIRST:
        level = TARGETS[name]
        if not missing_features(level):
            sizes = cache_sizes()
            l1, l2, l3 = sizes.get("l1", level.l1), sizes.get("l2", level.l2), sizes.get("l3", level.l3)
            return replace(level, l1=l1, l2=l2, l3=l3, cores=usable_cpus())
    raise BackendError(f"no machine level for this CPU ({platform.machine()})", hint="an x86-64 or AArch64 machine")


def resolve(target: str | Target) -> Target:
    """A Target from "host", the name of a level, or a Target.

    A named level keeps its generic cache sizes, so that plans for it are the same on every machine. It may be one that this machine
    cannot run: see `check_runs`.
    """
    if isinstance(target, Target):
        return target
    return host_target() if target == "host" else named(target)


def check_runs(target: Target) -> None:
    """Raises BackendError where this machine cannot execute code for `target` (it can always be compiled)."""
    missing = missing_features(target)
    if missing:
        raise BackendError(
            f"this machine cannot run code for target {target.name!r}: it lacks {', '.join(missing)}",
            hint=f'target="host" (here: {host_target().name})',
        )


def missing_features(target: Target) -> tuple[str, ...]:
    """What `target` needs and this machine lacks: the architecture, or LLVM feature names. Empty: it runs here."""
    architecture = target.triple.split("-")[0]
    if architecture != _architecture():
        return (architecture,)
    needed = set(_IMPLIED.get(target.cpu, "").split(",")) | {f[1:] for f in target.features.split(",") if f.startswith("+")}
    have = _features()
    return tuple(sorted(name for name in needed if name and name not in have))


def _architecture() -> str:
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


@lru_cache(maxsize=1)
def _features() -> frozenset[str]:
    """LLVM's names of what the CPU has and the operating system saves on a switch. Kept, because loading LLVM to ask takes 30 ms."""
    from graphc_cpu import cache  # late: the cache asks for targets

    facts = _cpu_facts()
    store = cache.default() if facts else None
    known = [(name, facts.get(name)) for name in (*_CPU_NAMES, *_CPU_FEATURES)]
    key = hashlib.sha256(repr(("features", platform.release(), known, cache.stamp())).encode()).hexdigest()
    digest, _, text = (store.record(key) or "").partition(" ") if store is not None else ("", "", "")
    if digest == hashlib.sha256(text.encode()).hexdigest():
        return frozenset(text.split(","))
    found = _asked_features()
    if store is not None:
        text = ",".join(sorted(found))
        store.put_record(key, f"{hashlib.sha256(text.encode()).hexdigest()} {text}")
    return found


def _asked_features() -> frozenset[str]:
    import llvmlite.binding as llvm

    found = {name for name, present in llvm.get_host_cpu_features().items() if present}
    return frozenset(found | ({"neon"} if _architecture() == "aarch64" else set()))


def cache_sizes(root: Path = _CACHES) -> dict[str, int]:
    """{"l1", "l2", "l3"}: bytes of the data caches of the first CPU; a level that the system does not tell is left out."""
    sizes = {}
    for index in sorted(root.glob("cpu0/cache/index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction":
                sizes[f"l{int(level)}"] = _bytes(size)
        except (OSError, ValueError):
            continue
    return {name: size for name, size in sizes.items() if name in ("l1", "l2", "l3")}


def _bytes(text: str) -> int:
    """ "48K" -> 49152."""
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else int(text)


@lru_cache(maxsize=1)
def _cpu_facts() -> dict[str, str]:
    """Of the first CPU, from /proc/cpuinfo; empty where there is none."""
    try:
        with _CPUINFO.open() as file:  # no further: on a machine of many CPUs the whole file takes long to make
            lines = list(itertools.takewhile(str.strip, file))
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def cpu_model() -> str:
    """The CPU's name and numbers, as far as the system tells them: what measurements of it are kept under."""
    import llvmlite.binding as llvm

    facts = _cpu_facts()
    return "; ".join([str(llvm.get_host_cpu_name()), *(f"{name} {facts[name]}" for name in _CPU_NAMES if name in facts)])


def affinity() -> tuple[int, ...]:
    """The CPUs that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    """CPUs in the affinity mask, or the cgroup's CPU quota rounded down where that is less; at least 1."""
    quota = cgroup_quota()
    cpus = len(affinity())
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def cgroup_quota(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """CPUs' worth of time that the cgroups (v1 or v2) of this process allow; None without a limit."""
    limits = [limit for folder in _cgroup_folders(root, membership) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _cgroup_folders(root: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's CPU cgroup and all its ancestors; the mount itself inside a container that hides its path."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (root / "cpu", root / controllers) if controllers else (root, root / "unified"):
            folder = mount / path.strip("/")
            yield from (f for f in (folder, *folder.parents) if f == mount or mount in f.parents)


def _limit(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota.isdigit() and int(period) else None
    except (OSError, ValueError):
        return None
