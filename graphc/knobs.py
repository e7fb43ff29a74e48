"""Knobs: named settings from the environment. They live beside the code they steer; `graphc knobs` lists them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Generic, TypeVar

from graphc.errors import AttributeValueError

T = TypeVar("T", int, bool, str, float)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
registry: dict[str, Knob] = {}  # type: ignore[type-arg]


@dataclass(frozen=True)
class Knob(Generic[T]):
    """A setting read from the environment variable `name` each time it is used."""

    name: str
    type: type[T]
    default: T
    doc: str

    def get(self) -> T:
        text = os.environ.get(self.name)
        if text is None:
            return self.default
        if self.type is bool:
            return self.type(self._bool(text))
        try:
            return self.type(text)
        except ValueError as error:
            raise self._bad(text) from error

    def _bool(self, text: str) -> bool:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise self._bad(text)

    def _bad(self, text: str) -> AttributeValueError:
        return AttributeValueError(
            f"environment variable {self.name}={text!r} is not a {self.type.__name__}", hint=f"unset {self.name}, or see `graphc knobs`"
        )


def knob(name: str, type: type[T], default: T, doc: str) -> Knob[T]:
    """Declare a knob; its name starts with GRAPHC_."""
    made = Knob(name, type, default, doc)
    registry[name] = made
    return made
