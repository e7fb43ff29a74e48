"""Augmentation against plain numpy, one sample at a time; and what is promised of every entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array
from graphc.train.data.chain import Chain
from graphc.train.data.draws import Draws, split_mix

D = graphc.data
ALL = [
    D.HorizontalFlip(), D.VerticalFlip(), D.RandomCrop((9, 7), padding=2, fill=5 / 255), D.Cutout(4), D.Shift(3), D.Shift((0, 2)),
    D.Rotation(30), D.Shear(20, 10), D.Zoom(0.5, 2), D.RandomResizedCrop((6, 5)), D.ColorJitter(0.4, 0.4, 0.4, 0.2), D.Illumination(),
]  # fmt: skip


def _images(n: int = 6, channels: int = 3, height: int = 11, width: int = 9, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), np.uint8)


def _u(entry: Any, n: int = 6, seed: int = 1) -> Array:
    return np.random.default_rng(seed).random((n, entry.draws))


@pytest.mark.parametrize("entry", ALL, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_entry_treats_samples_alone_and_leaves_its_input(entry: Any, channels: int, dtype: Any) -> None:
    images = _images(channels=channels)
    images = images if dtype == np.uint8 else images.astype(np.float32) / 255
    before, u = images.copy(), _u(entry)
    whole = entry.apply(images, u)
    assert whole.dtype == dtype
    np.testing.assert_array_equal(images, before)
    for n in range(len(images)):
        np.testing.assert_array_equal(entry.apply(images[n : n + 1], u[n : n + 1])[0], whole[n])
    assert not np.array_equal(whole[0], whole[1])


@pytest.mark.parametrize("entry", ALL, ids=str)
def test_floats_are_treated_as_bytes_are(entry: Any) -> None:
    images, u = _images(), _u(entry)
    exact = entry.apply(images.astype(np.float32) / 255, u) * 255
    np.testing.assert_allclose(entry.apply(images, u).astype(float), exact, atol=5.5 if "fill=0.0" in str(entry) else 1.01)


def test_flips() -> None:
    images, u = _images(), np.array([[0.0], [0.3], [0.49], [0.5], [0.7], [0.99]])
    for entry, axis in ((D.HorizontalFlip(), 2), (D.VerticalFlip(), 1)):
        want = [np.flip(image, axis) if p < 0.5 else image for image, (p,) in zip(images, u, strict=True)]
        np.testing.assert_array_equal(entry.apply(images, u), want)
    np.testing.assert_array_equal(D.HorizontalFlip(0).apply(images, u), images)
    np.testing.assert_array_equal(D.HorizontalFlip(1).apply(images, u), images[..., ::-1])


@given(padding=st.integers(0, 3), size=st.tuples(st.integers(1, 11), st.integers(1, 9)), seed=st.integers(0, 99))
def test_crops(padding: int, size: tuple[int, int], seed: int) -> None:
    images, entry = _images(), D.RandomCrop(size, padding, fill=7)
    u = _u(entry, seed=seed)
    padded = np.pad(images, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2), constant_values=7)
    for image, (a, b), got in zip(padded, u, entry.apply(images, u), strict=True):
        row, column = int(a * (image.shape[1] - size[0] + 1)), int(b * (image.shape[2] - size[1] + 1))
        np.testing.assert_array_equal(got, image[:, row : row + size[0], column : column + size[1]])


def test_crops_reach_every_place() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3).repeat(500, 0)
    assert set(D.RandomCrop(1).apply(image, _u(D.RandomCrop(1), 500)).ravel().tolist()) == set(range(9))


def test_shift_moves_right_and_down() -> None:
    image = np.zeros((3, 1, 5, 5), np.uint8)
    image[:, 0, 2, 2] = 9
    moved = D.Shift((2, 1)).apply(image, np.array([[0.999, 0.999], [0, 0], [0.5, 0.5]]))
    assert [tuple(np.argwhere(one[0])[0]) for one in moved] == [(3, 4), (1, 0), (2, 2)]
    assert (D.Shift(1, fill=3).apply(image, np.zeros((3, 2)))[:, 0, -1] == 3).all()


def test_shift_is_its_affine_map() -> None:
    """The short way, with copies, against resampling."""
    images, entry = _images(), D.Shift(3, fill=4)
    u = _u(entry)
    np.testing.assert_array_equal(entry.apply(images, u), super(D.Shift, entry).apply(images, u))


def test_rotation_by_quarter_turns() -> None:
    images = _images(height=8, width=8)
    for u, turns in ((0.0, 1), (1.0, -1)):
        got = D.Rotation(90).apply(images, np.full((6, 1), u))
        np.testing.assert_array_equal(got, np.rot90(images, turns, (2, 3)))


def test_zoom_by_two_repeats_pixels() -> None:
    """Bilinear between four pixels in the middle of a gradient: half the slope; and enlarging shows the middle."""
    ramp = np.tile(np.arange(0, 80, 10, dtype=np.float32) / 255, (1, 1, 8, 1))
    got = D.Zoom(2, 2).apply(ramp, np.zeros((1, 1)))[0, 0, 4] * 255
    np.testing.assert_allclose(got, np.arange(8) * 5 + 17.5, atol=1e-4)


def test_shear_leans() -> None:
    image = np.zeros((1, 1, 9, 9), np.float32)
    image[..., 4] = 1
    got = D.Shear(45).apply(image, np.array([[1.0, 0.5]]))[0, 0]
    np.testing.assert_allclose(got, np.eye(9)[::-1], atol=1e-5)


@given(seed=st.integers(0, 50))
def test_resample_is_bilinear(seed: int) -> None:
    """Against the definition, where all four neighbours are inside."""
    entry = D.Rotation(40)
    image, u = _images(1, 1, 12, 10, seed).astype(np.float32) / 255, _u(entry, 1, seed)
    got, map_ = entry.apply(image, u)[0, 0], entry.maps(u)[0]
    for y in range(12):
        for x in range(10):
            sx, sy, _ = map_ @ (x + 0.5 - 5, y + 0.5 - 6, 1) + (5 - 0.5, 6 - 0.5, 0)
            if 0 <= sx < 9 and 0 <= sy < 11:
                i, j, fy, fx = int(sy), int(sx), sy % 1, sx % 1
                four = image[0, 0, i : i + 2, j : j + 2]
                want = np.array([1 - fy, fy]) @ four @ np.array([1 - fx, fx])
                assert got[y, x] == pytest.approx(want, abs=1e-5)


def test_random_resized_crop_of_everything_is_a_resize() -> None:
    images = _images()
    entry = D.RandomResizedCrop((11, 9), scale=(1, 1), ratio=(9 / 11, 9 / 11))
    np.testing.assert_array_equal(entry.apply(images, _u(entry)), images)
    edge = D.RandomResizedCrop(7, scale=(1e-6, 1))  # a box that rounding put outside would be refused
    edge.apply(_images(2000, 1, 37, 41), np.hstack([_u(edge, 2000)[:, :2], np.full((2000, 2), 1 - 2.0**-53)]))
    flat = np.full((2, 3, 20, 30), 77, np.uint8)
    assert (D.RandomResizedCrop(7).apply(flat, _u(D.RandomResizedCrop(7), 2)) == 77).all()


def test_random_resized_crop_takes_the_area() -> None:
    """A ramp shows which part was taken: its ends differ by the share of the width."""
    ramp = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (40, 1, 100, 1))
    entry = D.RandomResizedCrop(50, scale=(0.25, 0.25), ratio=(1, 1))
    got = entry.apply(ramp, _u(entry, 40))
    np.testing.assert_allclose(got[:, 0, 10, -1] - got[:, 0, 10, 0], 0.49, atol=0.02)


def test_cutout() -> None:
    images, u = np.full((2, 3, 8, 8), 9, np.uint8), np.array([[0.5, 0.5], [0.0, 0.999]])
    got = D.Cutout(4, fill=1).apply(images, u)
    want = images.copy()
    want[0, :, 2:6, 2:6] = 1
    want[1, :, 0:2, 5:8] = 1
    np.testing.assert_array_equal(got, want)


def test_affine_neighbours_are_resampled_once() -> None:
    there, back = D.Rotation(90), D.Rotation(90)
    images = _images(height=9, width=30)
    chain = Chain([there, back, D.Zoom(1, 1), D.HorizontalFlip(), D.Shift(1, fill=3), D.Rotation(10, fill=4)])
    assert [type(entry).__name__ for entry in chain.entries] == ["Product", "HorizontalFlip", "Shift", "Rotation"]
    assert chain.draws == 1 + 1 + 1 + 1 + 2 + 1
    u = np.tile([0.0, 1.0, 0.5], (6, 1))
    np.testing.assert_array_equal(Chain([there, back, D.Zoom(1, 1)]).apply(images, u), images)


def test_affine_neighbours_apply_in_order() -> None:
    """A dot moved to the right and then turned by a quarter is not one turned and then moved."""
    dot = np.zeros((1, 1, 9, 9), np.uint8)
    dot[0, 0, 4, 4] = 200
    for entries, u in (([D.Shift((3, 0)), D.Rotation(90)], [0.999, 0.5, 1.0]), ([D.Rotation(90), D.Shift((3, 0))], [1.0, 0.999, 0.5])):
        merged, single, start = Chain(entries).apply(dot, np.array([u])), dot, 0
        for entry in entries:
            single = entry.apply(single, np.array([u[start : start + entry.draws]]))
            start += entry.draws
        np.testing.assert_array_equal(merged, single)


def test_color_jitter_against_one_pixel_at_a_time() -> None:
    images, entry = _images(4), D.ColorJitter(0.5, 0.5, 0.5)
    u = _u(entry, 4)
    luma = np.array([0.299, 0.587, 0.114])
    for image, row, got in zip(images, u, entry.apply(images, u), strict=True):
        b, c, s = (0.5 + row[:3])
        x = image.astype(float) * b
        gray = luma @ x.mean((1, 2))
        x = gray + (x - gray) * c
        own = np.tensordot(luma, x, 1)
        x = own + (x - own) * s
        np.testing.assert_allclose(got, np.clip(np.rint(x), 0, 255), atol=1)


def test_hue_turns_and_leaves_gray() -> None:
    images = _images(4)
    gray = images[:, :1].repeat(3, 1)
    entry = D.ColorJitter(hue=0.5)
    u = np.tile([0.5, 0.5, 0.5, 1.0], (4, 1))
    assert np.abs(entry.apply(gray, u).astype(int) - gray).max() <= 1
    soft = (images.astype(np.float32) / 255 - 0.5) * 0.1 + 0.5
    np.testing.assert_allclose(entry.apply(entry.apply(soft, u), u), soft, atol=1e-5)
    assert np.abs(entry.apply(soft, u) - soft).max() > 0.02
    same = np.tile([0.5, 0.5, 0.5, 0.5], (4, 1))
    np.testing.assert_array_equal(D.ColorJitter(1, 1, 1, 0.5).apply(images, same), images)


def test_illumination() -> None:
    images = _images(3)
    u = np.array([[0.0, 0, 0], [1.0, 0, 0], [0.5, 1, 0.0]])
    got = D.Illumination(gamma=(0.5, 2), gradient=0.25).apply(images, u)
    for n, gamma in ((0, 0.5), (1, 2)):
        np.testing.assert_allclose(got[n], np.rint(255 * (images[n] / 255) ** gamma), atol=1)
    want = np.clip(images[2] * np.linspace(0.75, 1.25, 9), 0, 255)
    np.testing.assert_allclose(got[2], want, atol=1)


WRONG: list[Any] = [
    lambda: D.HorizontalFlip(1.5), lambda: D.VerticalFlip(float("nan")), lambda: D.RandomCrop(0), lambda: D.RandomCrop((3, 4, 5)),
    lambda: D.RandomCrop(3, padding=-1), lambda: D.RandomCrop(3, fill=300), lambda: D.Cutout(0), lambda: D.Shift(-1), lambda: D.Shift(1.5),
    lambda: D.Shift((1, 2, 3)), lambda: D.RandomCrop(2.5), lambda: D.Rotation(-1),
    lambda: D.Shear(90), lambda: D.Zoom(0), lambda: D.Zoom(2, 1),
    lambda: D.RandomResizedCrop(4, scale=(0, 1)), lambda: D.RandomResizedCrop(4, ratio=(2, 1)), lambda: D.ColorJitter(brightness=2),
    lambda: D.ColorJitter(hue=0.6), lambda: D.Illumination(gamma=(0, 1)), lambda: D.Illumination(gradient=-1), lambda: Chain([D.Shift]),
    lambda: Chain([lambda x: x]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments(number: int) -> None:
    with pytest.raises(AttributeValueError):
        WRONG[number]()


def test_what_are_no_pictures() -> None:
    for array in (np.zeros((2, 5), np.uint8), np.zeros((2, 1, 4, 4), np.int64)):
        with pytest.raises(InputError, match="HorizontalFlip takes pictures"):
            Chain([D.HorizontalFlip()]).apply(array, np.zeros((2, 1)))
    with pytest.raises(InputError, match="a crop of 20x20"):
        D.RandomCrop(20).apply(_images(), np.zeros((6, 2)))
    with pytest.raises(InputError, match="channel"):
        D.ColorJitter().apply(_images(channels=2), np.zeros((6, 4)))


def test_split_mix_is_the_published_one() -> None:
    """The sequence of the reference implementation (https://prng.di.unimi.it/splitmix64.c) for the seed 1234567."""
    want = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert split_mix(1234567, np.arange(5, dtype=np.uint64)).tolist() == want


def test_draws_depend_on_seed_epoch_sample_alone() -> None:
    samples = np.array([5, 0, 10**12])
    got = Draws(1, 2, 3).of(samples)
    np.testing.assert_array_equal(Draws(1, 2, 3).of(samples[::-1]), got[::-1])
    others = [Draws(*key, 3).of(samples) for key in ((1, 3), (2, 2), (2, 1), (0, 0))]
    assert not any(np.isin(other, got).any() for other in others)
    many = Draws(0, 0, 4).of(np.arange(20000))
    assert many.min() >= 0
    assert many.max() < 1
    np.testing.assert_allclose(np.histogram(many, 10, (0, 1))[0] / many.size, 0.1, atol=0.004)
    assert np.abs(np.corrcoef(many.T) - np.eye(4)).max() < 0.03
