"""Sources: samples by number. What a `Loader` takes, arrays in memory, and statistics of a source.

A source has `len(source)` and `source[i]` -> (x, label), as map-style datasets of other libraries do: those work too. It may have
`gather(indices)` -> (x, labels) for whole batches at once, and `classes`, the names of the classes. Threads read it at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from graphc.errors import GraphcError, InputError
from graphc.ir.graph import Array
from graphc.limits import MemoryFor, check_bytes

CHUNK = 32  # samples at a time: 50 MB of a photograph's size in double precision


class Source(Protocol):
    """Samples by number: x is an array (C, H, W) for pictures, bytes or floats in 0..1; the label a class number or an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


class Arrays:
    """Arrays in memory, or mapped from a file: x (N, ...), y (N, ...); pictures are (N, C, H, W); bytes (N, H, W) get one channel.

    classes: names of the classes, in the order of the labels. Raises InputError where x and y differ in length or are empty.
    """

    def __init__(self, x: Any, y: Any, classes: Sequence[str] = ()) -> None:
        self.x, self.y = np.asanyarray(x), np.asanyarray(y)
        self.classes = tuple(classes)
        if self.x.ndim == 0 or self.y.ndim == 0 or len(self.x) != len(self.y):
            raise InputError(f"x of shape {list(self.x.shape)} and y of shape {list(self.y.shape)}", hint="as many samples as labels")
        if not len(self.x):
            raise InputError("there are no samples", hint="at least one")
        if self.x.dtype.kind not in "uifb" or self.y.dtype.kind not in "uifb":
            raise InputError(f"x of dtype {self.x.dtype} and y of dtype {self.y.dtype}", hint="numbers")
        if self.x.ndim == 3 and self.x.dtype == np.uint8:
            self.x = self.x[:, None]
        if self.classes and self.y.dtype.kind in "ui":
            check_labels(self.y, len(self.classes))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.x[index], self.y[index]

    def gather(self, indices: Array) -> tuple[Array, Array]:
        """The samples and labels with these numbers, copied."""
        return self.x.take(indices, axis=0), self.y.take(indices, axis=0)

    def __repr__(self) -> str:
        return f"<graphc.data.Arrays: {len(self)} samples {self.x.dtype}{list(self.x.shape[1:])}, {len(self.classes)} classes>"


def check_labels(labels: Array, classes: int, where: str = "") -> None:
    """Raises InputError for a class number that is not one of `classes`."""
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(f"labels from {labels.min()} to {labels.max()}, there are {classes} classes", where=where)


def gather(source: Source, indices: Array) -> tuple[Array, Array]:
    """The samples with these numbers as two arrays. Raises InputError that names the sample which cannot be read or differs in shape."""
    whole = getattr(source, "gather", None)
    if whole is not None:
        x, y = whole(indices)
        return x, y
    samples = [_sample(source, int(index)) for index in indices]
    for index, (x, y) in zip(indices, samples, strict=True):
        if x.shape != samples[0][0].shape or x.dtype != samples[0][0].dtype or y.shape != samples[0][1].shape:
            first, other = (f"{a.dtype}{list(a.shape)} with label {list(b.shape)}" for a, b in (samples[0], (x, y)))
            raise InputError(f"is {other}, sample {indices[0]} is {first}", where=f"sample {index}", hint="one size for all")
    return np.stack([x for x, _ in samples]), np.stack([y for _, y in samples])


def in_memory(source: Source) -> Arrays:
    """All samples read once into arrays: for pictures that are read from files again in each epoch otherwise.

    Raises ResourceError where they would take more than the limit of one tensor (`GRAPHC_MAX_BYTES`).
    """
    first, label = _sample(source, 0)
    check_bytes((len(source), *first.shape), first.dtype.itemsize, "the source in memory")
    with MemoryFor("for the source"):
        x, y = (np.empty((len(source), *a.shape), a.dtype) for a in (first, label))
        for start in range(0, len(source), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(source)))
            samples, labels = gather(source, rows)
            if samples.shape[1:] != first.shape or labels.shape[1:] != label.shape:
                raise InputError(f"differ in shape from sample 0, {list(first.shape)}", where=f"samples {start} to {rows[-1]}")
            x[rows], y[rows] = samples, labels
    return Arrays(x, y, getattr(source, "classes", ()))


def mean_std(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all samples, for `Loader(normalise=...)`; bytes count as 0..1."""
    count, total, squares = 0, np.float64(0), np.float64(0)
    for start in range(0, len(source), CHUNK):
        x, _ = gather(source, np.arange(start, min(start + CHUNK, len(source))))
        axes = (0, *range(2, x.ndim))
        wide = x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
        count += x.size // x.shape[1] if x.ndim > 1 else x.size
        total, squares = total + wide.sum(axes), squares + (wide * wide).sum(axes)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    return tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(std).tolist())


def _sample(source: Source, index: int) -> tuple[Array, Array]:
    try:
        x, y = source[index]
        return np.asarray(x), np.asarray(y)
    except GraphcError:
        raise
    except Exception as error:
        raise InputError(f"cannot be read: {type(error).__name__}: {error}", where=f"sample {index}") from error
