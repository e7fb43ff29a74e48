"""Augmentation: what an entry of `Loader(augment=[...])` is, and what moves whole pixels: flips, crops, shifts, cutout.

Every entry is a small frozen dataclass with two members:

    draws               how many random numbers it takes for a sample
    apply(images, u)    images (N, C, H, W) as bytes 0..255, or as floats in 0..1; u (N, draws), uniform in [0, 1), f64 -> images

`apply` gives the same for a sample whatever batch it comes in, writes to nothing it was given, and keeps the dtype. What an entry needs at
random comes from `u` alone. `fill` is a value of the pixels as they come: 0..255 for bytes, 0..1 for floats. Any object with these two
members is an entry like those here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array

WHITE = 255  # the largest value of a byte


class Augmentation(Protocol):
    """One entry of the list; see above."""

    @property
    def draws(self) -> int: ...

    def apply(self, images: Array, u: Array, /) -> Array: ...


@dataclass(frozen=True)
class HorizontalFlip:
    """Left becomes right, with probability `p`."""

    p: float = 0.5
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        between("p", self.p, 0, 1)

    def apply(self, images: Array, u: Array) -> Array:
        return _flipped(images, u[:, 0] < self.p, -1)


@dataclass(frozen=True)
class VerticalFlip:
    """Up becomes down, with probability `p`."""

    p: float = 0.5
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        between("p", self.p, 0, 1)

    def apply(self, images: Array, u: Array) -> Array:
        return _flipped(images, u[:, 0] < self.p, -2)


@dataclass(frozen=True)
class RandomCrop:
    """A window of `size` pixels (one number, or (height, width)) somewhere in the picture, every place with the same probability.

    padding: so many pixels of the value `fill` are put around the picture first; `RandomCrop(32, padding=4)` is usual for CIFAR.
    """

    size: int | tuple[int, int]
    padding: int = 0
    fill: float = 0
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        pair(self.size)
        whole("padding", self.padding, 0)
        between("fill", self.fill, 0, WHITE)

    def apply(self, images: Array, u: Array) -> Array:
        height, width = pair(self.size)
        padded = pad(images, self.padding, self.fill)
        rows, columns = padded.shape[2] - height + 1, padded.shape[3] - width + 1
        if rows < 1 or columns < 1:
            raise InputError(f"a crop of {height}x{width} from pictures of {padded.shape[2]}x{padded.shape[3]}", hint="a smaller size")
        return cut(padded, (height, width), pick(u[:, 0], rows), pick(u[:, 1], columns))


@dataclass(frozen=True)
class Cutout:
    """A square of `size` pixels becomes `fill`; its centre is any pixel, so a part of it may lie outside. (DeVries and Taylor, 2017.)"""

    size: int
    fill: float = 0
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        whole("size", self.size, 1)
        between("fill", self.fill, 0, WHITE)

    def apply(self, images: Array, u: Array) -> Array:
        inside = [self._inside(u[:, axis], images.shape[2 + axis]) for axis in (0, 1)]
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return np.where(hole, images.dtype.type(self.fill), images)

    def _inside(self, u: Array, extent: int) -> Array:
        start = pick(u, extent) - self.size // 2
        distance = np.arange(extent) - start[:, None]
        inside: Array = (distance >= 0) & (distance < self.size)
        return inside


def check_images(images: Array, what: str) -> None:
    """Raises InputError for what is no batch of pictures."""
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        reason = f"{what} takes pictures (C, H, W) of bytes, or of float32 in 0..1, not {images.dtype}{list(images.shape[1:])}"
        raise InputError(reason, hint="a source of pictures, or no augmentation")


def pick(u: Array, count: int) -> Array:
    """Whole numbers 0 to count - 1."""
    return (u * count).astype(np.intp)


def span(u: Array, low: float, high: float) -> Array:
    """Numbers from low to high."""
    return low + u * (high - low)


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises AttributeValueError for a number outside; NaN is outside."""
    if not low <= value <= high:
        raise AttributeValueError(f"{name}={value!r}", hint=f"a number from {low:g} to {high:g}")


def ordered(name: str, values: tuple[float, float], low: float, high: float) -> None:
    """Raises AttributeValueError for what is no range from a smaller to a larger number between low and high."""
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
        raise AttributeValueError(f"{name}={values!r}", hint=f"(smallest, largest), both from {low:g} to {high:g}")


def whole(name: str, value: int, least: int) -> None:
    """Raises AttributeValueError for what is no whole number, or too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AttributeValueError(f"{name}={value!r}", hint=f"a whole number, at least {least}")


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size that may be one number. Raises AttributeValueError for what is no size."""
    sides: Sequence[int] = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise AttributeValueError(f"size={size!r}", hint="pixels: one number, or (height, width)")
    for side in sides:
        whole("size", side, 1)
    return sides[0], sides[1]


def pad(images: Array, padding: int, fill: float) -> Array:
    """`padding` pixels of the value `fill` on all four sides."""
    if not padding:
        return images
    n, channels, height, width = images.shape
    made: Array = np.full((n, channels, height + 2 * padding, width + 2 * padding), fill, images.dtype)
    made[:, :, padding : padding + height, padding : padding + width] = images
    return made


def cut(images: Array, size: tuple[int, int], rows: Array, columns: Array) -> Array:
    """From each picture the window (height, width) that begins at its row and column."""
    made: Array = np.empty((*images.shape[:2], *size), images.dtype)
    for window, image, row, column in zip(made, images, rows.tolist(), columns.tolist(), strict=True):
        window[...] = image[:, row : row + size[0], column : column + size[1]]
    return made


def _flipped(images: Array, which: Array, axis: int) -> Array:
    made = images.copy()
    made[which] = np.flip(images[which], axis)
    return made
