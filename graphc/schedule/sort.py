"""Sorting: a node's kernel."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from graphc.errors import UnsupportedError
from graphc.ir.graph import Value
from graphc.kernel.operand import Operand
from graphc.kernel.sort import SortSpec
from graphc.ops.sort import TopK
from graphc.schedule.lower import Lowered
from graphc.schedule.partition import Kernel

MOST = (1 << 32) - 1  # elements of a row, whose positions are 32 bits of a record


def lower_sort(kernel: Kernel, operand_of: Callable[[Value], Operand]) -> Lowered:
    """Of a kernel that is one node: it stores those outputs that somebody reads. Raises UnsupportedError for rows of 2^32 elements."""
    node = kernel.anchor
    assert isinstance(node.op, TopK)
    (x,) = node.inputs
    for value in (x, *kernel.outputs):
        if operand_of(value) != Operand(value.type.dtype, value.type.static_shape):
            raise UnsupportedError("top_k reads and writes plain tensors", where=node.where, hint="insert a layout change")
    shape, axis = x.type.static_shape, node.op.axis
    n = shape[axis]
    if n > MOST:
        raise UnsupportedError(f"top_k of rows of {n} elements", where=node.where, hint=f"at most {MOST}: reduce parts of the row first")
    names = tuple(name for name, value in zip(("values", "positions"), node.outputs, strict=True) if value in kernel.outputs)
    return Lowered(SortSpec(Operand(x.type.dtype, (prod(shape[:axis]), n)), node.op.k, node.op.largest, names), (x,))
