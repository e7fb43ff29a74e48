"""Pointwise functions: every row of `graphc.ops.pointwise` and `graphc.ops.activations`, as functions of tensors.

`row_function("leaky_relu")` makes a function with the row's parameters as keywords: leaky_relu(x, alpha=0.01, name="").
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, Union

from graphc.errors import AttributeValueError, TypeMismatchError
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.ops import activations
from graphc.ops.norm import LogSoftmax, Softmax
from graphc.ops.pointwise import Cast, op, rows
from graphc.ops.random import Dropout
from graphc.types.dtype import bool_
from graphc_dsl.arguments import DTypeLike, axis_of, element_type, nearest
from graphc_dsl.trace import Building, TensorLike

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Activation = Union[str, Callable[["Tensor"], "Tensor"], None]
PointwiseFunction = Callable[..., "Tensor"]
assert activations.__name__  # importing the module fills the table


def apply(row: str, *operands: Any, name: str = "", kind: str = "", **params: float | bool) -> Tensor:
    """A row of the table on tensors, numbers and arrays; numbers take the dtype of the first tensor of the row's common dtype."""
    with Building(kind or row, name, *operands, loose=True) as new:
        return new.tensor(new.add(op(row, **params), *_values(new, operands, rows()[row].row.types)))


def _values(new: Building, operands: tuple[Any, ...], types: str) -> list[Value]:
    from graphc_dsl.tensor import Tensor

    tensors = [(x.dtype, letter) for x, letter in zip(operands, types, strict=True) if isinstance(x, Tensor)]
    if not tensors:
        raise TypeMismatchError("none of the operands is a Tensor", hint="graphc.constant(numpy array) makes one")
    common = next((dtype for dtype, letter in tensors if letter != "B"), None)
    wanted = {"T": common, "S": common, "B": bool_}
    return [new.value(x, wanted[letter]) for x, letter in zip(operands, types, strict=True)]


def divide(a: TensorLike, b: TensorLike, name: str = "") -> Tensor:
    """a / b for floating point; of integers `//` is what is meant."""
    with Building("div", name, a, b, loose=True) as new:
        left, right = _values(new, (a, b), "TT")
        if not left.type.dtype.is_float:
            raise TypeMismatchError(f"a / b of {left.type.dtype}", hint="a // b rounds down; x.cast(graphc.f32) / ... is exact division")
        return new.tensor(new.add(op("div"), left, right))


def logical(row: str, *operands: TensorLike) -> Tensor:
    """and, or, xor, not: of truth values, or of the bits of integers."""
    from graphc_dsl.tensor import Tensor

    on_bool = any(isinstance(x, Tensor) and x.dtype == bool_ for x in operands)
    return apply(row if on_bool else f"bit_{row}", *operands)


def cast(x: Tensor, dtype: DTypeLike, name: str = "") -> Tensor:
    """x in another dtype. Float to integer truncates and saturates; to bool: x != 0. ONNX Cast."""
    with Building("cast", name, x) as new:
        return new.tensor(new.add(Cast(element_type(dtype)), new.value(x)))


