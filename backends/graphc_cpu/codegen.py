"""IR text to relocatable object code with llvmlite: code generation only, no middle-end passes.

Middle-end passes gain nothing on code whose vectors and loops are explicit, and double the compile time; level 1 of code generation is
as good as 3. llvmlite serialises every call with a lock of its own. LLVM itself allows threads that share no context, so parsing,
verifying and emitting (the long calls) go through a second ctypes handle on the same C functions, without that lock. Their argument
types are copied from llvmlite's own declarations; where those are not what is expected, the locked public functions do the same work.

For machines with 32 wide registers two passes are off (`as_written`): loop strength reduction and the scheduler of machine instructions.
Pointers of the emitted loops advance by themselves, and instructions stand in an order that keeps accumulators in registers: without the
two, the kernels of a training step of ResNet-18 take 1.7 instead of 3.0 s and spill 12 instead of 147 vectors. With 16 registers the
order as written needs too many.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite.binding import ffi

from graphc.errors import BackendError
from graphc.target import Target

_initialised: set[str] = set()
_initialising = threading.Lock()
_SWITCHES = (("disable-lsr", True), ("enable-misched", False))  # of the process; their values while code is generated as written
_KNOWN = (22,)  # major versions of LLVM that have the switches: a switch that is unknown would end the process
_turns = threading.Condition()
_generating = [0, 0]  # open blocks of `as_written`, without the switches and with them


def initialise(triple: str) -> None:
    """Register LLVM's code generators for a triple, once per process; the host's alone where they suffice (5 ms less)."""
    native = triple.split("-")[0] == llvm.get_process_triple().split("-")[0]
    key = "native" if native else "all"
    with _initialising:
        if key in _initialised:
            return
        if native:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            llvm.initialize_native_asmparser()
        else:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
        _initialised.add(key)


def target_machine(target: Target, opt: int = 1) -> Any:
    """An llvmlite TargetMachine for position-independent code at code-generation level `opt` (0 to 3)."""
    initialise(target.triple)
    try:
        machine = llvm.Target.from_triple(target.triple)
        return machine.create_target_machine(cpu=target.cpu, features=target.features, opt=opt, reloc="pic", codemodel="default")
    except RuntimeError as error:
        raise BackendError(f"LLVM has no code generator for {target.name} ({target.triple}): {error}") from error


@contextmanager
def as_written(target: Target) -> Iterator[None]:
    """While code for `target` is generated: the switches are set where that is better for it, and as LLVM (and others who use llvmlite)
    have them otherwise. Waits until no code that needs them the other way is being generated."""
    wanted = target.vector_bytes == 64 and llvm.llvm_version_info[0] in _KNOWN
    with _turns:
        _turns.wait_for(lambda: not _generating[not wanted])
        if wanted and not _generating[wanted]:
            _switch(on=True)
        _generating[wanted] += 1
    try:
        yield
    finally:
        with _turns:
            _generating[wanted] -= 1
            if wanted and not _generating[wanted]:
                _switch(on=False)
            _turns.notify_all()


def _switch(*, on: bool) -> None:
    for name, value in _SWITCHES:
        llvm.set_option("graphc", f"-{name}={int(value == on)}")


class Generator:
    """Turns IR text into object code. Not for two threads at once: each thread makes its own.

    `unlocked=False` forces llvmlite's public, locked functions; the bytes are the same.
    """

    def __init__(self, target: Target, opt: int = 1, *, unlocked: bool = True) -> None:
        self._target = target
        self._machine = target_machine(target, opt)
        self._raw = raw_functions() if unlocked else None

    def object(self, ir: str) -> bytes:
        """Relocatable object code of one module. Raises BackendError with LLVM's message where the text is not valid IR."""
        return self._generate(ir, as_object=True)

    def assembly(self, ir: str) -> str:
        return self._generate(ir, as_object=False).decode()

    def _generate(self, ir: str, *, as_object: bool) -> bytes:
        context = llvm.create_context()
        try:
            with as_written(self._target):
                if self._raw is not None:
                    return self._raw.generate(self._machine, context, ir, as_object)
                with llvm.parse_assembly(ir, context) as module:
                    module.verify()
                    return bytes(self._machine.emit_object(module) if as_object else self._machine.emit_assembly(module).encode())
        except RuntimeError as error:
            raise BackendError(f"LLVM rejects generated code: {error}", hint="report this as a bug in graphc") from error
        finally:
            context.close()


@dataclass(frozen=True)
class _Raw:
    """The three long C functions, called without llvmlite's lock (ctypes releases the GIL too)."""

    parse: Any
    verify: Any
    emit: Any

    def generate(self, machine: Any, context: Any, ir: str, as_object: bool) -> bytes:
        module = self._parse(context, ir)
        with module:
            with ffi.OutputString() as message:
                if self.verify(module, message):
                    raise RuntimeError(str(message))
            with ffi.OutputString() as message:
                buffer = self.emit(machine, module, int(as_object), message)
                if not buffer:
                    raise RuntimeError(str(message))
            try:
                return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
            finally:
                ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)

    def _parse(self, context: Any, ir: str) -> Any:
        with ffi.OutputString() as message:
            pointer = self.parse(context, ir.encode(), message)
            if not pointer or message:
                raise RuntimeError(f"parsing: {message}")
        return llvm.ModuleRef(pointer, context)


_EXPECTED = {"LLVMPY_ParseAssembly": 3, "LLVMPY_VerifyModule": 2, "LLVMPY_TargetMachineEmitToMemory": 4}


@lru_cache(maxsize=1)
def raw_functions() -> _Raw | None:
    """The unlocked functions, or None where this llvmlite does not declare them as expected."""
    try:
        library = ctypes.CDLL(ffi.lib._name)
        functions = [_unlocked(library, name, count) for name, count in _EXPECTED.items()]
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return _Raw(*functions)


def _unlocked(library: ctypes.CDLL, name: str, arguments: int) -> Any:
    declared, function = getattr(ffi.lib, name), getattr(library, name)
    if len(declared.argtypes) != arguments:
        raise ValueError(name)
    function.argtypes, function.restype = declared.argtypes, declared.restype
    return function
