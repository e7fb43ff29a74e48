"""Pointwise ops: one row each, in the scalar expression language.

A row gives the formula; its numpy meaning, lowering, derivative and dtype follow from it. Inputs broadcast as in numpy and have one
dtype unless the row says otherwise; the result has the dtype of the formula (bool for comparisons). float16 is computed in float32 and
rounded once. Rows of activation functions are in `activations.py`.

`op(name, **params)` makes an op: `op("leaky_relu", alpha=0.1)`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, TypeMismatchError, UnsupportedError
from graphc.ir.op import Array, Cost, Lowering, Op, register
from graphc.kernel.access import Access, broadcast
from graphc.kernel.derivative import derivative
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import PRIMITIVES, Expr, arg, call, cast, const, maximum, minimum, select, substitute, walk
from graphc.ops.shapes import broadcast_shapes
from graphc.types.dtype import ALL, DType, bool_, dtype, f16, f32, f64, i64
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

ANY = frozenset(ALL)
BOOL = frozenset({bool_})
FLOAT = frozenset(d for d in ALL if d.is_float)
INT = frozenset(d for d in ALL if d.is_int)
NUMBER = FLOAT | INT
SIGNED = frozenset(d for d in NUMBER if d.kind != "u")


@dataclass(frozen=True)
class Row:
    """One line of the table. `types`: a letter per input: T the common dtype, S another one of `dtypes`, B bool."""

    name: str
    fn: Callable[..., Expr]
    dtypes: frozenset[DType]
    types: str
    doc: str
    params: Mapping[str, float | bool]


@dataclass(frozen=True)
class Pointwise(Op):
    """Base of the rows: x0, x1, ... broadcast together; the result has the broadcast shape."""

    row: ClassVar[Row]
    family: ClassVar[str] = "map"
    elementwise: ClassVar[bool] = True
    keeps_layout: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, default in self.row.params.items():
            value = getattr(self, name)
            if not isinstance(value, (bool, int, float)):
                raise AttributeValueError(f"{self.name}: {name} must be a number, got {value!r}")
            wanted = type(default)(value)
            if wanted == value:  # an integer that float cannot hold exactly stays an integer (bounds of clip)
                object.__setattr__(self, name, wanted)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (self.name, self.attributes()))

    def infer(self, *types: TensorType) -> TensorType:
        self._check([t.dtype for t in types])
        return TensorType(self.expression(tuple(t.dtype for t in types)).dtype, broadcast_shapes(*(t.shape for t in types)))

    def expression(self, dtypes: tuple[DType, ...]) -> Expr:
        """The result over `arg("x0")`, `arg("x1")`, ... of the given dtypes."""
        return _trace(self, dtypes)

    def reference(self, *arrays: Array) -> Array:
        """The expression in numpy, each step in the dtype of the inputs (float16: in float32). Object arrays of dims count as int64."""
        dtypes = tuple(i64 if a.dtype == object else dtype(a.dtype) for a in arrays)
        self._check(dtypes)
        result = evaluate(self.expression(dtypes), {arg(f"x{i}", d): a for i, (d, a) in enumerate(zip(dtypes, arrays, strict=True))})
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        return result if result.shape == shape else np.array(np.broadcast_to(result, shape))

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """One operation per primitive of the expression and output element."""
        steps = sum(node.fn in PRIMITIVES for node in walk(self.expression(tuple(t.dtype for t in types))))
        return Cost(steps * int(outputs[0].size), sum(t.nbytes for t in (*types, *outputs)))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        value = self.expression(tuple(x.dtype for x in inputs))

        def element(*index: Expr) -> Expr:
            shape = output.static_shape
            return substitute(value, {arg(f"x{i}", x.dtype): broadcast(x, index, shape) for i, x in enumerate(inputs)})

        return Lowering(element)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The symbolic derivative of the formula times the incoming gradient, as pointwise nodes, summed over broadcast axes."""
        from graphc.ops.express import Arithmetic  # late: it builds on the rows

        build = Arithmetic(builder)
        leaves = {arg(f"x{i}", v.type.dtype): v for i, v in enumerate(node.inputs)}
        value = self.expression(tuple(v.type.dtype for v in node.inputs))
        incoming = arg("grad", value.dtype)
        found: list[Value | None] = []
        for leaf, x in leaves.items():
            slope = derivative(value, leaf) if value.dtype.is_float and leaf.dtype.is_float else None
            if slope is None or (slope.is_const and slope.attr == 0):
                found.append(None)
                continue
            result = arg("y", value.dtype)
            slope = by_result(slope, value, result)
            grad = build.express(slope * incoming, {**leaves, result: node.output, incoming: grads[0]})
            found.append(build.unbroadcast(grad, x.type.shape))
        return found

    def _check(self, dtypes: Sequence[DType]) -> None:
        row = self.row
        common = {d for d, letter in zip(dtypes, row.types, strict=True) if letter == "T"}
        if len(common) > 1:
            raise TypeMismatchError(f"{self.name} needs inputs of one dtype, got {', '.join(map(str, dtypes))}", hint="insert a cast")
        for d, letter in zip(dtypes, row.types, strict=True):
            if d not in (BOOL if letter == "B" else row.dtypes):
                raise TypeMismatchError(f"{self.name} does not take {d}", hint="insert a cast")


