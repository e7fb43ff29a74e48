"""Kernel specs of convolution and matrix product, rules of the structural ops, and what is composed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.errors import AttributeValueError, GraphcError, ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.kernel.expr import arg, index
from graphc.kernel.spec import Epilogue, MatmulSpec, Operand
from graphc.ops import compose
from graphc.ops.conv import Conv, ConvTranspose
from graphc.ops.gather import Gather, GatherElements, GatherND, OneHot, Trilu
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat, Dilate, Expand, Pad, Reshape, Slice, Tile, Transpose
from graphc.ops.pool import AvgPool, LpPool, MaxPool
from graphc.ops.resize import Resample, Resize
from graphc.ops.scatter import ScatterElements, ScatterND
from graphc.ops.sort import TopK
from graphc.types.dtype import DType, bool_, f32, f64, i32, i64
from graphc.types.layout import Layout
from graphc.types.shape import symbol
from graphc.types.tensor import TensorType
from ops.runners import run_reference

N = symbol("N")


def _identity(rank: int) -> Epilogue:
    acc = arg("acc", f32)
    return Epilogue(tuple(index(f"i{i}", 4) for i in range(rank)), acc, acc)


def _strided(data: np.ndarray[Any, Any], strides: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.lib.stride_tricks.as_strided(data, shape, [s * data.itemsize for s in strides])


def _by_strides(spec: MatmulSpec, a: Any, b: Any) -> Any:
    """What the spec's strides say, on flat memory."""
    left = _strided(a, spec.a_strides, (*spec.batch, spec.m, spec.k))
    right = _strided(b, spec.b_strides, (*spec.batch, spec.k, spec.n))
    return left @ right


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize(
    ("batch_a", "batch_b"), [((), ()), ((2,), (2,)), ((2, 3), (3,)), ((), (4,)), ((2, 1), (1, 3)), ((1,), (5,))], ids=str
)
def test_matmul_spec_strides(batch_a: tuple[int, ...], batch_b: tuple[int, ...], trans_a: bool, trans_b: bool) -> None:
    a_shape = (*batch_a, 6, 4) if trans_a else (*batch_a, 4, 6)
    b_shape = (*batch_b, 5, 6) if trans_b else (*batch_b, 6, 5)
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(a_shape), rng.standard_normal(b_shape)
    op = MatMul(trans_a, trans_b)
    expected = op.reference(a, b)
    operands = [Operand(f64, shape) for shape in (a_shape, b_shape, expected.shape)]
    spec = op.spec(operands[0], operands[1], a_shape, b_shape, False, (), operands[2], _identity(expected.ndim))
    assert (*spec.batch, spec.m, spec.n) == expected.shape
    np.testing.assert_allclose(_by_strides(spec, a.reshape(-1), b.reshape(-1)), expected, rtol=1e-13)
    written = np.zeros(expected.size)
    _strided(written, spec.c_strides, expected.shape)[...] = expected
    np.testing.assert_array_equal(written.reshape(expected.shape), expected)


def test_matmul_spec_needs_plain_operands() -> None:
    plain, blocked = Operand(f32, (4, 4)), Operand(f32, (4, 16, 1, 1), Layout(16))
    with pytest.raises(UnsupportedError, match="layout"):
        MatMul().spec(blocked, plain, (4, 16), (16, 4), False, (), plain, _identity(2))


def test_conv_spec() -> None:
    x = Operand(f32, (1, 16, 8, 8), Layout(16, ((1, 1), (1, 1))))
    y = Operand(f32, (1, 32, 4, 4), Layout(16))
    spec = Conv((2, 2), (1, 1), (1, 1), (1, 1)).spec(x, (), y, (32, 16, 3, 3), _identity(5))
    assert (spec.stride, spec.pad, spec.groups, spec.operands) == ((2, 2), (1, 1), 1, (x, Operand(f32, (32, 16, 3, 3)), y))
    assert hash(spec) == hash(Conv((2, 2), (1, 1), (1, 1), (1, 1)).spec(x, (), y, (32, 16, 3, 3), _identity(5)))


