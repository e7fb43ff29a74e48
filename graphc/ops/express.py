"""Pointwise ops as arithmetic on values: what gradients and composed ops are written with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import op_class
from graphc.kernel.expr import Expr, walk
from graphc.ops.pointwise import Cast, op
from graphc.types.dtype import DType
from graphc.types.shape import DimLike, Shape

ValueLike = Union[Value, float]

_ROWS = {  # primitive -> the row of the same meaning, where the name differs
    "idiv": "div", "floordiv": "floor_div", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "shl": "shift_left", "shr": "shift_right", "select": "where",
}  # fmt: skip
_BITS = {"and": "bit_and", "or": "bit_or", "xor": "bit_xor", "not": "bit_not"}


class Arithmetic:
    """Builds pointwise nodes by row name: `a("mul", x, 0.5)`. A number takes the dtype of the first value beside it."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def __call__(self, name: str, *operands: ValueLike, **params: float | bool) -> Value:
        dtype = next(v.type.dtype for v in reversed(operands) if isinstance(v, Value))
        return self.builder.add(op(name, **params), *(self.value(v, dtype) for v in operands))

    def value(self, operand: ValueLike, dtype: DType) -> Value:
        """A number as a constant scalar."""
        return operand if isinstance(operand, Value) else self.builder.constant(np.asarray(operand, dtype.numpy))

    def ones(self, like: Value) -> Value:
        """The scalar 1 of a value's dtype."""
        return self.value(1.0, like.type.dtype)

    def reduce(self, fn: str, x: Value, axes: tuple[int, ...], keepdims: bool = True) -> Value:
        """`reduce` over the axes; x itself where there are none."""
        return self.builder.add(op_class("reduce").build({"fn": fn, "axes": axes, "keepdims": keepdims}), x) if axes else x

    def reshape(self, x: Value, shape: Shape) -> Value:
        return x if x.type.shape == shape else self.builder.add(op_class("reshape").build({"shape": tuple(shape)}), x)

    def expand(self, x: Value, shape: Shape) -> Value:
        return x if x.type.shape == shape else self.builder.add(op_class("expand").build({"shape": tuple(shape)}), x)

    def column(self, vector: Value, rank: int) -> Value:
        """(C,) as (1, C, 1, ...) of that rank."""
        return self.reshape(vector, (1, vector.type.shape[0]) + (1,) * (rank - 2))

    def unbroadcast(self, grad: Value, shape: Shape) -> Value:
        """The sum of a gradient over the axes along which `shape` was broadcast: of that shape."""
        missing = grad.type.rank - len(shape)
        aligned: tuple[DimLike, ...] = (1,) * missing + tuple(shape)
        stretched = tuple(i for i, (small, large) in enumerate(zip(aligned, grad.type.shape, strict=True)) if small == 1 and large != 1)
        return self.reshape(self.reduce("sum", grad, stretched), tuple(shape))

    def express(self, root: Expr, values: Mapping[Expr, Value]) -> Value:
        """Nodes for a scalar expression over `arg` leaves, each of which has its value in `values`."""
        made: dict[Expr, ValueLike] = dict(values)
        for node in walk(root):
            if node not in made:
                made[node] = self._node(node, [made[child] for child in node.args])
        return self.value(made[root], root.dtype)

    def _node(self, node: Expr, operands: list[ValueLike]) -> ValueLike:
        if node.is_const:
            number: float = node.attr
            return self.builder.constant(np.asarray(number, node.dtype.numpy))
        if node.fn == "cast":
            return self.builder.add(Cast(node.dtype), self.value(operands[0], node.args[0].dtype))
        if node.fn in ("mod", "fmod"):
            return self("mod", *operands, fmod=node.fn == "fmod")
        if node.fn == "fma":
            return self("add", self("mul", *operands[:2]), operands[2])
        if node.fn in ("arg", "index", "load", "reduce"):
            raise UnsupportedError(f"an expression with {node.fn} is no pointwise graph", hint="give a value for every leaf")
        names = _BITS if node.fn in _BITS and node.dtype.is_int else _ROWS
        return self(names.get(node.fn, node.fn), *operands)


def is_zero(value: Value) -> bool:
    """A constant 0, or one that is broadcast: a gradient that was never there."""
    while value.producer is not None and value.producer.op.name == "expand":
        value = value.producer.inputs[0]
    return value.is_constant and value.data is not None and value.data.size == 1 and not value.data.any()
