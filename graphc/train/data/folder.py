"""Pictures in folders, one folder for each class: read, scaled and cropped to one size when a batch asks for them."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import NoReturn, Union

import numpy as np

from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array
from graphc.picture import convert, fitted, open_picture

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageFolder:
    """`path/CLASS/**/picture.jpg`: classes are the folders in sorted order, samples the files below them in sorted order.

    size: pixels of all samples, one number for squares or (height, width); a picture is scaled to cover it and its middle is taken.
    channels: 1 (gray), 3 (RGB) or 4 (RGBA). A sample is bytes (channels, height, width) and the number of its class. Files that do not
    end like a format that Pillow reads are no samples: `ignored` has their paths; hidden files and folders are passed over.

    Raises InputError for a folder without classes or a class without pictures, and, when it is read, for a picture that is broken.
    """

    def __init__(self, path: Union[str, PathLike[str]], size: int | tuple[int, int], channels: int = 3) -> None:
        self.path = Path(path)
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.channels = channels
        if len(self.size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in self.size):
            raise AttributeValueError(f"size={size!r}", hint="pixels, at least 1: one number, or (height, width)")
        if channels not in _MODES:
            raise AttributeValueError(f"channels={channels!r}", hint="1 for gray, 3 for RGB, 4 for RGBA")
        self.classes = _classes(self.path)
        self.files: list[Path] = []
        self.ignored: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            pictures, others = _pictures(self.path / name)
            if not pictures:
                raise InputError("has no pictures", where=str(self.path / name), hint="files that Pillow reads, or remove the folder")
            self.files += pictures
            self.ignored += others
            labels += [label] * len(pictures)
        self.labels: Array = np.asarray(labels, np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Array, int]:
        return self._pixels(self.files[index]), int(self.labels[index])

    def gather(self, indices: Array) -> tuple[Array, Array]:
        """The pictures and labels with these numbers."""
        x = np.empty((len(indices), self.channels, *self.size), np.uint8)
        for row, index in zip(x, indices, strict=True):
            row[...] = self._pixels(self.files[index])
        return x, self.labels[indices]

    def _pixels(self, file: Path) -> Array:
        height, width = self.size
        picture = convert(open_picture(file, at_least=max(self.size)), _MODES[self.channels])
        pixels = np.asarray(fitted(picture, (width, height)))
        return pixels.reshape(height, width, self.channels).transpose(2, 0, 1)

    def __repr__(self) -> str:
        return f"<graphc.data.ImageFolder {str(self.path)!r}: {len(self)} pictures, {len(self.classes)} classes>"


def _classes(path: Path) -> tuple[str, ...]:
    try:
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        _unreadable(error)
    except ValueError as error:
        raise InputError(f"is no path: {error}", where=str(path)) from error
    if not names:
        raise InputError("holds no folders", where=str(path), hint="one folder of pictures for each class")
    return tuple(names)


def _pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files below a folder that are pictures by their names, and the others, each sorted."""
    from PIL import Image

    known = {suffix for suffix, format in Image.registered_extensions().items() if format in Image.OPEN}
    found: tuple[list[Path], list[Path]] = ([], [])
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                file = Path(parent, name)
                found[file.suffix.lower() not in known].append(file)
    return found


def _unreadable(error: OSError) -> NoReturn:
    hint = "a folder that holds one folder for each class"
    raise InputError(f"cannot be read: {error.strerror}", where=str(error.filename), hint=hint) from error
