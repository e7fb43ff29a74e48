"""Matrix products: linear layers, embeddings, matmul, einsum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from graphc.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ops.compose import reshape
from graphc.ops.einsum import einsum as compose_einsum
from graphc.ops.gather import Gather
from graphc.ops.matmul import MatMul
from graphc.ops.pointwise import op
from graphc.types.dtype import DType, f32
from graphc_dsl.arguments import DTypeLike, element_type, whole
from graphc_dsl.init import InitLike
from graphc_dsl.pointwise import Activation, finish
from graphc_dsl.trace import Building, TensorLike

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Switch = Union[bool, "Tensor"]  # True: a parameter of the layer's own; False: none; a Tensor: that one


def linear(
    x: Tensor, features: int, bias: Switch = True, activation: Activation = None, *, weight: Tensor | None = None,
    weight_init: InitLike = "he_normal", bias_init: InitLike = "zeros", name: str = "",
) -> Tensor:  # fmt: skip
    """y = x weight^T + bias over the last axis: (..., in) -> (..., features).

    Parameters: name.weight (features, in), name.bias (features). `weight`, `bias`: tensors to use instead. Raises ShapeError where the
    last axis of x is symbolic or does not fit the weight.
    """
    with Building("linear", name, x, weight, bias) as new:
        value, out = new.value(x), whole(features, "features", 1)
        if x.ndim < 2:
            raise ShapeError(f"input {x.type} is no batch of vectors", hint="(N, in), or more leading axes")
        w = new.parameter("weight", (out, x.shape[-1]), weight_init, x.dtype) if weight is None else new.value(weight)
        if w.type.rank != 2 or w.type.shape[0] != out or w.type.shape[1] != x.shape[-1]:
            raise ShapeError(f"input {x.type} has {x.shape[-1]} features, weight {w.type} expects (features, in)", hint=_hint(x))
        y = new.add(MatMul(trans_b=True), value, w)
        b = bias_of(new, bias, out, bias_init, x.dtype)
        return finish(new, y if b is None else new.add(op("add"), y, b), activation, channels=-1)


def _hint(x: Tensor) -> str:
    return f"x.flatten() before the layer; a weight (features, {x.shape[-1]})"


def bias_of(new: Building, bias: Switch, size: int, init: InitLike, dtype: DType) -> Value | None:
    """The layer's bias (size), or None."""
    if isinstance(bias, bool):
        return new.parameter("bias", (size,), init, dtype) if bias else None
    return new.value(bias)


def embedding(
    indices: Tensor, count: int, features: int, *, weight: Tensor | None = None, weight_init: InitLike = "normal",
    dtype: DTypeLike = f32, name: str = "",
) -> Tensor:  # fmt: skip
    """Row indices[...] of a table: (...) integers -> (..., features). Indices outside 0..count-1 are clamped.

    Parameter: name.weight (count, features), by default standard normal.
    """
    with Building("embedding", name, indices, weight) as new:
        shape = (whole(count, "count", 1), whole(features, "features", 1))
        table = new.parameter("weight", shape, weight_init, element_type(dtype)) if weight is None else new.value(weight)
        if table.type.shape != shape:
            raise ShapeError(f"weight {table.type} is not {list(shape)}", hint="(count, features)")
        return new.tensor(new.add(Gather(0), table, new.value(indices)))


def matmul(a: TensorLike, b: TensorLike, name: str = "") -> Tensor:
    """a @ b as np.matmul: matrices in the last two axes, leading axes broadcast, vectors are one row or column."""
    with Building("matmul", name, a, b, loose=True) as new:
        left, right = new.value(a), new.value(b)
        if not left.type.rank or not right.type.rank:
            raise ShapeError(f"matmul of a scalar: {left.type} @ {right.type}", hint="use *")
        row, column = left.type.rank == 1, right.type.rank == 1
        left = reshape(new.builder, left, (1, *left.type.shape)) if row else left
        right = reshape(new.builder, right, (*right.type.shape, 1)) if column else right
        y = new.add(MatMul(), left, right)
        if row or column:
            shape = [*y.type.shape[:-2], *([] if row else y.type.shape[-2:-1]), *([] if column else y.type.shape[-1:])]
            y = reshape(new.builder, y, shape)
        return new.tensor(y)


def einsum(equation: str, *operands: Tensor, name: str = "") -> Tensor:
    """Sums of products by labelled axes, e.g. einsum("nchw,mc->nmhw", x, w). np.einsum."""
    with Building("einsum", name, *operands) as new:
        return new.tensor(compose_einsum(new.builder, equation, *(new.value(x) for x in operands)))
