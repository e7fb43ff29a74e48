"""Rules of pointwise, normalisation, reduction and loss ops: what is refused and how, symbolic shapes, compile-time values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.errors import AttributeValueError, GraphcError, ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.op import Op, all_ops
from graphc.kernel.expr import arg
from graphc.ops import loss
from graphc.ops.movement import ShapeOf
from graphc.ops.norm import LRN, BatchNorm, GroupNorm, LayerNorm, Softmax
from graphc.ops.pointwise import Cast, op, rows
from graphc.ops.reduce import ArgReduce, CumSum, Reduce
from graphc.ops.shapes import broadcast_shapes
from graphc.types.dtype import DType, bool_, f16, f32, f64, i32, i64, u8
from graphc.types.shape import Shape, symbol
from graphc.types.tensor import TensorType

N, M = symbol("N"), symbol("M")


def t(*shape: object, dtype: DType = f32) -> TensorType:
    return TensorType(dtype, tuple(shape))  # type: ignore[arg-type]


REFUSED: list[tuple[Op, tuple[TensorType, ...], type[GraphcError], str]] = [
    (op("add"), (t(2), t(2, dtype=f64)), TypeMismatchError, "one dtype, got f32, f64"),
    (op("add"), (t(2),), TypeMismatchError, "takes 2 inputs, got 1"),
    (op("add"), (t(2, dtype=bool_), t(2, dtype=bool_)), TypeMismatchError, "does not take bool"),
    (op("exp"), (t(2, dtype=i32),), TypeMismatchError, "exp does not take i32"),
    (op("neg"), (t(2, dtype=u8),), TypeMismatchError, "neg does not take u8"),
    (op("where"), (t(2), t(2), t(2)), TypeMismatchError, "where does not take f32"),
    (op("and"), (t(2, dtype=i32), t(2, dtype=i32)), TypeMismatchError, "and does not take i32"),
    (op("mul"), (t(2, 3), t(2)), ShapeError, r"\[2,3\] and \[2\] do not broadcast: 3 against 2"),
    (op("mul"), (t(N, 3), t(M, 3)), ShapeError, "fix the symbolic dims"),
    (op("mul"), (t(N), t(3)), ShapeError, "fix the symbolic dims"),
    (Reduce("sum", (2,)), (t(2, 3),), ShapeError, "axis 2 is outside 0..1"),
    (Reduce("sum", (1, 1)), (t(2, 3),), AttributeValueError, "repeat"),
    (Reduce("sum", (0,)), (t(),), ShapeError, "of a scalar"),
    (Reduce("sum", (0,)), (t(2, dtype=bool_),), TypeMismatchError, "does not take bool"),
    (Reduce("any", (0,)), (t(2),), TypeMismatchError, "reduce any does not take f32"),
    (ArgReduce("max", 0), (t(0, 3),), ShapeError, "has no element"),
    (ArgReduce("max", 3), (t(2, 3),), ShapeError, "axis 3"),
    (CumSum(-1), (t(2, 3),), ShapeError, "axis -1"),
    (Softmax(0), (t(),), ShapeError, "of a scalar"),
    (Softmax(0), (t(3, dtype=i32),), TypeMismatchError, "needs a floating point dtype"),
    (LayerNorm(1), (t(2, 3), t(4)), ShapeError, r"scale of shape \[4\]|do not broadcast"),
    (LayerNorm(1), (t(2, 1), t(3)), ShapeError, "scale of shape"),
    (BatchNorm(), (t(2, 3, 4), t(3), t(4), t(3), t(3)), ShapeError, r"one number per channel, \[3\]"),
    (BatchNorm(), (t(2), t(2), t(2), t(2), t(2)), ShapeError, r"needs \(N, C"),
    (BatchNorm(), (t(2, 3), t(3), t(3), t(3), t(3, dtype=f64)), TypeMismatchError, "one dtype"),
    (GroupNorm(4), (t(2, 6, 5), t(6), t(6)), AttributeValueError, "6 channels do not split into 4"),
    (GroupNorm(0), (t(2, 6, 5), t(6), t(6)), AttributeValueError, "into 0 groups"),
    (LRN(3), (t(5),), ShapeError, "needs"),
]


@pytest.mark.parametrize(("refused", "types", "error", "message"), REFUSED, ids=[f"{r[0].name} {r[3]}" for r in REFUSED])
def test_infer_refuses(refused: Op, types: tuple[TensorType, ...], error: type[GraphcError], message: str) -> None:
    with pytest.raises(error, match=message):
        refused.output_types(*types)


BAD: dict[str, tuple[Callable[[], object], type[GraphcError]]] = {
    "unknown row": (lambda: op("frobnicate"), UnsupportedError),
    "unknown parameter": (lambda: op("relu", alpha=1.0), AttributeValueError),
    "parameter that is no number": (lambda: op("elu", alpha="x"), AttributeValueError),  # type: ignore[arg-type]
    "unknown reduction": (lambda: Reduce("median", (0,)), AttributeValueError),
    "unknown extreme": (lambda: ArgReduce("sum", 0), AttributeValueError),
    "empty window": (lambda: LRN(0), AttributeValueError),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_attributes_are_refused(name: str) -> None:
    make, error = BAD[name]
    with pytest.raises(error):
        make()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((), ()), ()), (((3,), ()), (3,)), (((2, 1), (1, 3)), (2, 3)), (((0, 1), (3,)), (0, 3)), (((N, 3), (1, 3)), (N, 3)),
        (((N, 1), (N, M)), (N, M)), (((1,), (N, 1, 1), (1, 4)), (N, 1, 4)), (((N * 2,), (N + N,)), (2 * N,)),
    ],
)  # fmt: skip
def test_broadcast_shapes(shapes: tuple[Shape, ...], expected: Shape) -> None:
    assert broadcast_shapes(*shapes) == expected


def test_result_dtypes() -> None:
    assert op("less").infer(t(2), t(2)).dtype == bool_
    assert op("isnan").infer(t(2, dtype=f16)).dtype == bool_
    assert op("pow").infer(t(2, dtype=i64), t(2)).dtype == i64
    assert op("where").infer(t(2, dtype=bool_), t(2, dtype=u8), t(2, dtype=u8)).dtype == u8
    assert Reduce("mean", (0,)).infer(t(2, dtype=i32)).dtype == i32


def test_float16_is_computed_in_float32_and_rounded_once() -> None:
    expression = op("silu").expression((f16,))
    assert (expression.fn, expression.dtype) == ("cast", f16)
    assert expression.args[0].dtype == f32
    big = np.array([300.0], np.float16)  # its square is beyond float16
    assert Reduce("l2", (0,)).evaluate(np.repeat(big, 4))[0] == 600
    assert op("identity").expression((f32,)) is arg("x0", f32)


def test_shape_arithmetic_stays_symbolic() -> None:
    builder = Builder()
    x = builder.input("x", f32, (N, 3, 8))
    shape = builder.add(ShapeOf(), x)
    four = builder.constant(np.array([4, 4, 4]))
    twice = builder.add(op("mul"), builder.add(Cast(i64), shape), four)
    halved = builder.add(op("div"), builder.add(op("sub"), twice, shape), builder.constant(np.array([3, 3, 3])))
    assert builder.known_ints(halved, "the shape") == (N, 3, 8)
    total = builder.add(Reduce("prod", (0,), keepdims=False), shape)
    assert builder.known_ints(total, "the size") == (24 * N,)


def test_attributes_are_normalised() -> None:
    assert op("elu", alpha=2) == op("elu", alpha=2.0)
    assert type(op("elu", alpha=2).attributes()["alpha"]) is float
    assert op("mod", fmod=1).attributes() == {"fmod": True}
    assert Reduce("sum", (2, 0)).axes == (0, 2)
    assert op("elu") != op("selu")


def test_layouts_survive_spatial_reductions_only() -> None:
    assert Reduce("mean", (2, 3)).keeps_layout
    assert not Reduce("mean", (1,)).keeps_layout
    assert not Reduce("mean", (2, 3), keepdims=False).keeps_layout


def test_every_row_says_its_formula() -> None:
    for name, cls in rows().items():
        assert cls in set(all_ops())
        assert name in cls.name
        assert cls.row.doc, name


def test_every_op_has_a_gradient_or_says_why_not() -> None:
    for cls in all_ops():
        assert (cls.gradient is not Op.gradient) != bool(cls.not_differentiable), cls.name


def test_losses_refuse_what_does_not_fit() -> None:
    builder = Builder()
    scores, labels = builder.input("s", f32, (N, 7)), builder.input("l", i64, (N,))
    with pytest.raises(ShapeError, match="need labels"):
        loss.nll_loss(builder, scores, builder.input("wrong", i64, (N, 7)))
    with pytest.raises(TypeMismatchError, match="class numbers"):
        loss.nll_loss(builder, scores, builder.input("floats", f32, (N,)))
    with pytest.raises(ShapeError, match="one weight per class"):
        loss.nll_loss(builder, scores, labels, builder.input("w", f32, (6,)))
    with pytest.raises(AttributeValueError, match="none, mean, sum"):
        loss.nll_loss(builder, scores, labels, reduction="average")
    with pytest.raises(AttributeValueError, match="delta"):
        loss.huber(builder, scores, scores, delta=0.0)
    value, log_prob = loss.softmax_cross_entropy(builder, scores, labels, ignore_index=3)
    assert (value.type.shape, log_prob.type.shape) == ((), (N, 7))
