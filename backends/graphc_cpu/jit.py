"""Compile kernels in parallel and load them into this process; `build` does both at once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from graphc.errors import GraphcError
from graphc.knobs import knob
from graphc.target import Target
from graphc_cpu import host
from graphc_cpu.codegen import Generator, as_written
from graphc_cpu.library import KERNEL, Library, load

__all__ = ["KERNEL", "Library", "assembly", "build", "compile_objects", "load"]
K = TypeVar("K", bound=Hashable)
COMPILE_THREADS = knob("GRAPHC_COMPILE_THREADS", int, 0, "threads that compile kernels; 0: one per usable CPU")


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
    with as_written(target):  # once, not for each module
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


def build(functions_ir: Mapping[str, str], target: Target, *, threads: int | None = None, opt: int = 1) -> Library:
    """Compile IR modules (name -> whole module's text) and load them. Raises BackendError where this machine cannot run `target`."""
    host.check_runs(target)
    modules = [(name, (lambda text=text: text)) for name, text in functions_ir.items()]
    return load(compile_objects(modules, target, threads=threads, opt=opt))