def _t(*shape: Any, dtype: DType = f32) -> TensorType:
    return TensorType(dtype, shape)


ONE: tuple[Any, ...] = ((1, 1), (1, 1), (0, 0), (0, 0))
WRONG: tuple[tuple[Op, tuple[TensorType, ...], type[GraphcError], str], ...] = (
    (Reshape((7,)), (_t(2, 3),), ShapeError, "cannot reshape"),
    (Reshape((-1,)), (_t(2, 3),), AttributeValueError, "negative"),
    (Reshape((N, 7)), (_t(N, 3),), ShapeError, "cannot reshape"),
    (Transpose((0, 0)), (_t(2, 3),), AttributeValueError, "permutation"),
    (Expand((2, 4)), (_t(2, 3),), ShapeError, "expand"),
    (Expand((3,)), (_t(2, 3),), ShapeError, "expand"),
    (Slice((0,), (0,), (1,)), (_t(3),), AttributeValueError, "step 0"),
    (Slice((1,), (1,), (3,)), (_t(3),), ShapeError, "leaves the axis"),
    (Slice((2,), (-2,), (3,)), (_t(3),), ShapeError, "leaves the axis"),
    (Slice((N,), (1,), (1,)), (_t(N),), ShapeError, "leaves the axis"),
    (Slice((0,), (1,), (1,)), (_t(2, 3),), AttributeValueError, "per axis"),
    (Concat(1), (_t(2, 3), _t(3, 3)), ShapeError, "differ elsewhere"),
    (Concat(2), (_t(2, 3),), AttributeValueError, "axis 2"),
    (Concat(0), (_t(2), _t(2, dtype=i32)), TypeMismatchError, "one dtype"),
    (Pad((0,), (0,), "mirror"), (_t(3),), AttributeValueError, "mirror"),
    (Pad((-2,), (-2,)), (_t(3),), ShapeError, "crops more"),
    (Pad((1,), (0,), "edge"), (_t(0),), ShapeError, "empty axis"),
    (Pad((1,), (0,), value=float("inf")), (_t(3, dtype=i32),), AttributeValueError, "does not fit"),
    (Tile((2,)), (_t(2, 3),), AttributeValueError, "repeats"),
    (Dilate((0,)), (_t(3),), AttributeValueError, "at least 1"),
    (Gather(0), (_t(3), _t(2)), TypeMismatchError, "integer indices"),
    (Gather(0), (_t(0, 2), _t(2, dtype=i64)), ShapeError, "empty axis"),
    (GatherElements(0), (_t(3, 2), _t(3, 4, dtype=i64)), ShapeError, "larger"),
    (GatherND(1), (_t(2, 3), _t(4, 1, dtype=i64)), ShapeError, "batch dims"),
    (GatherND(), (_t(2), _t(4, 3, dtype=i64)), ShapeError, "gather_nd"),
    (OneHot(3, 0), (_t(2, dtype=i64), _t(3)), ShapeError, "pair"),
    (Trilu(), (_t(3),), ShapeError, "matrices"),
    (ScatterElements(0, "sum"), (_t(3), _t(2, dtype=i64), _t(2)), AttributeValueError, "reduction"),
    (ScatterElements(0), (_t(3), _t(2, dtype=i64), _t(1)), ShapeError, "shape"),
    (ScatterND("add"), (_t(3, dtype=bool_), _t(2, 1, dtype=i64), _t(2, dtype=bool_)), TypeMismatchError, "bool"),
    (ScatterND(), (_t(3, 4), _t(2, 1, dtype=i64), _t(2, 3)), ShapeError, "needs updates"),
    (TopK(4, 0), (_t(3),), ShapeError, "first 4"),
    (Conv(*ONE), (_t(1, 3, 4, 4), _t(2, 4, 3, 3)), ShapeError, "input f32.* has 3 channels, weight"),
    (Conv(*ONE), (_t(1, 3, 2, 4), _t(2, 3, 3, 3)), ShapeError, "kernel 3"),
    (Conv(*ONE, 2), (_t(1, 4, 4, 4), _t(3, 2, 3, 3)), ShapeError, "do not split into 2 groups"),
    (Conv(*ONE), (_t(1, 3, 4, 4), _t(2, 3, 3, 3), _t(3)), ShapeError, "bias"),
    (Conv((1,), (1,), (0,), (0,)), (_t(1, 3, 4, 4), _t(2, 3, 3, 3)), AttributeValueError, "2 entries"),
    (Conv((0, 1), (1, 1), (0, 0), (0, 0)), (_t(1, 3, 4, 4), _t(2, 3, 3, 3)), AttributeValueError, "at least 1"),
    (Conv((1, 1), (1, 1), (-1, 0), (0, 0)), (_t(1, 3, 4, 4), _t(2, 3, 3, 3)), AttributeValueError, "at least 0"),
    (Conv((), (), (), ()), (_t(1, 3), _t(2, 3)), ShapeError, "spatial dims"),
    (ConvTranspose(*ONE, (0, 0)), (_t(1, 3, 4, 4), _t(2, 3, 3, 3)), ShapeError, "do not fit"),
    (ConvTranspose((1, 1), (1, 1), (4, 0), (4, 0), (0, 0)), (_t(1, 3, 4, 4), _t(3, 3, 3, 3)), ShapeError, "exceed"),
    (MaxPool((3, 3), *ONE), (_t(1, 3, 2, 2),), ShapeError, "kernel 3"),
    (MaxPool((3,), *ONE), (_t(1, 3, 4, 4),), AttributeValueError, "2 kernel sizes"),
    (MaxPool((1, 1), *ONE), (_t(1, 3, 4, 4, dtype=bool_),), TypeMismatchError, "bool"),
    (AvgPool((1, 1), *ONE), (_t(1, 3, 4, 4, dtype=i32),), TypeMismatchError, "floating point"),
    (LpPool((1, 1), *ONE, p=0), (_t(1, 3, 4, 4),), AttributeValueError, "p=0"),
    (MatMul(), (_t(3), _t(3, 2)), ShapeError, "matrices"),
    (MatMul(), (_t(3, 4), _t(3, 2)), ShapeError, "inner dim"),
    (MatMul(), (_t(2, 3, 4), _t(3, 4, 2)), ShapeError, "do not broadcast"),
    (MatMul(), (_t(2, 2, dtype=bool_), _t(2, 2, dtype=bool_)), TypeMismatchError, "bool"),
    (Resize((2, 2), (1.0,)), (_t(2, 2),), AttributeValueError, "needs 2 sizes"),
    (Resize((2,), (0.0,)), (_t(2,),), AttributeValueError, "above 0"),
    (Resize((2,), (float("nan"),)), (_t(2,),), AttributeValueError, "above 0"),
    (Resize((2,), (1.0,), "spline"), (_t(2,),), AttributeValueError, "spline"),
    (Resize((2,), (1.0,), coordinate_transformation_mode="tf_crop_and_resize"), (_t(2,),), AttributeValueError, "roi"),
    (Resize((2,), (2.0,)), (_t(0,),), ShapeError, "empty"),
    (Resample((0,)), (_t(4), _t(2, 3, dtype=i64)), ShapeError, "one tap"),
    (Resample((0,), True), (_t(4), _t(2, 3, dtype=i64)), AttributeValueError, "2 tables"),
)  # fmt: skip


