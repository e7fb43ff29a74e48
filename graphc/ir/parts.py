"""What a caller gives and gets, put together from the tensors of a graph: an array, a list of arrays, or None for what is absent.

A graph holds tensors only. `Graph.takes` and `Graph.gives` say for each input and output, in order and by the name that a caller uses,
which tensors it consists of (`Parts`). Both are empty where every input and output is one tensor; tensors that they do not name are
inputs and outputs of their own, behind the others. So they are in training, too, where a step takes and gives the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Union

from graphc.errors import InputError

Parts = Union[str, tuple[str, ...], None]  # a tensor by its name, a list of tensors, or nothing
T = TypeVar("T")


def complete(parts: Mapping[str, Parts], tensors: Iterable[str]) -> dict[str, Parts]:
    """The parts, and behind them the tensors that are in none of them."""
    inside = set(names_in(parts))
    return {**parts, **{name: name for name in tensors if name not in inside}}


def names_in(parts: Mapping[str, Parts]) -> list[str]:
    """The tensors that these consist of, in order."""
    return [name for part in parts.values() for name in ((part,) if isinstance(part, str) else part or ())]


def without_missing(parts: Mapping[str, Parts], tensors: Iterable[str]) -> dict[str, Parts]:
    """The parts whose tensors are all among these."""
    known = set(tensors)
    return {name: part for name, part in parts.items() if known.issuperset(names_in({name: part}))}


def put_together(parts: Mapping[str, Parts], tensors: Mapping[str, T]) -> dict[str, T | list[T] | None]:
    """What the parts make of the tensors, or of anything that there is one of for each tensor."""
    return {name: _whole(part, tensors) for name, part in complete(parts, tensors).items()}


def _whole(part: Parts, tensors: Mapping[str, T]) -> T | list[T] | None:
    if part is None:
        return None
    return tensors[part] if isinstance(part, str) else [tensors[name] for name in part]


def taken_apart(parts: Mapping[str, Parts], wholes: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of which the wholes consist. Raises InputError for a list of another length."""
    found: dict[str, Any] = {}
    for name, whole in wholes.items():
        part = parts.get(name, name)
        names = (part,) if isinstance(part, str) else part or ()
        tensors = [whole] if isinstance(part, str) else whole or []
        if len(names) != len(tensors):
            raise InputError(f"{name!r} has {len(tensors)} elements, not {len(names)}")
        found.update(zip(names, tensors, strict=True))
    return found


def text(whole: object) -> str:
    """How messages show what has been put together."""
    return f"[{', '.join(map(str, whole))}]" if isinstance(whole, list) else str(whole)
