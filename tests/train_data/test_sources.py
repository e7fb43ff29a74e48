"""Arrays, folders of pictures, sources of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphc
from graphc.errors import AttributeValueError, GraphcError, InputError, ResourceError
from train_data.files import picture, save, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes "ant" (3 pictures, one of them deeper) and "bee" (1)."""
    save(tmp_path / "ant" / "b.png", picture(20, 30, 1))
    save(tmp_path / "ant" / "a.png", picture(16, 16, 0))
    save(tmp_path / "ant" / "more" / "c.bmp", picture(40, 10, 2))
    save(tmp_path / "bee" / "gray.png", picture(16, 16, 3)[:, :, 0])
    write(tmp_path / "bee" / "notes.txt", b"not a picture")
    write(tmp_path / "bee" / ".hidden.png", b"not a picture")
    write(tmp_path / "beside.txt", b"")
    return tmp_path


def test_folder_order_labels_and_pixels(folder: Path) -> None:
    source = graphc.data.ImageFolder(folder, 16)
    assert source.classes == ("ant", "bee")
    assert [file.name for file in source.files] == ["a.png", "b.png", "c.bmp", "gray.png"]
    assert source.labels.tolist() == [0, 0, 0, 1]
    assert [file.name for file in source.ignored] == ["notes.txt"]
    x, label = source[0]
    np.testing.assert_array_equal(x, picture(16, 16, 0).transpose(2, 0, 1))
    assert label == 0
    gray = picture(16, 16, 3)[:, :, 0]
    np.testing.assert_array_equal(source[3][0], np.stack([gray] * 3))
    np.testing.assert_array_equal(source.gather(np.array([3, 0]))[0], np.stack([source[3][0], source[0][0]]))


def test_folder_scales_to_cover_and_takes_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    save(tmp_path / "a" / "wide.png", pixels)
    assert (graphc.data.ImageFolder(tmp_path, (8, 8))[0][0] == 200).all()
    narrow = graphc.data.ImageFolder(tmp_path, (8, 12), channels=1)[0][0]
    assert narrow.tolist() == [[[0, 0, *[200] * 8, 0, 0]] * 8]


def test_large_jpeg_is_decoded_smaller_to_the_same_picture(tmp_path: Path) -> None:
    """A smooth picture: what matters is where things are, not the decoder's filter."""
    y, x = np.mgrid[:512, :640]
    pixels = np.stack([x * 255 // 640, y * 255 // 512, (x + y) * 255 // 1152], 2).astype(np.uint8)
    save(tmp_path / "a" / "big.jpg", pixels)
    save(tmp_path / "b" / "big.png", pixels)
    source = graphc.data.ImageFolder(tmp_path, 48)
    difference = source[0][0].astype(int) - source[1][0]
    assert np.abs(difference).max() <= 4


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels(folder: Path, channels: int) -> None:
    assert graphc.data.ImageFolder(folder, 8, channels)[0][0].shape == (channels, 8, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_broken_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / "a" / f"broken.{suffix}", picture(64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    loader = graphc.data.Loader(graphc.data.ImageFolder(tmp_path, 8), 1)
    with pytest.raises(GraphcError) as caught:
        list(loader)
    assert str(path) in str(caught.value)


def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "bomb.png", picture(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"bomb\.png.*too large"):
        graphc.data.ImageFolder(tmp_path, 8)[0]


def test_folders_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", "\0"):
        with pytest.raises(InputError):
            graphc.data.ImageFolder(path, 8)
    not_a_folder = write(tmp_path / "file", b"")
    with pytest.raises(InputError, match="cannot be read"):
        graphc.data.ImageFolder(not_a_folder, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: has no pictures"):
        graphc.data.ImageFolder(tmp_path, 8)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": (8,)}, {"size": (8, 1.5)}, {"size": True}, {"size": 8, "channels": 2}])
def test_wrong_sizes(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(AttributeValueError):
        graphc.data.ImageFolder(folder, **wrong)


def test_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = graphc.data.ImageFolder(folder, 8)
    kept = graphc.data.in_memory(source)
    assert kept.classes == source.classes
    np.testing.assert_array_equal(kept.x, source.gather(np.arange(4))[0])
    np.testing.assert_array_equal(kept.y, source.labels)
    with pytest.raises(InputError, match="samples 32 to 39"):
        graphc.data.in_memory([(np.zeros(4 if i < 32 else 1), 0) for i in range(40)])
    monkeypatch.setenv("GRAPHC_MAX_BYTES", "700")
    with pytest.raises(ResourceError):
        graphc.data.in_memory(source)


def test_arrays() -> None:
    assert graphc.data.Arrays(np.zeros((2, 5, 6), np.uint8), [0, 1]).x.shape == (2, 1, 5, 6)
    assert graphc.data.Arrays(np.zeros((2, 5, 6), np.float32), [0, 1]).x.shape == (2, 5, 6)
    for x, y, classes in (
        (np.zeros(2), np.zeros(3), ()), (np.zeros((0, 3)), np.zeros(0), ()), (3, 4, ()), (np.array(["a"]), [0], ()),
        (np.zeros((2, 3)), [0, 2], ("a", "b")), (np.zeros((2, 3)), [-1, 0], ("a", "b")),
    ):  # fmt: skip
        with pytest.raises(InputError):
            graphc.data.Arrays(x, y, classes)


def test_memory_mapped_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((10, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    source = graphc.data.Arrays(np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(10))
    (got, labels), *_ = graphc.data.Loader(source, 10)
    np.testing.assert_array_equal(got, x[labels])


def test_mean_std_of_channels() -> None:
    x = np.random.default_rng(0).integers(0, 256, (700, 3, 5, 4), np.uint8)
    mean, std = graphc.data.mean_std(graphc.data.Arrays(x, np.zeros(700)))
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, x.std((0, 2, 3)) / 255, rtol=1e-12)


def test_sources_of_torch() -> None:
    torch = pytest.importorskip("torch")
    x, y = torch.arange(24.0).reshape(6, 4), torch.arange(6)
    loader = graphc.data.Loader(torch.utils.data.TensorDataset(x, y), 4, shuffle=False)
    got = list(loader)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in got]), x.numpy())
    assert np.concatenate([y for _, y in got]).tolist() == list(range(6))


def test_digits_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    source = graphc.data.Arrays((digits.images * 15).astype(np.uint8), digits.target)
    x, y = next(iter(graphc.data.Loader(source, 64, shuffle=False)))
    assert x.shape == (64, 1, 8, 8)
    np.testing.assert_array_equal(y, digits.target[:64])
