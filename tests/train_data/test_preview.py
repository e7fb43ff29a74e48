"""The contact sheet, the lazy names, and the pipeline in front of a real training step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphc
from graphc.errors import AttributeValueError, InputError, ResourceError

D = graphc.data


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_tiles_hold_the_augmented_samples(tmp_path: Path, channels: int, dtype: type) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, channels, 32, 24), np.uint8)
    source = D.Arrays(x if dtype == np.uint8 else x.astype(np.float32) / 255, np.arange(20) % 2, ["a", "a very long name of a class"])
    loader = D.Loader(source, 4, augment=[D.HorizontalFlip(1)])
    loader.set_position(3, 2)
    D.preview(loader, tmp_path / "sheet.png", 2, 3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape == (2 * (96 + 29) + 8, 3 * (72 + 8) + 8, 3)
    tile = pixels[8 + 125 : 8 + 125 + 96 : 3, 8 + 80 : 8 + 80 + 72 : 3].transpose(2, 0, 1)
    np.testing.assert_array_equal(tile, np.broadcast_to(x[loader.order()[4], :, :, ::-1], tile.shape))
    names = pixels[8 + 96 : 8 + 96 + 20]
    assert (names < 128).any()
    assert (pixels[:, :8] == 255).all(), "nothing is drawn over the margin"
    assert (loader.epoch, loader.batch) == (3, 2)


def test_fewer_samples_than_tiles(tmp_path: Path) -> None:
    source = D.Arrays(np.zeros((3, 200, 100), np.uint8), [0.5, 1.25, 2])
    D.preview(D.Loader(source), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 108 + 8, 229 + 8)


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    for x in (np.zeros((3, 5)), np.zeros((3, 2, 4, 4), np.uint8)):
        with pytest.raises(InputError):
            D.preview(D.Loader(D.Arrays(x, np.zeros(3))), path)
    loader = D.Loader(D.Arrays(np.zeros((3, 4, 4), np.uint8), np.zeros(3)))
    with pytest.raises(AttributeValueError):
        D.preview(loader, path, rows=0)
    with pytest.raises(ResourceError):
        D.preview(loader, tmp_path / "missing" / "sheet.png")
    assert not path.exists()


def test_import_graphc_loads_none_of_it(root: Path) -> None:
    """Nor does `graphc.data` load Pillow, LLVM or ONNX."""
    code = (
        "import sys, graphc; assert 'graphc.train' not in sys.modules and 'numpy' not in sys.modules; "
        "graphc.data.Loader; assert not {'PIL', 'llvmlite', 'onnx'} & sys.modules.keys()"
    )
    path = os.pathsep.join(str(root / folder) for folder in (".", "frontends", "backends"))
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def test_every_name_has_a_docstring() -> None:
    assert [name for name in D.__all__ if not getattr(D, name).__doc__] == []


def test_a_training_step_takes_the_batches() -> None:
    """A linear classifier of two classes of pictures that differ in brightness learns them."""
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = (rng.integers(0, 100, (64, 1, 6, 6)) + 100 * y[:, None, None, None]).astype(np.uint8)
    loader = D.Loader(D.Arrays(x, y), 16, augment=[D.Shift(1), D.HorizontalFlip()], normalise=(0.4, 0.3))

    @graphc.model
    def net(image: graphc.f32["N", 1, 6, 6]):
        return graphc.linear(graphc.flatten(image), 2, name="out")

    step = graphc.TrainStep(net, optimizer=graphc.optim.SGD(lr=0.1), threads=1)
    losses = []
    for epoch in range(10):
        loader.set_position(epoch, 0)
        losses += [step(images, labels)["loss"] for images, labels in loader]
    assert losses[-1] < 0.2 < losses[0]
