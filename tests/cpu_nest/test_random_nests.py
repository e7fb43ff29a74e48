"""Random nests against the model: strides, permutations, clamps, reductions, dtypes and sizes that nobody wrote down."""

from __future__ import annotations

from math import prod

from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_nest.harness import LEVELS, check, tensor
from graphc.kernel.expr import Expr, call, cast, const, index, load, maximum, minimum, reduce, select
from graphc.kernel.index import bounds, simplify
from graphc.kernel.spec import Nest, NestSpec, Operand, StoreAt
from graphc.types.dtype import DType, f32, f64, i8, i32, i64

SIZES = st.sampled_from([1, 2, 3, 4, 5, 8, 15, 16, 17, 20, 33])


def _offset(draw: st.DrawFn, variables: list[Expr]) -> Expr:
    total: Expr = const(draw(st.integers(0, 3)), i64)
    for variable in variables:
        kind = draw(st.sampled_from(["affine", "affine", "affine", "none", "div", "mod", "clamp", "shift"]))
        step = draw(st.sampled_from([1, 1, 2, 3, 7, 16, 17]))
        term = {
            "affine": variable * step, "none": variable * 0, "div": variable // draw(st.sampled_from([2, 4, 5])) * step,
            "mod": variable % draw(st.sampled_from([2, 4, 7])) * step, "clamp": minimum(maximum(variable - 2, 0), 9) * step,
            "shift": (variable + 3) // 2,
        }[kind]  # fmt: skip
        total = total + term
    return simplify(total)


def _load(draw: st.DrawFn, operands: list[Operand], variables: list[Expr], dtype: DType) -> Expr:
    offset = _offset(draw, variables)
    operands.append(Operand(dtype, (bounds(offset)[1] + 1,)))
    return load(len(operands) - 1, offset, dtype)


def _number(value: Expr) -> Expr:
    return cast(value, f32)


@st.composite
def nests(draw: st.DrawFn) -> NestSpec:
    axes = [index(f"i{k}", draw(SIZES)) for k in range(draw(st.integers(1, 3)))]
    while prod(axis.extent for axis in axes) > 3000:
        axes.pop()
    operands: list[Operand] = []
    dtypes = st.sampled_from([f32, f32, f32, f64, i32, i8])
    value = _number(_load(draw, operands, axes, draw(dtypes)))
    for _ in range(draw(st.integers(0, 2))):
        other = _number(_load(draw, operands, draw(st.permutations(axes)), draw(dtypes)))
        value = call(draw(st.sampled_from(["add", "mul", "max"])), value, other)
    if draw(st.booleans()):
        axis = draw(st.sampled_from(axes))
        value = select(axis < draw(st.integers(0, 20)), value, 1.5)
    if draw(st.booleans()):
        inside = draw(st.lists(st.sampled_from(axes), unique=True, max_size=2))
        extents = draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 19]), min_size=1, max_size=2))
        value = value + reduce(
            draw(st.sampled_from(["sum", "max", "min"])), extents, lambda *r: _number(_load(draw, operands, [*inside, *r], draw(dtypes)))
        )
    order = draw(st.permutations(axes))
    strides = {axis: prod(a.extent for a in order[k + 1 :]) for k, axis in enumerate(order)}
    offset = sum((axis * strides[axis] for axis in axes), const(0, i64))
    out = tensor(prod(axis.extent for axis in axes))
    return NestSpec("map", tuple(operands), (out,), (Nest(tuple(axes), (StoreAt(len(operands), offset, value),)),))


@settings(max_examples=40)
@given(nests(), st.sampled_from(LEVELS))
def test_random_nests(spec: NestSpec, level: str) -> None:
    check(spec, tolerance=3e-5, levels=[level])
