"""Samples of control flow, against plain loops in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ops.control import If, Loop
from graphc.ops.matmul import MatMul
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.types.dtype import DType, bool_, f32, f64, i64
from graphc.types.shape import DimLike, symbol
from ops.sample import Array, Data, Sample

B, H, T = 3, 5, 4


def _body(name: str, *inputs: tuple[str, DType, tuple[DimLike, ...]]) -> tuple[Builder, list[Value]]:
    builder = Builder(Graph(name))
    return builder, [builder.input(*given) for given in inputs]


def _elman(dtype: DType, name: str, batch: DimLike = B) -> Graph:
    """h = tanh(x + h r), with h as a result too."""
    builder, (_, h, x, r) = _body(
        name, ("i", i64, ()), ("h", dtype, (batch, H)), ("x", dtype, (batch, H)), ("r", dtype, (H, H))
    )  # fmt: skip
    new = builder.add(op("tanh"), builder.add(op("add"), x, builder.add(MatMul(), h, r)))
    builder.graph.output_names, builder.graph.outputs = ["h", "y"], [new, new]
    return builder.graph


def _elman_loop(h: Array, x: Array, r: Array, reverse: bool = False, axis: int = 0) -> tuple[Array, ...]:
    x, kind = np.moveaxis(x.astype(np.float64), axis, 0), h.dtype
    ys = np.zeros((x.shape[0], *h.shape))
    h = h.astype(np.float64)
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        ys[t] = h = np.tanh(x[t] + h @ r)
    return h.astype(kind), np.moveaxis(ys, 0, axis).astype(kind), np.asarray(x.shape[0])


def _collatz() -> Graph:
    """Halve, or triple and add one, until the largest is 1."""
    builder, (number, value) = _body("collatz", ("i", i64, ()), ("v", i64, (B,)))
    one, two, three = (builder.constant(n, i64) for n in (1, 2, 3))
    even = builder.add(op("equal"), builder.add(op("mod"), value, two), builder.constant(0, i64))
    up = builder.add(op("add"), builder.add(op("mul"), value, three), one)
    moved = builder.add(op("where"), even, builder.add(op("floor_div"), value, two), up)
    new = builder.add(op("where"), builder.add(op("greater"), value, one), moved, value)
    going = builder.add(op("greater"), builder.add(Reduce("max", (0,), False), new), one)
    return builder.finish(going=going, v=new, i=number)


def _collatz_loop(going: Array, value: Array, trips: int) -> tuple[Array, ...]:
    steps, numbers = 0, np.zeros(trips, np.int64)
    while going and steps < trips:
        value = np.where(value > 1, np.where(value % 2 == 0, value // 2, 3 * value + 1), value)
        going, numbers[steps] = np.asarray(value.max() > 1), steps
        steps += 1
    return value, numbers, np.asarray(steps)


def _swap() -> Graph:
    """(a, b, flag) -> (b, a, not flag): states that are each other's."""
    builder, (_, a, b, flag) = _body("swap", ("i", i64, ()), ("a", f32, (2,)), ("b", f32, (2,)), ("flag", bool_, ()))
    return builder.finish(a=b, b=a, flag=builder.add(op("not"), flag))


def _swapped(count: Array, a: Array, b: Array, flag: Array) -> tuple[Array, ...]:
    times = max(int(count), 0)
    return (*((b, a) if times % 2 else (a, b)), np.asarray(bool(flag) ^ bool(times % 2)), np.asarray(times))


def _branch(name: str, row: str, shape: Sequence[int]) -> Graph:
    builder, (x,) = _body(name, ("x", f32, tuple(shape)))
    return builder.finish(y=builder.add(op(row), x))


_N = symbol("N")
_IF = If(_branch("then", "exp", (2, 3)), _branch("else", "neg", (2, 3)))
_SCAN = (0,), (False,), (0,), (False,)
_MIDDLE = (1,), (True,), (1,), (True,)
SAMPLES = [
    Sample("a layer", Loop(_elman(f32, "elman"), 1, *_SCAN, trips=T), (Data((B, H)), Data((T, B, H)), Data((H, H), f32, -1, 1)),
           _elman_loop, differentiable=False, lowers=False),
    Sample("double", Loop(_elman(f64, "elman64"), 1, *_SCAN, trips=T),
           (Data((B, H), f64), Data((T, B, H), f64), Data((H, H), f64, -1, 1)), _elman_loop, rtol=1e-12,
           differentiable=False, lowers=False),
    Sample("along axis 1 from the end", Loop(_elman(f32, "elman back"), 1, *_MIDDLE, trips=T),
           (Data((B, H)), Data((B, T, H)), Data((H, H), f32, -1, 1)), lambda h, x, r: _elman_loop(h, x, r, True, 1),
           differentiable=False, lowers=False),
    Sample("no iteration", Loop(_elman(f32, "elman none"), 1, *_SCAN, trips=0), (Data((B, H)), Data((0, B, H)), Data((H, H))), _elman_loop,
           differentiable=False, lowers=False),
    Sample("NaN and infinity", Loop(_elman(f32, "elman special"), 1, *_SCAN, trips=T),
           (Data((B, H)), Data((T, B, H), special=True), Data((H, H), f32, -1, 1)), _elman_loop, differentiable=False, lowers=False),
    Sample("symbolic", Loop(_elman(f32, "elman symbolic"), 1, *_SCAN, trips=T), (Data((B, H)), Data((T, B, H)), Data((H, H), f32, -1, 1)),
           _elman_loop, (f"N,{H}", f"T,N,{H}", f"{H},{H}"), Loop(_elman(f32, "elman symbolic", _N), 1, *_SCAN, trips=symbol("T")),
           differentiable=False, lowers=False),
    Sample("early end", Loop(_collatz(), 1, (), (), (0,), (False,), 30, conditional=True),
           (np.asarray(True), np.asarray([1, 6, 3])), lambda going, v: _collatz_loop(going, v, 30), differentiable=False, lowers=False),
    Sample("cut off", Loop(_collatz(), 1, (), (), (0,), (False,), 5, conditional=True), (np.asarray(True), np.asarray([1, 6, 3])),
           lambda going, v: _collatz_loop(going, v, 5), differentiable=False, lowers=False),
    Sample("not begun", Loop(_collatz(), 1, (), (), (0,), (False,), 6, conditional=True), (np.asarray(False), np.asarray([1, 6, 3])),
           lambda going, v: _collatz_loop(going, v, 6), differentiable=False, lowers=False),
    *(Sample(f"{n} times", Loop(_swap(), 3, counted=True, limit=100), (np.asarray(n), Data((2,)), Data((2,)), np.asarray(True)), _swapped,
             differentiable=False, lowers=False) for n in (-1, 0, 1, 2, 7)),
    Sample("then", _IF, (np.asarray(True), Data((2, 3)), Data((2, 3))), lambda c, a, b: np.exp(a), differentiable=False, lowers=False),
    Sample("else", _IF, (np.asarray(False), Data((2, 3)), Data((2, 3))), lambda c, a, b: -b, differentiable=False, lowers=False),
]  # fmt: skip
