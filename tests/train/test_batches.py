"""Batches of arrays: every example once an epoch, an order that depends on seed and epoch alone, any position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import AttributeValueError, InputError
from graphc.train.batches import ArrayBatches, Batches, as_batches, shuffled, size_of


def _labels(batches: Any) -> list[int]:
    return [int(label) for _, y in batches for label in y]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**70), st.integers(0, 99), st.booleans(), st.data())
def test_every_example_once_and_any_position(examples: int, size: int, seed: int, epoch: int, drop: bool, data: st.DataObject) -> None:
    x = np.arange(examples)
    if drop and examples < size:
        with pytest.raises(InputError, match="no whole batch"):
            ArrayBatches(x, x, size, drop_last=True)
        return
    batches = ArrayBatches(x, x, size, seed=seed, drop_last=drop)
    batches.set_position(epoch, 0)
    whole = [(x.tolist(), y.tolist()) for x, y in batches]
    assert all(x == y for x, y in whole)
    assert len(whole) == len(batches) == (examples // size if drop else -(-examples // size))
    seen = [label for _, y in whole for label in y]
    assert len(set(seen)) == len(seen) == (examples - examples % size if drop else examples)
    start = data.draw(st.integers(0, len(batches)))
    batches.set_position(epoch, start)
    assert [(x.tolist(), y.tolist()) for x, y in batches] == whole[start:]
    assert [(x.tolist(), y.tolist()) for x, y in batches] == whole[start:], "iterating must not move the position"


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(shuffled(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert shuffled(6, 1, 2).tolist() == shuffled(6, 1, 2).tolist()


def test_the_order_is_fixed_for_all_time() -> None:
    """A checkpoint of today must resume tomorrow: these are sorted raw numbers of Philox 4x64-10, which numpy promises to keep."""
    assert shuffled(8, 0, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert shuffled(8, 7, 3).tolist() == [2, 5, 7, 3, 0, 6, 4, 1]


def test_several_inputs() -> None:
    a, b, y = np.arange(6.0), np.arange(12.0).reshape(6, 2), np.arange(6)
    for x in ((a, b), {"a": a, "b": b}):
        for part, label in ArrayBatches(x, y, 4, seed=1):
            first, second = part.values() if isinstance(part, dict) else part
            np.testing.assert_array_equal(first, label)
            np.testing.assert_array_equal(second[:, 0], 2 * label)
            assert size_of(part) == len(label)


def test_functions_lists_and_batches() -> None:
    def make(epoch: int) -> Iterator[tuple[Any, Any]]:
        return ((np.array([i]), np.array([10 * epoch + i])) for i in range(3))

    made = as_batches(make)
    assert isinstance(made, Batches)
    made.set_position(2, 1)
    assert _labels(made) == [21, 22]
    with pytest.raises(TypeError):
        len(made)
    listed = as_batches(list(make(0)))
    assert len(listed) == 3
    assert _labels(listed) == _labels(listed) == [0, 1, 2]
    assert as_batches(listed) is listed


def test_what_knows_its_length_keeps_it() -> None:
    """As the data loaders of other libraries do: gradients that wait are then used at the end of the epoch."""

    class Loader:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[tuple[Any, Any]]:
            return iter([(np.array([i]), np.array([i])) for i in range(3)])

    assert len(as_batches(Loader())) == 3


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ((np.zeros((0, 3)), np.zeros(0)), "no examples"), ((np.zeros(3), np.zeros(4)), "different numbers of examples: 3, 4"),
        ((1.0, np.zeros(3)), "a number is no"), (iter([]), "once only"), (np.zeros(3), "no training data"), ("text", "no training data"),
        (7, "no training data"), ({}, "no training data"), (((), np.zeros(2)), None),
    ],
)  # fmt: skip
def test_what_is_no_data(data: Any, match: str | None) -> None:
    if match is None:
        assert len(as_batches(data)) == 1, "a model without inputs"
        return
    with pytest.raises(InputError, match=match):
        as_batches(data)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(AttributeValueError):
        ArrayBatches(np.zeros(3), np.zeros(3), size)


def test_a_function_that_makes_no_iterable() -> None:
    with pytest.raises(InputError, match="returned a int"):
        list(as_batches(lambda epoch: 3))