def row_function(row: str, function: str = "", fixed: dict[str, float] | None = None) -> PointwiseFunction:
    """The function of a row, called `function` (default: as the row), with some of the row's parameters `fixed`."""
    title, given, line = function or row, fixed or {}, rows()[row].row
    inputs = list(inspect.signature(line.fn).parameters)[: len(line.types)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    free = {key: default for key, default in line.params.items() if key not in given}
    signature = inspect.Signature(
        [inspect.Parameter(key, kind) for key in inputs]
        + [inspect.Parameter(key, kind, default=default) for key, default in free.items()]
        + [inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default="")]
    )

    def function_of_row(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        params = {**given, **{key: bound.arguments[key] for key in free}}
        return apply(row, *(bound.arguments[key] for key in inputs), name=bound.arguments["name"], kind=title, **params)

    function_of_row.__name__ = function_of_row.__qualname__ = title
    function_of_row.__doc__ = f"{line.doc}. Elementwise; shapes broadcast."
    function_of_row.__signature__ = signature  # type: ignore[attr-defined]
    return function_of_row


# activations: the table of a textbook
relu = row_function("relu")
relu6 = row_function("clip", "relu6", {"lo": 0.0, "hi": 6.0})
leaky_relu = row_function("leaky_relu")
thresholded_relu = row_function("thresholded_relu")
elu = row_function("elu")
selu = row_function("selu")
celu = row_function("celu")
silu = row_function("silu")
swish = row_function("silu", "swish")
mish = row_function("mish")
softplus = row_function("softplus")
softsign = row_function("softsign")
sigmoid = row_function("sigmoid")
log_sigmoid = row_function("log_sigmoid")
hard_sigmoid = row_function("hard_sigmoid")
hard_swish = row_function("hard_swish")
hard_tanh = row_function("clip", "hard_tanh", {"lo": -1.0, "hi": 1.0})
tanh = row_function("tanh")
step = row_function("step")
gaussian = row_function("gaussian")
shrink = row_function("shrink")

# functions
exp, expm1, log, log1p, sqrt, erf = map(row_function, ("exp", "expm1", "log", "log1p", "sqrt", "erf"))
sin, cos, tan, asin, acos, atan = map(row_function, ("sin", "cos", "tan", "asin", "acos", "atan"))
sinh, cosh, asinh, acosh, atanh = map(row_function, ("sinh", "cosh", "asinh", "acosh", "atanh"))
floor, ceil, round, trunc = map(row_function, ("floor", "ceil", "round", "trunc"))
abs, sign, reciprocal = map(row_function, ("abs", "sign", "reciprocal"))
isnan, isinf, clip, where = map(row_function, ("isnan", "isinf", "clip", "where"))
pow = row_function("pow")


def minimum(*operands: TensorLike, name: str = "") -> Tensor:
    """The smallest of the operands, elementwise; NaN wins. ONNX Min."""
    return _joined("min", operands, name)


def maximum(*operands: TensorLike, name: str = "") -> Tensor:
    """The largest of the operands, elementwise; NaN wins. ONNX Max."""
    return _joined("max", operands, name)


def _joined(row: str, operands: tuple[TensorLike, ...], name: str) -> Tensor:
    with Building(f"{row}imum", name, *operands, loose=True) as new:
        if not operands:
            raise TypeMismatchError("no operand", hint="give at least one Tensor")
        values = _values(new, operands, "T" * len(operands))
        return new.tensor(reduce(lambda a, b: new.add(op(row), a, b), values))


def gelu(x: Tensor, approximate: str = "none", *, name: str = "") -> Tensor:
    """x/2 (1 + erf(x / sqrt 2)), or its tanh approximation where `approximate` is "tanh". Hendrycks and Gimpel 2016, arXiv:1606.08415."""
    if approximate not in ("none", "tanh"):
        raise AttributeValueError(f"gelu with approximate={approximate!r}", hint='"none" or "tanh"')
    return apply("gelu" if approximate == "none" else "gelu_tanh", x, name=name, kind="gelu")


def softmax(x: Tensor, axis: int = -1, *, name: str = "") -> Tensor:
    """exp(x) / sum exp(x) along `axis`."""
    with Building("softmax", name, x) as new:
        return new.tensor(new.add(Softmax(axis_of(axis, x.ndim)), new.value(x)))


def log_softmax(x: Tensor, axis: int = -1, *, name: str = "") -> Tensor:
    """x - log sum exp(x) along `axis`."""
    with Building("log_softmax", name, x) as new:
        return new.tensor(new.add(LogSoftmax(axis_of(axis, x.ndim)), new.value(x)))


def dropout(x: Tensor, rate: float = 0.5, *, name: str = "") -> Tensor:
    """x itself in inference; in training a part `rate` of it, chosen at random, is 0 and the rest scaled up. Srivastava et al. 2014."""
    with Building("dropout", name, x) as new:
        return new.tensor(new.add(Dropout(rate), new.value(x)))


# activation="..." ---------------------------------------------------------------------------------------------------------------

_BY_NAME: dict[str, Op] = {
    **{name: op(name) for name in (
        "relu", "leaky_relu", "thresholded_relu", "elu", "selu", "celu", "silu", "mish", "softplus", "softsign", "sigmoid", "log_sigmoid",
        "hard_sigmoid", "hard_swish", "tanh", "atan", "sin", "step", "gaussian", "gelu", "gelu_tanh", "exp", "abs", "identity",
    )},
    "relu6": op("clip", lo=0.0, hi=6.0), "hard_tanh": op("clip", lo=-1.0, hi=1.0),
    "swish": op("silu"), "logistic": op("sigmoid"), "arctan": op("atan"), "linear": op("identity"),
}  # fmt: skip
_OVER_CHANNELS = {"softmax": Softmax, "log_softmax": LogSoftmax}


def finish(new: Building, value: Value, activation: Activation, channels: int) -> Tensor:
    """The layer's result, after `activation`: a name, a function of a Tensor, or None. Softmaxes run along axis `channels`.

    A named activation's node takes the layer's name; a function is called on the layer's result and names its own nodes.
    """
    if isinstance(activation, str):
        if activation in _OVER_CHANNELS:
            return new.tensor(new.add(_OVER_CHANNELS[activation](axis_of(channels, value.type.rank)), value))
        if activation not in _BY_NAME:
            hint = nearest(activation, [*_BY_NAME, *_OVER_CHANNELS])
            raise AttributeValueError(f"unknown activation {activation!r}", hint=f"{hint}; or a function such as graphc.relu")
        return new.tensor(new.add(_BY_NAME[activation], value))
    if activation is not None and not callable(activation):
        raise AttributeValueError(f"activation is {activation!r}", hint='a name such as "relu", or a function such as graphc.relu')
    y = new.tensor(value)
    return y if activation is None else activation(y)
