"""Properties of expressions on random trees: interning, text, rebuilding, substitution, folding."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr, arg, call, cast, const, free_indices, index, load, rebuild, reduce, select, substitute, to_text, walk
from graphc.types.dtype import f32, f64, i32, i64, u8, u64

X, Y, K, J = arg("x", f32), arg("y", f32), index("i", 4), index("j", 3)
INTEGERS = (K, J, arg("n", i64))


def floats() -> st.SearchStrategy[Expr]:
    leaves = st.sampled_from([X, Y, load(0, K, f32), load(1, K + J, f32)]) | st.floats(-4, 4, width=16).map(lambda v: const(v, f32))

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.one_of(
            st.tuples(st.sampled_from(["add", "sub", "mul", "min", "max"]), inner, inner).map(lambda t: call(*t)),
            st.tuples(st.sampled_from(["neg", "abs", "exp", "floor"]), inner).map(lambda t: call(*t)),
            st.tuples(inner, inner, inner).map(lambda t: select(t[0] < 0.5, t[1], t[2])),
        )

    return st.recursive(leaves, grow, max_leaves=8)


def integers() -> st.SearchStrategy[Expr]:
    leaves = st.sampled_from(INTEGERS) | st.integers(-5, 5).map(lambda v: const(v, i64))
    names = st.sampled_from(["add", "sub", "mul", "floordiv", "mod", "min", "max"])
    return st.recursive(leaves, lambda inner: st.tuples(names, inner, inner).map(lambda t: call(*t)), max_leaves=8)


@given(floats() | integers())
def test_equal_trees_are_one_object(e: Expr) -> None:
    assert Expr(e.fn, e.dtype, e.args, e.attr) is e
    assert pickle.loads(pickle.dumps(e)) is e
    assert copy.deepcopy(e) is e
    assert substitute(e, {arg("unused", f32): X}) is e


@given(floats(), floats())
def test_text_tells_trees_apart(a: Expr, b: Expr) -> None:
    assert (to_text(a) == to_text(b)) == (a is b)


@given(integers())
def test_rebuilding_folds_to_itself(e: Expr) -> None:
    for node in walk(e):
        assert node.fn in ("const", "index", "arg") or rebuild(node, node.args) is node


@given(integers(), st.integers(0, 3), st.integers(0, 2), st.integers(-9, 9))
def test_folding_keeps_the_value(e: Expr, i: int, j: int, n: int) -> None:
    numbers = dict(zip(INTEGERS, (i, j, n), strict=True))
    folded = substitute(e, {leaf: const(value, i64) for leaf, value in numbers.items()})
    assert folded.is_const
    assert evaluate(e, {leaf: np.asarray(value) for leaf, value in numbers.items()}) == folded.attr


@settings(max_examples=50)
@given(floats(), floats())
def test_substitution_is_evaluation_with_the_replacement(e: Expr, inner: Expr) -> None:
    memory = np.linspace(-1, 1, 12, dtype=np.float32)
    fetch = lambda slot, offset: memory[offset + slot]  # noqa: E731
    env: dict[Expr, Any] = {X: np.float32([0.5, -2, 3]), Y: np.float32([1, 2, -0.25]), K: np.int64([0, 3, 2]), J: np.int64([2, 1, 0])}
    direct = evaluate(e, env | {X: evaluate(inner, env, fetch)}, fetch)
    np.testing.assert_array_equal(np.broadcast_to(direct, 3), np.broadcast_to(evaluate(substitute(e, {X: inner}), env, fetch), 3))


def test_a_reduce_binds_its_indices() -> None:
    e = reduce("sum", (5,), lambda r: load(0, K * 5 + r, f32))
    assert free_indices(e) == {K}
    other = reduce("sum", (5,), lambda r: load(0, K * 5 + r, f32))
    assert other is not e


def test_folds() -> None:
    assert K * 1 + 0 is K
    assert (K - K).attr == 0
    assert cast(K, i64) is K
    assert cast(const(2.0, f32), i32).fn == "cast"
    assert select(const(True, (X < Y).dtype), X, Y) is X
    assert X * 1.0 is X
    assert (X * 0.0).fn == "mul"  # NaN and inf times 0 are not 0


def test_constants_hold_what_their_dtype_holds() -> None:
    assert const(300, u8) is const(44, u8)
    assert cast(const(-1, i64), u8).attr == 255
    assert const(-1, u64).attr == 2**64 - 1
    assert cast(const(0.1, f32), f64).attr == float(np.float32(0.1))
    assert cast(const(1e300, f32), f64).attr == np.inf
    assert const(0.1, f32).attr == 0.1
