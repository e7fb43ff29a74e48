"""Packed weights in one file, mapped read-only: a header, then the parts, each aligned to 64 bytes.

Header: magic, number of parts, per part (offset, bytes, sample), SHA-256 of all that; little endian. A sample is the CRC-32 of the first
and the last 4 KiB of a part: reading every byte of the file at each start would cost more than packing a small model again. So `read`
finds files that were cut off, mixed up or zeroed by a crash; `verify` also finds a flipped bit anywhere, through the CRC-32 at the end.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
ALIGNMENT = 64
_MAGIC = b"GCWEIGH1"
_ENTRY = struct.Struct("<QQQ")
_SAMPLE = 4096
_CRC = 4


class BrokenFileError(ValueError):
    """The file is not what was written; `Cache` turns it into a miss."""


def write(file: BinaryIO, parts: Sequence[np.ndarray[Any, Any]]) -> None:
    """Write parts (any dtype; copied where not C-contiguous) as raw bytes."""
    flat = [np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts]
    offsets, end = _layout([part.size for part in flat])
    table = b"".join(_ENTRY.pack(offset, part.size, _sample(part)) for offset, part in zip(offsets, flat, strict=True))
    header = _MAGIC + len(flat).to_bytes(8, "little") + table
    crc = _put(file, header + hashlib.sha256(header).digest(), 0)
    for offset, part in zip(offsets, flat, strict=True):
        crc = _put(file, bytes(offset - file.tell()), crc)
        crc = _put(file, part.data, crc)
    crc = _put(file, bytes(end - file.tell()), crc)
    file.write(crc.to_bytes(_CRC, "little"))


def read(path: Path) -> tuple[Bytes, ...]:
    """The parts as read-only views of one mapping. Raises OSError, or BrokenFileError where sizes, header or samples do not fit."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    count = int.from_bytes(data[8:16].tobytes(), "little")
    size = 16 + count * _ENTRY.size
    if data[:8].tobytes() != _MAGIC or size + 32 > data.size:
        raise BrokenFileError("no weight file")
    header = data[:size].tobytes()
    if hashlib.sha256(header).digest() != data[size : size + 32].tobytes():
        raise BrokenFileError("broken header")
    entries = list(_ENTRY.iter_unpack(header[16:]))
    if data.size != _layout([nbytes for _, nbytes, _ in entries])[1] + _CRC:
        raise BrokenFileError("cut off")
    views = tuple(np.asarray(data[offset : offset + nbytes]) for offset, nbytes, _ in entries)
    if any(_sample(view) != sample for view, (_, _, sample) in zip(views, entries, strict=True)):
        raise BrokenFileError("damaged part")
    return views


def verify(path: Path) -> None:
    """Read the whole file; raises BrokenFileError where any byte changed."""
    read(path)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    if zlib.crc32(data.data[:-_CRC]) != int.from_bytes(data[-_CRC:].tobytes(), "little"):
        raise BrokenFileError("damaged file")


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Offsets of the parts, and the end of the last."""
    position = 16 + len(sizes) * _ENTRY.size + 32
    offsets = []
    for size in sizes:
        position = -(-position // ALIGNMENT) * ALIGNMENT
        offsets.append(position)
        position += size
    return offsets, position


def _sample(part: Bytes) -> int:
    return zlib.crc32(part[-_SAMPLE:].tobytes(), zlib.crc32(part[:_SAMPLE].tobytes()))


def _put(file: BinaryIO, data: bytes | memoryview, crc: int) -> int:
    file.write(data)
    return zlib.crc32(data, crc)