def by_result(slope: Expr, value: Expr, result: Expr) -> Expr:
    """The slope of `value` written with its result alone, where that is possible (tanh, logistic, relu, clip).

    A backward pass then needs no input of the function, which may exist only in registers. The same bits: the result passes a bound
    where the input does.
    """
    new = {value: result}
    inner = value
    if inner.fn == "min" and inner.args[1].is_const:
        new[call("lt", *inner.args)] = call("lt", result, inner.args[1])
        inner = inner.args[0]
    if inner.fn == "max" and inner.args[1].is_const and (inner is value or inner.args[1].attr < value.args[1].attr):
        new[call("gt", *inner.args)] = call("gt", result, inner.args[1])
    made = substitute(slope, new)
    return made if all(node is result for node in walk(made) if node.fn == "arg") else slope


@lru_cache(maxsize=4096)
def _trace(op_: Pointwise, dtypes: tuple[DType, ...]) -> Expr:
    wide = [cast(arg(f"x{i}", d), f32) if d == f16 else arg(f"x{i}", d) for i, d in enumerate(dtypes)]
    value = op_.row.fn(*wide, **op_.attributes())
    first = next((d for d, letter in zip(dtypes, op_.row.types, strict=True) if letter == "T"), f32)
    return cast(value, f16) if first == f16 and value.dtype == f32 else value


_rows: dict[str, type[Pointwise]] = {}


def row(
    name: str, fn: Callable[..., Expr], dtypes: frozenset[DType] = FLOAT, *,
    onnx: str = "", types: str = "", doc: str = "", tolerance: float = 4.0, **params: float | bool,
) -> type[Pointwise]:  # fmt: skip
    """Register a pointwise op. `fn(x0, ..., **params)` builds the formula; `params` are its attributes with their defaults."""
    arity = len(inspect.signature(fn).parameters) - len(params)
    line = Row(name, fn, dtypes, types or "T" * arity, doc, params)
    namespace: dict[str, Any] = {
        "name": name, "onnx": onnx, "inputs": (arity, arity), "tolerance": tolerance, "row": line, "__module__": __name__,
        "__doc__": f"{doc or name}.{f' ONNX {onnx}.' if onnx else ''} Shapes broadcast.",
        "__reduce__": Pointwise.__reduce__,
    }  # fmt: skip
    columns = [(key, type(default), field(default=default)) for key, default in params.items()]
    title = "".join(part.capitalize() for part in name.split("_"))
    made: type[Pointwise] = make_dataclass(title, columns, bases=(Pointwise,), frozen=True, namespace=namespace)
    _rows[name] = register(made)
    return made


def op(name: str, **params: float | bool) -> Pointwise:
    """The pointwise op of a row. Raises UnsupportedError for an unknown name, AttributeValueError for an unknown parameter."""
    return _make(name, params)


