"""A list of augmentations as one: neighbouring affine maps become a single one, random numbers are dealt out in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError
from graphc.ir.graph import Array
from graphc.train.data.augment import Augmentation, check_images
from graphc.train.data.geometry import Affine, resample


class Product(Affine):
    """Affine maps one after the other, resampled once: what one moves out of the picture, a later one may bring back."""

    def __init__(self, parts: Sequence[Affine]) -> None:
        self.parts, self.fill = tuple(parts), parts[0].fill

    @property
    def draws(self) -> int:  # type: ignore[override]  # of the class in the parts
        return sum(part.draws for part in self.parts)

    def maps(self, u: Array) -> Array:
        found: Array = np.eye(3)
        for part, numbers in _deal(self.parts, u):
            found = found @ part.maps(numbers)
        return found

    def apply(self, images: Array, u: Array) -> Array:
        return resample(images, self.maps(u), self.fill)


class Chain:
    """Augmentations in order. Raises AttributeValueError for an entry that is none; `apply` raises InputError for what are no pictures."""

    def __init__(self, entries: Sequence[Augmentation]) -> None:
        for entry in entries:
            if not hasattr(entry, "draws") or not callable(getattr(entry, "apply", None)) or isinstance(entry, type):
                raise AttributeValueError(f"{entry!r} is no augmentation", hint="such as graphc.data.HorizontalFlip()")
        self.entries: tuple[Augmentation, ...] = tuple(_merged(entries))
        self.draws = sum(entry.draws for entry in self.entries)

    def apply(self, images: Array, u: Array) -> Array:
        """The pictures after every entry; u: (N, draws)."""
        for entry, numbers in _deal(self.entries, u):
            check_images(images, type(entry).__name__)
            images = entry.apply(images, numbers)
        return images


def _merged(entries: Sequence[Augmentation]) -> list[Augmentation]:
    made: list[Augmentation] = []
    for fill, group in groupby(entries, lambda entry: entry.fill if isinstance(entry, Affine) else None):
        run: list[Any] = list(group)
        made += run if fill is None or len(run) == 1 else [Product(run)]
    return made


def _deal(entries: Sequence[Any], u: Array) -> list[tuple[Any, Array]]:
    ends = np.cumsum([entry.draws for entry in entries]).tolist()
    return [(entry, u[:, end - entry.draws : end]) for entry, end in zip(entries, ends, strict=True)]
