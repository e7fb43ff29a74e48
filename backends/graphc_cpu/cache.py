"""The cache on disk: object code per kernel, packed weights and programs per model, records (short texts: facts of this machine).

* A key is the SHA-256 of everything that the bytes depend on: the spec's text, the Target, the versions of llvmlite and LLVM, and the
  sources that generate code (`generator_version`), so a changed generator never meets old code.
* One file per kernel, because models share kernels; what a program needs of them is linked and kept with it once more, in one file.
* A file appears under its name only when complete (written aside, then os.replace), so any number of processes may use one directory.
  Objects and programs carry a checksum; a broken file counts as absent and is written again.
* Beyond GRAPHC_CACHE_MB the files not used for the longest time go; records stay, because choices depend on them. What cannot be
  written (disk full, read-only) is counted in `stats().failures`: a cache never makes compiling fail.
* The directory holds code that will be executed: it must belong to this user and be writable by nobody else.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import graphc.kernel
from graphc.errors import ResourceError
from graphc.knobs import knob
from graphc.target import Target
from graphc_cpu import host, weight_file
from graphc_cpu.library import Library, load, load_image
from graphc_cpu.link import Image, link
from graphc_cpu.stamp import stamp as stamp

ENABLED = knob("GRAPHC_CACHE", bool, True, "keep object code and packed weights on disk")
DIRECTORY = knob("GRAPHC_CACHE_DIR", str, "", "directory of the cache; empty: graphc in XDG_CACHE_HOME, or in ~/.cache")
LIMIT_MB = knob("GRAPHC_CACHE_MB", int, 4096, "size limit of the cache directory in MB (10**6 bytes)")
_MAGIC = b"GCOBJCT1"
_HEAD = len(_MAGIC) + 32
_OBJECT, _WEIGHTS, _PROGRAM, _RECORD, _PARTIAL = ".object", ".weights", ".program", ".record", ".partial"
KINDS = ("object", "weights", "program", "record")
_EVICT_TO = 0.9  # of the limit, so that the directory is not scanned at every write
_STALE_SECONDS = 3600.0  # a partial file that old belongs to a process that died


@dataclass(frozen=True)
class Entry:
    """A file of the cache; `used`: seconds since the epoch."""

    key: str
    kind: str  # of KINDS
    nbytes: int
    used: float
    path: Path


@dataclass
class Stats:
    """What is on disk now, and what this process did so far."""

    directory: str
    limit: int
    entries: int = 0
    nbytes: int = 0
    hits: int = 0
    misses: int = 0
    corrupted: int = 0
    evicted: int = 0
    failures: int = 0


class Cache:
    """A directory of keyed files. Safe for several threads and processes. Raises ResourceError where the directory is not private."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        self._counts = Stats(str(directory), limit)
        self._size: int | None = None  # bytes, as far as this process knows
        self._prepare()

    def _prepare(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.directory.stat()
        except OSError:
            self._counts.failures += 1
            return
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
            raise ResourceError(
                f"cache directory {self.directory} may be written by other users",
                hint=f"chmod go-w {self.directory}, another GRAPHC_CACHE_DIR, or GRAPHC_CACHE=0",
            )

    def get(self, key: str) -> bytes | None:
        """Object code, or None."""
        return self._checked(self._path(key, _OBJECT))

    def program(self, key: str) -> bytes | None:
        """What `put_program` kept, or None."""
        return self._checked(self._path(key, _PROGRAM))

    def _checked(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
        except OSError:
            self._counts.misses += 1
            return None
        payload = data[_HEAD:]
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : _HEAD] != hashlib.sha256(payload).digest():
            self._counts.corrupted += 1
            return None
        self._used(path)
        return payload

    def put(self, key: str, payload: bytes) -> bool:
        """Keep object code; False where it could not be written or is larger than the whole cache may be."""
        return self._write(self._path(key, _OBJECT), lambda file: file.write(_MAGIC + hashlib.sha256(payload).digest() + payload))

    def put_program(self, key: str, payload: bytes) -> bool:
        """Keep a plan with its linked code; False as for `put`."""
        return self._write(self._path(key, _PROGRAM), lambda file: file.write(_MAGIC + hashlib.sha256(payload).digest() + payload))

    def record(self, key: str) -> str | None:
        """A short text, or None. Its reader checks what it says."""
        try:
            return self._path(key, _RECORD).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def put_record(self, key: str, text: str) -> bool:
        """Keep a short text; False as for `put`."""
        return self._write(self._path(key, _RECORD), lambda file: file.write(text.encode()))

    def weights(self, key: str) -> tuple[weight_file.Bytes, ...] | None:
        """Packed weights: read-only uint8 views, 64-byte aligned, of one mapped file in the order of `put_weights`; or None.

        The mapping outlives eviction and `clear`. Bytes are sampled, not all checked (see `weight_file`).
        """
        path = self._path(key, _WEIGHTS)
        try:
            parts = weight_file.read(path)
        except OSError:
            self._counts.misses += 1
            return None
        except ValueError:  # BrokenFileError, and numpy's for an empty file
            self._counts.corrupted += 1
            return None
        self._used(path)
        return parts

    def put_weights(self, key: str, parts: Sequence[np.ndarray[Any, Any]]) -> bool:
        """Keep packed weights (arrays of any dtype); False as for `put`."""
        return self._write(self._path(key, _WEIGHTS), lambda file: weight_file.write(file, parts))

    def entries(self) -> list[Entry]:
        """Least recently used first."""
        found = []
        for path in self._files():
            if path.suffix[1:] not in KINDS:
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # another process removed it
            found.append(Entry(path.stem, path.suffix[1:], status.st_size, status.st_mtime, path))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        self._size = None
        return sum(_remove(entry.path) for entry in self.entries())

    def stats(self) -> Stats:
        entries = self.entries()
        counts = Stats(**vars(self._counts))
        counts.entries, counts.nbytes = len(entries), sum(entry.nbytes for entry in entries)
        return counts

    def _path(self, key: str, suffix: str) -> Path:
        return self.directory / (key + suffix)

    def _files(self) -> list[Path]:
        try:
            return list(self.directory.iterdir())
        except OSError:
            return []

    def _used(self, path: Path) -> None:
        self._counts.hits += 1
        with suppress(OSError):  # evicted meanwhile, or a read-only directory
            os.utime(path)

    def _write(self, path: Path, fill: Callable[[BinaryIO], object]) -> bool:
        partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            if not self.directory.is_dir():
                self._prepare()  # somebody removed it
            with partial.open("xb") as file:
                fill(file)
                size = file.tell()
            if size > self.limit:
                raise OSError("larger than the whole cache may be")
            os.replace(partial, path)
        except OSError:
            self._counts.failures += 1
            _remove(partial)
            return False
        self._grown(size)
        return True

    def _grown(self, size: int) -> None:
        if self._size is None:
            self._size = sum(entry.nbytes for entry in self.entries())
        else:
            self._size += size
        if self._size > self.limit:
            self._evict()

    def _evict(self) -> None:
        self._remove_stale()
        entries = self.entries()
        total = sum(entry.nbytes for entry in entries)
        for entry in entries[:-1]:  # the newest was just written
            if total <= self.limit * _EVICT_TO:
                break
            if entry.path.suffix == _RECORD:
                continue
            if _remove(entry.path):
                self._counts.evicted += 1
            total -= entry.nbytes
        self._size = total

    def _remove_stale(self) -> None:
        for path in self._files():
            with suppress(OSError):
                if path.suffix == _PARTIAL and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _remove(path: Path) -> bool:
    """False where another process was faster, or may not."""
    with suppress(OSError):
        path.unlink()
        return True
    return False


def default() -> Cache | None:
    """The cache that the knobs describe, or None where GRAPHC_CACHE=0 or the compiler's sources cannot be read."""
    if not ENABLED.get() or stamp() is None:
        return None
    return _open(_directory(), LIMIT_MB.get() * 10**6)


def _directory() -> Path:
    chosen = DIRECTORY.get()
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphc"
    return base / "cpu-1"


@cache
def _open(directory: Path, limit: int) -> Cache:
    return Cache(directory, limit)


def key(text: str, target: Target) -> str:
    """The key of what the code generator makes of `text` (a spec's text, or a fingerprint and a packing's text) for `target`."""
    import llvmlite  # late: what is linked already needs no LLVM
    import llvmlite.binding as llvm

    versions = (llvmlite.__version__, llvm.llvm_version_info, generator_version())
    return hashlib.sha256(repr((text, astuple(target), versions)).encode()).hexdigest()


def symbol(text: str) -> str:
    """A symbol for the kernel of a spec, the same in every model: cached code is shared, so it must not be named after its place."""
    return "k" + hashlib.sha256(text.encode()).hexdigest()[:24]


@cache
def generator_version() -> str | None:
    """Hash of the sources that decide what code is made: this back end and `graphc.kernel`. None where there are no source files."""
    folders = [Path(__file__).parent, *map(Path, graphc.kernel.__path__)]
    total = hashlib.sha256()
    count = 0
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            total.update(f"{path.relative_to(folder)};".encode() + hashlib.sha256(path.read_bytes()).digest())
            count += 1
    return total.hexdigest() if count else None


def compile_objects(
    modules: Sequence[tuple[str, Callable[[], str]]], target: Target, *, threads: int | None = None, store: Cache | None = None
) -> dict[str, bytes]:
    """`jit.compile_objects` through the cache: spec text -> object code; the callables of what is found are not called.

    `store`: `default()` where not given.
    """
    from graphc_cpu import jit  # late, as in `key`

    store = store or default()
    if store is None:
        return jit.compile_objects(modules, target, threads=threads)
    keys = {text: key(text, target) for text, _ in modules}
    objects = {text: found for text in keys if (found := store.get(keys[text])) is not None}
    missing = [(text, emit) for text, emit in modules if text not in objects]
    for text, payload in jit.compile_objects(missing, target, threads=threads).items():
        store.put(keys[text], payload)
        objects[text] = payload
    return {text: objects[text] for text in keys}


def build(functions_ir: Mapping[str, str], target: Target) -> Library:
    """`jit.build` through the cache; the key is the IR text itself."""
    host.check_runs(target)
    return load(_objects_of(functions_ir, target))


def runtime(name: str, make_ir: Callable[[], str], target: Target) -> Library:
    """Code that every program needs, made once for this installation and kept linked: a start neither emits nor reads its text."""
    store, version = default(), stamp()
    key = hashlib.sha256(repr(("runtime", name, astuple(target), version)).encode()).hexdigest()
    kept = store.program(key) if store is not None and version is not None else None
    if kept is not None:
        with suppress(ValueError):
            return load_image(Image.from_bytes(kept))
    host.check_runs(target)
    objects = _objects_of({name: make_ir()}, target)
    image = link(objects)
    if store is not None and version is not None and image is not None:
        store.put_program(key, image.to_bytes())
    return load(objects)


def _objects_of(functions_ir: Mapping[str, str], target: Target) -> list[bytes]:
    modules = [(ir, (lambda ir=ir: ir)) for ir in functions_ir.values()]
    return list(compile_objects(modules, target).values())