@pytest.mark.parametrize(("op", "types", "error", "message"), WRONG, ids=[f"{op.name} {message}" for op, _, _, message in WRONG])
def test_wrong_use_is_an_error(op: Op, types: tuple[TensorType, ...], error: type[GraphcError], message: str) -> None:
    with pytest.raises(error, match=message):
        op.output_types(*types)


def test_symbolic_sizes_of_windows() -> None:
    x = _t(N, 3, symbol("H"), 224)
    conv = Conv((2, 2), (1, 1), (3, 3), (3, 3)).infer(x, _t(64, 3, 7, 7))
    assert str(conv) == "f32[N,64,(H-1)//2+1,112]" or conv.bind({"H": 224}).shape == (N, 64, 112, 112)
    ceil = MaxPool((3, 3), (2, 2), (1, 1), (0, 0), (0, 0), ceil=True)
    assert ceil.infer(x).bind({"H": 112}).shape == (N, 3, 56, 112)
    assert ConvTranspose((2, 2), (1, 1), (0, 0), (0, 0), (0, 0)).infer(x, _t(3, 8, 2, 2)).shape == (N, 8, 2 * symbol("H"), 448)


def test_resize_waits_for_the_size_of_a_resized_axis() -> None:
    builder = Builder()
    x = builder.input("x", f32, (N, 3, symbol("H"), 8))
    assert Resize((N, 3, 32, 8), (1.0, 1.0, 2.0, 1.0), "linear").decompose(builder, x) is None
    batch = Resize((N, 3, symbol("H"), 16), (1.0, 1.0, 1.0, 2.0), "linear").decompose(builder, x)
    assert batch is not None
    assert batch.type.shape == (N, 3, symbol("H"), 16)


