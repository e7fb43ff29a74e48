"""Gradients of recurrent layers in float64: against finite differences, and against PyTorch with packed sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autodiff.reverse import differentiate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ops.recurrent import Recurrent
from graphc.ops.recurrent_cell import GATES
from graphc.types.dtype import dtype
from ops.runners import run_reference

Array = np.ndarray[Any, np.dtype[Any]]
T, B, H = 5, 4, 6
LENGTHS = np.array([5, 1, 0, 3], np.int32)
_ACTIVATIONS = {"activations": ("hard_sigmoid", "softsign", "scaled_tanh"), "alpha": (0.3, 0.0, 0.7), "beta": (0.4, 0.0, 1.2)}
CASES: dict[str, Recurrent] = {
    f"{cell} {direction} {label}": Recurrent(cell, direction, **attributes)
    for direction in ("forward", "reverse", "bidirectional")
    for cell, label, attributes in (
        ("rnn", "plain", {}),
        ("rnn", "all", {"given": ("lengths", "h0"), "batch_first": True}),
        ("lstm", "plain", {}),
        ("lstm", "all", {"given": ("peepholes", "lengths", "h0", "c0")}),
        ("lstm", "coupled, clipped", {"given": ("peepholes", "h0", "c0"), "input_forget": True, "clip": 0.9, "batch_first": True}),
        ("lstm", "activations", _ACTIVATIONS),
        ("gru", "plain", {}),
        ("gru", "all", {"given": ("lengths", "h0"), "batch_first": True}),
        ("gru", "linear before reset", {"given": ("bias", "lengths", "h0"), "linear_before_reset": True}),
    )
}  # fmt: skip


def inputs(op: Recurrent, element: str = "float64", size: tuple[int, int, int] = (T, B, H), seed: int = 0) -> list[Array]:
    (t, b, h), d, rng = size, len(op.reverse), np.random.default_rng(seed)
    gates = GATES[op.cell] * h
    state = (b, d, h) if op.batch_first else (d, b, h)
    shapes = {"bias": (d, h), "peepholes": (d, 3 * h), "h0": state, "c0": state}
    made = [rng.uniform(-1, 1, (b, t, d * gates) if op.batch_first else (t, b, d * gates)), rng.uniform(-0.5, 0.5, (d, gates, h))]
    made += [np.resize(LENGTHS, b) if name == "lengths" else rng.uniform(-1, 1, shapes[name]) for name in op.given]
    return [a.astype(element) if a.dtype.kind == "f" else a for a in made]


def gradient_graph(op: Recurrent, arrays: list[Array]) -> tuple[Graph, list[Array], list[str]]:
    """Outputs: the gradients of sum(output * seed) over y, y_h, y_c; the seeds are inputs behind the layer's."""
    builder = Builder()
    values = [builder.input(name, dtype(a.dtype), a.shape) for name, a in zip(op.input_names, arrays, strict=True)]
    results = [v for v, name in zip(builder.add_many(op, *values), op.output_names, strict=True) if name in ("y", "y_h", "y_c")]
    seeds = [builder.input(f"seed{i}", v.type.dtype, v.type.shape) for i, v in enumerate(results)]
    wrt = [v for v in values if v.type.dtype.is_float]
    grads = differentiate(builder.graph, dict(zip(results, seeds, strict=True)), wrt)
    rng = np.random.default_rng(5)
    data = [rng.standard_normal(v.type.static_shape).astype(v.type.dtype.numpy) for v in seeds]
    builder.finish(**{f"d{v.name}": g for v, g in grads.items() if g is not None})
    assert len(builder.graph.outputs) == len(wrt)
    return builder.graph, data, [v.name for v in wrt]


@pytest.mark.parametrize("name", list(CASES))
def test_gradient_equals_difference(name: str) -> None:
    op = CASES[name]
    arrays = inputs(op)
    graph, seeds, names = gradient_graph(op, arrays)
    grads = dict(zip(names, run_reference(graph, [*arrays, *seeds]), strict=True))
    rng = np.random.default_rng(9)

    def loss(moved: list[Array]) -> float:
        made = dict(zip(op.output_names, op.evaluate(*moved), strict=True))
        return float(sum((made[key] * seed).sum() for key, seed in zip(("y", "y_h", "y_c"), seeds, strict=False)))

    for i, key in enumerate(op.input_names):
        if key == "lengths":
            continue
        direction = rng.standard_normal(arrays[i].shape)
        ahead, behind = (loss([a + s * direction if k == i else a for k, a in enumerate(arrays)]) for s in (1e-6, -1e-6))
        assert float((grads[key] * direction).sum()) == pytest.approx((ahead - behind) / 2e-6, rel=1e-6, abs=1e-7), key


@pytest.mark.parametrize("element", ["float64", "float32"])
@pytest.mark.parametrize("name", list(CASES))
def test_compiled(name: str, element: str) -> None:
    """The backward kernel against its numpy meaning, with the same bits for 1, 2 and 4 threads."""
    op = CASES[name]
    for size in ((T, B, H), (3, 7, 37), (4, 3, 0), (0, 2, 5)):
        arrays = inputs(op, element, size)
        graph, seeds, _ = gradient_graph(op, arrays)
        given = [*arrays, *seeds]
        naive = run_reference(graph, given)
        feeds = dict(zip([v.name for v in graph.inputs], given, strict=True))
        found = [graphc.compile(graph, threads=threads).run(feeds) for threads in (1, 2, 4)]
        for want, one, *others in zip(naive, *(made.values() for made in found), strict=True):
            assert all(one.tobytes() == other.tobytes() for other in others)
            limit = 1e-11 if element == "float64" else 2e-5
            np.testing.assert_allclose(one, want, rtol=limit, atol=limit * max(1.0, float(np.abs(want).max(initial=0))))
