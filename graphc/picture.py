"""Reading picture files through Pillow, for the command line and for training data: upright, 8 bits, one of the modes L, RGB, RGBA."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]  # (width, height)


def open_picture(path: Path, at_least: int = 0) -> Image:
    """The first frame, upright (EXIF orientation applied). Raises InputError for a file that is no picture, or broken.

    at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster, as long as no side falls below this; 0: never.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if at_least:
                picture.draft(None, (at_least, at_least))
            picture.load()
            return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise InputError("not a picture that Pillow can read", where=str(path), hint="a PNG or JPEG file, or an array as .npy") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"too large a picture: {error}", where=str(path), hint="a smaller picture") from error
    except Exception as error:  # decoders raise all kinds for broken files: struct.error, SyntaxError, IndexError, ...
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(reason, where=str(path), hint="check the path, or whether the file is complete") from error


def convert(picture: Image, mode: str) -> Image:
    """To L, RGB or RGBA with 8 bits; transparency, where the model has no channel for it, becomes white."""
    from PIL import Image

    if picture.mode.startswith("I"):
        picture = picture.convert("I").point(lambda pixel: pixel * (1 / 257)).convert("L")  # 16 bits
    if mode != "RGBA" and (picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info):
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def fitted(picture: Image, size: Size) -> Image:
    """Scaled so that it just covers `size`, and the middle of that."""
    picture = scaled(picture, max(Fraction(size[0], picture.width), Fraction(size[1], picture.height)))
    left, top = (picture.width - size[0]) // 2, (picture.height - size[1]) // 2
    return picture.crop((left, top, left + size[0], top + size[1]))


def scaled(picture: Image, ratio: Fraction) -> Image:
    """Both sides times `ratio`, at least one pixel."""
    return resized(picture, (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))))


def resized(picture: Image, size: Size) -> Image:
    """Bilinear, over the whole area of a pixel where it shrinks."""
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)
