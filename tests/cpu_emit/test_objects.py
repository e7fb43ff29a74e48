"""The object code of every primitive needs nothing from outside: no libm, no compiler-rt, no memcpy."""

from __future__ import annotations

from typing import Any

import pytest

from graphc.kernel.expr import PRIMITIVES
from graphc.target import TARGETS
from graphc.types.dtype import ALL, bool_, f32, f64, i8, i64, u64

LEVELS = ("avx512", "avx2", "sse2", "neon")


def undefined_symbols(image: bytes) -> list[str]:
    """Names of undefined symbols of an ELF64 little-endian relocatable file (System V gABI, symbol table)."""
    section_offset = int.from_bytes(image[0x28:0x30], "little")
    count = int.from_bytes(image[0x3C:0x3E], "little")
    headers = [image[section_offset + 64 * i : section_offset + 64 * (i + 1)] for i in range(count)]
    names: list[str] = []
    for header in headers:
        if int.from_bytes(header[4:8], "little") != 2:  # SHT_SYMTAB
            continue
        start, size = (int.from_bytes(header[i : i + 8], "little") for i in (0x18, 0x20))
        strings = int.from_bytes(headers[int.from_bytes(header[0x28:0x2C], "little")][0x18:0x20], "little")
        for at in range(start + 24, start + size, 24):  # the first symbol is null
            name, section = int.from_bytes(image[at : at + 4], "little"), int.from_bytes(image[at + 6 : at + 8], "little")
            if section == 0:
                names.append(image[strings + name : image.index(b"\0", strings + name)].decode())
    return names


@pytest.mark.parametrize("level", LEVELS)
def test_primitives_call_nothing(tools: Any, level: str) -> None:
    found = [(fn, dtype) for fn in PRIMITIVES for dtype in (bool_, i8, i64, u64, f32, f64) if tools.has_primitive(fn, dtype)]
    cases = [tools.primitive(fn, dtype, 16) for fn, dtype in found]
    cases += [tools.primitive(fn, dtype, 1) for fn, dtype in found if dtype.bits == 64]
    assert len(cases) > 200
    texts = [tools.element_loop(case, TARGETS[level], f"apply{i}") for i, case in enumerate(cases)]
    assert undefined_symbols(tools.emit_object(texts, level)) == []


@pytest.mark.parametrize("level", LEVELS)
def test_casts_call_nothing(tools: Any, level: str) -> None:
    cases = [tools.conversion(source, to, lanes) for source in ALL for to in ALL for lanes in (1, 16)]
    texts = [tools.element_loop(case, TARGETS[level], f"apply{i}") for i, case in enumerate(cases)]
    assert undefined_symbols(tools.emit_object(texts, level)) == []


def test_a_libcall_is_seen(tools: Any) -> None:
    """The test above looks at what it means to: libm's floor is found where SSE2 needs it."""
    text = f'target triple = "{TARGETS["sse2"].triple}"\ndefine float @f(float %x) {{\n'
    text += " %y = call float @llvm.floor.f32(float %x)\n ret float %y\n}"
    text += "\ndeclare float @llvm.floor.f32(float)\n"
    assert undefined_symbols(tools.emit_object([text], "sse2")) == ["floorf"]
