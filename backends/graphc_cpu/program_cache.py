"""Programs of model files, kept between processes: a start that finds one neither imports onnx, nor reads the model, nor runs passes.

* A program is found under the contents of the model file (`fingerprint`), the Target, the options of `compile`, the sizes of symbolic dims,
  every GRAPHC_ variable of the environment and the installed compiler (`stamp`). Files that the model refers to (external data) are known
  when it has been read; their fingerprints are kept with its signature and compared at each start.
* One file holds the plan as JSON and the kernels as one linked image; packed weights are in the file that `weights` keeps anyway. Where any
  part is absent or damaged there is no program.
* Nothing is kept of a model whose files changed while it was compiled.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Graph
from graphc.limits import max_bytes
from graphc.schedule.plan import Plan
from graphc.schedule.saved import plan_data, plan_of, signature_data, signature_graph
from graphc.target import Target
from graphc_cpu import cache
from graphc_cpu.fingerprint import digest
from graphc_cpu.link import Image
from graphc_cpu.program import CpuProgram
from graphc_cpu.stamp import stamp
from graphc_cpu.weights import WeightBuffer

_BROKEN = (ValueError, KeyError, TypeError, IndexError)
_INDIFFERENT = frozenset({"GRAPHC_CACHE", "GRAPHC_CACHE_DIR", "GRAPHC_CACHE_MB", "GRAPHC_VERIFY", "GRAPHC_COMPILE_THREADS"})
_CHUNK = 1 << 20  # bytes
_LENGTH = 8  # bytes of the number that says how long the JSON is


class KeptPrograms:
    """See `graphc.backend.KeptPrograms`: the programs of one model file for one target and set of options."""

    def __init__(self, store: cache.Cache, model: Path, target: Target, options: str) -> None:
        """Raises OSError where the model cannot be read."""
        self._store, self._target = store, target
        self._model = model
        self._started = time.time_ns()
        self._status = _status(model)
        settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("GRAPHC_") and name not in _INDIFFERENT)
        text = repr((contents(model), astuple(target), options, settings, stamp()))
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._files: list[list[str]] = []  # name and fingerprint

    def signature(self) -> Graph | None:
        """The model's inputs and outputs."""
        found = self._read(self._key)
        if found is None:
            return None
        try:
            data = json.loads(found)
            if self._digest(data["measured"][0]) != data["measured"][1]:
                return None
            if any(contents(self._model.parent / name) != digest for name, digest in data["files"]):
                return None
            self._files = data["files"]
            return signature_graph(data["signature"])
        except (OSError, *_BROKEN):
            return None

    def load(self, sizes: Mapping[str, int], threads: int | None) -> tuple[Plan, CpuProgram, dict[str, str]] | None:
        """The plan, the program and what its ledger says of nodes without a kernel."""
        found = self._read(self._of(sizes))
        if found is None:
            return None
        try:
            end = _LENGTH + int.from_bytes(found[:_LENGTH], "little")
            data = json.loads(found[_LENGTH:end])
            plan = plan_of(data["plan"], self._target)
            parts = self._store.weights(data["weights"]) if plan.weights else ()
            needed = plan.arena_bytes + sum(type.nbytes for _, type in plan.outputs)
            if parts is None or len(parts) != len(plan.weights) or needed > max_bytes():
                return None  # compiling says what is too large
            program = CpuProgram(plan, Image.from_bytes(found[end:]), WeightBuffer.of_parts(data["weights"], parts), threads)
            return plan, program, dict(data["apart"])
        except _BROKEN:
            return None

    def keep_signature(self, graph: Graph) -> None:
        """`graph.files`: what the model consists of beside its own file."""
        from graphc_cpu import machine  # late: nothing of it is needed to start a kept program

        folder = self._model.parent
        try:
            self._files = [[name, contents(folder / name)] for name in graph.files]
        except OSError:
            self._status = ()  # never unchanged: nothing is kept
        if not graph.states and self._is_unchanged():
            record = machine.record(self._target)
            data = {"measured": [record, self._digest(record)], "files": self._files, "signature": signature_data(graph)}
            self._store.put_program(self._key, json.dumps(data).encode())

    def keep(self, sizes: Mapping[str, int], plan: Plan, program: CpuProgram, apart: Mapping[str, str]) -> None:
        """Keep what `load` gives for the same sizes."""
        key = program.weights.key
        if program.image is None or plan.states or (plan.weights and not key) or not self._is_unchanged():
            return
        text = json.dumps({"plan": plan_data(plan, program.texts), "weights": key, "apart": dict(apart)}).encode()
        self._store.put_program(self._of(sizes), len(text).to_bytes(_LENGTH, "little") + text + program.image.to_bytes())

    def check_unchanged(self) -> None:
        if not self._is_unchanged():
            raise ModelError("the file has changed since it was given to compile", where=str(self._model), hint="compile it again")

    def _digest(self, record: str) -> str:
        """Of a record; empty where there is none. The machine's measured limits decide how convolutions are computed."""
        text = self._store.record(record)
        return "" if text is None else hashlib.sha256(text.encode()).hexdigest()

    def _read(self, key: str) -> bytes | None:
        return self._store.program(key)

    def _of(self, sizes: Mapping[str, int]) -> str:
        return hashlib.sha256(f"{self._key} {self._files} {sorted(sizes.items())}".encode()).hexdigest()

    def _is_unchanged(self) -> bool:
        """No file of the model changed since its fingerprint was taken."""
        try:
            old = all((self._model.parent / name).stat().st_ctime_ns < self._started for name, _ in self._files)
            return old and _status(self._model) == self._status
        except OSError:
            return False


def find(model: Path, target: Target, options: str) -> KeptPrograms | None:
    """None where nothing is kept (GRAPHC_CACHE=0), or the model cannot be read."""
    store = cache.default()
    if store is None or stamp() is None:
        return None
    try:
        return KeptPrograms(store, model, target, options)
    except (OSError, ValueError):
        return None


def contents(path: Path) -> str:
    """The fingerprint of a file. Raises OSError."""
    total = hashlib.sha256()
    buffer = np.empty(_CHUNK, np.uint8)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer.data):  # into cache: faster than to map a file, which takes a page table entry for each 4 KiB
            total.update(digest(buffer[:size]))
    return total.hexdigest()


def _status(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