def _make(name: str, params: Mapping[str, Any]) -> Pointwise:
    if name not in _rows:
        raise UnsupportedError(f"no pointwise op is called {name!r}", hint="`graphc ops` lists the ops")
    unknown = params.keys() - _rows[name].row.params.keys()
    if unknown:
        raise AttributeValueError(f"{name} has no attribute {', '.join(sorted(unknown))}", hint=f"it has {list(_rows[name].row.params)}")
    return _rows[name](**params)


def rows() -> Mapping[str, type[Pointwise]]:
    """All rows by name."""
    return dict(_rows)


@register
@dataclass(frozen=True)
class Cast(Op):
    """x in another dtype, any shape. ONNX Cast, CastLike.

    Float to integer truncates and saturates outside the range, NaN becomes 0 (ONNX leaves this undefined); to bool: x != 0;
    between integers it wraps; from bool: 0 and 1.
    """

    to: DType
    name: ClassVar[str] = "cast"
    onnx: ClassVar[str] = "Cast"
    family: ClassVar[str] = "map"
    elementwise: ClassVar[bool] = True
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.to, types[0].shape)

    def expression(self, dtypes: tuple[DType, ...]) -> Expr:
        """The result over `arg("x0")`."""
        return cast(arg("x0", dtypes[0]), self.to)

    def reference(self, *arrays: Array) -> Array:
        source = i64 if arrays[0].dtype == object else dtype(arrays[0].dtype)
        return evaluate(self.expression((source,)), {arg("x0", source): arrays[0]})

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Moves bytes, computes nothing."""
        return Cost(0, types[0].nbytes + outputs[0].nbytes)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Cast back, between floats; else none."""
        source = node.inputs[0].type.dtype
        return [builder.add(Cast(source), grads[0]) if source.is_float and self.to.is_float else None]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        return Lowering(lambda *index: cast(inputs[0][index], self.to))


def primitive(fn: str) -> Callable[..., Expr]:
    """The one-step formula of a primitive of the expression language, as a function with named inputs."""
    if PRIMITIVES[fn] == 1:
        return lambda x: call(fn, x)
    return lambda a, b: call(fn, a, b)


def _pow(x: Expr, y: Expr) -> Expr:
    """x to the power y in the dtype of x; a float exponent of an integer base computes in float64 and truncates."""
    if x.dtype.is_int and y.dtype.is_float:
        return cast(call("pow", cast(x, f64), cast(y, f64)), x.dtype)
    return call("pow", x, cast(y, x.dtype))


def _isinf(x: Expr, detect_negative: bool, detect_positive: bool) -> Expr:
    sides = [call("eq", x, sign) for sign, wanted in ((-math.inf, detect_negative), (math.inf, detect_positive)) if wanted]
    return sides[0] | sides[1] if len(sides) == 2 else sides[0] if sides else const(False, bool_)


def _clip(x: Expr, lo: float, hi: float) -> Expr:
    """min(max(x, lo), hi): hi wins where lo > hi; NaN stays. Bounds beyond the range of an integer dtype are no bounds."""
    if x.dtype.is_int:
        limits = np.iinfo(x.dtype.numpy)
        lo, hi = (max(min(bound, int(limits.max)), int(limits.min)) for bound in (lo, hi))
        lo, hi = math.ceil(lo), math.floor(hi)
        x = maximum(x, lo) if lo > limits.min else x
        return minimum(x, hi) if hi < limits.max else x
    x = maximum(x, lo) if lo != -math.inf else x
    return minimum(x, hi) if hi != math.inf else x


row("identity", lambda x: x, ANY, onnx="Identity", doc="y = x")
row("add", lambda a, b: a + b, NUMBER, onnx="Add", doc="y = a + b; integers wrap")
row("sub", lambda a, b: a - b, NUMBER, onnx="Sub", doc="y = a - b; integers wrap")
row("mul", lambda a, b: a * b, NUMBER, onnx="Mul", doc="y = a b; integers wrap")
row("div", lambda a, b: call("idiv" if a.dtype.is_int else "div", a, b), NUMBER, onnx="Div",
    doc="y = a / b; integers truncate toward zero, x / 0 is 0")  # fmt: skip
