"""A pool of threads that execute step tables together (SPMD), driven from Python with one call per run.

* `threads=1` runs on the calling thread, without any other thread. More need Linux (futex): elsewhere a BackendError.
* Callers: runs of one Pool follow each other; a second caller waits asleep. `pool(n)` is shared by the process; who wants runs beside
  each other makes a Pool of their own.
* Idle workers spin for GRAPHC_SPIN_US after a run, then sleep in the kernel and use no CPU time.
* Workers keep off the CPU that the caller runs on, within the process's affinity mask (a worker woken on the caller's CPU would wait for
  its end); they are bound to no single CPU, and to nothing where there are fewer CPUs than threads. GRAPHC_AFFINITY=0 turns it off.
* os.fork: workers are joined before and start again at the next run, in the parent and in the child. They are joined too at exit of the
  interpreter and when a Pool is collected.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import weakref
from functools import cache
from importlib import import_module
from types import ModuleType

from graphc.errors import BackendError, ResourceError
from graphc.knobs import knob
from graphc_cpu import cache as objects
from graphc_cpu import host
from graphc_cpu.runtime.state import MASK_BYTES, State

SPIN_US = knob("GRAPHC_SPIN_US", int, 100, "microseconds that idle workers spin after a run before they sleep")
BARRIER_SPIN_US = knob("GRAPHC_BARRIER_SPIN_US", int, 500, "microseconds that threads spin at a barrier before they sleep")
AFFINITY = knob("GRAPHC_AFFINITY", bool, True, "keep worker threads off the CPU of the calling thread")
_CROWDED_SPIN_US = 1  # at any wait, where threads outnumber CPUs: the awaited thread needs this CPU
_CALIBRATION_TURNS = 2000


class Pool:
    """`threads` threads, the caller's own included. Threads start at the first run. Use from any thread; a context manager."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise BackendError(f"a pool of {threads} threads", hint="threads >= 1")
        if threads > 1 and not sys.platform.startswith("linux"):
            raise BackendError(f"more than one thread needs Linux (futex), this is {sys.platform}", hint="threads=1")
        self.threads = threads
        self._serial = _serial().run
        self._run = _functions().run if threads > 1 else None
        self._workers: _Workers | None = None
        self._meeting = (ctypes.c_uint64 * 2)()
        self._lock = threading.RLock()
        _pools.add(self)

    def run(self, steps: int, count: int) -> None:
        """Execute the step table at address `steps` (see `state.step_table`) and return when all of it is done; the GIL is released.

        The results of all steps are visible to the caller. Addresses are not checked.
        """
        if self._run is None:
            self._serial(steps, count)
            return
        with self._lock:
            workers = self._workers or self._start()
            self._run(workers.address, steps, count)

    @property
    def meeting(self) -> int:
        """Address of what a kernel waits for the other threads with: a function and its argument, valid while a run lasts."""
        return ctypes.addressof(self._meeting)

    @property
    def alone(self) -> int:
        """Address of the step that runs a table of steps on one thread; 0 for a pool of one thread, which needs none."""
        return _functions().alone if self.threads > 1 else 0

    def close(self) -> None:
        """End and join the workers, after the present run. A later run starts new ones."""
        with self._lock:
            self._stop()

    def _start(self) -> _Workers:
        self._workers = _Workers(self.threads)
        self._meeting[:] = [_functions().meet, self._workers.address]
        self._end = weakref.finalize(self, self._workers.stop)
        return self._workers

    def _stop(self) -> None:
        if self._workers is not None:
            self._end()
            self._workers = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Workers:
    """Running workers and their state block."""

    def __init__(self, threads: int) -> None:
        cpus = host.affinity()
        crowded = threads > host.usable_cpus()
        spread = AFFINITY.get() and not crowded and len(cpus) > 1 and cpus[-1] < 8 * MASK_BYTES
        self._state = State(
            threads,
            idle_spin=_functions().turns(_CROWDED_SPIN_US if crowded else SPIN_US.get()),
            barrier_spin=_functions().turns(_CROWDED_SPIN_US if crowded else BARRIER_SPIN_US.get()),
            cpus=cpus if spread else (),
        )
        self.address = self._state.address
        _running.add(self)
        with _SignalsBlocked():
            error = _functions().start(self.address)
        if error:
            self.stop()
            raise ResourceError(f"cannot start {threads - 1} threads: {os.strerror(error)}", hint="fewer threads")

    def stop(self) -> None:
        _functions().stop(self.address)
        _running.discard(self)


class _SignalsBlocked:
    """Threads inherit the signal mask: workers must leave every signal to Python's threads."""

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def _ir() -> ModuleType:
    return import_module("graphc_cpu.runtime.spmd")  # late: a start of a known program emits nothing


class _Functions:
    """The emitted pool, loaded. Kept for the life of the process: threads run in it."""

    def __init__(self) -> None:
        target = host.host_target()
        self._library = objects.runtime("pool", lambda: _ir().pool_ir(target), target)
        pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        self.start = ctypes.CFUNCTYPE(i32, pointer)(self._library["graphc_pool_start"])
        self.stop = ctypes.CFUNCTYPE(None, pointer)(self._library["graphc_pool_stop"])
        self.run = ctypes.CFUNCTYPE(None, pointer, pointer, i64)(self._library["graphc_pool_run"])
        self.meet = self._library["graphc_pool_meet"]
        self.alone = self._library["graphc_pool_alone"]
        self._spin = ctypes.CFUNCTYPE(ctypes.c_bool, pointer, i32, i64)(self._library["graphc_spin"])
        self._turn_ns = min(self._spin_ns() for _ in range(3)) / _CALIBRATION_TURNS

    def _spin_ns(self) -> int:
        word = ctypes.c_int32(0)
        before = time.perf_counter_ns()
        self._spin(ctypes.addressof(word), 0, _CALIBRATION_TURNS)
        return time.perf_counter_ns() - before

    def turns(self, microseconds: int) -> int:
        """Turns of the spin loop that take about that long; a turn is 10 to 50 ns, by the CPU's pause instruction."""
        return max(0, int(1000 * microseconds / self._turn_ns))


class _Serial:
    """The emitted runner for one thread, loaded."""

    def __init__(self) -> None:
        target = host.host_target()
        self._library = objects.runtime("serial", lambda: _ir().serial_ir(target), target)
        self.run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self._library["graphc_serial"])


_making = threading.RLock()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_running: set[_Workers] = set()  # keeps the memory that threads wait on, even where a KeyboardInterrupt came at the worst moment
_held: list[Pool] = []  # between the two sides of a fork


@cache
def _functions_once() -> _Functions:
    return _Functions()


@cache
def _serial_once() -> _Serial:
    return _Serial()


@cache
def _pool_once(threads: int) -> Pool:
    return Pool(threads)


def _functions() -> _Functions:
    with _making:
        return _functions_once()


def _serial() -> _Serial:
    with _making:
        return _serial_once()


def pool(threads: int) -> Pool:
    """The process's shared pool of that many threads. Raises BackendError for threads < 1, and for more than 1 outside Linux."""
    with _making:
        return _pool_once(threads)


def _before_fork() -> None:
    """No run is under way and no worker exists at the moment of the fork, whatever other threads do."""
    _making.acquire()
    _held.extend(_pools)
    for one in _held:
        one._lock.acquire()
        one._stop()


def _after_fork() -> None:
    for one in _held:
        one._lock.release()
    _held.clear()
    _making.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
