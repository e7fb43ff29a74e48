"""Files that users ask for: complete or not at all. Tensors by name are safetensors files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EISDIR
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphc.errors import InputError, ResourceError, UnsupportedError

Arrays = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
_SHOWN = 5  # differences that an error lists


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


def write_tensors(path: Path, arrays: Arrays, texts: Mapping[str, str]) -> None:
    """A safetensors file of arrays and texts by name, on the disk before it has its name. Raises ResourceError; the old file stays."""
    data = safetensors().numpy.save(dict(arrays), dict(texts))

    def fill(file: BinaryIO) -> None:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

    write_atomic(path, fill)


def read_tensors(path: str | os.PathLike[str], what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and texts of a safetensors file. Raises InputError where it is missing, damaged, or none. what: "a checkpoint"."""
    package = safetensors()
    try:
        with package.safe_open(os.fspath(path), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118  no mapping
    except (OSError, package.SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"cannot be read as {what}: {error}", where=str(path), hint=f"another file that holds {what}") from error


def differences(found: Arrays, wanted: Arrays) -> str:
    """The tensors that are missing, unknown, or of another shape or dtype than wanted, as a list in words; "" where there is none."""
    own, here = ({name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()} for arrays in (found, wanted))
    wrong = [f"{name!r} is {own[name]}, here {here[name]}" for name in here if own.get(name, here[name]) != here[name]]
    wrong += [f"{name!r} is missing" for name in here if name not in own]
    wrong += [f"{name!r} is unknown here" for name in own if name not in here]
    return ", ".join(wrong[:_SHOWN]) + (f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")


def safetensors() -> Any:
    """The package. Raises UnsupportedError where it is not installed."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UnsupportedError("files of tensors need the package safetensors", hint="pip install 'graphc[train]'") from error
    return safetensors


def _umask() -> int:
    """The process's mask; the system only tells it by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
