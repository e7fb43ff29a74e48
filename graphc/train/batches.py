"""Where batches come from: the protocol that the trainer works with, and batches of arrays in memory.

The order of an epoch is a function of (seed, epoch) alone: that is what makes training resumable in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np

from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array
from graphc.train.masks import is_pair

Batch = tuple[Any, Any]  # x: an array (N, ...), a tuple of them or arrays by input name; y: an array (N, ...), or a pair (see `masks`)


@runtime_checkable
class Batches(Protocol):
    """Epochs of batches. The trainer calls `set_position` at the start of each epoch and when it resumes, then iterates once."""

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever the position."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current epoch from the current position on. Iterating does not move the position."""
        ...

    def set_position(self, epoch: int, batch: int) -> None:
        """The next iteration begins with batch number `batch` (from 0) of epoch number `epoch` (from 0)."""
        ...


class ArrayBatches:
    """Batches of arrays in memory. x: an array (N, ...), a tuple of arrays, or arrays by input name; y: an array (N, ...), or a pair of the
    target and what counts of it, lengths (N,) or a mask (N, ...).

    shuffle: a new order in each epoch, a function of (seed, epoch) alone. drop_last: leave out the last batch where it would be smaller
    than `batch_size`. Raises InputError for no examples, or x and y of different lengths.
    """

    def __init__(self, x: Any, y: Any, batch_size: int = 32, *, shuffle: bool = True, seed: int = 0, drop_last: bool = False) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise AttributeValueError(f"batch_size={batch_size!r}", hint="a whole number, at least 1")
        self.x = each(np.asarray, x)
        self.y = each(np.asarray, y) if is_pair(y) else np.asarray(y)
        self.examples = _examples(self.x, self.y)
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.epoch = self.batch = 0
        if not len(self):
            reason = f"{self.examples} examples make no whole batch of {batch_size}"
            raise InputError(reason, hint="a smaller batch_size, or drop_last=False")

    def __len__(self) -> int:
        whole, rest = divmod(self.examples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        order = shuffled(self.examples, self.seed, self.epoch) if self.shuffle else np.arange(self.examples)
        for number in range(self.batch, len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            take = partial(np.take, indices=rows, axis=0)
            yield each(take, self.x), each(take, self.y)

    def set_position(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def __repr__(self) -> str:
        return f"<graphc.train.ArrayBatches: {self.examples} examples in {len(self)} batches of {self.batch_size}>"


class MadeBatches:
    """Batches from `make(epoch)`, an iterable for each epoch; `length`: how many there are, where that is known.

    To resume in the middle of an epoch the first batches are made and left out. `make` must give the same batches for the same epoch.
    """

    def __init__(self, make: Callable[[int], Iterable[Batch]], length: int | None = None) -> None:
        self._make, self._length = make, length
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the number of batches is not known")
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        made = self._make(self.epoch)
        if not isinstance(made, Iterable):
            raise InputError(f"the function of batches returned a {type(made).__name__}", hint="an iterable of (x, y)")
        return islice(iter(made), self.batch, None)

    def set_position(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch


def as_batches(data: Any, batch_size: int = 32, *, shuffle: bool = True, seed: int = 0, drop_last: bool = False) -> Batches:
    """Batches from a pair (x, y) of arrays, from Batches (as they are), from a list of batches, or from a function of the epoch.

    `batch_size`, `shuffle`, `seed` and `drop_last` are of the pair; the others decide for themselves. Raises InputError for anything
    else, and for an iterator, which could be used for one epoch only.
    """
    if isinstance(data, Batches):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return ArrayBatches(*data, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
    if isinstance(data, Iterator):
        raise InputError(f"a {type(data).__name__} gives its batches once only", hint="a list, or a function that makes a new one")
    if callable(data):
        return MadeBatches(data)
    if isinstance(data, Iterable) and not isinstance(data, (np.ndarray, Mapping, str, bytes)):
        return MadeBatches(lambda epoch: data, length_of(data))
    raise InputError(f"a {type(data).__name__} is no training data", hint="(x, y) arrays, a list of batches (x, y), or Batches")


def length_of(batches: Iterable[Any]) -> int | None:
    """Batches in an epoch; None where that is not known."""
    if not isinstance(batches, Sized):
        return None
    try:
        return len(batches)
    except TypeError:
        return None


@contextmanager
def reading(batches: Batches) -> Iterator[Iterator[Batch]]:
    """Iterate over batches; what works ahead for the iterator is told at once when it is left, by an exception too."""
    found = iter(batches)
    try:
        yield found
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def each(apply: Callable[[Any], Any], x: Any) -> Any:
    """`apply` to x, or to every array of a tuple or of a mapping."""
    if isinstance(x, Mapping):
        return {name: apply(array) for name, array in x.items()}
    return tuple(map(apply, x)) if isinstance(x, tuple) else apply(x)


def shuffled(count: int, seed: int, epoch: int) -> Array:
    """The numbers 0 to count - 1 in an order that depends on (seed, epoch) alone: sorted by the counter-based Philox 4x64."""
    keys = np.random.Philox(key=seed % 2**64 + (epoch % 2**64 << 64)).random_raw(count)
    return np.argsort(keys, kind="stable")


def size_of(x: Any) -> int:
    """Examples in a batch: the first axis of x, or of the first of several inputs."""
    if isinstance(x, (Mapping, tuple)):
        x = next(iter(x.values() if isinstance(x, Mapping) else x), ())
    shape = np.shape(x)
    return int(shape[0]) if shape else 1


def _examples(x: Any, y: Any) -> int:
    targets = list(y) if isinstance(y, tuple) else [y]
    arrays = [*(x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple) else [x]), *targets]
    if any(array.ndim == 0 for array in arrays):
        raise InputError("a number is no training data", hint="arrays whose first axis counts the examples")
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise InputError(f"x and y have different numbers of examples: {', '.join(str(len(array)) for array in arrays)}")
    if not len(targets[0]):
        raise InputError("there are no examples", hint="at least one")
    return len(targets[0])
