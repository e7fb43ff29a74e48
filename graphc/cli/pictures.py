"""Pictures as model inputs: value = (pixel * scale + offset - mean) / std, per channel, pixel in 0..255.

The defaults come from the model's metadata, then from its input's type: channels, size and layout from the shape; scale 1/255 for
floating point inputs and 1 for bytes. Options override single fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from graphc.errors import InputError
from graphc.picture import Size, convert, fitted, open_picture, resized, scaled

if TYPE_CHECKING:
    from PIL.Image import Image

    from graphc.ir.graph import Array
    from graphc.types.tensor import TensorType

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm", ".ico"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Options:
    """What the user, or the model's metadata, says about preprocessing; None: nothing was said.

    `resize`: (width, height), or the length of the shorter side. `crop`: from the middle. `size`: of the result, where neither is given.
    `mean` and `std` are in units after scaling, in the order of the channels that the model sees.
    """

    resize: Union[Size, int, None] = None
    crop: Size | None = None
    size: Size | None = None
    scale: float | None = None
    offset: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool | None = None
    gray: bool | None = None
    layout: str | None = None

    def over(self, defaults: Options) -> Options:
        """These, with what they leave open taken from `defaults`. A resize or crop that is given replaces both."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.resize is not None or self.crop is not None:
            defaults = replace(defaults, resize=None, crop=None)
        return replace(defaults, **given)


@dataclass(frozen=True)
class Preprocessing:
    """Everything settled for one input. `axes`: the input's axes, e.g. "NCHW" or "HW".

    `cover`: the picture is scaled so that it just covers this size, and cropped to it.
    """

    axes: str
    channels: int
    cover: Size | None
    dtype: str
    options: Options

    def describe(self) -> str:
        """`RGB, shorter side 256, cropped to 224x224, pixels 0..1`"""
        options = self.options
        parts = ["gray" if self.channels == 1 else "BGR" if options.bgr else _MODES[self.channels]]
        if self.cover is not None:
            parts.append("fitted to {}x{}".format(*self.cover))
        elif isinstance(options.resize, int):
            parts.append(f"shorter side {options.resize}")
        elif options.resize is not None:
            parts.append("resized to {}x{}".format(*options.resize))
        if options.crop is not None and options.crop != options.resize:
            parts.append("cropped to {}x{}".format(*options.crop))
        scale, offset = options.scale or 0.0, options.offset or 0.0
        value = f"pixels {offset:g}..{round(255 * scale + offset, 9):g}"
        for name, numbers, neutral in (("mean", options.mean or (), 0), ("std", options.std or (), 1)):
            if any(number != neutral for number in numbers):
                shown = numbers[:1] if len(set(numbers)) == 1 else numbers
                value += f", {name} {', '.join(f'{number:g}' for number in shown)}"
        return ", ".join([*parts, value])

    def load(self, path: Path) -> Array:
        """The picture as an array of the input's rank, batch size 1. Raises InputError for a file that is no picture."""
        return self.array(self.pixels(open_picture(path)))

    def pixels(self, picture: Image) -> Array:
        """Bytes (height, width, channels) before scaling: size and order of the channels as the model sees them."""
        import numpy as np

        prepared = _prepared(picture, self)
        pixels = np.asarray(prepared).reshape(prepared.height, prepared.width, self.channels)
        return pixels[:, :, [2, 1, 0, *range(3, self.channels)]] if self.options.bgr and self.channels >= 3 else pixels

    def array(self, pixels: Array) -> Array:
        """The input's values, with a batch axis of size 1 where it has one, of bytes (height, width, channels)."""
        import numpy as np

        pixels = pixels.astype(np.float32)
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.options.mean, self.options.std))
        values = (pixels * np.float32(self.options.scale) + np.float32(self.options.offset) - mean) / std
        kind = np.dtype(self.dtype)
        if kind.kind in "iu":
            values = np.clip(np.rint(values), np.iinfo(kind).min, np.iinfo(kind).max)
        order = ["HWC".index(axis) for axis in self.axes if axis in "HWC"]
        moved = values.transpose(*order, *({0, 1, 2} - set(order)))
        shape = [moved.shape[i] for i in range(len(order))]
        return np.ascontiguousarray(moved.reshape([1] * self.axes.count("N") + shape).astype(kind))


def settle(name: str, type: TensorType, options: Options, metadata: Mapping[str, str]) -> Preprocessing:
    """What to do with pictures for the input `name`. Raises InputError where the input does not look like a picture."""
    stored = from_metadata(metadata)
    wanted = options.over(stored)
    axes = _axes(name, type, wanted.layout)
    sizes = dict(zip(axes, type.shape, strict=True))
    channels = sizes.get("C", 1)
    if not isinstance(channels, int):
        channels = 1 if wanted.gray else 3
    if wanted.gray and channels != 1:
        raise InputError(f"input {name!r} ({type}) takes {channels} channels, not gray pictures", hint="leave --gray out")
    width, height = sizes["W"], sizes["H"]
    size = (width, height) if isinstance(width, int) and isinstance(height, int) else wanted.size
    scale = wanted.scale if wanted.scale is not None else 1 / 255 if type.dtype.is_float else 1.0
    cover = size if wanted.resize is None and wanted.crop is None else None
    if size is not None and cover is None and wanted.crop is None and wanted.resize != size:
        wanted = replace(wanted, crop=size)
    full = replace(
        wanted, scale=scale, offset=wanted.offset or 0.0, bgr=bool(wanted.bgr),
        mean=_per_channel("--mean", wanted.mean or (0.0,), channels), std=_per_channel("--std", wanted.std or (1.0,), channels),
    )  # fmt: skip
    if size is not None and full.crop not in (None, size):
        raise InputError(f"--crop {full.crop} does not fit input {name!r} ({type})", hint=f"it takes {size[0]}x{size[1]} pixels")
    return Preprocessing(axes, channels, cover, type.dtype.name, full)


