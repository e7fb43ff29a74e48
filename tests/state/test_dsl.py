"""graphc.state: what it means in a model, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, ModelError, ShapeError, TypeMismatchError
from graphc.inspect.summary import summarize
from state.recurrent_models import stateful


def test_within_a_run_the_state_keeps_its_old_value() -> None:
    @graphc.model
    def net(x: graphc.f32[2]) -> Any:
        s = graphc.state((2,), init=1.0, name="s")
        s.assign(s * 2 + x)
        return {"old": s + 0, "again": s * x}

    exe, x = graphc.compile(net), np.array([1, 10], np.float32)
    assert exe.run({"x": x})["old"].tolist() == [1, 1]
    found = exe.run({"x": x})
    assert found["old"].tolist() == [3, 12]
    assert found["again"].tolist() == [3, 120]
    assert exe.state["s"].tolist() == [7, 34]


def test_integers_and_names() -> None:
    """A state in a scope has its full name; one without a name is numbered."""

    @graphc.model
    def net(x: graphc.i64[3]) -> Any:
        with graphc.scope("part"):
            count = graphc.state((), init=7, dtype=graphc.i64, name="count")
        seen = graphc.state((3,), dtype=graphc.i64)
        count.assign(count + 1)
        seen.assign(x)
        return x + count - seen

    exe = graphc.compile(net)
    assert list(exe.state) == ["part.count", "state1"]
    assert exe(np.array([1, 2, 3])).tolist() == [8, 9, 10]
    assert exe(np.array([1, 2, 3])).tolist() == [8, 8, 8]
    assert int(exe.state["part.count"]) == 9


def test_a_stateful_model_inside_another() -> None:
    @graphc.model
    def total(x: graphc.f32[2]) -> Any:
        s = graphc.state((2,), name="s")
        s.assign(s + x)
        return s + x

    @graphc.model
    def net(x: graphc.f32[2]) -> Any:
        return total(x, name="a") + total(x * 2, name="b")

    exe, x = graphc.compile(net), np.array([1, 2], np.float32)
    assert list(exe.state) == ["a.s", "b.s"]
    assert [exe(x).tolist() for _ in range(3)] == [[3, 6], [6, 12], [9, 18]]


def test_a_batch_that_changes_does_not_touch_the_state() -> None:
    @graphc.model
    def net(x: graphc.f32["N", 2]) -> Any:
        s = graphc.state((2,), name="s")
        s.assign(s + x.sum(0))
        return x - s

    exe = graphc.compile(net)
    for count in (1, 3, 2, 3):
        exe(np.ones((count, 2), np.float32))
    assert exe.state["s"].tolist() == [9, 9]


def _trace(build: Any) -> None:
    @graphc.model
    def net(x: graphc.f32["N", 4]) -> Any:
        return build(x)

    net.graph()


def _assigned(new: Any, **options: Any) -> Any:
    def build(x: Any) -> Any:
        s = graphc.state((4,), name="s", **options)
        s.assign(new(x))
        return x

    return build


def _twice(x: Any) -> Any:
    s = graphc.state((4,), name="s")
    s.assign(s + 1)
    s.assign(s + 2)
    return x


REFUSED = {
    "a symbolic batch": (ShapeError, lambda x: graphc.state((x.shape[0], 4), name="s"), r"a state of shape \[N, 4\] needs memory"),
    "a name as a size": (ShapeError, lambda x: graphc.state(("N", 4), name="s"), r"a state of shape \[N, 4\] needs memory"),
    "a size that is none": (AttributeValueError, lambda x: graphc.state((-1,), name="s"), "a size is -1"),
    "never assigned": (ModelError, lambda x: x + graphc.state((4,), name="s"), "'s' is never assigned"),
    "assigned twice": (ModelError, _twice, "assigned already"),
    "another shape": (ShapeError, _assigned(lambda x: x), r"the state is f32\[4\], its new value f32\[N,4\]"),
    "another dtype": (TypeMismatchError, _assigned(lambda x: x.sum(0), dtype=graphc.f64), "new value f32"),
    "an array": (TypeMismatchError, _assigned(lambda x: np.zeros(4, np.float32)), "Tensor was expected"),
    "a name that is taken": (ModelError, lambda x: graphc.state((4,), name="x"), "is used already"),
    "an initial value of another shape": (ShapeError, lambda x: graphc.state((4,), init=np.zeros(3), name="s"), r"shape \[3\]"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    error, build, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        _trace(build)
    assert "test_dsl.py" in str(caught.value)


def test_outside_of_a_model() -> None:
    with pytest.raises(ModelError, match="no model under construction"):
        graphc.state((4,), name="s")


def test_a_recurrent_layer_of_another_batch() -> None:
    def build(x: Any) -> Any:
        h = graphc.state((2, 1, 8), name="h")
        y, last = graphc.rnn(x.reshape(3, 1, 4), 8, h0=h, name="cell")
        h.assign(last)
        return y

    with pytest.raises(graphc.GraphcError):
        _trace(build)


def test_summaries_list_the_state() -> None:
    model = stateful("lstm", batch=2)
    assert "  state      h: f32[2,1,20]\n  state      c: f32[2,1,20]\n" in str(model.summary())
    assert [name for name, _ in summarize(model.graph()).states] == ["h", "c"]


def test_not_inside_of_a_loop() -> None:
    """There it would start anew in each iteration."""

    def inside(x: Any) -> Any:
        def cell(h: Any, row: Any) -> Any:
            kept = graphc.state((2, 3), name="kept")
            kept.assign(kept + row)
            return h, kept

        return graphc.scan(cell, x, graphc.zeros((2, 3)))[0]

    def assigned_inside(x: Any) -> Any:
        kept = graphc.state((2, 3), name="kept")

        def cell(h: Any, row: Any) -> Any:
            kept.assign(h + row)
            return h, kept

        return graphc.scan(cell, x, graphc.zeros((2, 3)))[0]

    for build, message in ((inside, "a state in the function of a loop"), (assigned_inside, "a state assigned in the function of a loop")):
        with pytest.raises(ModelError, match=message):
            _trace(lambda x, build=build: build(graphc.zeros((2, 4, 3)) + x.sum()))
