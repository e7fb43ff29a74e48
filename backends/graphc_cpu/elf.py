"""The symbols of a relocatable ELF object (64-bit little endian, as LLVM writes it for every CPU Target).

Source: System V ABI, chapters "Object Files" and "Symbol Table".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from graphc.errors import BackendError

_MAGIC = b"\x7fELF\x02\x01"
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section index, value, size
_SYMTAB = 2
_LOCAL = 0
_UNDEFINED = 0


class Symbols(NamedTuple):
    """Global names of an object: those it defines, and those it needs from elsewhere."""

    defined: tuple[str, ...]
    undefined: tuple[str, ...]


def symbols(data: bytes) -> Symbols:
    """Global symbols in file order. Raises BackendError where `data` is no ELF object or is cut off."""
    if data[:6] != _MAGIC:
        raise BackendError("object code is not a 64-bit little-endian ELF file")
    try:
        found = list(_globals(data))
    except (struct.error, IndexError, ValueError) as error:
        raise BackendError(f"broken ELF object: {error}") from error
    return Symbols(tuple(name for name, section in found if section != _UNDEFINED), tuple(name for name, s in found if s == _UNDEFINED))


def _globals(data: bytes) -> Iterator[tuple[str, int]]:
    sections = _sections(data)
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind != _SYMTAB:
            continue
        names = sections[link][4]
        for name, info, _, section, _, _ in _SYMBOL.iter_unpack(data[offset : offset + size]):
            if info >> 4 != _LOCAL and name:
                yield data[names + name : data.index(0, names + name)].decode(), section


def _sections(data: bytes) -> list[tuple[int, ...]]:
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    if size != _SECTION.size or start + count * size > len(data):
        raise ValueError("section table")
    return list(_SECTION.iter_unpack(data[start : start + count * size]))