row("floor_div", primitive("floordiv"), NUMBER, doc="y = floor(a / b) as numpy floor_divide; integers: x / 0 is 0")
row("mod", lambda a, b, fmod: call("fmod" if fmod else "mod", a, b), NUMBER, onnx="Mod", fmod=False,
    doc="remainder with the sign of the divisor, or of the dividend where fmod; integers: x mod 0 is 0")  # fmt: skip
row("pow", _pow, NUMBER, onnx="Pow", types="TS", tolerance=8.0, doc="y = a^b in the dtype of a")
row("min", primitive("min"), NUMBER, onnx="Min", doc="the smaller; NaN wins")
row("max", primitive("max"), NUMBER, onnx="Max", doc="the larger; NaN wins")

row("neg", lambda x: -x, SIGNED, onnx="Neg", doc="y = -x")
row("abs", lambda x: x if x.dtype.kind == "u" else abs(x), NUMBER, onnx="Abs", doc="y = |x|")
row("sign", primitive("sign"), NUMBER, onnx="Sign", doc="-1, 0 or 1; NaN stays")
row("reciprocal", lambda x: 1 / x, FLOAT, onnx="Reciprocal", doc="y = 1 / x")
for _name, _onnx in (("exp", "Exp"), ("expm1", ""), ("log", "Log"), ("log1p", ""), ("sqrt", "Sqrt"), ("erf", "Erf"),
                     ("floor", "Floor"), ("ceil", "Ceil"), ("round", "Round"), ("trunc", ""),
                     ("sin", "Sin"), ("cos", "Cos"), ("tan", "Tan"), ("asin", "Asin"), ("acos", "Acos"), ("atan", "Atan"),
                     ("sinh", "Sinh"), ("cosh", "Cosh"), ("asinh", "Asinh"), ("acosh", "Acosh"), ("atanh", "Atanh")):  # fmt: skip
    _half = " (half to even)" if _name == "round" else ""
    row(_name, primitive(_name), FLOAT, onnx=_onnx, tolerance=8.0, doc=f"y = {_name}(x){_half}")

row("equal", primitive("eq"), ANY, onnx="Equal", doc="a == b")
row("not_equal", primitive("ne"), ANY, doc="a != b")
row("less", primitive("lt"), NUMBER, onnx="Less", doc="a < b")
row("less_equal", primitive("le"), NUMBER, onnx="LessOrEqual", doc="a <= b")
row("greater", primitive("gt"), NUMBER, onnx="Greater", doc="a > b")
row("greater_equal", primitive("ge"), NUMBER, onnx="GreaterOrEqual", doc="a >= b")
row("and", primitive("and"), BOOL, onnx="And", doc="a and b")
row("or", primitive("or"), BOOL, onnx="Or", doc="a or b")
row("xor", primitive("xor"), BOOL, onnx="Xor", doc="a xor b")
row("not", primitive("not"), BOOL, onnx="Not", doc="not x")
row("bit_and", primitive("and"), INT, onnx="BitwiseAnd", doc="a & b")
row("bit_or", primitive("or"), INT, onnx="BitwiseOr", doc="a | b")
row("bit_xor", primitive("xor"), INT, onnx="BitwiseXor", doc="a ^ b")
row("bit_not", primitive("not"), INT, onnx="BitwiseNot", doc="~x")
row("shift_left", primitive("shl"), INT, onnx="BitShift", doc="a << b; 0 where b >= the width")
row("shift_right", primitive("shr"), INT, onnx="BitShift", doc="a >> b")
row("isnan", primitive("isnan"), FLOAT, onnx="IsNaN", doc="x is NaN")
row("isinf", _isinf, FLOAT, onnx="IsInf", detect_negative=True, detect_positive=True, doc="x is infinite, of the detected signs")
row("where", lambda c, a, b: select(c, a, b), ANY, onnx="Where", types="BTT", doc="a where c, else b")
row("clip", _clip, NUMBER, onnx="Clip", lo=-math.inf, hi=math.inf, doc="min(max(x, lo), hi); NaN stays")
