"""The data of the examples in this folder: scikit-learn's digits, which need no download, and folders of IDX files."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graphc


def digits(size: int = 32, seed: int = 0) -> tuple[graphc.data.Arrays, graphc.data.Arrays]:
    """(train, test): 1,437 and 360 handwritten digits as bytes (N, 1, size, size), white ink on black; each class split 4 : 1.

    The 8x8 pixels of `sklearn.datasets.load_digits` are enlarged by bicubic interpolation.
    """
    data = load_digits()
    small = np.round(data.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in small])
    labels = data.target.astype(np.int64)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    return graphc.data.Arrays(x, y), graphc.data.Arrays(x_test, y_test)


def idx_folder(folder: Path) -> tuple[graphc.data.Arrays, graphc.data.Arrays]:
    """(train, test) from the four files of MNIST or Fashion-MNIST, plain or gzip: bytes (N, 1, 28, 28)."""
    names = [(_file(folder, f"{part}*images*idx3*"), _file(folder, f"{part}*labels*idx1*")) for part in ("train", "t10k")]
    train, test = (graphc.data.idx(images, labels) for images, labels in names)
    return train, test


def first(source: graphc.data.Arrays, count: int) -> graphc.data.Arrays:
    """The first `count` samples."""
    return graphc.data.Arrays(source.x[:count], source.y[:count], source.classes)


def _file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise click.ClickException(f"{folder} has {len(found)} files {pattern}, one is needed")
    return found[0]
