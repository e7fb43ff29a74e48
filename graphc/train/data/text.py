"""Text by characters: an alphabet, and streams of it for training with carried state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphc.errors import InputError
from graphc.ir.graph import Array
from graphc.train.batches import Batch
from graphc.train.data.augment import whole


@dataclass(frozen=True)
class Alphabet:
    """Characters and their numbers: `characters[i]` has the number i. Raises InputError for one that occurs twice."""

    characters: str

    def __post_init__(self) -> None:
        if len(set(self.characters)) != len(self.characters):
            raise InputError("a character occurs twice in the alphabet", hint="Alphabet.of(text)")

    @staticmethod
    def of(text: str) -> Alphabet:
        """The characters of a text, sorted."""
        return Alphabet("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Array:
        """The numbers of the characters, int64. Raises InputError that names the first one that is not in the alphabet."""
        try:
            return np.array([self._numbers[character] for character in text], np.int64)
        except KeyError as error:
            (character,) = error.args
            reason = f"the character {character!r} (at {text.index(character)}) is not in the alphabet"
            raise InputError(reason, hint="Alphabet.of(all texts)") from error

    def decode(self, numbers: Any) -> str:
        """The text of numbers. Raises InputError for one outside of the alphabet."""
        array = np.asarray(numbers).reshape(-1)
        if array.size and (array.min() < 0 or array.max() >= len(self)):
            raise InputError(f"numbers from {array.min()} to {array.max()}, the alphabet has {len(self)} characters")
        return "".join(self.characters[number] for number in array)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.characters)}


class TextStreams:
    """A sequence of numbers cut into `streams` equal parts that are read side by side, `steps` at a time, for truncated backpropagation.

    Batches (x, y) of int64 (streams, steps): row i of a batch continues row i of the batch before, and y is x one place later. What is
    left of each part behind its last whole batch is not used. The order is the text's in every epoch. Raises InputError for a text that is
    too short for one batch, or that is no row of integers.
    """

    def __init__(self, numbers: Any, streams: int = 32, steps: int = 64) -> None:
        for name, value in (("streams", streams), ("steps", steps)):
            whole(name, value, 1)
        array = np.asarray(numbers)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"a text of {array.dtype}{list(array.shape)}", hint="a row of integers, as Alphabet.encode makes")
        self.streams, self.steps = streams, steps
        self._length = max(len(array) - 1, 0) // streams // steps
        if not self._length:
            raise InputError(f"{len(array)} characters make no batch of {streams} streams and {steps} steps", hint="fewer or shorter ones")
        part = (len(array) - 1) // streams
        rows = np.arange(streams)[:, None] * part + np.arange(self._length * steps + 1)
        self._rows = array.astype(np.int64)[rows]
        self.batch = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.batch, self._length):
            start = number * self.steps
            yield self._rows[:, start : start + self.steps], self._rows[:, start + 1 : start + self.steps + 1]

    def set_position(self, epoch: int, batch: int) -> None:
        """The next iteration begins with batch number `batch`; every epoch is the same."""
        self.batch = batch

    def __repr__(self) -> str:
        return f"<graphc.data.TextStreams: {self.streams} streams, {len(self)} batches of {self.steps} steps>"
