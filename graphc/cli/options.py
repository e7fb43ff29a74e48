"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import click

from graphc.cli import values
from graphc.cli.models import Sizes
from graphc.cli.pictures import Options
from graphc.errors import InputError

Command = TypeVar("Command", bound=Callable[..., Any])

model_argument = click.argument("model", metavar="MODEL")
_SIZES = (
    click.option(
        "--dims", type=values.DIM, multiple=True, metavar="NAME=SIZE", help="Size of a symbolic dimension, e.g. N=8; may be repeated."
    ),
    click.option(
        "--shape", "shapes", type=values.SHAPE, multiple=True, metavar="NAME=SHAPE",
        help="Of an input that is a sequence (seq=3, seq=2x3,4x3), optional (opt=none) or of unknown rank (x=2x3); may be repeated.",
    ),
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
seed_option = click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Seed of random inputs.")
threads_option = click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads; default: one per usable core.")
target_option = click.option(
    "--target", default="host", show_default=True, metavar="NAME", help="Machine level: host, avx512, avx2, sse2, neon."
)
accuracy_option = click.option(
    "--accuracy", type=click.Choice(["default", "exact"]), default="default", show_default=True,
    help="exact: only algorithms that sum in the order of the definition.",
)  # fmt: skip
tune_option = click.option(
    "--tune", is_flag=True, help="Choose how convolutions are computed by timing them here, once; the times stay in the cache."
)
input_option = click.option(
    "--input", "named", type=values.ASSIGNMENT, multiple=True, metavar="NAME=FILE", help="File for one input of the model; may be repeated."
)
_PICTURES = (
    click.option("--resize", type=values.PIXELS, help="Resize pictures: to WxH, or the shorter side to N."),
    click.option("--crop", type=values.PIXELS, help="Crop the middle of pictures to N or WxH."),
    click.option("--scale", type=values.SCALE, help="Factor for pixels 0..255 [default: 1/255; 1 for integer inputs]."),
    click.option("--range", "pixel_range", type=values.RANGE, help="In place of --scale: where pixels 0 and 255 go, e.g. 0..255, -1..1."),
    click.option("--mean", type=values.NUMBERS, help="Subtracted after scaling: one number, or one per channel."),
    click.option("--std", type=values.NUMBERS, help="Divided by after that."),
    click.option("--bgr/--rgb", default=None, help="Order of the colours [default: RGB]."),
    click.option("--gray", is_flag=True, default=None, help="One channel, where the model leaves that open."),
    click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Order of the input's axes, where it is not clear."),
    click.option("--no-metadata", is_flag=True, help="Ignore preprocessing and labels that the model carries."),
)


def sizes_options(command: Command) -> Command:
    """--dims and --shape, as the argument `sizes` of a command."""

    @functools.wraps(command)
    def with_sizes(*args: Any, dims: Sequence[tuple[str, int]], shapes: Sequence[tuple[str, Any]], **given: Any) -> Any:
        return command(*args, sizes=Sizes(dict(dims), dict(shapes)), **given)

    made: Any = with_sizes
    for option in reversed(_SIZES):
        made = option(made)
    return cast("Command", made)


def picture_options(command: Command) -> Command:
    """The options that say how pictures become arrays; `pictures_of` reads them."""
    for option in reversed(_PICTURES):
        command = option(command)
    return command


def pictures_of(given: dict[str, Any]) -> Options:
    """Raises InputError for options that exclude each other."""
    if given["scale"] is not None and given["pixel_range"] is not None:
        raise InputError("--scale and --range exclude each other", hint="one of them")
    scale, offset = given["scale"], None
    if scale is not None:
        offset = 0.0
    if given["pixel_range"] is not None:
        low, high = given["pixel_range"]
        scale, offset = (high - low) / 255, low
    crop = given["crop"]
    return Options(
        resize=given["resize"], crop=(crop, crop) if isinstance(crop, int) else crop, scale=scale, offset=offset,
        mean=given["mean"], std=given["std"], bgr=given["bgr"], gray=given["gray"], layout=given["layout"],
    )  # fmt: skip
