"""Gradients of single ops: along a random direction, against a central difference of the reference in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.types.dtype import f64
from ops.runners import run_reference
from ops.sample import Data, Sample, by_name

Array = np.ndarray[Any, np.dtype[Any]]
STEP = 1e-6


def _has_gradient(op: Op) -> bool:
    return type(op).gradient is not Op.gradient


def _in_double(sample: Sample) -> bool:
    """Samples of one output, of which every float input is float64 and random (special values have no finite difference)."""
    floats = [item for item in sample.inputs if item.dtype.kind == "f"]
    outputs = sample.op.output_types(*sample.types()) if isinstance(sample.op, Op) else ()
    rough = len(outputs) != 1 or (outputs[0].dtype.is_float and outputs[0].dtype != f64)
    return bool(floats) and not rough and all(isinstance(item, Data) and item.dtype == f64 for item in floats)


SAMPLES = {
    name: sample for name, sample in by_name().items()
    if isinstance(sample.op, Op) and sample.differentiable and _has_gradient(sample.op) and _in_double(sample)
}  # fmt: skip


def test_there_are_samples() -> None:
    assert len(SAMPLES) > 60


@pytest.mark.parametrize("name", list(SAMPLES))
def test_gradient_equals_difference(name: str) -> None:
    sample = replace(SAMPLES[name], inputs=tuple(replace(i, special=False) if isinstance(i, Data) else i for i in SAMPLES[name].inputs))
    assert isinstance(sample.op, Op)
    arrays, rng = list(sample.arrays()), np.random.default_rng(7)
    (y,) = sample.op.evaluate(*arrays)
    incoming = np.where(np.isfinite(y), rng.standard_normal(y.shape), 0)  # nothing is claimed outside the domain
    for i, grad in enumerate(_gradients(sample.op, arrays, incoming)):
        if arrays[i].dtype.kind != "f":
            assert grad is None
            continue
        direction = rng.standard_normal(arrays[i].shape)
        ahead, behind = (_along(sample.op, arrays, i, direction * sign) for sign in (STEP, -STEP))
        slope = np.where(np.isfinite(ahead - behind), (ahead - behind) / (2 * STEP), 0) * incoming
        expected = float(np.sum(slope)) if y.dtype.kind == "f" else 0.0
        if grad is None:
            assert abs(expected) < 1e-6
            continue
        assert grad.shape == arrays[i].shape
        assert grad.dtype == arrays[i].dtype
        found = float(np.sum(np.where(np.isfinite(grad), grad, 0) * direction))
        assert found == pytest.approx(expected, rel=2e-5, abs=2e-5)


def _along(op: Op, arrays: list[Array], i: int, move: Array) -> Array:
    (result,) = op.evaluate(*(a + move if k == i else a for k, a in enumerate(arrays)))
    return result.astype(np.float64)


def _gradients(op: Op, arrays: list[Array], incoming: Array) -> list[Array | None]:
    builder = Builder()
    inputs = [builder.constant(a, name=f"x{i}") for i, a in enumerate(arrays)]
    value = builder.add(op, *inputs)
    if not value.type.dtype.is_float:
        return [None] * len(arrays)
    grad = builder.constant(incoming.astype(value.type.dtype.numpy), name="grad")
    assert value.producer is not None
    results = op.gradient(builder, value.producer, [grad])
    assert len(results) == len(arrays)
    outputs: dict[str, Value] = {f"g{i}": r for i, r in enumerate(results) if r is not None}
    found = iter(run_reference(builder.finish(**outputs), []))
    return [None if r is None else next(found) for r in results]


def _by_torch(fn: Any, x: Array) -> Array:
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x, requires_grad=True)
    fn(torch, leaf).sum().backward()
    return np.asarray(leaf.grad.numpy())


CORNERS: dict[str, tuple[Op, Any, list[list[float]]]] = {
    "prod of one zero": (Reduce("prod", (1,)), lambda torch, x: x.prod(1), [[2, 0, 3], [1, 2, 3]]),
    "prod of two zeros": (Reduce("prod", (1,)), lambda torch, x: x.prod(1), [[0, 0, 3]]),
    "ties of max": (Reduce("max", (1,)), lambda torch, x: x.amax(1), [[1, 3, 3], [2, 2, 2]]),
    "ties of min": (Reduce("min", (0, 1)), lambda torch, x: x.amin(), [[1, 3], [1, 1]]),
    "l2 of zeros": (Reduce("l2", (1,)), lambda torch, x: x.norm(dim=1), [[0, 0], [3, 4]]),
    "l1 at zero": (Reduce("l1", (1,)), lambda torch, x: x.abs().sum(1), [[0, -2, 3]]),
    "relu at zero": (op("relu"), lambda torch, x: torch.relu(x), [[0, -1, 1]]),
    "abs at zero": (op("abs"), lambda torch, x: x.abs(), [[0, -1, 1]]),
    "clip at its bounds": (op("clip", lo=-1, hi=1), lambda torch, x: x.clamp(-1.0, 1.0), [[-2, 0.5, 2]]),
    "silu far out": (op("silu"), lambda torch, x: torch.nn.functional.silu(x), [[-800, 800, 0]]),
    "sigmoid far out": (op("sigmoid"), lambda torch, x: torch.sigmoid(x), [[-800, 800, 0]]),
    "softplus far out": (op("softplus"), lambda torch, x: torch.nn.functional.softplus(x), [[-800, 800, 0.5]]),
    "gelu far out": (op("gelu"), lambda torch, x: torch.nn.functional.gelu(x), [[-80, 80, 0]]),
    "elu far out": (op("elu"), lambda torch, x: torch.nn.functional.elu(x), [[-800, 800, 0.5]]),
    "sqrt": (op("sqrt"), lambda torch, x: x.sqrt(), [[4, 9, 0.25]]),
}


@pytest.mark.parametrize("name", list(CORNERS))
def test_gradient_at_corners_is_that_of_torch(name: str) -> None:
    op_, torch_fn, rows = CORNERS[name]
    x = np.array(rows, np.float64)
    (grad,) = _gradients(op_, [x], np.ones_like(op_.evaluate(x)[0]))
    assert grad is not None
    np.testing.assert_allclose(grad, _by_torch(torch_fn, x), rtol=1e-12, atol=1e-14)