def test_gradients_with_a_symbolic_batch() -> None:
    builder = Builder()
    x = builder.input("x", f32, (N, 6, 8, 8))
    w = builder.parameter("w", np.zeros((4, 3, 3, 3), np.float32))
    y = builder.add(Conv((2, 2), (1, 1), (1, 1), (1, 1), 2), x, w)
    pooled = builder.add(MaxPool((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), y)
    grad = builder.input("grad", f32, pooled.type.shape)
    assert y.producer is not None
    assert pooled.producer is not None
    (d_y,) = pooled.producer.op.gradient(builder, pooled.producer, [grad])
    assert d_y is not None
    assert d_y.type == y.type
    d_x, d_w = y.producer.op.gradient(builder, y.producer, [d_y])
    assert d_x is not None
    assert d_w is not None
    assert (d_x.type, d_w.type) == (x.type, w.type)


def _built(fn: Callable[..., Value | tuple[Value, ...]], *arrays: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    builder = Builder()
    values = [builder.input(f"x{i}", str(a.dtype), a.shape) for i, a in enumerate(arrays)]
    made = fn(builder, *values)
    results = made if isinstance(made, tuple) else (made,)
    return run_reference(builder.finish(**{f"y{i}": value for i, value in enumerate(results)}), arrays)


X = np.random.default_rng(0).standard_normal((2, 8, 4, 6)).astype(np.float32)
COMPOSED: dict[str, tuple[Any, Any]] = {
    "reshape": (lambda b, x: compose.reshape(b, x, (2, -1, 3)), lambda x: x.reshape(2, -1, 3)),
    "reshape to itself": (lambda b, x: compose.reshape(b, x, (2, 8, 4, -1)), lambda x: x),
    "flatten": (lambda b, x: compose.flatten(b, x), lambda x: x.reshape(2, -1)),
    "flatten all": (lambda b, x: compose.flatten(b, x, 0), lambda x: x.reshape(1, -1)),
    "flatten from the end": (lambda b, x: compose.flatten(b, x, -1), lambda x: x.reshape(-1, 6)),
    "unsqueeze": (lambda b, x: compose.unsqueeze(b, x, [0, -1]), lambda x: x[None, ..., None]),
    "squeeze": (lambda b, x: compose.squeeze(b, compose.unsqueeze(b, x, [0, 3, 5]), [0, -4]), lambda x: x[..., None, :]),
    "squeeze all": (lambda b, x: compose.squeeze(b, compose.unsqueeze(b, x, [0, 3])), lambda x: x),
    "transpose": (lambda b, x: compose.transpose(b, x, (0, 2, 3, -3)), lambda x: x.transpose(0, 2, 3, 1)),
    "expand": (lambda b, x: compose.expand(b, x, (3, *x.type.shape)), lambda x: np.broadcast_to(x, (3, *x.shape))),
    "slice": (lambda b, x: compose.slice_axis(b, x, -1, 1, 2, 3), lambda x: x[..., 1::3]),
    "split": (lambda b, x: compose.split(b, x, 1, (3, 0, 5)), lambda x: (x[:, :3], x[:, :0], x[:, 3:])),
    "stack": (lambda b, x: compose.stack(b, [x, x], -1), lambda x: np.stack([x, x], -1)),
    "mean": (lambda b, x: compose.global_pool(b, x, "mean"), lambda x: x.mean((2, 3), keepdims=True)),
    "max": (lambda b, x: compose.global_pool(b, x, "max"), lambda x: x.max((2, 3), keepdims=True)),
    "lp 2": (lambda b, x: compose.global_pool(b, x, "lp"), lambda x: np.sqrt((x * x).sum((2, 3), keepdims=True))),
    "lp 3": (lambda b, x: compose.global_pool(b, x, "lp", 3), lambda x: (abs(x) ** 3).sum((2, 3), keepdims=True) ** (1 / 3)),
    "mvn": (
        lambda b, x: compose.mean_variance_normalization(b, x),
        lambda x: (x - x.mean((0, 2, 3), keepdims=True)) / (x.std((0, 2, 3), keepdims=True) + 1e-9),
    ),
    "eye": (lambda b, x: compose.eye(b, 2, 3, 1), lambda x: np.eye(2, 3, 1, dtype=np.float32)),
    "range": (lambda b, x: compose.arange(b, 5, -2, -3, i64), lambda x: np.arange(5, -2, -3)),
    "range of floats": (lambda b, x: compose.arange(b, 0.5, 2.0, 0.5, f32), lambda x: np.arange(0.5, 2, 0.5, dtype=np.float32)),
}


@pytest.mark.parametrize("name", list(COMPOSED))
def test_composed(name: str) -> None:
    fn, oracle = COMPOSED[name]
    expected = oracle(X)
    for found, wanted in zip(_built(fn, X), expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(mode: str) -> None:
    (deep,) = _built(lambda b, x: compose.space_to_depth(b, x, 2, mode), X)
    (wide,) = _built(lambda b, x: compose.depth_to_space(b, x, 2, mode), X)
    (back,) = _built(lambda b, x: compose.depth_to_space(b, x, 2, mode), deep)
    np.testing.assert_array_equal(back, X)
    torch: Any = pytest.importorskip("torch")
    ours, order = torch.from_numpy(X), X.reshape(2, 4, 2, 4, 6) if mode == "DCR" else None
    shuffled = torch.from_numpy(np.ascontiguousarray(order.swapaxes(1, 2).reshape(X.shape))) if order is not None else ours
    np.testing.assert_array_equal(wide, torch.nn.functional.pixel_shuffle(shuffled, 2).numpy())


def test_composed_errors() -> None:
    builder = Builder()
    x = builder.input("x", f32, (2, 3))
    with pytest.raises(ShapeError, match="more than one -1"):
        compose.reshape(builder, x, (-1, -1))
    with pytest.raises(ShapeError, match="do not add up"):
        compose.split(builder, x, 1, (1, 1))
    with pytest.raises(ShapeError, match="only axes of size 1"):
        compose.squeeze(builder, x, [0])
    with pytest.raises(AttributeValueError, match="axis 2"):
        compose.slice_axis(builder, x, 2, 0, 1)
    with pytest.raises(AttributeValueError, match="block"):
        compose.depth_to_space(builder, x, 2)
    with pytest.raises(AttributeValueError, match="step 0"):
        compose.arange(builder, 0, 1, 0, i64)
