"""Numbers as people read them: three significant digits and a unit."""

from __future__ import annotations

import math

_UP = ("", "k", "M", "G", "T", "P")
_DOWN = ("", "m", "µ", "n")


def count(number: float, unit: str = "") -> str:
    """12345 -> "12.3 k"; with a unit, e.g. "FLOP": "12.3 kFLOP". Decimal prefixes, also for bytes."""
    if not math.isfinite(number):
        return f"{number} {unit}".rstrip()
    size, prefix = float(number), 0
    while abs(size) >= 999.5 and prefix < len(_UP) - 1:
        size, prefix = size / 1000, prefix + 1
    text = f"{number:.0f}" if prefix == 0 and float(number).is_integer() else three(size)
    return f"{text} {_UP[prefix]}{unit}".rstrip()


def nbytes(number: float) -> str:
    """627328 -> "627 kB"."""
    return count(number, "B")


def seconds(time: float) -> str:
    """0.0000529 -> "52.9 µs"."""
    if not math.isfinite(time) or time >= 0.9995 or time == 0:
        return f"{three(time)} s"
    size, prefix = time, 0
    while abs(size) < 0.9995 and prefix < len(_DOWN) - 1:
        size, prefix = size * 1000, prefix + 1
    return f"{three(size)} {_DOWN[prefix]}s"


def three(number: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    number = float(f"{number:.2e}")  # 0.9996 is 1.00
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{number:.{digits}f}" if 0 <= digits <= 6 else f"{number:.0f}" if -6 <= digits < 0 else f"{number:.2e}"


def plural(number: int, noun: str) -> str:
    """1 -> "1 node", 2 -> "2 nodes"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"
