"""Machine code in this process: images are mapped, other objects go through LLVM's linker (JITLink).

JITLink lays out the sections of an object in one piece of memory (so 32-bit relative references always reach); it loads 60 objects in
about 7 ms. An image takes a tenth of a millisecond, and LLVM need not be loaded for it.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.errors import BackendError
from graphc_cpu import elf
from graphc_cpu.link import Image, link

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_library_number = itertools.count()


class Library(Mapping[str, int]):
    """Loaded machine code: symbol -> address. The code lives as long as this object, or until `close`.

    A context manager. Closing while a kernel of it runs is an error of the caller that cannot be detected.
    """

    def __init__(self, unload: Callable[[], object], addresses: Mapping[str, int]) -> None:
        self._unload: Callable[[], object] | None = unload
        self._addresses = addresses

    def __getitem__(self, name: str) -> int:
        return self.address(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def address(self, name: str) -> int:
        """Raises BackendError for a symbol that is not defined here, and after `close`."""
        if self._unload is None:
            raise BackendError(f"symbol {name!r} of a library that was closed")
        if name not in self._addresses:
            raise BackendError(f"no symbol {name!r} in this library", hint=f"one of {', '.join(self._addresses) or '(none)'}")
        return self._addresses[name]

    def function(self, name: str, prototype: Any = KERNEL) -> Any:
        """A ctypes function, by default `kernel(args, thread, threads)`; it releases the GIL and keeps this library alive."""
        function = prototype(self.address(name))
        function.library = self
        return function

    def call(self, name: str, arrays: Sequence[np.ndarray[Any, Any]], threads: int = 1) -> None:
        """Run a kernel on arrays in place of its operands: every thread's share, one after the other on this thread."""
        pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        kernel = self.function(name)
        for thread in range(threads):
            kernel(ctypes.addressof(pointers), thread, threads)

    def close(self) -> None:
        """Unload the code. Calling it again does nothing."""
        unload, self._unload = self._unload, None
        if unload is not None:
            unload()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(objects: Mapping[Any, bytes] | Iterable[bytes]) -> Library:
    """Load objects (a mapping: its values) for this machine and link them with each other and with the process (libc, libm).

    Raises BackendError for a symbol that is defined nowhere (named) or twice, and for broken object code.
    """
    images = list(objects.values() if isinstance(objects, Mapping) else objects)
    linked = link(images)
    return _load_objects(images) if linked is None else load_image(linked)


def load_image(image: Image) -> Library:
    """Map linked code. Raises BackendError where the process lacks a function that it calls, or may not run code that it made."""
    code = bytearray(image.code)
    process = ctypes.CDLL(None, use_errno=True)
    missing = [name for name in image.imports if not hasattr(process, name)]
    if missing:
        raise BackendError(f"undefined symbol: {', '.join(sorted(missing))}")
    for name, offset in image.imports.items():
        address = ctypes.cast(process[name], ctypes.c_void_p).value or 0
        code[offset : offset + 8] = address.to_bytes(8, "little")
    memory = mmap.mmap(-1, max(len(code), 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[: len(code)] = bytes(code)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = process.mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(base, len(memory), mmap.PROT_READ | mmap.PROT_EXEC):
        raise BackendError(f"cannot make code executable: {os.strerror(ctypes.get_errno())}")
    return Library(memory.close, {name: base + offset for name, offset in image.symbols.items()})


def _load_objects(images: Sequence[bytes]) -> Library:
    import llvmlite.binding as llvm  # late: what is linked already needs no LLVM

    found = [elf.symbols(image) for image in images]
    names = [name for one in found for name in one.defined]
    builder = llvm.JITLibraryBuilder().add_current_process()
    for image in images:
        builder.add_object_img(image)
    for name in names:
        builder.export_symbol(name)
    try:
        session = _session()
        tracker = builder.link(session, f"graphc{next(_library_number)}")
    except RuntimeError as error:
        raise BackendError(_reason(found, names) or f"the linker says: {error}") from error
    return Library(tracker.close, {name: tracker[name] for name in names})


@lru_cache(maxsize=1)
def _session() -> Any:
    """The process's one LLJIT: making one costs 0.4 ms, and libraries in it are independent of each other."""
    import llvmlite.binding as llvm

    from graphc_cpu.codegen import initialise

    initialise(llvm.get_process_triple())
    return llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)


def _reason(found: Sequence[elf.Symbols], names: Sequence[str]) -> str:
    """What is wrong with the symbols of objects that do not link; empty where nothing is."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return f"symbol defined twice: {', '.join(twice)}"
    process = ctypes.CDLL(None)
    missing = sorted({name for one in found for name in one.undefined if name not in names and not hasattr(process, name)})
    return f"undefined symbol: {', '.join(missing)}" if missing else ""
