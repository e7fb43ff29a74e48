"""The thread pool: barriers, solo steps, concurrent callers, idleness, fork, floating-point environment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.errors import BackendError
from graphc.target import TARGETS
from graphc_cpu import host, jit
from graphc_cpu.emit.ir import Function, Value, module
from graphc_cpu.runtime import pool as pools
from graphc_cpu.runtime import spmd
from graphc_cpu.runtime.pool import Pool, pool
from graphc_cpu.runtime.state import Step, step_table

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool needs futex")
THREADS = [1, pytest.param(2, marks=linux), pytest.param(3, marks=linux), pytest.param(4, marks=linux)]


def parameters() -> list[tuple[str, str]]:
    return [("ptr", "args"), ("i64", "thread"), ("i64", "threads")]


def cell(f: Function, slot: int, index: Value) -> Value:
    base = f.load("ptr", f.pointer(f.parameters[0], slot, "ptr"), 8)
    return f.pointer(base, index, "i64")


def mix() -> Function:
    """to[thread] = 3 * from[thread] + from[(thread + 1) % threads] + thread: wrong unless everybody wrote `from` before."""
    f = Function("mix", parameters())
    _, thread, threads = f.parameters
    neighbour = f.op(f"srem i64 {f.add(thread, 1).name}, {threads.name}", "i64")
    own = f.load("i64", cell(f, 0, thread), 8)
    other = f.load("i64", cell(f, 0, neighbour), 8)
    f.store(f.add(f.add(f.mul(own, 3), other), thread), cell(f, 1, thread), 8)
    return f


def note() -> Function:
    """log[0] += 1; log[1] += thread; log[2] += threads (racy on purpose: for solo steps)."""
    f = Function("note", parameters())
    for i, amount in enumerate((Value("1", "i64"), *f.parameters[1:])):
        place = f.pointer(f.load("ptr", f.parameters[0], 8), i, "i64")
        f.store(f.add(f.load("i64", place, 8), amount), place, 8)
    return f


def halve() -> Function:
    """values[thread] *= 0.5 in fp32."""
    f = Function("halve", parameters())
    place = f.pointer(f.load("ptr", f.parameters[0], 8), f.parameters[1], "float")
    f.store(f.op(f"fmul {f.load('float', place, 4)}, 5.0e-01", "float"), place, 4)
    return f


@pytest.fixture(scope="module")
def kernels() -> Iterator[jit.Library]:
    target = host.host_target()
    with jit.build({f.name: module(target.triple, [f]) for f in (mix(), note(), halve())}, target) as library:
        yield library


class Mixing:
    """A program of `count` mix steps over two buffers, and what it must give."""

    def __init__(self, kernels: jit.Library, threads: int, count: int, seed: int = 0) -> None:
        self.count = count
        self.buffers = np.random.default_rng(seed).integers(0, 1 << 40, (2, threads), dtype=np.uint64)
        self.expected = self.model(self.buffers[0].copy(), threads)
        there, back = self.pointers = np.array([[self.buffers[i].ctypes.data, self.buffers[1 - i].ctypes.data] for i in (0, 1)], np.uint64)
        self.table = step_table(Step(kernels["mix"], int((there, back)[i % 2].ctypes.data)) for i in range(count))
        self.address = self.table.ctypes.data

    def model(self, values: np.ndarray, threads: int) -> np.ndarray:
        for _ in range(self.count):
            values = np.uint64(3) * values + np.roll(values, -1) + np.arange(threads, dtype=np.uint64)
        return values

    def check(self) -> None:
        np.testing.assert_array_equal(self.buffers[self.count % 2], self.expected)


@pytest.mark.parametrize("threads", THREADS)
def test_every_thread_sees_what_all_wrote_before_the_barrier(kernels: jit.Library, threads: int) -> None:
    with Pool(threads) as shared:
        for seed in range(3):
            mixing = Mixing(kernels, threads, 3001, seed)
            shared.run(mixing.address, mixing.count)
            mixing.check()


@pytest.mark.parametrize("threads", THREADS)
def test_many_short_runs(kernels: jit.Library, threads: int) -> None:
    """Each run is a fork and a join; between some the workers fall asleep."""
    mixing = Mixing(kernels, threads, 400)
    with Pool(threads) as shared:
        for i in range(mixing.count):
            shared.run(mixing.address + i * mixing.table.itemsize, 1)
            if i % 100 == 99:
                time.sleep(0.002)
    mixing.check()


@pytest.mark.parametrize("threads", THREADS)
def test_solo_steps_run_once_as_thread_0_of_1(kernels: jit.Library, threads: int) -> None:
    log = np.zeros(3, np.int64)
    args = np.array([log.ctypes.data], np.uint64)
    table = step_table([Step(kernels["note"], args.ctypes.data, barrier=i % 5 == 4, solo=True) for i in range(500)])
    pool(threads).run(table.ctypes.data, len(table))
    assert log.tolist() == [500, 0, 500]


@pytest.mark.parametrize("threads", THREADS)
def test_an_independent_step_needs_no_barrier(kernels: jit.Library, threads: int) -> None:
    """Two programs interleaved: the steps of a pair are independent, so only the second has a barrier."""
    one, two = Mixing(kernels, threads, 500, 1), Mixing(kernels, threads, 500, 2)
    table = np.empty(1000, one.table.dtype)
    table[0::2], table[1::2] = one.table, two.table
    table["flags"][0::2] = 1
    pool(threads).run(table.ctypes.data, len(table))
    one.check()
    two.check()


@pytest.mark.parametrize("threads", THREADS)
def test_empty_table(threads: int) -> None:
    pool(threads).run(0, 0)


@pytest.mark.parametrize("threads", THREADS)
def test_concurrent_callers(kernels: jit.Library, threads: int) -> None:
    programs = [Mixing(kernels, threads, 50 * 40, seed) for seed in range(4)]

    def run(mixing: Mixing) -> None:
        for i in range(0, mixing.count, 50):
            pool(threads).run(mixing.address + i * mixing.table.itemsize, 50)

    callers = [threading.Thread(target=run, args=(mixing,)) for mixing in programs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    for mixing in programs:
        mixing.check()


def tasks() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def ended(workers: set[str]) -> bool:
    """The kernel's list lags a little behind the join."""
    deadline = time.monotonic() + 5
    while workers & tasks() and time.monotonic() < deadline:
        time.sleep(0.001)
    return not workers & tasks()


