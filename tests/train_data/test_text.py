"""Text as streams: rows continue from batch to batch, targets lie one place later; the alphabet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.data import Alphabet, TextStreams
from graphc.errors import AttributeValueError, InputError


@pytest.mark.parametrize(("length", "streams", "steps"), [(101, 4, 5), (23, 1, 4), (97, 3, 32), (21, 4, 5)])
def test_streams(length: int, streams: int, steps: int) -> None:
    """Joined, the batches are the parts of the text; nothing is read twice within an epoch."""
    text = np.arange(length)
    found = TextStreams(text, streams, steps)
    batches = list(found)
    part = (length - 1) // streams
    assert len(batches) == len(found) == part // steps
    x, y = (np.concatenate([batch[side] for batch in batches], 1) for side in (0, 1))
    for row in range(streams):
        np.testing.assert_array_equal(x[row], text[row * part : row * part + len(found) * steps])
    np.testing.assert_array_equal(y, x + 1)
    assert all(array.dtype == np.int64 and array.shape == (streams, steps) for batch in batches for array in batch)


def test_position() -> None:
    streams = TextStreams(np.arange(200), 2, 9)
    whole = list(streams)
    streams.set_position(3, 4)
    for (x, y), (x2, y2) in zip(streams, whole[4:], strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
    assert len(streams) == len(whole) == 11


@pytest.mark.parametrize(
    ("text", "streams", "steps", "error", "message"),
    [
        (np.arange(20), 4, 5, InputError, "20 characters make no batch"),
        ([], 1, 1, InputError, "a text of float64"),
        (np.zeros((4, 4), int), 1, 1, InputError, r"a text of int64\[4, 4\]"),
        ("text", 1, 1, InputError, "a row of integers"),
        (np.arange(20), 0, 5, AttributeValueError, "streams=0"),
        (np.arange(20), 4, 2.5, AttributeValueError, "steps=2.5"),
    ],
)
def test_refused(text: Any, streams: Any, steps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TextStreams(text, streams, steps)


def test_alphabet() -> None:
    text = "so it goes, Émile\n"
    alphabet = Alphabet.of(text)
    assert alphabet.characters == "".join(sorted(set(text)))
    numbers = alphabet.encode(text)
    assert numbers.dtype == np.int64
    assert numbers.max() == len(alphabet) - 1
    assert alphabet.decode(numbers) == text
    assert alphabet.decode(numbers.reshape(2, -1)) == text
    assert alphabet.encode("").shape == (0,)
    with pytest.raises(InputError, match=r"'x' \(at 2\) is not in the alphabet"):
        alphabet.encode("sox")
    with pytest.raises(InputError, match="the alphabet has 12 characters"):
        alphabet.decode([len(alphabet)])
    with pytest.raises(InputError, match="occurs twice"):
        Alphabet("aba")
