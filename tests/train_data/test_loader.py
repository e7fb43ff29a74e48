"""The loader: the same batches however they are made, nothing left behind, errors that name the sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array
from graphc.train.batches import Batches
from graphc.train.data.ahead import ahead
from train_data.files import picture, save

D = graphc.data
AUGMENT = [D.RandomCrop(10, padding=2), D.HorizontalFlip(), D.Rotation(20), D.Zoom(), D.ColorJitter(0.3, 0.3, 0.3, 0.1), D.Cutout(3)]


def _source(n: int = 53) -> Any:
    x = np.random.default_rng(0).integers(0, 256, (n, 3, 10, 10), np.uint8)
    return D.Arrays(x, np.arange(n))


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("graphc-data")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not _threads()


def _same(got: list[Any], want: list[Any]) -> None:
    assert len(got) == len(want)
    for (x, y), (a, b) in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_make_the_same_batches(workers: int, prefetch: int) -> None:
    options = {"seed": 3, "augment": AUGMENT, "normalise": (0.5, 0.2)}
    _same(list(D.Loader(_source(), 8, **options, workers=workers, prefetch=prefetch)), list(D.Loader(_source(), 8, **options, workers=0)))


def test_batches_of_another_size_hold_the_same_samples() -> None:
    """Order and random numbers belong to the samples, not to the batches."""
    one, other = (list(D.Loader(_source(), size, augment=AUGMENT)) for size in (8, 53))
    np.testing.assert_allclose(np.concatenate([x for x, _ in one]), other[0][0], atol=1 / 255 + 1e-6)
    np.testing.assert_array_equal(np.concatenate([y for _, y in one]), other[0][1])


def test_resumes_in_the_middle_of_an_epoch() -> None:
    loader = D.Loader(_source(), 8, augment=AUGMENT)
    loader.set_position(4, 0)
    whole = list(loader)
    _same(list(loader), whole)
    fresh = D.Loader(_source(), 8, augment=AUGMENT, workers=2)
    fresh.set_position(4, 3)
    _same(list(fresh), whole[3:])
    fresh.set_position(4, len(fresh))
    assert list(fresh) == []


def test_epochs_and_seeds_differ_and_hold_every_sample() -> None:
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        loader = D.Loader(_source(), 8, seed=seed)
        loader.set_position(epoch, 0)
        orders.append(tuple(np.concatenate([y for _, y in loader]).tolist()))
        assert sorted(orders[-1]) == list(range(53))
    assert len(set(orders)) == 4
    assert np.concatenate([y for _, y in D.Loader(_source(), 8, shuffle=False)]).tolist() == list(range(53))


def test_augmentation_differs_between_epochs() -> None:
    loader = D.Loader(_source(), 53, shuffle=False, augment=[D.HorizontalFlip()])
    found = []
    for epoch in (0, 1):
        loader.set_position(epoch, 0)
        found.append(next(iter(loader))[0])
    assert not np.array_equal(*found)


def test_is_batches_and_has_a_length() -> None:
    loader = D.Loader(_source(), 8)
    assert isinstance(loader, Batches)
    assert (len(loader), len(list(loader))) == (7, 7)
    short = D.Loader(_source(), 8, drop_last=True)
    assert (len(short), [len(y) for _, y in short]) == (6, [8] * 6)
    assert "53 samples in 7 batches of 8" in repr(loader)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float32, np.float16, np.int64])
def test_dtypes(dtype: Any) -> None:
    want = np.int64 if dtype == np.int64 else np.float32
    data = np.arange(12).reshape(3, 4).astype(dtype)
    x, y = next(iter(D.Loader(D.Arrays(data, np.array([0.5, 1, 2])), 3, shuffle=False)))
    assert (x.dtype, y.dtype) == (want, np.float32)
    np.testing.assert_allclose(x, data / 255 if dtype == np.uint8 else data, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalise(dtype: Any) -> None:
    data = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4)).astype(dtype)
    unit = data / 255 if dtype == np.uint8 else data
    source = D.Arrays(data, np.zeros(5, np.uint8))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    x, y = next(iter(D.Loader(source, 5, shuffle=False, normalise=(mean, std))))
    assert y.dtype == np.int64
    np.testing.assert_allclose(x, (unit - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1)), rtol=1e-5, atol=1e-5)
    x, _ = next(iter(D.Loader(source, 5, shuffle=False, normalise=(0.1, std))))
    np.testing.assert_allclose(x, (unit - 0.1) / np.reshape(std, (3, 1, 1)), rtol=1e-5, atol=1e-5)
    own = next(iter(D.Loader(source, 5, normalise=D.mean_std(source))))[0]
    np.testing.assert_allclose(own.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(own.std((0, 2, 3)), 1, atol=1e-5)


def test_batches_are_the_consumers_own() -> None:
    """No buffer is used twice, and the source is not written to."""
    source = D.Arrays(np.random.default_rng(0).random((20, 4), np.float32), np.zeros(20))
    before = source.x.copy()
    batches = list(D.Loader(source, 5, shuffle=False))
    for x, y in batches:
        x += 1
        y += 1
    np.testing.assert_array_equal(source.x, before)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), before + 1)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_early_end_leaves_no_thread(workers: int) -> None:
    for _ in D.Loader(_source(), 4, workers=workers):
        break
    assert not _threads()
    batches = iter(D.Loader(_source(), 4, workers=workers))
    next(batches)
    assert bool(_threads()) == bool(workers)
    batches.close()  # type: ignore[attr-defined]
    assert not _threads()


def test_an_interrupt_leaves_no_thread() -> None:
    def interrupted() -> None:
        for _ in D.Loader(_source(), 4, workers=3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not _threads()


def test_no_more_than_prefetch_is_made_ahead() -> None:
    made: list[int] = []
    results = ahead(lambda job: made.append(job) or job, range(100), 2, 3)  # type: ignore[func-returns-value]
    assert next(results) == 0
    time.sleep(0.05)
    assert len(made) <= 1 + 2 + 3
    results.close()  # type: ignore[attr-defined]


def test_workers_work_while_the_consumer_does() -> None:
    """While the consumer holds the first batch, the second is read."""
    second = threading.Event()

    class Watched:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> tuple[Array, int]:
            if index == 1:
                second.set()
            return np.zeros(1, np.float32), 0

    batches = iter(D.Loader(Watched(), 1, shuffle=False))
    next(batches)
    assert second.wait(timeout=60)
    batches.close()  # type: ignore[attr-defined]


class Failing:
    """Sample 7 cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Array, int]:
        if index == 7:
            raise self.error
        return np.zeros((3, 4, 4), np.uint8), index


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_worker_names_the_sample(workers: int) -> None:
    got = []
    with pytest.raises(InputError, match=r"sample 7: cannot be read: KeyError") as caught:
        got.extend(D.Loader(Failing(KeyError("gone")), 2, shuffle=False, workers=workers))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(InputError, match="mine"):
        list(D.Loader(Failing(InputError("mine")), 2, workers=workers))
    batches = iter(D.Loader(Failing(KeyError("gone")), 2, shuffle=False, workers=workers))
    assert [next(batches)[1].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    batches.close()  # type: ignore[attr-defined]


def test_a_failing_augmentation_names_the_sample() -> None:
    class Bad:
        draws = 0

        def apply(self, images: Array, u: Array) -> Array:
            if (images == 9).any():
                raise ZeroDivisionError("nine")
            return images

    x = np.zeros((20, 1, 2, 2), np.uint8)
    x[13] = 9
    with pytest.raises(InputError, match="sample 13: cannot be augmented: ZeroDivisionError: nine"):
        list(D.Loader(D.Arrays(x, np.zeros(20)), 8, augment=[Bad()]))


def test_samples_of_different_shapes() -> None:
    class Mixed:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Array, int]:
            return np.zeros((1, 2 + index // 3)), 0

    with pytest.raises(InputError, match="sample 3"):
        list(D.Loader(Mixed(), 4, shuffle=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"batch_size": 2.0}, {"workers": -1}, {"prefetch": -1}, {"seed": -1}, {"seed": None}, {"augment": [D.Shift]},
        {"normalise": (0, 0)}, {"normalise": ("a", 1)}, {"normalise": ((1, 2), (1, 2, 3))}, {"normalise": (0, float("nan"))},
    ],
)  # fmt: skip
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(AttributeValueError):
        D.Loader(_source(), **wrong)


def test_what_cannot_be_loaded() -> None:
    with pytest.raises(InputError, match="no whole batch"):
        D.Loader(_source(3), 8, drop_last=True)
    with pytest.raises(InputError, match="no samples"):
        D.Loader([], 8)
    with pytest.raises(InputError, match="2 channels"):
        list(D.Loader(_source(), normalise=((0, 0), (1, 1))))
    with pytest.raises(InputError, match="int64 cannot be normalised"):
        list(D.Loader(D.Arrays(np.zeros((3, 4), np.int64), np.zeros(3)), normalise=(0, 1)))
    with pytest.raises(InputError, match="takes pictures"):
        list(D.Loader(D.Arrays(np.zeros((3, 4)), np.zeros(3)), augment=[D.HorizontalFlip()]))


def test_a_folder_with_threads(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / "ab"[number % 2] / f"{number}.png", picture(9 + number, 12, number))
    source = D.ImageFolder(tmp_path, 8)
    _same(list(D.Loader(source, 5, augment=AUGMENT[:1], workers=4)), list(D.Loader(source, 5, augment=AUGMENT[:1], workers=0)))


def _made(epoch: int) -> Iterator[tuple[Array, Array]]:
    number = 0
    while True:
        yield np.full((2, 3), 100 * epoch + number, np.float32), np.zeros(2)
        number += 1


def test_stream() -> None:
    stream = D.Stream(_made, 5)
    assert isinstance(stream, Batches)
    assert [x[0, 0] for x, _ in stream] == [0, 1, 2, 3, 4]
    stream.set_position(2, 3)
    assert [x[0, 0] for x, _ in stream] == [203, 204]
    for _ in stream:
        break


def test_stream_that_ends_early_or_fails() -> None:
    with pytest.raises(InputError, match="made 2 for epoch 0, its length is 5"):
        list(D.Stream(lambda epoch: [(np.zeros(1), np.zeros(1))] * 2, 5))

    def failing(epoch: int) -> Iterator[Any]:
        yield np.zeros(1), np.zeros(1)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(D.Stream(failing, 5))
    with pytest.raises(AttributeValueError):
        D.Stream([1, 2], 2)
    with pytest.raises(AttributeValueError):
        D.Stream(_made, 0)
