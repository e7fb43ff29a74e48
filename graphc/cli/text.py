"""Text that may come from a model or a file name, made safe for a terminal; and JSON that every parser reads."""

from __future__ import annotations

import json
import math
from typing import Any


def printable(text: str, keep: str = "") -> str:
    """The text with control characters (escape sequences) and lone surrogates written as \\x1b, \\udc80."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def json_text(data: Any) -> str:
    """Indented JSON; NaN and infinities become the strings "nan", "inf", "-inf"."""
    return json.dumps(_plain(data), indent=2, allow_nan=False)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [_plain(item) for item in data]
    if data is None or isinstance(data, (str, bool, int)):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else str(data)
    if hasattr(data, "item"):  # a numpy scalar
        return _plain(data.item())
    return str(data)
