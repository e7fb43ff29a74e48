"""Memory shared by the threads of a pool: byte offsets that the emitted code and Python agree on, and the step table.

Words that different threads write lie 128 bytes apart (two cache lines: the second is fetched along with the first).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

EPOCH = 0  # i32: number of the run; workers wait for its change
EPOCH_SLEEPERS = 128  # i32: threads asleep on EPOCH
ARRIVED = 256  # i32: threads that reached the present barrier
PHASE = 384  # i32: number of the present barrier; threads that arrived wait for its change
PHASE_SLEEPERS = 512  # i32: threads asleep on PHASE
STEPS = 640  # ptr, written by the caller before EPOCH
COUNT = 648  # i64
THREADS = 768  # i64; from here to WORKERS constant while the pool runs, but for CALLER_CPU, STOP and STARTED
IDLE_SPIN = 776  # i64: turns of the spin loop before a worker sleeps between runs
BARRIER_SPIN = 784  # i64: the same at a barrier
STARTED = 792  # i64: workers created
STOP = 800  # i32: 1 asks the workers to end
PLACE = 804  # i32: 1 keeps workers off the caller's CPU
CALLER_CPU = 808  # i32: where the caller was when workers were placed last
MASK = 896  # cpu_set_t of the process
SCRATCH = 1024  # cpu_set_t of the workers, while they are placed
MASK_BYTES = 128
WORKERS = 1152  # one record per worker
WORKER_BYTES = 64
WORKER_STATE, WORKER_INDEX, WORKER_HANDLE = 0, 8, 16  # ptr to the state, i64 from 1, pthread_t

NO_BARRIER = 1
THREAD_0 = 2
DECISION = 4  # the step calls no function; its arguments are a record
STEP = np.dtype([("function", np.uint64), ("args", np.uint64), ("flags", np.int64)])


# A decision's record, by byte: where the run goes on and n (written by each decision), then what it is decided by.
(
    DECIDED, RAN, REPEATS, COUNTER, TRIPS, LENGTH, CONDITION, NEGATED, BODY, BEHIND, LIMIT, STATUS, LAST, MOVES, MOVED
) = range(0, 15 * 8, 8)  # fmt: skip
RECORD_WORDS = 15


class Decision(NamedTuple):
    """A step at which thread 0 decides where all threads go on: `record` is the address of RECORD_WORDS words.

    With n the number of iterations run so far (*COUNTER: 0 where REPEATS is 0, else one more than before) the run goes on at entry BODY of
    the table while n < TRIPS, n < *LENGTH (where that is no null) and the byte *CONDITION differs from NEGATED (where it is no null); else
    at entry BEHIND. Where it would go on and n has reached LIMIT, *STATUS becomes 1 and the run ends: LAST is the table's length. MOVES:
    MOVED pairs (address of a pointer, bytes): with REPEATS, each pointer moves by its bytes where the run goes on at BODY, and else back to
    where it was in the first iteration. Between two executions of one decision every thread must pass a barrier.
    """

    record: int


class Step(NamedTuple):
    """One kernel call of a program: `function(args, thread, threads)` on every thread, then a barrier.

    `function`: address of a `void (ptr args, i64 thread, i64 threads)`; `args`: address passed to it.
    `barrier=False`: the next step neither reads nor overwrites what this one touches. `solo`: thread 0 alone runs it, as thread 0 of 1
    (a kernel too small to share; between solo steps that follow each other no barrier is needed).
    """

    function: int
    args: int
    barrier: bool = True
    solo: bool = False


def step_table(steps: Iterable[Step | Decision]) -> np.ndarray[Any, np.dtype[Any]]:
    """The table that `Pool.run` takes the address of (`table.ctypes.data`); keep it alive."""
    return np.array([_row(step) for step in steps], dtype=STEP)


def _row(step: Step | Decision) -> tuple[int, int, int]:
    if isinstance(step, Decision):
        return 0, step.record, DECISION
    return step.function, step.args, (0 if step.barrier else NO_BARRIER) | (THREAD_0 if step.solo else 0)


class State:
    """An aligned block for `threads` threads, private to this process (a fork gets a copy that no thread waits on)."""

    def __init__(self, threads: int, *, idle_spin: int, barrier_spin: int, cpus: Iterable[int] = ()) -> None:
        size = WORKERS + WORKER_BYTES * threads
        self._memory = ctypes.create_string_buffer(size + MASK_BYTES)
        self.address = -(-ctypes.addressof(self._memory) // MASK_BYTES) * MASK_BYTES
        start = self.address - ctypes.addressof(self._memory)
        self._view = memoryview(self._memory).cast("B")[start : start + size]
        mask = sum(1 << cpu for cpu in cpus)
        self._write(THREADS, threads)
        self._write(IDLE_SPIN, idle_spin)
        self._write(BARRIER_SPIN, barrier_spin)
        self._write(PLACE, int(bool(mask)), 4)
        self._write(CALLER_CPU, -1, 4)
        self._write(MASK, mask, MASK_BYTES)

    def _write(self, offset: int, value: int, size: int = 8) -> None:
        self._view[offset : offset + size] = value.to_bytes(size, "little", signed=value < 0)

    def read(self, offset: int, size: int = 8) -> int:
        return int.from_bytes(self._view[offset : offset + size], "little")
