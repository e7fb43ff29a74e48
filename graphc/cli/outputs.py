"""Output files of long commands, checked before the work begins."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphc.errors import InputError, ResourceError


def check(paths: Mapping[str, tuple[Path | None, Sequence[str]]]) -> None:
    """Option -> (path, endings that fit). Raises InputError for a wrong ending or two outputs in one file, ResourceError for a path where
    no file can be written."""
    seen: dict[Path, str] = {}
    for option, (path, endings) in paths.items():
        if path is None:
            continue
        if path.suffix not in endings:
            raise InputError(f"{option} {path}: the name must end in {' or '.join(endings)}", hint=f"{path.stem}{endings[0]}")
        if path.absolute() in seen:
            raise InputError(f"{option} {path} is the file of {seen[path.absolute()]} too", hint="another name")
        seen[path.absolute()] = option
        _check_writable(option, path)


def _check_writable(option: str, path: Path) -> None:
    """As `graphc.files.write_atomic` will: a new file in the folder, then renamed."""
    if path.is_dir():
        raise ResourceError(f"{option} {path}: is a folder", hint="the name of a file")
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent):
            pass
    except (OSError, ValueError) as error:
        reason = f"{option} {path}: cannot be written: {getattr(error, 'strerror', None) or error}"
        raise ResourceError(reason, hint="another path, in a folder that exists") from error
