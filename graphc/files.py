"""Files that users ask for: complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from errno import EISDIR
from pathlib import Path
from typing import BinaryIO

from graphc.errors import ResourceError


def write_atomic(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write beside the target and rename, so that no partial file is ever seen under its name. A ResourceError where that fails."""
    partial = ""
    try:
        if not path.name or path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
        os.chmod(partial, mode)
        os.replace(partial, path)
    except BaseException as error:
        if partial:
            with suppress(OSError):
                os.unlink(partial)
        if isinstance(error, (OSError, ValueError)):  # ValueError: a path with a NUL, or without a name
            reason = f"cannot be written: {getattr(error, 'strerror', None) or error}"
            raise ResourceError(reason, where=str(path), hint="another path for the output") from error
        raise


def _umask() -> int:
    """The process's mask; the system only tells it by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
