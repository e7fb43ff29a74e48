"""Compile kernels in parallel and load them into this process.

`build` does both at once. Objects are loaded with LLVM's JITLink, which lays out the sections of an object in one piece of memory (so
32-bit relative references always reach) and loads 60 objects in about 7 ms.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numpy as np

from graphc.errors import BackendError, GraphcError
from graphc.knobs import knob
from graphc.target import Target
from graphc_cpu import elf, host
from graphc_cpu.codegen import Generator, initialise

K = TypeVar("K", bound=Hashable)
COMPILE_THREADS = knob("GRAPHC_COMPILE_THREADS", int, 0, "threads that compile kernels; 0: one per usable CPU")
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def compile_objects(
    modules: Sequence[tuple[K, Callable[[], str]]], target: Target, *, threads: int | None = None, opt: int = 1
) -> dict[K, bytes]:
    """Object code of each module, in the order given. The callables return IR text and run on the compiling threads.

    The bytes do not depend on `threads` (default: knob GRAPHC_COMPILE_THREADS). The target need not be this machine.
    Raises the error of the first module that fails, with its key.
    """
    wanted = threads if threads is not None else COMPILE_THREADS.get() or host.usable_cpus()
    work = _Work(modules, target, opt)
    others = [threading.Thread(target=work.run, name="graphc-compile") for _ in range(min(wanted, len(modules)) - 1)]
    for thread in others:
        thread.start()
    work.run()
    for thread in others:
        thread.join()
    return work.results()


class _Work:
    """Modules to compile, taken one by one by any number of threads."""

    def __init__(self, modules: Sequence[tuple[K, Callable[[], str]]], target: Target, opt: int) -> None:
        self._modules, self._target, self._opt = modules, target, opt
        self._next = itertools.count()  # next() is atomic
        self._objects: dict[int, bytes] = {}
        self._errors: dict[int, BaseException] = {}

    def run(self) -> None:
        generator: Generator | None = None
        while (index := next(self._next)) < len(self._modules) and not self._errors:
            try:
                generator = generator or Generator(self._target, self._opt)
                self._objects[index] = generator.object(self._modules[index][1]())
            except BaseException as error:  # handed to the caller's thread
                self._errors[index] = error

    def results(self) -> dict[Any, bytes]:
        for index in sorted(self._errors):
            error = self._errors[index]
            raise error.at(f"kernel {self._modules[index][0]}") if isinstance(error, GraphcError) else error
        return {key: self._objects[index] for index, (key, _) in enumerate(self._modules)}


def assembly(ir: str, target: Target, opt: int = 1) -> str:
    """The assembly text of a module, as `compile_objects` would encode it: to look for spills, and for `graphc dump`."""
    return Generator(target, opt).assembly(ir)


class Library(Mapping[str, int]):
    """Loaded machine code: symbol -> address. The code lives as long as this object, or until `close`.

    A context manager. Closing while a kernel of it runs is an error of the caller that cannot be detected.
    """

    def __init__(self, code: tuple[Any, Any], addresses: dict[str, int]) -> None:
        self._session, self._tracker = code
        self._addresses = addresses

    def __getitem__(self, name: str) -> int:
        return self.address(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def address(self, name: str) -> int:
        """Raises BackendError for a symbol that is not defined here, and after `close`."""
        if self._tracker is None:
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
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(objects: Mapping[Any, bytes] | Iterable[bytes]) -> Library:
    """Load objects (a mapping: its values) for this machine and link them with each other and with the process (libc, libm).

    Raises BackendError for a symbol that is defined nowhere (named) or twice, and for broken object code.
    """
    images = list(objects.values() if isinstance(objects, Mapping) else objects)
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
    return Library((session, tracker), {name: tracker[name] for name in names})


def build(functions_ir: Mapping[str, str], target: Target, *, threads: int | None = None, opt: int = 1) -> Library:
    """Compile IR modules (name -> whole module's text) and load them. Raises BackendError where this machine cannot run `target`."""
    host.check_runs(target)
    modules = [(name, (lambda text=text: text)) for name, text in functions_ir.items()]
    return load(compile_objects(modules, target, threads=threads, opt=opt))


_library_number = itertools.count()


@lru_cache(maxsize=1)
def _session() -> Any:
    """The process's one LLJIT: making one costs 0.4 ms, and libraries in it are independent of each other."""
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
