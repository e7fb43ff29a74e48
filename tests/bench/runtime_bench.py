"""Times of the CPU runtime: fork and join, barrier, wake-up, compiling, loading and caching objects, fingerprint of weights.

    python tests/bench/runtime_bench.py

Best of many. A kernel that does nothing is run, so the times are those of the runtime alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from graphc_cpu import cache, host, jit
from graphc_cpu.emit.ir import Function, Value, module
from graphc_cpu.fingerprint import digest
from graphc_cpu.runtime.pool import Pool
from graphc_cpu.runtime.state import Step, step_table

KERNELS = 60
STEPS = 1000


def best(call: Callable[[], object], times: int) -> float:
    """Seconds of the fastest call."""
    found = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        found = min(found, time.perf_counter() - start)
    return found


def kernel_ir(name: str, triple: str, size: int) -> str:
    """A kernel of `size` multiply-adds on vectors, about as large as a convolution's."""
    f = Function(name, [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])
    vector = "<16 x float>"
    base = f.load("ptr", f.parameters[0], 8)
    totals = [f.load(vector, f.pointer(base, 16 * i, "float"), 4) for i in range(8)]
    for i in range(size):
        factor = f.load(vector, f.pointer(base, i, "float"), 4)
        totals[i % 8] = f.call("llvm.fmuladd.v16f32", vector, factor, Value(f"splat (float {i}.5)", vector), totals[i % 8])
    for i, total in enumerate(totals):
        f.store(total, f.pointer(base, 16 * i, "float"), 4)
    return module(triple, [f])


def pools() -> None:
    target = host.host_target()
    library = jit.build({"nothing": module(target.triple, [Function("nothing", [("ptr", "a"), ("i64", "t"), ("i64", "n")])])}, target)
    table = step_table([Step(library["nothing"], 0)] * (STEPS + 1))
    address = int(table.ctypes.data)
    for threads in sorted({1, 2, target.cores, target.cores + 1}):
        with Pool(threads) as pool:
            start = time.perf_counter()
            pool.run(address, 1)
            first = time.perf_counter() - start
            join = best(lambda: pool.run(address, 1), 2000)
            steps = best(lambda: pool.run(address, STEPS + 1), 20)
            waking = []
            for _ in range(20):
                time.sleep(0.01)
                waking.append(best(lambda: pool.run(address, 1), 1))
        print(f"{threads} threads: first run {first * 1e6:.0f} us, fork and join {join * 1e6:.2f} us, ", end="")
        print(f"step and barrier {(steps - join) / STEPS * 1e6:.3f} us, ", end="")
        print(f"run after 10 ms idle {min(waking) * 1e6:.0f} us (median {sorted(waking)[10] * 1e6:.0f})")


def objects() -> None:
    target = host.host_target()
    modules = [(f"kernel{i}", lambda i=i: kernel_ir(f"kernel{i}", target.triple, 200)) for i in range(KERNELS)]
    for threads in (1, target.cores):
        seconds = best(lambda threads=threads: jit.compile_objects(modules, target, threads=threads), 2)
        print(f"{KERNELS} kernels compiled on {threads} threads: {seconds * 1e3:.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        store = cache.Cache(Path(folder) / "cache", 10**9)
        found = cache.compile_objects(modules, target, store=store)
        size = sum(map(len, found.values()))
        print(f"read from the cache ({size >> 10} KB): {best(lambda: cache.compile_objects(modules, target, store=store), 5) * 1e3:.1f} ms")
        print(f"loaded: {best(lambda: jit.load(found).close(), 5) * 1e3:.1f} ms")
        weights = np.ones(25 << 20, np.float32)
        print(f"weights of {weights.nbytes >> 20} MB written: {best(lambda: store.put_weights('w', [weights]), 2) * 1e3:.0f} ms")
        print(f"mapped: {best(lambda: store.weights('w'), 5) * 1e3:.2f} ms")
        print(f"fingerprint: {weights.nbytes / best(lambda: digest(weights), 5) / 1e9:.1f} GB/s")


if __name__ == "__main__":
    pools()
    objects()