def _axes(name: str, type: TensorType, layout: str | None) -> str:
    """Which axis is what: by the layout that was asked for, else where 1 or 3 channels stand, else where 4 do."""
    first, last = {4: ("NCHW", "NHWC"), 3: ("CHW", "HWC"), 2: ("HW", "HW")}.get(type.rank, ("", ""))
    if layout and first:
        return first if layout.lower() == "nchw" else last
    for counts in ((1, 3), (4,)):
        for axes in (first, last):
            if axes and ("C" not in axes or type.shape[axes.index("C")] in counts):
                return axes
    raise InputError(f"input {name!r} ({type}) does not look like a picture", hint="give it as a .npy file, or say --layout nchw or nhwc")


def _per_channel(option: str, numbers: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(numbers) == 1:
        return (numbers[0],) * channels
    if len(numbers) != channels:
        raise InputError(f"{option} has {len(numbers)} numbers, the model takes {channels} channels", hint="one number, or one per channel")
    return tuple(numbers)


# metadata -------------------------------------------------------------------------------------------------------------------


def from_metadata(metadata: Mapping[str, str]) -> Options:
    """Preprocessing that a model carries: the JSON entry "preprocessing" (size [height, width], resize to [height, width] or the shorter
    side, color, layout, scale, mean, std), or the entries Image.BitmapPixelFormat and Image.NominalPixelRange of the ONNX specification
    (MetadataProps.md).

    Raises InputError where the entry is there and broken.
    """
    if "preprocessing" in metadata:
        try:
            return _from_json(json.loads(metadata["preprocessing"]))
        except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
            raise InputError(f"the model's metadata entry 'preprocessing' is broken: {error}", hint="--no-metadata ignores it") from error
    pixel = metadata.get("Image.BitmapPixelFormat", "")
    ranges = {"NominalRange_0_255": (1.0, 0.0), "Normalized_0_1": (1 / 255, 0.0), "Normalized_1_1": (2 / 255, -1.0)}
    scale, offset = ranges.get(metadata.get("Image.NominalPixelRange", ""), (None, None))
    bgr, gray = pixel.startswith("Bgr") or None, pixel.startswith("Gray") or None
    return Options(bgr=bgr, gray=gray, scale=scale, offset=offset)


def _from_json(entry: Any) -> Options:
    size = entry.get("size")
    color = str(entry.get("color", "")).lower()
    numbers = {name: tuple(float(item) for item in entry[name]) for name in ("mean", "std") if name in entry}
    return Options(
        resize=_resize(entry["resize"]) if "resize" in entry else None,
        size=(_whole(size[1]), _whole(size[0])) if size is not None else None,
        scale=parse_scale(str(entry["scale"])) if "scale" in entry else None,
        mean=numbers.get("mean"),
        std=numbers.get("std"),
        bgr=True if color == "bgr" else None,
        gray=True if color in ("gray", "grey") else None,
        layout=str(entry["layout"]).lower() if "layout" in entry else None,
    )


def _resize(entry: Any) -> Union[Size, int]:
    return (_whole(entry[1]), _whole(entry[0])) if isinstance(entry, list) else _whole(entry)


def _whole(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{number!r} is not a number of pixels")
    return number


def parse_scale(text: str) -> float:
    """`1/255` or `0.5`; a ValueError otherwise."""
    numerator, slash, denominator = text.partition("/")
    if not slash:
        return float(text)
    return float(Fraction(numerator) / Fraction(denominator))


# pixels ---------------------------------------------------------------------------------------------------------------------


def _prepared(picture: Image, to: Preprocessing) -> Image:
    """Mode, size and crop."""
    picture = convert(picture, _MODES[to.channels])
    if to.cover is not None:
        return fitted(picture, to.cover)
    resize, crop = to.options.resize, to.options.crop
    if isinstance(resize, int):
        picture = scaled(picture, Fraction(resize, min(picture.size)))
    elif resize is not None:
        picture = resized(picture, resize)
    return _cropped(picture, crop) if crop is not None else picture


def _cropped(picture: Image, size: Size) -> Image:
    """The middle; a side that is shorter than `size` is an InputError."""
    width, height = size
    if picture.width < width or picture.height < height:
        raise InputError(
            f"the picture has {picture.width}x{picture.height} pixels after resizing, less than the {width}x{height} wanted",
            hint=f"--resize {width}x{height}",
        )
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
