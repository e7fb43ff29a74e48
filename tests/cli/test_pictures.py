"""Pictures reach the model as the options, the model's metadata and its input type say: seen through models that return their input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from cli.tools import call, fed, identity, refused

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """6 x 4 pixels."""
    Image.fromarray(RGB).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return identity(tmp_path / "model.onnx", ("N", 3, 4, 6))


def _nchw(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32).transpose(2, 0, 1)[None]


def test_default_is_rgb_over_255(model: Path, photo: Path) -> None:
    np.testing.assert_array_equal(fed(model, photo), _nchw(RGB) * np.float32(1 / 255))


def test_mean_std_scale_and_bgr(model: Path, photo: Path) -> None:
    got = fed(model, photo, "--bgr", "--scale", "1", "--mean", "10,20,30", "--std", "2")
    want = (_nchw(RGB[:, :, ::-1]) - np.array([10, 20, 30], np.float32).reshape(1, 3, 1, 1)) / 2
    np.testing.assert_array_equal(got, want)


def test_range(model: Path, photo: Path) -> None:
    np.testing.assert_allclose(fed(model, photo, "--range", "-1..1"), _nchw(RGB) / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(fed(model, photo, "--range", "0..255"), _nchw(RGB))


def test_pictures_of_one_shape_make_one_batch(model: Path, photo: Path) -> None:
    result = call("run", model, photo, photo, photo)
    assert "1 call" not in result.output
    assert "ran 3 samples in" in result.output
    assert fed(model, photo, photo, photo).shape == (3, 3, 4, 6)
    assert "in 2 calls" in call("run", model, photo, photo, photo, "--batch", "2").output


def test_fixed_batch_of_one_makes_several_runs(tmp_path: Path, photo: Path) -> None:
    model = identity(tmp_path / "one.onnx", (1, 3, 4, 6))
    assert "2 samples in 2 calls" in call("run", model, photo, photo).output
    assert fed(model, photo, photo).shape == (2, 3, 4, 6)


def test_fixed_batch_must_be_filled(tmp_path: Path, photo: Path) -> None:
    model = identity(tmp_path / "two.onnx", (2, 3, 4, 6))
    assert fed(model, photo, photo).shape == (2, 3, 4, 6)
    assert "do not fill" in refused("run", model, photo)


def test_default_covers_and_crops_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    got = fed(identity(tmp_path / "m.onnx", (1, 3, 20, 20)), tmp_path / "wide.png", "--scale", "1")
    np.testing.assert_array_equal(got, np.full((1, 3, 20, 20), 200, np.float32))


def test_resize_and_crop(tmp_path: Path) -> None:
    pixels = np.full((40, 80, 3), 60, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    free = identity(tmp_path / "free.onnx", (1, 3, "H", "W"))
    shapes = {
        (): (40, 80), ("--resize", "20"): (20, 40), ("--resize", "30x10"): (10, 30),
        ("--resize", "20", "--crop", "16"): (16, 16), ("--crop", "50x20"): (20, 50),
    }  # fmt: skip
    for options, (height, width) in shapes.items():
        got = fed(free, tmp_path / "p.png", "--scale", "1", *options)
        np.testing.assert_array_equal(got, np.full((1, 3, height, width), 60, np.float32))
    assert "less than the 100x100" in refused("run", free, tmp_path / "p.png", "--crop", "100")


def test_orientation_of_exif_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6  # must be turned 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    got = fed(identity(tmp_path / "m.onnx", (1, 3, 6, 4)), tmp_path / "turned.png", "--scale", "1")
    np.testing.assert_array_equal(got, _nchw(np.rot90(RGB, -1)))


def test_transparency_becomes_white(tmp_path: Path, model: Path) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:2, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    got = fed(model, tmp_path / "alpha.png", "--scale", "1")
    assert (got[:, :, :2] == 0).all()
    assert (got[:, :, 2:] == 255).all()


def test_palette_and_gray_pictures_for_a_colour_model(tmp_path: Path, model: Path) -> None:
    Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE, colors=24).save(tmp_path / "palette.png")
    np.testing.assert_allclose(fed(model, tmp_path / "palette.png", "--scale", "1"), _nchw(RGB), atol=2)
    Image.fromarray(RGB[:, :, 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(fed(model, tmp_path / "gray.png", "--scale", "1"), _nchw(RGB[:, :, [0, 0, 0]]))


def test_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    got = fed(identity(tmp_path / "m.onnx", (1, 1, 1, 3)), tmp_path / "deep.png", "--scale", "1")
    assert got.ravel().tolist() == [0, 1, 255]


def test_bytes_in_nhwc(tmp_path: Path, photo: Path) -> None:
    got = fed(identity(tmp_path / "bytes.onnx", (1, 4, 6, 3), TensorProto.UINT8), photo)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], RGB)


def test_float16_and_inputs_without_batch(tmp_path: Path, photo: Path) -> None:
    got = fed(identity(tmp_path / "half.onnx", (3, 4, 6), TensorProto.FLOAT16), photo, "--scale", "1")
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, RGB.transpose(2, 0, 1))


def test_metadata_of_the_model_is_the_default(tmp_path: Path, photo: Path) -> None:
    entry = json.dumps({"color": "bgr", "scale": "1/2", "mean": [1.0], "std": [4.0], "size": [4, 6]})
    model = identity(tmp_path / "m.onnx", (1, 3, 4, 6), metadata={"preprocessing": entry})
    np.testing.assert_array_equal(fed(model, photo), (_nchw(RGB[:, :, ::-1]) / 2 - 1) / 4)
    np.testing.assert_array_equal(fed(model, photo, "--rgb", "--mean", "0"), _nchw(RGB) / 8)
    np.testing.assert_array_equal(fed(model, photo, "--no-metadata", "--scale", "1"), _nchw(RGB))


def test_metadata_of_the_onnx_specification(tmp_path: Path, photo: Path) -> None:
    entries = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
    np.testing.assert_array_equal(fed(identity(tmp_path / "m.onnx", (1, 3, 4, 6), metadata=entries), photo), _nchw(RGB[:, :, ::-1]))


@pytest.mark.parametrize(
    "entry", ["{", "[]", '{"size": [0, 4]}', '{"scale": "1/0"}', '{"mean": "x"}', "3", '{"size": [4]}', '{"resize": [4]}']
)  # fmt: skip
def test_broken_metadata_is_an_error_that_names_the_way_out(tmp_path: Path, photo: Path, entry: str) -> None:
    model = identity(tmp_path / "m.onnx", (1, 3, 4, 6), metadata={"preprocessing": entry})
    assert "--no-metadata" in refused("run", model, photo)


def test_broken_pictures(tmp_path: Path, model: Path, photo: Path) -> None:
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:50])
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("cut.png", "text.jpg", "nowhere.png"):
        assert name in refused("run", model, tmp_path / name)


def test_options_that_do_not_fit(model: Path, photo: Path) -> None:
    assert "exclude each other" in refused("run", model, photo, "--scale", "1", "--range", "0..1")
    assert "--mean has 2 numbers" in refused("run", model, photo, "--mean", "1,2")
    assert "does not fit" in refused("run", model, photo, "--crop", "3")
    assert "gray" in refused("run", model, photo, "--gray")
    assert call("run", model, photo, "--resize", "big", code=2).output.count("is not WxH|N") == 1


def test_input_that_is_no_picture(tmp_path: Path, photo: Path) -> None:
    for shape in ((7,), (1, 7, 4, 6), (1, 3, 4, 6, 2)):
        assert "does not look like a picture" in refused("run", identity(tmp_path / "m.onnx", shape), photo)