@linux
def test_a_closed_pool_starts_again_and_leaves_no_thread(kernels: jit.Library) -> None:
    shared = Pool(3)
    for _ in range(3):
        before = tasks()
        mixing = Mixing(kernels, 3, 11)
        shared.run(mixing.address, mixing.count)
        mixing.check()
        workers = tasks() - before
        assert len(workers) == 2
        shared.close()
        shared.close()
        assert ended(workers)
    before = tasks()
    shared.run(mixing.address, 1)
    workers = tasks() - before
    assert len(workers) == 2
    del shared  # a pool that is collected ends its workers
    assert ended(workers)


@linux
@pytest.mark.parametrize("threads", [2, 4])
def test_idle_workers_use_no_cpu(kernels: jit.Library, threads: int) -> None:
    mixing = Mixing(kernels, threads, 100)
    with Pool(threads) as shared:
        shared.run(mixing.address, mixing.count)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.03
    mixing.check()


@linux
def test_workers_keep_off_the_callers_cpu_and_take_no_signals(kernels: jit.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2 or host.usable_cpus() < 2:
        pytest.skip("one CPU")
    mixing = Mixing(kernels, 2, 1)
    masks = {}
    for wanted in ("1", "0"):
        monkeypatch.setenv("GRAPHC_AFFINITY", wanted)
        others = tasks()
        with Pool(2) as shared:
            shared.run(mixing.address, 1)
            (worker,) = tasks() - others
            masks[wanted] = os.sched_getaffinity(int(worker))
            status = Path(f"/proc/self/task/{worker}/status").read_text()
        (blocked,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk"))
        assert blocked >> 1 & 1, "SIGINT must go to Python's threads"
    assert masks["1"] < cpus
    assert len(masks["1"]) == len(cpus) - 1
    assert masks["0"] == cpus


@pytest.mark.skipif(host.host_target().triple.split("-")[0] != "x86_64", reason="sets MXCSR")
@pytest.mark.parametrize("threads", THREADS)
def test_floats_do_not_depend_on_the_callers_mode(kernels: jit.Library, threads: int) -> None:
    target = host.host_target()
    body = (
        "define void @{name}(ptr %p, i64 %t, i64 %n) nounwind {{\n call void @llvm.x86.sse.{name}(ptr %p)\n ret void\n}}\n"
        "declare void @llvm.x86.sse.{name}(ptr)"
    )
    control = jit.build({name: body.format(name=name) for name in ("ldmxcsr", "stmxcsr")}, target)
    set_mode, get_mode = control.function("ldmxcsr"), control.function("stmxcsr")
    tiny = np.full(threads, np.finfo(np.float32).tiny, np.float32)
    args = np.array([tiny.ctypes.data], np.uint64)
    table = step_table([Step(kernels["halve"], args.ctypes.data)])
    flush, default, found = np.array([0x9FC0], np.uint32), np.array([0x1F80], np.uint32), np.zeros(1, np.uint32)
    addresses = [int(a.ctypes.data) for a in (flush, default, found, table)]
    with Pool(threads) as shared:
        set_mode(addresses[0], 0, 1)
        try:
            shared.run(addresses[3], 1)
            get_mode(addresses[2], 0, 1)
        finally:
            set_mode(addresses[1], 0, 1)
    expected = np.ldexp(np.float64(np.finfo(np.float32).tiny), -1)
    assert tiny.astype(np.float64).tolist() == [expected] * threads
    assert found[0] & 0xFFC0 == 0x9FC0, "the caller's mode must come back"


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(threads: int) -> None:
    with pytest.raises(BackendError, match="threads"):
        pool(threads)


def test_other_platforms_run_on_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools.sys, "platform", "darwin")
    Pool(1).run(0, 0)
    with pytest.raises(BackendError, match="futex"):
        Pool(2)


@pytest.mark.parametrize("level", sorted(TARGETS))
def test_the_runtime_compiles_for_every_level(level: str) -> None:
    assert jit.compile_objects([("pool", lambda: spmd.pool_ir(TARGETS[level]))], TARGETS[level])["pool"]
    assert jit.compile_objects([("serial", lambda: spmd.serial_ir(TARGETS[level]))], TARGETS[level])["serial"]


FORK = """
import os, sys, threading, time, warnings
sys.path[:0] = {paths!r}
import numpy as np
from graphc_cpu import host, jit
from graphc_cpu.runtime.pool import pool
from test_pool import Mixing, mix, module

target = host.host_target()
kernels = jit.build({{"mix": module(target.triple, [mix()])}}, target)

def work(seed):
    mixing = Mixing(kernels, 3, 501, seed)
    pool(3).run(mixing.address, mixing.count)
    mixing.check()

work(0)
stop = threading.Event()
def other():
    while not stop.is_set():
        work(9)
beside = threading.Thread(target=other)
if {beside}:
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own thread makes fork warn
    beside.start()
for round in range(3):
    child = os.fork()
    if child == 0:
        work(1)
        work(2)
        os._exit(7)
    work(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
stop.set()
if {beside}:
    beside.join()
print("done")
"""


@linux
@pytest.mark.parametrize("beside", [False, True])
def test_fork_in_a_process_whose_pool_ran(beside: bool) -> None:
    """Parent and child both go on, also while another thread runs programs; and the interpreter ends in order."""
    paths = [str(ROOT), str(ROOT / "backends"), str(Path(__file__).parent)]
    script = FORK.format(paths=paths, beside=beside)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
