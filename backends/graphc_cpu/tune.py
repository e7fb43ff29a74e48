"""Choice by measured times: the candidates of a convolution are timed once on this machine, and the times are kept in the cache.

What is timed: a convolution of that shape with bias and Relu, its weights cold (see `layer`), on all usable cores whatever number of
threads a program runs on: so the answers, and with them the bits of results, are the same for any number of threads and in every run, as
long as the record is kept. Another machine, or a new measurement, may choose another algorithm.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from graphc.kernel.choose import ALGORITHMS, Candidate, ConvShape, allowed, candidates
from graphc.target import Target
from graphc_cpu import cache, host, machine
from graphc_cpu.runtime.pool import pool

FORMS = 4  # of each algorithm are timed: those predicted to be the fastest
Times = dict[str, list[tuple[Candidate, float]]]  # algorithm -> (form, seconds), fastest first

_known: dict[str, Times] = {}  # of this process, for a cache that is switched off or cleared
_measuring = threading.RLock()


class Tuned:
    """A `graphc.kernel.chooser.Chooser`. Raises BackendError where this machine cannot run the target."""

    def __init__(self, target: Target) -> None:
        host.check_runs(target)
        self._target = target

    def algorithm(self, shape: ConvShape, accuracy: str) -> str:
        names = allowed(accuracy)
        if len(names) == 1:
            return names[0]
        times = self.times(shape)
        return min(names, key=lambda name: times[name][0][1])

    def form(self, shape: ConvShape, algorithm: str) -> Candidate:
        return self.times(shape)[algorithm][0][0]

    def times(self, shape: ConvShape) -> Times:
        """From memory, from the cache, or measured now (about half a second)."""
        key = record_key(shape, self._target)
        with _measuring:
            if key not in _known:
                _known[key] = self._recorded(shape, key)
            return _known[key]

    def _recorded(self, shape: ConvShape, key: str) -> Times:
        store = cache.default()
        if store is None:
            return self._measured(shape)
        with _one_at_a_time(store):  # who waited here finds what the other has measured
            text = store.record(key)
            found = parse(text) if text is not None else None
            if found is None:
                found = self._measured(shape)
                store.put_record(key, to_text(found))
            return found

    def _measured(self, shape: ConvShape) -> Times:
        from graphc_cpu.layer import convolution, time_candidates

        chosen = [c for name in ALGORITHMS for c in likely(shape, name, self._target)]
        timed = time_candidates(convolution(shape, self._target), chosen, self._target, pool(host.usable_cpus()))
        found: Times = {name: [] for name in ALGORITHMS}
        for candidate, timing in timed.items():
            found[candidate.algorithm].append((replace(candidate, cycles=0.0), timing.cold))
        return {name: sorted(forms, key=lambda form: form[1]) for name, forms in found.items()}


def likely(shape: ConvShape, algorithm: str, target: Target, count: int = FORMS) -> list[Candidate]:
    """The forms predicted to be the fastest, best first; 0: all."""
    ranked = sorted(candidates(shape, algorithm, target, machine.known(target)), key=lambda candidate: candidate.cycles)
    return ranked[: count or None]


def record_key(shape: ConvShape, target: Target) -> str:
    """What times are kept under."""
    return hashlib.sha256(f"tuned {machine.identity(target)} {shape}".encode()).hexdigest()


def to_text(times: Times) -> str:
    return json.dumps({name: [(c.tiles, c.chunk, seconds) for c, seconds in forms] for name, forms in times.items()})


def parse(text: str) -> Times | None:
    """None for a text that is no record."""
    try:
        found = json.loads(text)
        times = {name: _forms(name, found[name]) for name in ALGORITHMS}
    except (ValueError, TypeError, KeyError):
        return None
    return times if all(times.values()) else None


def _forms(name: str, rows: Sequence[tuple[int, int, float]]) -> list[tuple[Candidate, float]]:
    return [(Candidate(name, int(tiles), int(chunk)), float(seconds)) for tiles, chunk, seconds in rows]


@contextmanager
def _one_at_a_time(store: cache.Cache) -> Iterator[None]:
    """Between processes, so that they agree and do not time each other; not where the cache's directory cannot be written."""
    try:
        import fcntl

        file = os.open(store.directory / "tune.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ImportError):
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
