"""The limits of this machine, measured with small kernels of our own: multiply-adds, read bandwidth of each cache, barriers.

Each figure is the best of several tries, alone and with all threads at once. A measurement is kept in the cache under the CPU's identity
and the version of this code; `known` reads it, and only `measured` and `limits` measure.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache as once

import numpy as np

from graphc.target import Limits, Target
from graphc.types.dtype import DType, f32, f64
from graphc_cpu import cache, host
from graphc_cpu.emit.ir import Function, Value, module, vector_type
from graphc_cpu.micro.tile import multiply_add
from graphc_cpu.runtime.pool import Pool
from graphc_cpu.runtime.state import Step, step_table

SECONDS = 0.001  # of one try: short, so that one of them falls into a quiet moment of a busy machine
TRIES = 50
BARRIERS = 1000
_CHAINS = {16: 12, 32: 24}  # registers -> independent sums, which hide the latency of a multiply-add
_READS = 8  # vectors per turn of a reading loop
_LINE = 64


def known(target: Target) -> Limits | None:
    """The limits measured before on this machine for the level of `target`, or None. Measures nothing."""
    store = cache.default()
    text = store.record(record(target)) if store is not None else None
    return _parsed(text) if text is not None else None


def limits(target: Target, *, again: bool = False) -> Limits:
    """The known limits, or measured now (about two seconds) and kept. Raises BackendError where this machine cannot run `target`."""
    found = None if again else known(target)
    if found is not None:
        return found
    made = measured(target)
    store = cache.default()
    if store is not None:
        store.put_record(record(target), json.dumps(asdict(made)))
    return made


def measured(target: Target, threads: int | None = None, *, seconds: float = SECONDS, tries: int = TRIES) -> Limits:
    """Measure now, with `threads` (default: one per usable CPU) beside one."""
    host.check_runs(target)
    library = cache.build({"machine": kernels_ir(target)}, target)
    count = threads or host.usable_cpus()
    with Pool(1) as one, Pool(count) as all_threads:
        found: dict[str, list[float]] = {field.name: [] for field in fields(Limits) if field.name != "threads"}
        for pool in (one, all_threads):
            bench = _Bench(library, pool, target, seconds, tries)
            for name, value in bench.all().items():
                found[name].append(value)
    return Limits(**{name: (alone, together) for name, (alone, together) in found.items()}, threads=count)


def working_set(level: str, target: Target, threads: int) -> int:
    """Bytes that each thread reads to measure one level: half of what is its own, past the level before."""
    sizes = {
        "l1": target.l1 // 2, "l2": target.l2 // 2, "l3": max(target.l3 // 2 // threads, 2 * target.l2),
        "memory": max(2 * target.l3, 64 << 20) // threads,
    }  # fmt: skip
    unit = _READS * target.vector_bytes
    return max(sizes[level] // unit, 1) * unit


def kernels_ir(target: Target) -> str:
    """A module of four kernels: `fma_f32` and `fma_f64` (args: sink, turns), `read` (buffer, bytes per thread, turns, sink), `nothing`."""
    return module(target.triple, [_emit_fma(f32, target), _emit_fma(f64, target), _emit_read(target), _emit_nothing()])


def flops_per_turn(dtype: DType, target: Target) -> int:
    """Of one thread in one turn of a multiply-add kernel."""
    return 2 * target.lanes(dtype) * _CHAINS[target.registers]


class _Bench:
    """Measures on one pool."""

    def __init__(self, library: Mapping[str, int], pool: Pool, target: Target, seconds: float, tries: int) -> None:
        self.library, self.pool, self.target, self.seconds, self.tries = library, pool, target, seconds, tries

    def all(self) -> dict[str, float]:
        """Name of a field of Limits -> its value for this pool."""
        found = {"fma_f32": self.fma(f32), "fma_f64": self.fma(f64)}
        found |= {level: self.read(level) for level in ("l1", "l2", "l3", "memory")}
        return {**found, "barrier": self.barrier(), "fork_join": self.fork_join()}

    def fma(self, dtype: DType) -> float:
        sink = np.zeros(64 * self.pool.threads, np.float64)
        name = "fma_f32" if dtype is f32 else "fma_f64"
        return self._rate(name, lambda turns: [sink.ctypes.data, turns], 1000) * flops_per_turn(dtype, self.target)

    def read(self, level: str) -> float:
        """Bytes per second; the second turn over the same memory finds it in its cache."""
        each = working_set(level, self.target, self.pool.threads)
        memory = np.ones(each * self.pool.threads + _LINE, np.uint8)
        start = int(memory.ctypes.data) + -int(memory.ctypes.data) % _LINE
        sink = np.zeros(_LINE * self.pool.threads, np.uint8)
        return self._rate("read", lambda turns: [start, each, turns, sink.ctypes.data], 1) * each

    def barrier(self) -> float:
        table = step_table([Step(self.library["nothing"], 0)] * BARRIERS)
        return self._best(lambda: self.pool.run(int(table.ctypes.data), BARRIERS)) / BARRIERS

    def fork_join(self) -> float:
        table = step_table([Step(self.library["nothing"], 0)])
        address, runs = int(table.ctypes.data), 100

        def call() -> None:
            for _ in range(runs):
                self.pool.run(address, 1)

        return self._best(call) / runs

    def _rate(self, name: str, arguments: Callable[[int], Sequence[int]], turns: int) -> float:
        """Turns per second of all threads together, with so many turns that a try takes about `seconds`."""
        while (taken := self._best(self._call(name, arguments(turns)), 2)) < self.seconds:
            turns = max(turns * 2, int(turns * self.seconds / max(taken, 1e-7)))
        return turns * self.pool.threads / self._best(self._call(name, arguments(turns)))

    def _call(self, name: str, arguments: Sequence[int]) -> Callable[[], None]:
        args = (ctypes.c_uint64 * len(arguments))(*arguments)
        table = step_table([Step(self.library[name], ctypes.addressof(args))])

        def call(keep: object = args) -> None:
            self.pool.run(int(table.ctypes.data), 1)

        return call

    def _best(self, call: Callable[[], object], tries: int | None = None) -> float:
        call()
        found = float("inf")
        for _ in range(tries or self.tries):
            start = time.perf_counter()
            call()
            found = min(found, time.perf_counter() - start)
        return found


def _kernel(name: str) -> Function:
    return Function(name, [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])


def _emit_nothing() -> Function:
    return _kernel("nothing")


def _emit_fma(dtype: DType, target: Target) -> Function:
    """Independent sums of products, in registers."""
    element = "float" if dtype is f32 else "double"
    f = _kernel(f"fma_{'f32' if dtype is f32 else 'f64'}")
    args, thread, _ = f.parameters
    vector = vector_type(element, target.lanes(dtype))
    place = f.pointer(f.load("ptr", args, 8), f.mul(thread, 512), "i8")
    turns = f.load("i64", f.pointer(args, 1, "i64"), 8)
    factor = f.load(vector, place, 8)

    def body(_: Value, sums: tuple[Value, ...]) -> Sequence[Value]:
        return [multiply_add(f, dtype, total, factor, factor) for total in sums]

    zeros = [Value("zeroinitializer", vector)] * _CHAINS[target.registers]
    for total in f.loop(0, turns, 1, body, zeros, guarded=False):
        f.store(total, place, 8)
    return f


def _emit_read(target: Target) -> Function:
    """Each thread reads its own part of the buffer from end to end, `turns` times."""
    f = _kernel("read")
    args, thread, _ = f.parameters
    lanes = target.vector_bytes // 8
    vector = vector_type("i64", lanes)
    buffer = f.load("ptr", args, 8)
    nbytes, turns = (f.load("i64", f.pointer(args, slot, "i64"), 8) for slot in (1, 2))
    sink = f.pointer(f.load("ptr", f.pointer(args, 3, "i64"), 8), f.mul(thread, _LINE), "i8")
    own = f.pointer(buffer, f.op(f"mul i64 {nbytes.name}, {thread.name}", "i64"), "i8")

    def once_through(_: Value, outer: tuple[Value, ...]) -> Sequence[Value]:
        def body(offset: Value, seen: tuple[Value, ...]) -> Sequence[Value]:
            here = f.pointer(own, offset, "i8")
            parts = [f.load(vector, f.pointer(here, target.vector_bytes * i, "i8"), 16) for i in range(_READS)]
            return [f.op(f"xor {part}, {total.name}", vector) for part, total in zip(parts, seen, strict=True)]

        return f.loop(0, nbytes, _READS * target.vector_bytes, body, outer, guarded=False)

    zeros = [Value("zeroinitializer", vector)] * _READS
    for total in f.loop(0, turns, 1, once_through, zeros, guarded=False):
        f.store(total, sink, 1)
    return f


def _parsed(text: str) -> Limits | None:
    """None where the text is no record of this version."""
    try:
        found = json.loads(text)
        pairs = {field.name: found[field.name] for field in fields(Limits) if field.name != "threads"}
        if all(len(pair) == 2 and min(pair) > 0 for pair in pairs.values()):
            return Limits(**{name: (float(one), float(every)) for name, (one, every) in pairs.items()}, threads=int(found["threads"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


def identity(target: Target) -> str:
    """What measurements belong to: the CPU, its caches and number of usable cores, the machine level, and the code that measures and runs.

    Not the number of threads of a program: what is chosen from measurements must not depend on that.
    """
    text = repr((host.cpu_model(), host.host_target(), target.name, cache.generator_version()))
    return hashlib.sha256(text.encode()).hexdigest()


@once
def record(target: Target) -> str:
    """The key of the record that holds the limits of this machine for the level of `target`."""
    return hashlib.sha256(f"limits {identity(target)}".encode()).hexdigest()
