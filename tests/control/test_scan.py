"""graphc.scan, while_loop and cond against plain loops in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, GraphcError, ModelError, ResourceError, ShapeError, TypeMismatchError, UnsupportedError

Array = np.ndarray[Any, np.dtype[Any]]
N, T, D, H = 3, 7, 4, 5


def _zeros(x: graphc.Tensor, units: int) -> graphc.Tensor:
    return graphc.expand(graphc.constant(np.zeros((1, units), x.dtype.numpy)), (x.shape[0], units))


@graphc.model
def leaky(x: graphc.f32["N", "T", D], *, reverse: bool = False):
    """Two states, two results, a captured tensor."""
    scale = graphc.sigmoid(x.mean((1, 2), keepdims=True)).reshape(-1, 1)

    def cell(h, count, xt):
        h = graphc.tanh(graphc.linear(xt, H, name="inner") + h * scale)
        return h, count + 1.0, h * 2.0, xt.sum(1)

    (y, sums), (h, count) = graphc.scan(cell, x, (_zeros(x, H), _zeros(x, 1)), reverse=reverse, name="leaky")
    return {"y": y, "sums": sums, "h": h, "count": count}


def _leaky(x: Array, weight: Array, bias: Array, reverse: bool) -> dict[str, Array]:
    scale = 1 / (1 + np.exp(-x.mean((1, 2)).reshape(-1, 1)))
    h, ys, sums = np.zeros((len(x), H)), np.zeros((*x.shape[:2], H)), np.zeros(x.shape[:2])
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        h = np.tanh(x[:, t] @ weight.T + bias + h * scale)
        ys[:, t], sums[:, t] = h * 2, x[:, t].sum(1)
    return {"y": ys, "sums": sums, "h": h, "count": np.full((len(x), 1), x.shape[1])}


@pytest.mark.parametrize("steps", [0, 1, T])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(steps: int, reverse: bool) -> None:
    model = leaky.configure(reverse=reverse)
    parameters = model.parameters()
    assert {name: array.shape for name, array in parameters.items()} == {"leaky.inner.weight": (H, D), "leaky.inner.bias": (H,)}
    x = np.random.default_rng(steps).standard_normal((N, steps, D)).astype(np.float32)
    if not steps:
        x = x.reshape(N, 0, D)
    expected = _leaky(x.astype(np.float64), *parameters.values(), reverse) if steps else None
    found = [graphc.compile(model, threads=threads).run({"x": x}) for threads in (1, 2, 4)]
    for name, value in found[0].items():
        assert value.tobytes() == found[1][name].tobytes() == found[2][name].tobytes()
        if expected is not None:
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)
    if not steps:
        assert found[0]["y"].shape == (N, 0, H)
        assert not found[0]["count"].any()


def test_the_program_is_compiled_once_for_all_steps() -> None:
    short, long = (graphc.compile(leaky, dims={"N": 2, "T": steps}).plan for steps in (5, 500))
    assert len(short.steps) == len(long.steps) < 30
    assert [control.kind for control in long.controls] == ["enter", "again"]
    assert "again leaky while arena" in str(long)


def test_many_sequences_and_one_state_of_integers() -> None:
    @graphc.model
    def count(a: graphc.i64["N", "T"], b: graphc.bool_["N", "T"]):
        y, last = graphc.scan(lambda s, x, keep: (graphc.where(keep, s + x, s), s * 1), (a, b), a[:, 0] * 0)
        return {"y": y, "last": last}

    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (N, T)), rng.integers(0, 2, (N, T)).astype(bool)
    found = graphc.compile(count).run({"a": a, "b": b})
    sums = np.where(b, a, 0).cumsum(1)
    np.testing.assert_array_equal(found["last"], sums[:, -1])
    np.testing.assert_array_equal(found["y"], np.concatenate([np.zeros((N, 1), int), sums[:, :-1]], 1))


def test_nested_scans() -> None:
    """A running sum along one axis of running sums along the other."""

    @graphc.model
    def both(x: graphc.f64["T", "N"]):
        def outer(total, row):
            _, inner = graphc.scan(lambda s, v: (s + v * v,), row, row.sum() * 0.0, axis=0)
            return total + inner, total * 2.0 + inner

        y, total = graphc.scan(outer, x, x.sum() * 0.0, axis=0)
        return {"y": y, "total": total}

    x = np.random.default_rng(1).standard_normal((4, 6))
    found = graphc.compile(both).run({"x": x})
    rows = (x * x).sum(1)
    before = np.concatenate([[0], rows.cumsum()[:-1]])
    np.testing.assert_allclose(found["total"], rows.sum())
    np.testing.assert_allclose(found["y"], 2 * before + rows)


def test_steps_without_a_sequence() -> None:
    @graphc.model
    def powers(x: graphc.f32[3]):
        y, last = graphc.scan(lambda v: (v * 2.0, v), (), x, steps=6, axis=0)
        return {"y": y, "last": last}

    found = graphc.compile(powers).run({"x": np.arange(3, dtype=np.float32)})
    np.testing.assert_array_equal(found["y"], [[0, 2**t, 2 * 2**t] for t in range(6)])
    np.testing.assert_array_equal(found["last"], [0, 64, 128])


def test_weights_that_are_a_state() -> None:
    """Packed anew in each step."""

    @graphc.model
    def net(x: graphc.f32[3, 1, 4, 6, 6], w: graphc.f32[16, 4, 3, 3]):
        return graphc.scan(lambda w, xt: (w * 2.0, graphc.conv2d(xt, 16, kernel=3, bias=False, weight=w)), x, w, axis=0)

    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 1, 4, 6, 6), np.float32), rng.standard_normal((16, 4, 3, 3), np.float32)
    y, last = graphc.compile(net)(x, w)
    expected, _ = graphc.compile(net, backend="reference")(x, w)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(last, w * 8)


def test_convolutional_cell() -> None:
    """What a body computes is blocked, fused and packed as anywhere: against the same steps written out."""

    def cell(h, x):
        return (graphc.tanh(graphc.conv2d(graphc.concat([x, h], 1), 24, kernel=3, padding=1, weight=weight[0], bias=False)),)

    weight: list[graphc.Tensor] = []

    def model(unrolled: bool) -> graphc.Graph:
        @graphc.model
        def net(x: graphc.f32[2, 5, 8, 10, 12]):
            weight[:] = [graphc.parameter("w", (24, 32, 3, 3))]
            h = graphc.constant(np.zeros((2, 24, 10, 12), np.float32))
            if not unrolled:
                return graphc.scan(cell, x, h)[1]
            for t in range(5):
                (h,) = cell(h, x[:, t])
            return h

        return net.graph()

    x = np.random.default_rng(2).standard_normal((2, 5, 8, 10, 12)).astype(np.float32)
    one, two = (graphc.compile(model(unrolled), accuracy="exact")(x) for unrolled in (False, True))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@graphc.model
def newton(x: graphc.f64["N"]):
    """Square roots to the last digit, and how many steps that takes."""

    def wanted(y, steps):
        return graphc.any(graphc.abs(y * y - x) > x * 1e-12)

    def step(y, steps):
        return (y + x / y) / 2.0, steps + 1

    y, steps = graphc.while_loop(wanted, step, (x, x[0].cast(graphc.i64) * 0))
    return {"y": y, "steps": steps}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_while(threads: int) -> None:
    program = graphc.compile(newton, threads=threads)
    for x in ([2.0, 9.0], [1.0], [1e9, 1e-3, 5.0]):
        found = program.run({"x": np.asarray(x)})
        y, steps = np.asarray(x), 0
        while (np.abs(y * y - x) > np.asarray(x) * 1e-12).any():
            y, steps = (y + x / y) / 2, steps + 1
        np.testing.assert_allclose(found["y"], np.sqrt(x), rtol=1e-11)
        assert found["steps"] == steps


@pytest.mark.parametrize("threads", [1, 2])
def test_a_loop_without_end_is_an_error_and_the_program_goes_on_working(threads: int) -> None:
    @graphc.model
    def halve(x: graphc.f32[2], step: graphc.f32[2]):
        total = x.sum() * 3.0
        return graphc.while_loop(lambda v: graphc.all(v > 1.0), lambda v: v * step, x, limit=50) + total

    program = graphc.compile(halve, threads=threads)
    half, one = np.full(2, 0.5, np.float32), np.ones(2, np.float32)
    x = np.asarray([8, 16], np.float32)
    np.testing.assert_array_equal(program(x, half), [73, 74])
    with pytest.raises(ResourceError, match=r"loop 'while1': has not ended after 50 iterations.*GRAPHC_MAX_ITERATIONS"):
        program(x, one)
    np.testing.assert_array_equal(program(x, half), [73, 74])
    with pytest.raises(ResourceError, match="has not ended after 50 iterations"):
        graphc.compile(halve, backend="reference")(x, one)


@pytest.mark.parametrize("threads", [1, 2])
def test_choice(threads: int) -> None:
    @graphc.model
    def absolute(x: graphc.f32["N", 4]):
        return graphc.cond(x.sum() >= 0.0, lambda: graphc.linear(x, 3, name="a"), lambda: -graphc.linear(x, 3, name="b"), name="which")

    parameters = absolute.parameters()
    assert sorted(parameters) == ["which.else.b.bias", "which.else.b.weight", "which.then.a.bias", "which.then.a.weight"]
    program, x = graphc.compile(absolute, threads=threads), np.random.default_rng(3).uniform(0.1, 1, (2, 4)).astype(np.float32)
    np.testing.assert_allclose(program(x), x @ parameters["which.then.a.weight"].T, rtol=1e-5)
    np.testing.assert_allclose(program(-x), x @ parameters["which.else.b.weight"].T, rtol=1e-5)


def test_only_the_chosen_side_runs() -> None:
    """The other one would loop for ever."""

    @graphc.model
    def guarded(x: graphc.f32[1]):
        return graphc.cond(x[0] > 0.0, lambda: x, lambda: graphc.while_loop(lambda v: graphc.all(v < 1.0), lambda v: v, x, limit=10))

    assert graphc.compile(guarded)(np.ones(1, np.float32)) == 1
    with pytest.raises(ResourceError, match="has not ended"):
        graphc.compile(guarded)(-np.ones(1, np.float32))


def _grows(h, x):
    return (graphc.concat([h, x], 1),)


def _casts(h, x):
    return (h.cast(graphc.f64),)


X = graphc.f32["N", "T", H]
BAD: dict[str, tuple[Callable[[Any], Any], type[GraphcError], str]] = {
    "state that grows": (lambda x: graphc.scan(_grows, x, x[:, 0]), ShapeError, r"state 0 is f32\[N,5\] before a step and f32\[N,10\]"),
    "state of another dtype": (lambda x: graphc.scan(_casts, x, x[:, 0]), ShapeError, r"state 0 is f32.* and f64"),
    "no steps": (lambda x: graphc.scan(lambda h: h, (), x), AttributeValueError, "over nothing"),
    "unequal steps": (lambda x: graphc.scan(lambda h, a, b: h, (x, x[:, 1:]), x[:, 0]), ShapeError, "steps"),
    "too few states": (lambda x: graphc.scan(lambda a, b, x: a, x, (x[:, 0], x[:, 0])), ModelError, "1 tensors for 2 states"),
    "no tensor": (lambda x: graphc.scan(lambda h, x: 1.0, x, x[:, 0]), ModelError, "returns float"),
    "an axis too many": (lambda x: graphc.scan(lambda h, x: h, x, x[:, 0], axis=3), ShapeError, "no axis 3"),
    "condition of numbers": (lambda x: graphc.while_loop(lambda v: v, lambda v: v, x), TypeMismatchError, "not a bool scalar"),
    "condition of many": (lambda x: graphc.while_loop(lambda v: v > 0.0, lambda v: v, x), TypeMismatchError, "not a bool scalar"),
    "a limit of nothing": (lambda x: graphc.while_loop(lambda v: v.sum() > 0.0, lambda v: v, x, limit=0), AttributeValueError, "limit"),
    "unequal branches": (lambda x: graphc.cond(x.sum() > 0.0, lambda: x, lambda: x.sum(1)), ShapeError, "depends on data"),
    "a python if": (lambda x: graphc.scan(lambda h, x: h if h.sum() > 0.0 else x, x, x[:, 0]), UnsupportedError, "graphc.where"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_use(name: str) -> None:
    build, error, message = BAD[name]

    @graphc.model
    def bad(x: X):
        return build(x)

    with pytest.raises(error, match=message) as caught:
        bad.graph()
    assert "test_scan.py" in str(caught.value)


def test_a_tensor_of_a_cell_outside_of_it() -> None:
    @graphc.model
    def leak(x: X):
        kept = []

        def cell(h, xt):
            kept.append(h * 2.0)
            return (h + xt,)

        graphc.scan(cell, x, x[:, 0])
        return kept[0] + 1.0

    with pytest.raises(ModelError, match=r"has no value outside of it.*return it"):
        leak.graph()


def test_tools_work_on_loops() -> None:
    """Profile, ledger, plan and dumps."""
    program = graphc.compile(leaky, dims={"N": N, "T": T})
    times = program.profile(np.zeros((N, T, D), np.float32), runs=2)
    assert [time.label for time in times] == [step.label for step in program.plan.steps]
    runs = program.plan.times()
    assert sorted(set(runs)) == [1, T]
    assert [time.flops for time in times] == [step.cost.flops * n for step, n in zip(program.plan.steps, runs, strict=True)]
    assert program.plan.flops == sum(time.flops for time in times)
    entries = {entry.node: entry for entry in program.ledger}
    assert {"leaky", "leaky.inner"} <= entries.keys()
    assert all(entry.kernel or entry.family in ("alias", "removed") for entry in entries.values())


def test_every_node_of_a_body_is_in_the_ledger() -> None:
    """Those that a kernel computes, and those that a pass removed."""

    @graphc.model
    def net(x: graphc.f32[2, 9, 4]):
        def cell(h, xt):
            kept = graphc.transpose(graphc.transpose(xt, (1, 0), name="nothing"), (1, 0))
            return (graphc.tanh(kept + h, name="tanh"),)

        return graphc.scan(cell, x, x[:, 0], name="loop")[1]

    entries = {entry.node: entry for entry in graphc.compile(net).ledger}
    assert {"loop", "loop.nothing", "loop.tanh"} <= entries.keys()
    assert entries["loop.nothing"].family == "removed"
    assert entries["loop.tanh"].kernel
