"""A quick identity of the installed compiler: what kept programs depend on besides the model and the options.

Names, sizes and times of change of all source files; Python trusts the same to find out whether a .pyc file is up to date. Reading the
files would take ten times as long, importing LLVM or onnx to ask for a version twenty times.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

_PACKAGES = ("graphc", "graphc_cpu", "graphc_onnx", "llvmlite", "onnx")
_SUFFIXES = (".py", ".so")
_DEEP = ("graphc", "graphc_cpu", "graphc_onnx")  # of the others, which are large, the folders that hold version and library
_FOLDERS = {"llvmlite": ("", "binding"), "onnx": ("",)}


@cache
def stamp() -> str | None:
    """None where the compiler is not made of files (then nothing is kept)."""
    total = hashlib.sha256(f"{sys.version} {np.__version__}".encode())
    for package in _PACKAGES:
        spec = find_spec(package)
        folders = spec.submodule_search_locations if spec is not None else None
        if not folders:
            if package in ("graphc", "graphc_cpu"):
                return None
            total.update(f"no {package};".encode())
            continue
        count = 0
        for name, size, changed in sorted(_files(package, Path(folders[0]))):
            total.update(f"{package}/{name} {size} {changed};".encode())
            count += 1
        if not count:
            return None
    return total.hexdigest()


def _files(package: str, folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path in the package, bytes, nanoseconds of the last change."""
    if package in _DEEP:
        yield from _walk(str(folder), "")
        return
    for part in _FOLDERS[package]:
        yield from _rows(str(folder / part), part)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int, int]]:
    yield from _rows(folder, prefix)
    with os.scandir(folder) as entries:
        inner = [entry.name for entry in entries if entry.is_dir() and entry.name != "__pycache__"]
    for name in inner:
        yield from _walk(os.path.join(folder, name), f"{prefix}/{name}")


def _rows(folder: str, prefix: str) -> Iterator[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIXES):
                    status = entry.stat()
                    yield f"{prefix}/{entry.name}", status.st_size, status.st_mtime_ns
    except OSError:
        return
