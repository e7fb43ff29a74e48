"""Augmentation that resamples: shift, rotation, shear, zoom, random resized crop.

The first four are affine maps. Neighbours in the list with the same `fill` are multiplied into one map, so that a picture is resampled
once: bilinear, through Pillow. What comes from outside of the picture is `fill`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError
from graphc.ir.graph import Array
from graphc.train.data.augment import WHITE, between, cut, ordered, pad, pair, pick, span, whole

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_DEGREES = 180
_MOST_SHEAR = 80
_MOST_ZOOM = 100
_DIGITS = 12  # of a map: the cosine of a right angle is 0, and then pixels are copied exactly (Pillow rounds bytes down)


class Affine:
    """A map of the plane for each sample. `maps` gives it as (N, 3, 3): from a point (x, y, 1) of the result to one of the picture, in
    pixels from the picture's middle, x to the right and y down."""

    draws: ClassVar[int]
    fill: float

    def maps(self, u: Array) -> Array:
        raise NotImplementedError

    def apply(self, images: Array, u: Array) -> Array:
        return resample(images, self.maps(u), self.fill)


@dataclass(frozen=True)
class Shift(Affine):
    """By up to `pixels` whole pixels to each side, in x and in y (one number, or (x, y)), every distance with the same probability."""

    pixels: int | tuple[int, int]
    fill: float = 0
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, (int, tuple)) or len(self._most) != 2:
            raise AttributeValueError(f"pixels={self.pixels!r}", hint="a whole number, or (x, y)")
        for most in self._most:
            whole("pixels", most, 0)
        between("fill", self.fill, 0, WHITE)

    def apply(self, images: Array, u: Array) -> Array:
        most = max(self._most)
        start = self.maps(u)[:, :2, 2].astype(np.intp) + most
        return cut(pad(images, most, self.fill), images.shape[2:], start[:, 1], start[:, 0])

    @property
    def _most(self) -> tuple[int, int]:
        return (self.pixels, self.pixels) if isinstance(self.pixels, int) else self.pixels

    def maps(self, u: Array) -> Array:
        found = _identity(len(u))
        for axis, most in enumerate(self._most):
            found[:, axis, 2] = most - pick(u[:, axis], 2 * most + 1)
        return found


@dataclass(frozen=True)
class Rotation(Affine):
    """By an angle from -degrees to degrees around the middle, positive ones clockwise."""

    degrees: float
    fill: float = 0
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        between("degrees", self.degrees, 0, _MOST_DEGREES)
        between("fill", self.fill, 0, WHITE)

    def maps(self, u: Array) -> Array:
        angle = np.deg2rad(span(u[:, 0], -self.degrees, self.degrees))
        found = _identity(len(u))
        found[:, 0, 0] = found[:, 1, 1] = np.cos(angle)
        found[:, 0, 1], found[:, 1, 0] = np.sin(angle), -np.sin(angle)
        return found


@dataclass(frozen=True)
class Shear(Affine):
    """Skewed: vertical lines lean by an angle from -x to x degrees, horizontal lines by one from -y to y, around the middle."""

    x: float
    y: float = 0
    fill: float = 0
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            between(name, getattr(self, name), 0, _MOST_SHEAR)
        between("fill", self.fill, 0, WHITE)

    def maps(self, u: Array) -> Array:
        found = _identity(len(u))
        found[:, 0, 1] = np.tan(np.deg2rad(span(u[:, 0], -self.x, self.x)))
        lean = _identity(len(u))
        lean[:, 1, 0] = np.tan(np.deg2rad(span(u[:, 1], -self.y, self.y)))
        return found @ lean


@dataclass(frozen=True)
class Zoom(Affine):
    """Rescaled by a factor between `low` and `high` around the middle; the size stays. Halves and doubles are equally likely for
    Zoom(0.5, 2): the factor's logarithm is uniform."""

    low: float = 0.9
    high: float = 1.1
    fill: float = 0
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        ordered("low, high", (self.low, self.high), 1 / _MOST_ZOOM, _MOST_ZOOM)
        between("fill", self.fill, 0, WHITE)

    def maps(self, u: Array) -> Array:
        found = _identity(len(u))
        found[:, 0, 0] = found[:, 1, 1] = np.exp(-span(u[:, 0], log(self.low), log(self.high)))
        return found


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of the picture, rescaled to `size` pixels (one number, or (height, width)): usual for ImageNet (Szegedy et al., 2015).

    scale: the part's area as a share of the picture's, uniform. ratio: its width by its height, the logarithm uniform; a side that would
    be longer than the picture's is the picture's. Bilinear, over the whole area of a pixel where it shrinks.
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    draws: ClassVar[int] = 4

    def __post_init__(self) -> None:
        pair(self.size)
        ordered("scale", self.scale, 1e-6, 1)
        ordered("ratio", self.ratio, 1 / _MOST_ZOOM, _MOST_ZOOM)

    def apply(self, images: Array, u: Array) -> Array:
        from PIL.Image import Resampling

        height, width = images.shape[2:]
        area, ratio = span(u[:, 0], *self.scale) * height * width, np.exp(span(u[:, 1], log(self.ratio[0]), log(self.ratio[1])))
        w, h = np.clip(np.sqrt(area * ratio), 1, width), np.clip(np.sqrt(area / ratio), 1, height)
        left, top = u[:, 2] * (width - w), u[:, 3] * (height - h)
        boxes = np.stack([left, top, np.minimum(left + w, width), np.minimum(top + h, height)], 1).tolist()
        size = pair(self.size)
        return _each_picture(images, size, lambda picture, n: picture.resize(size[::-1], Resampling.BILINEAR, boxes[n]))


def resample(images: Array, maps: Array, fill: float) -> Array:
    """The pictures through affine maps (N, 3, 3), see `Affine.maps`; bilinear."""
    from PIL.Image import Resampling, Transform

    height, width = images.shape[2:]
    middle = np.array([width / 2, height / 2, 0])
    maps = maps.copy()
    maps[:, :, 2] += middle - maps @ middle
    rows = maps[:, :2].reshape(len(maps), 6).round(_DIGITS).tolist()

    def one(picture: Image, n: int) -> Image:
        color = fill if picture.mode == "F" else (int(fill),) * len(picture.getbands())
        return picture.transform((width, height), Transform.AFFINE, rows[n], Resampling.BILINEAR, fillcolor=color)

    return _each_picture(images, (height, width), one)


def _each_picture(images: Array, size: tuple[int, int], apply: Callable[[Image, int], Image]) -> Array:
    """`apply(picture, n)` to each: as RGB where there are three channels of bytes, else channel by channel."""
    from PIL import Image

    n, channels = images.shape[:2]
    if channels == 3 and images.dtype == np.uint8:
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        made = np.empty((n, *size, channels), np.uint8)
        for number in range(n):
            made[number] = np.asarray(apply(Image.fromarray(pixels[number]), number))
        return np.ascontiguousarray(made.transpose(0, 3, 1, 2))
    planes: Array = np.empty((n, channels, *size), images.dtype)
    for number in range(n):
        for channel in range(channels):
            planes[number, channel] = np.asarray(apply(Image.fromarray(images[number, channel]), number))
    return planes


def _identity(count: int) -> Array:
    return np.tile(np.eye(3), (count, 1, 1))
