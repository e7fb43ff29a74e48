"""Sequences of tensors, and optionals: they exist while importing only, so lengths, positions and presence must be known.

A sequence is a `TensorList`. An optional is its element, or `Absent`: Optional and OptionalGetElement do nothing but check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ModelError, TypeMismatchError
from graphc.ir.graph import Value
from graphc.ops.movement import Concat
from graphc.types.dtype import DType
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import Absent, Item, TensorList, onnx_op
from graphc_onnx.tensors import dtype_of


@onnx_op("SequenceEmpty")
def sequence_empty(context: Context, node: OnnxNode) -> TensorList:
    return TensorList((), dtype_of(node.integer("dtype", 1), "the sequence"))


@onnx_op("SequenceConstruct")
def sequence_construct(context: Context, node: OnnxNode) -> TensorList:
    if not node.items:
        raise ModelError("a sequence is constructed of no tensors", hint="SequenceEmpty")
    return _sequence(node.inputs, node.input(0).type.dtype)


def _sequence(items: Sequence[Value], dtype: DType) -> TensorList:
    """Raises TypeMismatchError for a tensor of another dtype."""
    for at, value in enumerate(items):
        if value.type.dtype != dtype:
            raise TypeMismatchError(f"element {at} is {value.type}, in a sequence of {dtype}", hint="tensors of one dtype")
    return TensorList(tuple(items), dtype)


@onnx_op("SequenceLength")
def sequence_length(context: Context, node: OnnxNode) -> Value:
    return context.constant(np.asarray(len(node.sequence(0).items), np.int64))


def _position(context: Context, node: OnnxNode, i: int, count: int, last: int, default: int) -> int:
    """Input i, a position in a sequence of `count` that is at most `last`; negative ones count from the end."""
    given = node.optional(i)
    found = (default,) if given is None else context.plain_ints(given, f"the position of {node.op}")
    if given is not None and len(found) != 1:
        raise ModelError(f"the position of {node.op} must be one element, got {given.type}")
    if not -count <= found[0] <= last:
        raise ModelError(f"position {found[0]} is outside a sequence of {count}")
    return found[0]


@onnx_op("SequenceAt")
def sequence_at(context: Context, node: OnnxNode) -> Value:
    items = node.sequence(0).items
    return context.identity(items[_position(context, node, 1, len(items), len(items) - 1, -1)])


@onnx_op("SequenceInsert")
def sequence_insert(context: Context, node: OnnxNode) -> TensorList:
    before = node.sequence(0)
    items = list(before.items)
    items.insert(_position(context, node, 2, len(items), len(items), len(items)), node.input(1))
    return _sequence(items, before.dtype)


@onnx_op("SequenceErase")
def sequence_erase(context: Context, node: OnnxNode) -> TensorList:
    before = node.sequence(0)
    items = list(before.items)
    del items[_position(context, node, 1, len(items), len(items) - 1, -1)]
    return TensorList(tuple(items), before.dtype)


@onnx_op("SplitToSequence")
def split_to_sequence(context: Context, node: OnnxNode) -> TensorList:
    """Pieces of size 1 (the axis vanishes unless keepdims), of a given size, or of given sizes."""
    x, given = node.input(0), node.optional(1)
    axis = normal_axis(node.integer("axis", 0), x.type.rank)
    size = x.type.shape[axis].__index__()
    keep = node.flag("keepdims", True)
    if given is None:
        parts = [context.slice_axis(x, axis, i, 1) for i in range(size)]
        return TensorList(tuple(part if keep else context.squeeze(part, [axis]) for part in parts), x.type.dtype)
    sizes = context.plain_ints(given, "the sizes of SplitToSequence")
    if given.type.rank == 0:
        if sizes[0] < 1:
            raise ModelError(f"pieces of size {sizes[0]}")
        sizes = tuple(min(sizes[0], size - start) for start in range(0, size, sizes[0]))
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise ModelError(f"pieces {list(sizes)} do not add up to {size}")
    starts = np.cumsum([0, *sizes[:-1]]).tolist() if sizes else []
    parts = [context.slice_axis(x, axis, start, part) for start, part in zip(starts, sizes, strict=True)]
    return TensorList(tuple(parts), x.type.dtype)


@onnx_op("ConcatFromSequence")
def concat_from_sequence(context: Context, node: OnnxNode) -> Value:
    items = node.sequence(0).items
    if not items:
        raise ModelError("ConcatFromSequence of an empty sequence")
    stacked = node.flag("new_axis")
    axis = normal_axis(node.integer("axis"), items[0].type.rank + stacked)
    return context.add(Concat(axis), *(context.unsqueeze(item, [axis]) if stacked else item for item in items))


# optionals and whatever may be one ------------------------------------------------------------------------------------------


class AbsentElement(ModelError):
    """The element of an optional that is absent: wrong where it is computed, not in a branch that is not taken."""


@onnx_op("Identity")
def identity(context: Context, node: OnnxNode) -> Item:
    found = node.item(0)
    return found if isinstance(found, (TensorList, Absent)) else context.identity(node.input(0))


@onnx_op("Optional")
def optional(context: Context, node: OnnxNode) -> Item:
    found = node.item(0)
    return Absent() if found is None else found


@onnx_op("OptionalHasElement")
def optional_has_element(context: Context, node: OnnxNode) -> Value:
    return context.constant(np.asarray(isinstance(node.item(0), (Value, TensorList))))


@onnx_op("OptionalGetElement")
def optional_get_element(context: Context, node: OnnxNode) -> Item:
    found = node.item(0)
    if found is None or isinstance(found, Absent):
        raise AbsentElement("the element of an optional that is absent is needed", hint="give the optional, or ask OptionalHasElement")
    return found if isinstance(found, TensorList) else context.identity(found)
