"""Objects linked into one image that runs at any address: what a start of a known program loads instead of calling LLVM's linker.

Kernels refer to nothing but their own constants, relative to the program counter, so all that is known when they are linked. Calls of
functions of the process (the thread pool makes some) go through stubs at the image's end, whose addresses are filled in when it is loaded.
Objects that need more than that (other machines, absolute addresses, writable data) are left to LLVM's linker.

Source: System V ABI, chapters "Object Files" and "Relocation"; its AMD64 supplement, table "Relocation Types".
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from graphc.errors import BackendError
from graphc_cpu.elf import RELA, RELOCATION, SYMTAB, Symbol, all_symbols, machine, sections

_X86_64 = 62
_PC32, _PLT32 = 2, 4
_ALLOC, _WRITE = 2, 1
_NOBITS = 8
_STUB = b"\xff\x25\x00\x00\x00\x00"  # jmp [rip+0]: to the address in the eight bytes behind
_STUB_BYTES = 16
_HEAD = struct.Struct("<8sQQ")  # magic, bytes of the table, bytes of code
_MAGIC = b"GCIMAGE1"


@dataclass(frozen=True)
class Image:
    """Machine code; `symbols`: name -> offset; `imports`: function of the process -> offset of the eight bytes for its address."""

    code: bytes
    symbols: dict[str, int]
    imports: dict[str, int]

    def to_bytes(self) -> bytes:
        table = json.dumps([self.symbols, self.imports]).encode()
        return _HEAD.pack(_MAGIC, len(table), len(self.code)) + table + self.code

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """Raises ValueError for what `to_bytes` did not write."""
        if len(data) < _HEAD.size:
            raise ValueError("no image")
        magic, table, code = _HEAD.unpack_from(data)
        if magic != _MAGIC or len(data) != _HEAD.size + table + code:
            raise ValueError("no image")
        symbols, imports = json.loads(data[_HEAD.size : _HEAD.size + table])
        return cls(data[_HEAD.size + table :], symbols, imports)


def link(objects: Iterable[bytes]) -> Image | None:
    """The objects as one image; None where they need LLVM's linker, or are broken, or define a symbol twice (it says what is wrong)."""
    try:
        linker = _Linker()
        for data in objects:
            if machine(data) != _X86_64:
                return None
            linker.add(data)
        return linker.image()
    except (_Unlinkable, BackendError, struct.error, IndexError, ValueError, OverflowError):
        return None


class _Unlinkable(Exception):
    """More than this linker can do."""


@dataclass(frozen=True)
class _Fixup:
    """Four bytes at `place` get symbol + addend - place."""

    place: int
    kind: int
    target: int | str  # an offset in the image, or a global name
    addend: int


class _Linker:
    def __init__(self) -> None:
        self._code = bytearray()
        self._symbols: dict[str, int] = {}
        self._fixups: list[_Fixup] = []

    def add(self, data: bytes) -> None:
        found = sections(data)
        places: dict[int, int] = {}
        for number, section in enumerate(found):
            if section.flags & _ALLOC:
                if section.flags & _WRITE or section.kind == _NOBITS:
                    raise _Unlinkable
                places[number] = self._place(data[section.offset : section.offset + section.size], section.alignment)
        symbols = [symbol for section in found if section.kind == SYMTAB for symbol in all_symbols(data, section)]
        for symbol in symbols:
            if symbol.is_global and symbol.is_defined:
                if symbol.name in self._symbols:
                    raise _Unlinkable
                self._symbols[symbol.name] = places[symbol.section] + symbol.value
        for section in found:
            if section.kind == RELA and section.info in places:
                self._relocations(data[section.offset : section.offset + section.size], places[section.info], symbols, places)

    def _place(self, content: bytes, alignment: int) -> int:
        self._code += bytes(-len(self._code) % max(alignment, 1))
        place = len(self._code)
        self._code += content
        return place

    def _relocations(self, table: bytes, base: int, symbols: list[Symbol], places: dict[int, int]) -> None:
        for offset, info, addend in RELOCATION.iter_unpack(table):
            kind, symbol = info & 0xFFFFFFFF, symbols[info >> 32]
            if kind not in (_PC32, _PLT32):
                raise _Unlinkable
            target = symbol.name if symbol.is_global else places[symbol.section] + symbol.value
            self._fixups.append(_Fixup(base + offset, kind, target, addend))

    def image(self) -> Image:
        imports: dict[str, int] = {}
        for fixup in self._fixups:
            target = fixup.target
            if isinstance(target, str) and target in self._symbols:
                target = self._symbols[target]
            elif isinstance(target, str):
                if fixup.kind != _PLT32:
                    raise _Unlinkable
                if target not in imports:
                    imports[target] = self._place(_STUB + bytes(_STUB_BYTES - len(_STUB)), _STUB_BYTES) + len(_STUB)
                target = imports[target] - len(_STUB)
            struct.pack_into("<i", self._code, fixup.place, target + fixup.addend - fixup.place)
        return Image(bytes(self._code), dict(self._symbols), imports)
