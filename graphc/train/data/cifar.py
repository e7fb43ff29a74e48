"""CIFAR-10 and CIFAR-100 in their binary form (https://www.cs.toronto.edu/~kriz/cifar.html): records of one label byte, or two, and
3072 bytes: 32x32 pixels, first all red ones, then green, then blue."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Union

import numpy as np

from graphc.errors import InputError
from graphc.ir.graph import Array
from graphc.limits import MemoryFor, check_bytes
from graphc.train.data.binary import end, opened, take
from graphc.train.data.source import Arrays, check_labels

Paths = Union[str, PathLike[str], Sequence[Union[str, PathLike[str]]]]
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN_10, _TEST_10 = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",)


def cifar10(path: Paths, train: bool = True) -> Arrays:
    """CIFAR-10: x bytes (N, 3, 32, 32), y (N,) of 10 classes.

    path: the folder of the binary version (`data_batch_1.bin` to `_5`, or `test_batch.bin` with train=False), the folder above it,
    or the files to read. Raises InputError for files that are missing or broken, ResourceError where they exceed the memory limit.
    """
    folder, files = _files(path, "cifar-10-batches-bin", _TRAIN_10 if train else _TEST_10)
    return _read(files, 1, 0, len(CLASSES), _names(folder, "batches.meta.txt", len(CLASSES)) or CLASSES)


def cifar100(path: Paths, train: bool = True, coarse: bool = False) -> Arrays:
    """CIFAR-100: x bytes (N, 3, 32, 32), y (N,) of 100 fine classes, or of 20 coarse ones.

    path: the folder with `train.bin` or `test.bin`, the folder above it, or the files to read; class names come from the text files
    beside them. Raises as `cifar10` does.
    """
    folder, files = _files(path, "cifar-100-binary", ("train.bin",) if train else ("test.bin",))
    count, names = (20, "coarse_label_names.txt") if coarse else (100, "fine_label_names.txt")
    return _read(files, 2, 0 if coarse else 1, count, _names(folder, names, count))


def _files(path: Paths, inner: str, names: tuple[str, ...]) -> tuple[Path, list[Path]]:
    """The folder of class names, and the files."""
    if not isinstance(path, (str, PathLike)):
        files = [Path(item) for item in path]
        if not files:
            raise InputError("no files to read", hint="the folder, or its .bin files")
        return files[0].parent, files
    folder = Path(path)
    if folder.is_file():
        return folder.parent, [folder]
    if (folder / inner).is_dir():
        folder = folder / inner
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"has no {', '.join(missing)}", where=str(folder), hint=f"the folder {inner} of the binary version")
    return folder, [folder / name for name in names]


def _read(files: list[Path], label_bytes: int, label: int, classes: int, names: tuple[str, ...]) -> Arrays:
    parts = [_records(file, label_bytes + PIXELS) for file in files]
    for file, part in zip(files, parts, strict=True):
        check_labels(part[:, label], classes, str(file))
    count = sum(map(len, parts))
    check_bytes((count, *SHAPE), 1, "the pictures")
    with MemoryFor("for the pictures"):
        x, y = np.empty((count, PIXELS), np.uint8), np.empty(count, np.uint8)
        start = 0
        for part in parts:
            x[start : start + len(part)], y[start : start + len(part)] = part[:, label_bytes:], part[:, label]
            start += len(part)
    return Arrays(x.reshape(count, *SHAPE), y, names)


def _records(path: Path, size: int) -> Array:
    with opened(path) as file:
        count, rest = divmod(path.stat().st_size, size)
        if rest or not count:
            raise InputError(f"{path.stat().st_size} bytes are not whole records of {size}", where=str(path), hint="get the file again")
        check_bytes((count, size), 1, f"the records of {path}")
        with MemoryFor(f"for {path}"):
            data = take(file, count * size, path, "records")
            end(file, path, "it had")
            return np.frombuffer(data, np.uint8).reshape(count, size)


def _names(folder: Path, file: str, count: int) -> tuple[str, ...]:
    """Class names, one a line; none where the file is missing. Raises InputError where their number is wrong."""
    path = folder / file
    if not path.is_file():
        return ()
    with opened(path) as text:
        names = tuple(line.strip() for line in text.read(1 << 16).decode("utf-8", "replace").splitlines() if line.strip())
    if len(names) != count:
        raise InputError(f"has {len(names)} names, there are {count} classes", where=str(path))
    return names
