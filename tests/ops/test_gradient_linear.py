"""Gradients of movement, gather, resize, convolution, pooling and products: every sample in float64 against a central difference."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.types.dtype import f32, f64
from ops.runners import run_reference
from ops.sample import Array, Data, Sample

FAMILIES = ("movement", "gather", "resize", "conv", "pool", "matmul")
UNSUPPORTED = ("reduction=mul", "reduction=max", "reduction=min", "gather_nd(batch_dims=1)", "gather_nd(batch_dims=2)")
NO_GRADIENT = {("one_hot", False), ("resample", True)}  # float indices, tables
STEP = 1e-5


def _in_double(sample: Sample) -> Sample | None:
    """The sample with float64 data, or None where nothing about it can be differentiated."""
    if not isinstance(sample.op, Op) or type(sample.op).gradient is Op.gradient:
        return None
    inputs = tuple(replace(i, dtype=f64, special=False) if isinstance(i, Data) and i.dtype == f32 else i for i in sample.inputs)
    inputs = tuple(i.astype(np.float64) if isinstance(i, np.ndarray) and i.dtype == np.float32 else i for i in inputs)
    found = replace(sample, inputs=inputs)
    arrays = found.arrays()
    if {a.dtype.name for a in arrays if a.dtype.kind == "f"} != {"float64"} or any(not np.isfinite(a).all() for a in arrays):
        return None
    outputs = sample.op.output_types(*found.types())
    return found if outputs[0].dtype == f64 else None


SAMPLES = {
    double.name: double
    for family in FAMILIES
    for sample in importlib.import_module(f"ops.samples.{family}").SAMPLES
    if (double := _in_double(sample)) is not None
}


def test_there_are_samples_of_every_family() -> None:
    names = {sample.op.name for sample in SAMPLES.values() if isinstance(sample.op, Op)}
    assert names == {
        "reshape", "transpose", "expand", "slice", "concat", "pad", "tile", "dilate", "gather", "gather_elements", "gather_nd", "one_hot",
        "trilu", "scatter_elements", "scatter_nd", "top_k", "resample", "resize", "conv", "conv_transpose", "max_pool", "avg_pool",
        "lp_pool", "matmul",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(SAMPLES), ids=lambda name: name[:100])
def test_gradient_equals_difference(name: str) -> None:
    sample = SAMPLES[name]
    assert isinstance(sample.op, Op)
    arrays, rng = list(sample.arrays()), np.random.default_rng(5)
    y: Array = sample.op.evaluate(*arrays)[0]
    incoming = rng.standard_normal(y.shape)
    if any(text in name for text in UNSUPPORTED):
        with pytest.raises(UnsupportedError, match="gradient"):
            _gradients(sample.op, arrays, incoming)
        return
    repeated = "none, repeated" in name  # what an overwritten update gets is not defined
    for i, grad in enumerate(_gradients(sample.op, arrays, incoming)):
        if arrays[i].dtype.kind != "f":
            assert grad is None
            continue
        if grad is None:
            assert (sample.op.name, i > 0) in NO_GRADIENT
            continue
        assert grad.shape == arrays[i].shape
        assert grad.dtype == np.float64
        direction = rng.standard_normal(arrays[i].shape)
        ahead, behind = (_moved(sample.op, arrays, i, direction * sign) for sign in (STEP, -STEP))
        slope = np.where(np.isfinite(y), ahead - behind, 0) / (2 * STEP)
        expected = float(np.sum(slope * incoming))
        if not (repeated and i == 2):
            assert float(np.sum(grad * direction)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def _moved(op: Op, arrays: list[Array], i: int, move: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(op.evaluate(*(a + move if k == i else a for k, a in enumerate(arrays)))[0], posinf=0, neginf=0)


def _gradients(op: Op, arrays: list[Array], incoming: Array) -> list[Array | None]:
    builder = Builder()
    outputs = builder.add_many(op, *(builder.constant(a, name=f"x{i}") for i, a in enumerate(arrays)))
    node = outputs[0].producer
    assert node is not None
    results = op.gradient(builder, node, [builder.constant(incoming, name="grad") for _ in outputs])
    assert len(results) == len(arrays)
    kept: dict[str, Value] = {f"g{i}": r for i, r in enumerate(results) if r is not None}
    found = iter(run_reference(builder.finish(**kept), []))
    return [None if r is None else next(found) for r in results]


def test_max_pool_gradient_of_ties_is_that_of_torch() -> None:
    from graphc.ops.pool import MaxPool

    torch: Any = pytest.importorskip("torch")
    x = np.array([[[1.0, 1, 0, 2, 2, 2, 3]]])
    leaf = torch.tensor(x, requires_grad=True)
    torch.nn.functional.max_pool1d(leaf, 3, 2, 1).sum().backward()
    (grad,) = _gradients(MaxPool((3,), (2,), (1,), (1,), (1,)), [x], np.ones((1, 1, 4)))
    np.testing.assert_array_equal(grad, leaf.grad.numpy())
