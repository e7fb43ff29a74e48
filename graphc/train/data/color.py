"""Augmentation of colours and light. Bytes are 0..255, floats 0..1; results are clipped to that once, at the end, and bytes rounded."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from graphc.errors import InputError
from graphc.ir.graph import Array
from graphc.train.data.augment import between, ordered, span

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, what Pillow's mode L is
_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])  # NTSC, FCC 1953
_RGB = np.linalg.inv(_YIQ)
_MOST_GAMMA = 10


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, in this order, of RGB or gray pictures.

    brightness, contrast, saturation: factors from 1 - value to 1 + value: of the pixels, of their distance from the picture's mean gray,
    of their distance from their own gray. hue: a turn of the colours around the gray axis by -hue to hue of the whole circle, at most 0.5
    (in YIQ, not in HSV: a linear map). All four together are one map of the three colours; gray pictures have only the first two.
    """

    brightness: float = 0
    contrast: float = 0
    saturation: float = 0
    hue: float = 0
    draws: ClassVar[int] = 4

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            between(name, getattr(self, name), 0, 1)
        between("hue", self.hue, 0, 0.5)

    def apply(self, images: Array, u: Array) -> Array:
        n, channels, height, width = images.shape
        if channels not in (1, 3):
            raise InputError(f"ColorJitter takes 1 channel (gray) or 3 (RGB), not {channels}")
        brightness, contrast, saturation = (
            span(u[:, i], 1 - most, 1 + most) for i, most in enumerate((self.brightness, self.contrast, self.saturation))
        )
        pixels = images.reshape(n, channels, height * width).astype(np.float32)
        gray = (pixels.mean(2) * (_LUMA if channels == 3 else 1.0)).sum(1)
        offset = brightness * (1 - contrast) * gray  # the same in every channel, and grays stay what they are below
        colors = brightness * contrast
        if channels == 1:
            made = pixels * colors[:, None, None].astype(np.float32)
        else:
            matrix = colors[:, None, None] * (self._hue(u[:, 3]) @ _saturated(saturation))
            made = np.matmul(matrix.astype(np.float32), pixels)
        made += offset[:, None, None].astype(np.float32)
        return clipped(made, images)

    def _hue(self, u: Array) -> Array:
        angle = span(u, -self.hue, self.hue) * 2 * np.pi
        turn = np.tile(np.eye(3), (len(u), 1, 1))
        turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
        turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
        turned: Array = _RGB @ turn @ _YIQ
        return turned


@dataclass(frozen=True)
class Illumination:
    """Other light. gamma: pixels as 0..1 are raised to a power between the two numbers, its logarithm uniform (below 1: brighter).

    gradient: a light from a random side: pixels are multiplied by a factor that runs from 1 - g to 1 + g across the picture in a random
    direction, g uniform from 0 to `gradient`.
    """

    gamma: tuple[float, float] = (0.7, 1.4)
    gradient: float = 0.3
    draws: ClassVar[int] = 3

    def __post_init__(self) -> None:
        ordered("gamma", self.gamma, 1 / _MOST_GAMMA, _MOST_GAMMA)
        between("gradient", self.gradient, 0, 1)

    def apply(self, images: Array, u: Array) -> Array:
        gamma = np.exp(span(u[:, 0], log(self.gamma[0]), log(self.gamma[1]))).astype(np.float32)[:, None, None, None]
        if images.dtype == np.uint8:
            table = np.float32(255) * (np.arange(256, dtype=np.float32) / 255) ** gamma[:, 0, 0]
            made = np.take(table, images + (256 * np.arange(len(images)))[:, None, None, None])
        else:
            made = np.maximum(images, 0) ** gamma
        return clipped(made * self._light(images.shape[2], images.shape[3], u[:, 1], u[:, 2]), images)

    def _light(self, height: int, width: int, strength: Array, side: Array) -> Array:
        """Factors (N, 1, height, width)."""
        y, x = (np.linspace(-1, 1, extent) if extent > 1 else np.zeros(1) for extent in (height, width))
        across, down = np.cos(side * 2 * np.pi), np.sin(side * 2 * np.pi)
        longest = np.abs(across) + np.abs(down)  # of the projections of the corners
        slope = self.gradient * strength / longest
        plane = 1 + (slope * down)[:, None, None] * y[:, None] + (slope * across)[:, None, None] * x
        factors: Array = plane[:, None].astype(np.float32)
        return factors


def clipped(values: Array, like: Array) -> Array:
    """float32 values as what `like` is, in its shape: bytes rounded and clipped to 0..255, or floats clipped to 0..1."""
    whole = like.dtype == np.uint8
    if whole:
        np.rint(values, out=values)
    np.clip(values, 0, 255 if whole else 1, out=values)
    return values.astype(like.dtype, copy=False).reshape(like.shape)


def _saturated(factor: Array) -> Array:
    """(N, 3, 3): gray + factor * (color - gray)."""
    factor = factor[:, None, None]
    matrix: Array = (1 - factor) * np.tile(_LUMA, (3, 1)) + factor * np.eye(3)
    return matrix
