"""Reading binary files that nobody vouches for: what a header claims is checked before memory is taken for it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from graphc.errors import InputError

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 22


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, unpacked where it is gzip (by its first bytes). Raises InputError where it, or what is done with it, cannot be read."""
    where = str(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError("is not a file", where=where, hint="the path of a file")
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if not packed:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]  # it reads like one
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(reason, where=where, hint="check the path, or whether the file is complete") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"broken gzip file: {error}", where=where, hint="get the file again") from error


def take(file: BinaryIO, size: int, path: Path, what: str) -> bytearray:
    """Exactly `size` bytes; memory grows with what is there, not with what is asked for. Raises InputError where the file ends before."""
    data = bytearray()
    while len(data) < size:
        piece = file.read(min(_CHUNK, size - len(data)))
        if not piece:
            raise InputError(f"ends after {len(data)} of {size} bytes of {what}", where=str(path), hint="get the file again")
        data += piece
    return data


def end(file: BinaryIO, path: Path, what: str) -> None:
    """Raises InputError where anything follows."""
    if file.read(1):
        raise InputError(f"has more bytes than {what}", where=str(path), hint="another file, or get it again")
