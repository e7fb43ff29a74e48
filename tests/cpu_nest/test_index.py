"""Index arithmetic: simplification keeps values, ranges hold, the canonical form forgets names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_nest.harness import over_output, tensor
from cpu_nest.samples import SAMPLES
from graphc.kernel.access import flat_index, from_operand, padded, unflatten
from graphc.kernel.canonical import canonical, spec_text
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr, arg, call, const, equal, index, load, maximum, minimum, reduce, select, substitute, walk
from graphc.kernel.index import affine, bounds, simplify
from graphc.kernel.spec import ConvSpec, Epilogue, MatmulSpec, Nest, NestSpec, StoreAt
from graphc.types.dtype import f32, i64

A, B, C = index("a", 5), index("b", 16), index("c", 3)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ((A * 16 + B) // 16, A),
        ((A * 16 + B) % 16, B),
        ((A * 16 + B + 3 * 16) // 16, A + 3),
        (((A * 16 + B) * 3 + C) // 48, A),
        (((A * 16 + B) * 3 + C) // 3 % 16, B),
        (((A * 16 + B) * 3 + C) % 3, C),
        ((A * 4 + C) // 8, A // 2),
        ((A // 2) // 2, A // 4),
        (A // 2 * 2 + A % 2, A),
        (minimum(A, 7), A),
        (maximum(A - 5, 0), const(0, i64)),
        (maximum(A, A + 1), A + 1),
        (select(A < 5, A, B), A),
        (select(equal(A, 9), A, B), B),
        (A + B - A, B),
        ((A - 5) // 5, const(-1, i64)),
        ((A - 5) % 5, A),
    ],
)
def test_rules(expr: Expr, expected: Expr) -> None:
    assert simplify(expr) is simplify(expected)


@pytest.mark.parametrize("old", [(6, 35), (2, 3, 35), (210,), (7, 5, 6)])
@pytest.mark.parametrize("new", [(7, 30), (210,), (2, 105), (5, 6, 7)])
def test_reshape_chains_come_back(old: Sequence[int], new: Sequence[int]) -> None:
    i = tuple(index(f"i{k}", size) for k, size in enumerate(old))
    there = unflatten(flat_index(i, old), new)
    assert flat_index(unflatten(flat_index(there, new), old), old) is flat_index(i, old)


def test_affine() -> None:
    assert affine(A * 3 + B * 5 + 7, A) == (3, simplify(B * 5 + 7))
    assert affine(B * 5, A) == (0, simplify(B * 5))
    assert affine(A // 2 + A, A) is None


def test_data_that_may_overflow_is_left_alone() -> None:
    x = load(0, A, i64)
    assert simplify((x * 16) // 16) is not x
    assert simplify(x < x + 1).fn == "lt"


def test_no_index_is_simplified_away_wrongly_at_the_edges() -> None:
    assert bounds(A * -3 + 2) == (-10, 2)
    assert bounds(minimum(maximum(load(0, A, i64), 0), 6)) == (0, 6)
    assert bounds(index("empty", 0)) == (0, 0)


VARIABLES = (A, B, C, index("d", 2))


def _expressions() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(st.sampled_from(VARIABLES), st.integers(-40, 40).map(lambda v: const(v, i64)))

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        factors = st.integers(1, 48)
        return st.one_of(
            st.tuples(st.sampled_from(["add", "sub", "min", "max"]), inner, inner).map(lambda t: call(*t)),
            st.tuples(inner, st.integers(-20, 20)).map(lambda t: t[0] * t[1]),
            st.tuples(st.sampled_from(["floordiv", "mod"]), inner, factors).map(lambda t: call(*t)),
            st.tuples(st.sampled_from(["lt", "le", "eq", "ge"]), inner, inner, inner, inner).map(
                lambda t: select(call(t[0], t[1], t[2]), t[3], t[4])
            ),
        )

    return st.recursive(leaves, grow, max_leaves=9)


def _values(expr: Expr) -> np.ndarray:
    grid = {
        axis: np.arange(axis.extent).reshape([-1 if d == k else 1 for d in range(len(VARIABLES))]) for k, axis in enumerate(VARIABLES)
    }
    return np.broadcast_to(evaluate(expr, grid), [axis.extent for axis in VARIABLES])


@settings(max_examples=150)
@given(_expressions())
def test_simplify_keeps_values_and_bounds_hold(expr: Expr) -> None:
    simpler = simplify(expr)
    expected = _values(expr)
    assert (_values(simpler) == expected).all()
    for one in (expr, simpler):
        low, high = bounds(one)
        assert low <= expected.min()
        assert expected.max() <= high
    assert simplify(simpler) is simpler or (_values(simplify(simpler)) == expected).all()


@settings(max_examples=60)
@given(st.lists(st.integers(-4, 9), min_size=2, max_size=2))
def test_padded_reads_inside_only(start: list[int]) -> None:
    i, j = index("i", 6), index("j", 7)
    value = padded(from_operand(0, tensor(4, 5)), (i + start[0] - 3, j + start[1] - 3), -1.0)
    data = np.arange(20, dtype=np.float32)
    env = {i: np.arange(6).reshape(6, 1), j: np.arange(7).reshape(1, 7)}

    def read(slot: int, offset: np.ndarray) -> np.ndarray:
        assert slot == 0
        assert offset.min() >= 0
        assert offset.max() < 20
        return data[offset]

    got = np.broadcast_to(evaluate(value, env, read), (6, 7))
    big = np.full((40, 40), -1, np.float32)
    big[10:14, 10:15] = data.reshape(4, 5)
    top, left = 10 + start[0] - 3, 10 + start[1] - 3
    assert (got == big[top : top + 6, left : left + 7]).all()


# canonical form -----------------------------------------------------------------------------------------------------------------------


def _renamed(spec: NestSpec, suffix: str) -> NestSpec:
    def rename(expr: Expr) -> Expr:
        return substitute(expr, {n: index(f"{hash(n.attr[0] + suffix)}", n.extent) for n in walk(expr) if n.fn == "index"})

    nests = tuple(
        Nest(tuple(map(rename, nest.axes)), tuple(StoreAt(s.slot, rename(s.offset), rename(s.value)) for s in nest.stores))
        for nest in spec.nests
    )
    return NestSpec(spec.family, spec.inputs, spec.outputs, nests)


@pytest.mark.parametrize("name", SAMPLES)
def test_text_forgets_names(name: str) -> None:
    spec = SAMPLES[name]()
    text = spec_text(canonical(spec))
    assert spec_text(canonical(_renamed(spec, "x"))) == text
    assert spec_text(canonical(SAMPLES[name]())) == text
    assert spec_text(canonical(canonical(spec))) == text


def test_texts_differ() -> None:
    texts = {name: spec_text(canonical(make())) for name, make in SAMPLES.items()}
    for (name, text), (other, second) in itertools.combinations(texts.items(), 2):
        assert text != second, (name, other)


def test_equal_reductions_become_one() -> None:
    spec = SAMPLES["softmax over 33"]()
    (store,) = canonical(spec).nests[0].stores
    assert sum(node.fn == "reduce" for node in walk(store.value)) == 2
    assert sum(node.fn == "reduce" for node in walk(spec.nests[0].stores[0].value)) == 3


def test_canonical_epilogues() -> None:
    def conv(prefix: str) -> ConvSpec:
        i = tuple(index(f"{prefix}{k}", size) for k, size in enumerate((1, 4, 8, 8, 16)))
        acc = arg("acc", f32)
        value = maximum(acc + load(2, i[1] * 16 + i[4], f32), 0.0)
        out = tensor(1, 64, 8, 8)
        return ConvSpec(out, (64, 64, 1, 1), (tensor(64),), out, (1, 1), (1, 1), (0, 0), 1, Epilogue(i, acc, value))

    def product(prefix: str) -> MatmulSpec:
        i = (index(f"{prefix}m", 4), index(f"{prefix}n", 6))
        acc, x = arg("acc", f32), tensor(4, 6)
        return MatmulSpec(f32, (), 4, 6, 3, x, x, (3, 1), (6, 1), (6, 1), False, (), x, Epilogue(i, acc, acc + load(2, i[1], f32)))

    for make in (conv, product):
        assert spec_text(canonical(make("p"))) == spec_text(canonical(make("q")))
    assert "acc" in spec_text(canonical(conv("p")))


def test_reduction_variables_may_repeat() -> None:
    """Names of canonical specs may meet the same names again when specs are put together."""
    x = from_operand(0, tensor(3, 4))
    i = index("i0", 3)
    sums = over_output([tensor(3, 4)], tensor(3), lambda t: lambda k: reduce("sum", [4], lambda r: t(k, r)))
    inner = canonical(sums).nests[0].stores[0].value
    outer = reduce("max", [4], lambda r: x(i, r) * inner)
    spec = NestSpec("reduce", (tensor(3, 4),), (tensor(3),), (Nest((i,), (StoreAt(1, i, outer),)),))
    env = {i: np.arange(3)}
    data = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    expected = (data.reshape(3, 4) * data.reshape(3, 4).sum(1, keepdims=True)).max(1)
    (store,) = canonical(spec).nests[0].stores
    got = evaluate(store.value, {canonical(spec).nests[0].axes[0]: env[i]}, lambda _, offset: data[offset])
    np.testing.assert_allclose(got, expected, rtol=1e-5)
