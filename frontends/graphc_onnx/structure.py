"""What an ONNX name stands for while importing, taken apart into tensors and put together again.

The structure of an item is all of it but its tensors: how many elements a sequence has, of which dtype, and whether an optional is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc_onnx.registry import Absent, Item, TensorList


def structure(items: Iterable[Item]) -> list[tuple[str, int, str]]:
    """Equal for items that differ in their tensors only."""
    return [_structure(item) for item in items]


def _structure(item: Item) -> tuple[str, int, str]:
    if isinstance(item, TensorList):
        return "sequence", len(item.items), item.dtype.name
    return ("tensor", 1, "") if isinstance(_whole(item), Value) else ("absent", 0, "")


def flat(items: Iterable[Item]) -> list[Value]:
    """The tensors of which the items consist, in order."""
    return [value for item in items for value in _tensors(item)]


def _tensors(item: Item) -> Sequence[Value]:
    if isinstance(item, TensorList):
        return item.items
    whole = _whole(item)
    return [whole] if isinstance(whole, Value) else []


def like(items: Iterable[Item], values: Sequence[Value]) -> list[Item]:
    """Items of the same structure, of these tensors."""
    rest, made = iter(values), list[Item]()
    for item in items:
        if isinstance(item, TensorList):
            made.append(TensorList(tuple(next(rest) for _ in item.items), item.dtype))
        else:
            made.append(next(rest) if isinstance(item, Value) else item)
    return made


def describe(item: Item) -> str:
    """For messages."""
    if isinstance(item, TensorList):
        return f"a sequence of {len(item.items)}"
    return "left out" if item is None else "an optional that is absent" if isinstance(item, Absent) else str(item.type)


def _whole(item: Item) -> Item:
    if item is None:
        raise ModelError("a value is left out where one is needed", hint="export the model again")
    return item
