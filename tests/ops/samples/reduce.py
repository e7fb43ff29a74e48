"""Samples of reductions, argmax and argmin, and running sums. The oracle is ONNX Runtime, or numpy where it lacks a dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ops.reduce import ArgReduce, CumSum, Reduce
from graphc.types.dtype import DType, bool_, f16, f32, f64, i8, i32, i64, u8, u32
from ops.oracles import by_onnx, by_ort
from ops.sample import Array, Data, Sample

INF, NAN = math.inf, math.nan
ONNX = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd", "l1": "ReduceL1",
    "l2": "ReduceL2", "sum_square": "ReduceSumSquare", "log_sum": "ReduceLogSum", "log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip
ORT_INTEGER = ("sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square")
SHAPE = (3, 4, 5, 7)
CASES: tuple[tuple[tuple[int, ...], bool], ...] = (((3,), True), ((1, 2), False), ((0,), True), ((2, 3), True), ((0, 1, 2, 3), False))


def _ort(fn: str, axes: tuple[int, ...], keepdims: bool) -> Callable[..., Any]:
    axes_input = np.array(axes, dtype=np.int64)
    return by_ort(ONNX[fn], extra=(axes_input,), keepdims=int(keepdims), opset=18)


def _symbolic(shape: tuple[int, ...]) -> tuple[str]:
    return (",".join(["N", "C", *map(str, shape[2:])]),)


def _float_samples() -> list[Sample]:
    found = []
    for fn in ONNX:
        low = 0.1 if fn in ("log_sum", "prod") else -2
        for axes, keepdims in CASES:
            label = f"axes {axes}, keepdims {keepdims}"
            op, data = Reduce(fn, axes, keepdims), Data(SHAPE, f32, low, 1.5)
            found.append(Sample(label, op, (data,), _ort(fn, axes, keepdims), _symbolic(SHAPE), rtol=2e-5))
        op = Reduce(fn, (1,), False)
        found.append(Sample("f64", op, (Data((3, 33), f64, low, 1.5),), _numpy(fn), ("N,33",), rtol=1e-12, atol=1e-13))
        found.append(Sample("f16", op, (Data((3, 33), f16, low, 1.5),), _numpy(fn), rtol=2e-3, atol=1e-3))
        found.append(Sample("special", op, (Data((9, 3), f32, special=True),), _numpy(fn, np.float64)))
        found.append(Sample("infinite rows", op, (np.array([[-INF, -INF], [INF, 1], [NAN, 1], [-INF, 2]], np.float32),), _numpy(fn)))
        found.append(Sample("no axes", Reduce(fn, ()), (Data((5, 3), f32, 0.1, 2),), _numpy(fn, axis=())))
        found.append(Sample("one element", op, (Data((1, 1), f32, 0.1, 2),), _numpy(fn)))
        found.append(Sample("empty result", Reduce(fn, (1,)), (Data((0, 3), f32),), lambda x: np.zeros((0, 1), np.float32)))
        found.append(Sample("long", op, (Data((2, 1003), f32, *((0.99, 1.01) if fn == "prod" else (low, 1.5))),), _numpy(fn, np.float64)))
    return found


_FORMULA: dict[str, Callable[..., Any]] = {
    "sum": np.sum, "mean": np.mean, "max": lambda x, axis: np.max(x, axis, initial=-INF), "prod": np.prod,
    "min": lambda x, axis: np.min(x, axis, initial=INF), "l1": lambda x, axis: np.sum(np.abs(x), axis),
    "l2": lambda x, axis: np.sqrt(np.sum(x * x, axis)), "sum_square": lambda x, axis: np.sum(x * x, axis),
    "log_sum": lambda x, axis: np.log(np.sum(x, axis)), "log_sum_exp": lambda x, axis: np.logaddexp.reduce(x, axis if axis != () else None),
}  # fmt: skip


def _numpy(fn: str, within: Any = np.float64, axis: Any = 1) -> Callable[[Array], Array]:
    """The formula over `axis` in float64, rounded to the dtype of x."""
    if axis == () and fn == "log_sum_exp":
        return lambda x: x
    return lambda x: np.asarray(_FORMULA[fn](x.astype(within), axis=axis)).astype(x.dtype)


def _in_int64(formula: Callable[..., Any]) -> Callable[[Array], Array]:
    return lambda x: np.asarray(formula(x.astype(np.int64), axis=1)).astype(x.dtype)


def _integer_samples() -> list[Sample]:
    found = []
    for fn in ORT_INTEGER:
        values = Data((3, 4, 5), i32, -4, 5)
        found.append(Sample("i32", Reduce(fn, (1, 2)), (values,), _ort(fn, (1, 2), True), ("N,C,5",)))
    for d in (i8, u8, i64, u32):
        data = Data((4, 6), d, -100, 100)
        for fn, numpy in (("sum", np.sum), ("max", np.max), ("min", np.min), ("prod", np.prod)):
            found.append(Sample(str(d), Reduce(fn, (1,), False), (data,), _in_int64(numpy), ("N,6",)))
    rows = np.array([[-7, 2], [7, 0], [-1, 0], [3, 4]], np.int32)
    found.append(Sample("truncates", Reduce("mean", (1,), False), (rows,), lambda x: np.array([-2, 3, 0, 3], np.int32)))
    logs = np.array([1, 4, 0, 3], np.int32)
    found.append(Sample("i32", Reduce("log_sum_exp", (0,), False), (logs,), lambda x: np.array(4, np.int32)))
    found.append(Sample("i32", Reduce("log_sum", (0,), False), (logs,), lambda x: np.array(2, np.int32)))
    return found


def _empty_samples() -> list[Sample]:
    floats = {
        "sum": 0, "mean": NAN, "max": -INF, "min": INF, "prod": 1,
        "l1": 0, "l2": 0, "sum_square": 0, "log_sum": -INF, "log_sum_exp": -INF,
    }  # fmt: skip
    found = [
        Sample("of no element", Reduce(fn, (1,), False), (Data((2, 0, 3)),), (lambda v: lambda x: np.full((2, 3), v, np.float32))(value))
        for fn, value in floats.items()
    ]
    integers = {"sum": 0, "mean": 0, "max": -(2**31), "min": 2**31 - 1, "prod": 1}
    found.extend(
        Sample("of no integer", Reduce(fn, (1,)), (Data((2, 0), i32),), (lambda v: lambda x: np.full((2, 1), v, np.int32))(value))
        for fn, value in integers.items()
    )
    return found


def _bool_samples() -> list[Sample]:
    data, none = Data((5, 4, 3), bool_), Data((2, 0), bool_)
    oracles: dict[str, Callable[..., Any]] = {"any": np.any, "max": np.any, "all": np.all, "min": np.all}
    found = []
    for fn, oracle in oracles.items():
        for axes, keepdims in (((1,), True), ((0, 2), False)):
            wanted = (lambda f, a, k: lambda x: f(x, axis=a, keepdims=k))(oracle, axes, keepdims)
            found.append(Sample(f"bool, axes {axes}", Reduce(fn, axes, keepdims), (data,), wanted, ("N,C,3",)))
        found.append(Sample("of no bool", Reduce(fn, (1,), False), (none,), lambda x, f=oracle: f(x, axis=1)))
    return found


def _arg_samples() -> list[Sample]:
    found = []
    ties = np.array([[1, 3, 3, 2, 1], [0, 0, 0, 0, 0], [-1, -2, -3, -3, -1]], np.float32)
    for fn, onnx in (("max", "ArgMax"), ("min", "ArgMin")):
        for axis in (0, 1, 2):
            for keepdims in (True, False):
                oracle = by_ort(onnx, axis=axis, keepdims=int(keepdims), opset=13)
                data = Data((3, 5, 7))
                found.append(Sample(f"axis {axis}, keepdims {keepdims}", ArgReduce(fn, axis, keepdims), (data,), oracle, ("N,5,W",)))
        for last in (False, True):
            oracle = by_ort(onnx, axis=1, select_last_index=int(last), opset=13)
            found.append(Sample(f"ties, select_last {last}", ArgReduce(fn, 1, True, last), (ties,), oracle))
            whole = by_onnx(onnx, axis=1, select_last_index=int(last), opset=13)
            op = ArgReduce(fn, 1, True, last)
            found.extend(Sample(f"{d}, select_last {last}", op, (Data((4, 9), d, -3, 3),), whole) for d in (i8, i64, u8))
        numpy: Callable[..., Any] = np.argmax if fn == "max" else np.argmin
        holes = np.array([[1, NAN, 3], [NAN, NAN, 1], [INF, -INF, 0], [-INF, -INF, -INF]], np.float32)
        found.append(Sample("NaN counts as the extreme", ArgReduce(fn, 1, False), (holes,), lambda x, f=numpy: f(x, axis=1)))
        found.append(Sample("f16", ArgReduce(fn, 0), (Data((33, 2), f16),), lambda x, f=numpy: f(x, axis=0, keepdims=True)))
        found.append(Sample("one element", ArgReduce(fn, 0, False), (Data((1,), f64),), lambda x: np.array(0)))
        found.append(Sample("no row", ArgReduce(fn, 1, False), (Data((0, 3)),), lambda x: np.zeros((0,), np.int64)))
    last_nan = np.array([NAN, 5, NAN, 1], np.float32)
    found.append(Sample("last NaN", ArgReduce("max", 0, False, True), (last_nan,), lambda x: np.array(2)))
    return found


def _cumsum_samples() -> list[Sample]:
    found = []
    for axis in (0, 1, 2):
        for exclusive in (False, True):
            for reverse in (False, True):
                label = f"axis {axis}, exclusive {exclusive}, reverse {reverse}"
                oracle = by_ort("CumSum", extra=(np.array(axis),), exclusive=int(exclusive), reverse=int(reverse), opset=14)
                found.append(Sample(label, CumSum(axis, exclusive, reverse), (Data((3, 5, 7)),), oracle, ("N,5,W",)))
                oracle = by_onnx("CumSum", extra=(np.array(axis),), exclusive=int(exclusive), reverse=int(reverse), opset=14)
                size = tuple(300 + 40 * axis if axis == other else 2 for other in range(3))
                found.append(Sample(f"long {label}", CumSum(axis, exclusive, reverse), (Data(size, f64),), oracle))
    found.append(Sample("longer", CumSum(1), (Data((2, 5000)),), lambda x: np.cumsum(x.astype(float), 1).astype(x.dtype), atol=2e-5))
    found.append(Sample("longer i8", CumSum(0), (Data((4096,), i8, -9, 9),), lambda x: np.cumsum(x, dtype=x.dtype)))
    dtypes: tuple[DType, ...] = (i32, i64, f64)
    found.extend(Sample(str(d), CumSum(1), (Data((2, 9), d, -9, 9),), lambda x: np.cumsum(x, 1, dtype=x.dtype)) for d in dtypes)
    found.append(Sample("f16", CumSum(0), (Data((9,), f16),), lambda x: np.cumsum(x.astype(np.float32)).astype(np.float16), rtol=1e-3))
    found.append(Sample("empty", CumSum(0, exclusive=True), (Data((0, 3)),), lambda x: x))
    found.append(Sample("one element", CumSum(0, exclusive=True), (Data((1,)),), np.zeros_like))
    holes = np.array([1, INF, -INF, 2, NAN, 3], np.float32)
    found.append(Sample("special", CumSum(0), (holes,), np.cumsum))
    return found


SAMPLES: list[Sample] = [
    *_float_samples(), *_integer_samples(), *_empty_samples(), *_bool_samples(), *_arg_samples(), *_cumsum_samples(),
]  # fmt: skip
