"""Sections, symbols and relocations of a relocatable ELF object (64-bit little endian, as LLVM writes it for every CPU Target).

Source: System V ABI, chapters "Object Files", "Symbol Table" and "Relocation".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from graphc.errors import BackendError

_MAGIC = b"\x7fELF\x02\x01"
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section index, value, size
RELOCATION = struct.Struct("<QQq")  # offset, symbol << 32 | type, addend
SYMTAB, RELA = 2, 4
_LOCAL = 0
_UNDEFINED = 0


class Section(NamedTuple):
    """A row of the section table."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """A row of the symbol table; `section`: its number."""

    name: str
    is_global: bool
    section: int
    value: int

    @property
    def is_defined(self) -> bool:
        return self.section != _UNDEFINED


class Symbols(NamedTuple):
    """Global names of an object: those it defines, and those it needs from elsewhere."""

    defined: tuple[str, ...]
    undefined: tuple[str, ...]


def symbols(data: bytes) -> Symbols:
    """Global symbols in file order. Raises BackendError where `data` is no ELF object or is cut off."""
    machine(data)
    try:
        tables = [section for section in sections(data) if section.kind == SYMTAB]
        found = [symbol for table in tables for symbol in all_symbols(data, table) if symbol.is_global and symbol.name]
    except (struct.error, IndexError, ValueError) as error:
        raise BackendError(f"broken ELF object: {error}") from error
    return Symbols(tuple(s.name for s in found if s.is_defined), tuple(s.name for s in found if not s.is_defined))


def machine(data: bytes) -> int:
    """The number of the CPU architecture (e_machine). Raises BackendError where `data` is no ELF object."""
    if data[:6] != _MAGIC or len(data) < 20:
        raise BackendError("object code is not a 64-bit little-endian ELF file")
    return int.from_bytes(data[18:20], "little")


def all_symbols(data: bytes, table: Section) -> Iterator[Symbol]:
    """Of the symbol table that is section `table`, local ones too. Raises struct.error, IndexError or ValueError where it is cut off."""
    names = sections(data)[table.link].offset
    for name, info, _, section, value, _ in _SYMBOL.iter_unpack(data[table.offset : table.offset + table.size]):
        text = data[names + name : data.index(0, names + name)].decode() if name else ""
        yield Symbol(text, info >> 4 != _LOCAL, section, value)


def sections(data: bytes) -> list[Section]:
    """Raises struct.error or ValueError where the table is cut off."""
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    if size != _SECTION.size or start + count * size > len(data):
        raise ValueError("section table")
    return [Section(*row) for row in _SECTION.iter_unpack(data[start : start + count * size])]
