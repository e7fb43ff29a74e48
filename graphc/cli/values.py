"""Types of option values: text to sizes, numbers, names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from graphc.cli.pictures import parse_scale

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # newer versions of click have made it generic


class Parsed(ParamType):
    """What `parse` makes of the text; its ValueError becomes "'x' is not NAME, e.g. EXAMPLE" and exit code 2."""

    def __init__(self, name: str, parse: Callable[[str], Any], example: str) -> None:
        self.name = name
        self._parse = parse
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value  # a default, or converted already
        try:
            return self._parse(value)
        except (ValueError, ArithmeticError):
            return self.fail(f"{value!r} is not {self.name}, e.g. {self._example}", param, ctx)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not (name and equals and value):
        raise ValueError(text)
    return name, value


def _dim(text: str) -> tuple[str, int]:
    name, size = _assignment(text)
    return name, _whole(size)


def _shaped(text: str) -> tuple[str, Any]:
    """NAME=none, NAME=COUNT, NAME=SHAPE or NAME=SHAPE,SHAPE,... (one shape and a comma: a list of one)."""
    name, given = _assignment(text)
    if given == "none":
        return name, None
    if given.isdecimal():
        return name, int(given)
    if "," not in given:
        return name, _shape(given)
    return name, [_shape(part) for part in given.removesuffix(",").split(",")]


def _shape(text: str) -> tuple[int | None, ...]:
    return () if text == "scalar" else tuple(None if size == "?" else _whole(size) for size in text.split("x"))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _pixels(text: str) -> tuple[int, int] | int:
    sides = [_whole(part) for part in text.lower().split("x")]
    if len(sides) > 2 or min(sides) < 1:
        raise ValueError(text)
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(parse_scale(part) for part in text.split(","))


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("..")
    return float(low), float(high)


ASSIGNMENT = Parsed("NAME=FILE", _assignment, "image=cat.npy")
DIM = Parsed("NAME=SIZE", _dim, "N=8")
SHAPE = Parsed("NAME=SHAPE", _shaped, "x=2x3, seq=3, seq=2x3,4x3 or opt=none")
PIXELS = Parsed("WxH|N", _pixels, "320x240 or 224")
NUMBERS = Parsed("X[,Y,Z]", _numbers, "0.5 or 0.485,0.456,0.406")
SCALE = Parsed("FACTOR", parse_scale, "1/255")
RANGE = Parsed("LOW..HIGH", _range, "0..255")


def names(*choices: str) -> Parsed:
    """Some of `choices`, separated by commas -> a tuple."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        if not set(found) <= set(choices):
            raise ValueError(text)
        return found

    return Parsed(f"a list of {', '.join(choices)}", parse, ",".join(choices[:2]))
