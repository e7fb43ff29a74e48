"""A contact sheet: what the training sees, as a picture."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from graphc.errors import InputError
from graphc.files import write_atomic
from graphc.ir.graph import Array
from graphc.train.data.augment import check_images, whole
from graphc.train.data.color import clipped
from graphc.train.data.loader import Loader

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_TILE = 96  # pixels: smaller pictures are enlarged by a whole factor
_GAP = 8
_TEXT = 13
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def preview(loader: Loader, path: Union[str, PathLike[str]], rows: int = 4, columns: int = 8) -> None:
    """Write the first samples of the loader's current epoch, as they are after augmentation, with their class names, as a PNG file.

    Does not move the loader. Raises InputError where the samples are no pictures of 1 or 3 channels, ResourceError where the file cannot
    be written.
    """
    whole("rows", rows, 1)
    whole("columns", columns, 1)
    x, y = loader.augmented(loader.order()[: rows * columns])
    if x.dtype.kind == "f":
        x = clipped(x * np.float32(255), np.empty(x.shape, np.uint8))
    check_images(x, "preview")
    if x.shape[1] not in (1, 3):
        raise InputError(f"preview takes 1 or 3 channels, not {x.shape[1]}")
    sheet = _sheet(x, [_name(label, loader.classes) for label in y], columns)
    write_atomic(Path(path), lambda file: sheet.save(file, format="PNG"))


def _sheet(images: Array, names: list[str], columns: int) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, -(-_TILE // max(images.shape[2:])))
    height, width = (side * factor for side in images.shape[2:])
    across, down = min(columns, len(images)), -(-len(images) // columns)
    font = ImageFont.load_default(_TEXT)
    step_x, step_y = width + _GAP, height + _TEXT + 2 * _GAP
    sheet = Image.new("RGB", (across * step_x + _GAP, down * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (pixels, name) in enumerate(zip(images, names, strict=True)):
        left, top = _GAP + number % columns * step_x, _GAP + number // columns * step_y
        shown = np.repeat(np.repeat(pixels.transpose(1, 2, 0), factor, 0), factor, 1)
        sheet.paste(Image.fromarray(np.broadcast_to(shown, (height, width, 3)).copy()), (left, top))
        draw.text((left, top + height + 2), _shortened(draw, name, width, font), _INK, font)
    return sheet


def _name(label: Array, classes: tuple[str, ...]) -> str:
    if label.ndim == 0 and label.dtype.kind in "ui" and 0 <= label < len(classes):
        return classes[int(label)]
    return np.array2string(label, threshold=4, precision=3)


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: int, font: object) -> str:
    """The text, or as much of it as fits before three dots."""
    if draw.textlength(text, font) <= width:  # type: ignore[arg-type]
        return text
    while text and draw.textlength(text + "...", font) > width:  # type: ignore[arg-type]
        text = text[:-1]
    return text + "..."
