"""Loader: from a source of samples to batches for training: order, reading, augmentation, normalisation, ahead of time in threads.

What an epoch consists of is a function of (seed, epoch) and the source alone: the order, and for each sample its random numbers. So
batches are the same for any number of workers, and after `set_position` in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Union

import numpy as np

from graphc.errors import AttributeValueError, GraphcError, InputError
from graphc.ir.graph import Array
from graphc.train.batches import Batch, shuffled
from graphc.train.data.ahead import ahead
from graphc.train.data.augment import Augmentation, whole
from graphc.train.data.chain import Chain
from graphc.train.data.draws import Draws
from graphc.train.data.source import Source, gather

Numbers = Union[float, Sequence[float]]


class Loader:
    """Epochs of batches (x, y) from a source; the `Batches` that `graphc.Trainer` takes.

    x: bytes become float32 in 0..1, floats become float32, other integers stay what they are; (N, C, H, W) for pictures. y: class numbers
    as int64, or float32.

    shuffle: a new order in each epoch. seed: of order and augmentation. augment: a list such as [RandomCrop(32, 4), HorizontalFlip()].
    drop_last: leave the last batch out where it would be smaller; else the training step is compiled for one more batch size.
    normalise: (mean, std), one number or one per channel, in units after bytes became 0..1: x = (x - mean) / std; `mean_std(source)` has
    them. workers: threads; 0: none, batches are made when they are asked for. prefetch: finished batches that may wait, beside one in
    work per worker.

    Iterating gives the epoch of the last `set_position`, from the batch given there, and does not move it: call it before each epoch, as
    the trainer does. Raises InputError, that names the sample, where one cannot be read or augmented.
    """

    def __init__(
        self, source: Source, batch_size: int = 32, shuffle: bool = True, *, seed: int = 0, augment: Sequence[Augmentation] | None = None,
        drop_last: bool = False, normalise: tuple[Numbers, Numbers] | None = None, workers: int = 1, prefetch: int = 2,
    ) -> None:  # fmt: skip
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("workers", workers, 0), ("prefetch", prefetch, 0)):
            whole(name, value, least)
        if not len(source):
            raise InputError("the source has no samples", hint="at least one")
        self.source, self.batch_size, self.shuffle, self.seed, self.drop_last = source, batch_size, shuffle, seed, drop_last
        self.workers, self.prefetch = workers, prefetch
        self.classes: tuple[str, ...] = tuple(getattr(source, "classes", ()))
        self.normalise = None if normalise is None else _checked(*normalise)
        self.epoch = self.batch = 0
        self._chain = Chain(augment or ())
        if not len(self):
            raise InputError(f"{len(source)} samples make no whole batch of {batch_size}", hint="a smaller batch_size, or drop_last=False")

    def __len__(self) -> int:
        full, rest = divmod(len(self.source), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        order, draws = self.order(), Draws(self.seed, self.epoch, self._chain.draws)

        def make(number: int) -> Batch:
            x, y = self._augmented(order[number * self.batch_size : (number + 1) * self.batch_size], draws)
            return self._normalised(x), _target(y)

        return ahead(make, range(self.batch, len(self)), self.workers, self.prefetch)

    def set_position(self, epoch: int, batch: int) -> None:
        """The next iteration begins with batch number `batch` of epoch number `epoch`, both from 0."""
        self.epoch, self.batch = epoch, batch

    def order(self) -> Array:
        """The samples by their numbers in the order of the current epoch; the first `batch_size` of them are batch 0."""
        return shuffled(len(self.source), self.seed, self.epoch) if self.shuffle else np.arange(len(self.source))

    def augmented(self, samples: Array) -> tuple[Array, Array]:
        """These samples as they are in the current epoch before normalisation, and their labels: for looking at them."""
        return self._augmented(samples, Draws(self.seed, self.epoch, self._chain.draws))

    def _augmented(self, samples: Array, draws: Draws) -> tuple[Array, Array]:
        x, y = _read(self.source, samples)
        if not self._chain.entries:
            return x, y
        x = x.astype(np.float32, copy=False) if x.dtype.kind == "f" else x
        try:
            return self._chain.apply(x, draws.of(samples)), y
        except GraphcError:
            raise
        except Exception as error:
            raise self._culprit(x, samples, draws, error) from error

    def _culprit(self, x: Array, samples: Array, draws: Draws, error: Exception) -> InputError:
        """The error for the first sample that fails when it is alone, else for all of them."""
        where = f"samples {', '.join(map(str, samples))}"
        for number, sample in enumerate(samples):
            try:
                self._chain.apply(x[number : number + 1], draws.of(samples[number : number + 1]))
            except Exception as alone:
                error, where = alone, f"sample {sample}"
                break
        return InputError(f"cannot be augmented: {type(error).__name__}: {error}", where=where)

    def _normalised(self, x: Array) -> Array:
        if x.dtype.kind not in "f" and x.dtype != np.uint8:
            if self.normalise is not None:
                raise InputError(f"samples of dtype {x.dtype} cannot be normalised", hint="bytes or floats, or no `normalise`")
            return x
        scale, offset = self._affine(x)
        made: Array = np.empty(x.shape, np.float32)
        if scale is None:
            made[...] = x
            return made
        np.multiply(x, scale, out=made, casting="same_kind", dtype=np.float32)
        return made if offset is None else np.add(made, offset, out=made)

    def _affine(self, x: Array) -> tuple[Any, Any]:
        """Scale and offset that make x what it shall be; None: nothing to do."""
        unit = 1 / 255 if x.dtype == np.uint8 else None
        if self.normalise is None:
            return None if unit is None else np.float32(unit), None
        mean, std = self.normalise
        if mean.size > 1 and (x.ndim < 2 or x.shape[1] != mean.size):
            raise InputError(f"normalise has {mean.size} channels, samples are {x.dtype}{list(x.shape[1:])}", hint="one number per channel")
        shape = (-1, *[1] * (x.ndim - 2)) if mean.size > 1 else ()
        return ((unit or 1) / std).astype(np.float32).reshape(shape), (-mean / std).astype(np.float32).reshape(shape)

    def __repr__(self) -> str:
        return f"<graphc.data.Loader: {len(self.source)} samples in {len(self)} batches of {self.batch_size}>"


def _read(source: Source, samples: Array) -> tuple[Array, Array]:
    try:
        return gather(source, samples)
    except GraphcError:
        raise
    except Exception as error:
        where = f"samples {', '.join(map(str, samples))}"
        raise InputError(f"cannot be read: {type(error).__name__}: {error}", where=where) from error


def _target(y: Array) -> Array:
    return y.astype(np.int64 if y.dtype.kind in "uib" else np.float32, copy=False)


def _checked(mean: Numbers, std: Numbers) -> tuple[Array, Array]:
    """Mean and std as two arrays of the same size."""
    try:
        numbers = np.broadcast_arrays(np.atleast_1d(np.asarray(mean, np.float64)), np.atleast_1d(np.asarray(std, np.float64)))
    except (TypeError, ValueError) as error:
        raise AttributeValueError(f"normalise=({mean!r}, {std!r})", hint="(mean, std): a number, or one per channel") from error
    if any(array.ndim != 1 or not np.isfinite(array).all() for array in numbers) or (numbers[1] <= 0).any():
        raise AttributeValueError(f"normalise=({mean!r}, {std!r})", hint="finite numbers, std above 0")
    return numbers[0], numbers[1]
