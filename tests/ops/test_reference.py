"""Every sample: the reference against an independent oracle, the lowering against the reference, shape inference, and cost."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.op import Op, all_ops
from ops.runners import run_lowered, run_reference
from ops.sample import Sample, by_name

SAMPLES = by_name()
ids = pytest.mark.parametrize("name", list(SAMPLES), ids=list(SAMPLES))
SINGLE = [name for name, sample in SAMPLES.items() if isinstance(sample.op, Op)]
SYMBOLIC = [name for name in SINGLE if SAMPLES[name].symbolic]


def test_there_are_samples() -> None:
    assert len(SAMPLES) > 300


def test_every_op_has_a_sample() -> None:
    seen = {sample.op.name for sample in SAMPLES.values() if isinstance(sample.op, Op)}
    missing = [cls.name for cls in all_ops() if cls.name not in seen]
    assert not missing, f"no sample for {missing}"


def test_every_op_says_what_it_means() -> None:
    for cls in all_ops():
        assert cls.__doc__, cls.name
        assert not cls.__doc__.startswith(f"{cls.__name__}("), f"{cls.name}: the docstring is dataclass's own"


@ids
def test_reference_equals_oracle(name: str) -> None:
    sample = SAMPLES[name]
    sample.check(run_reference(sample.graph(), sample.arrays()))


@pytest.mark.parametrize("name", SINGLE, ids=SINGLE)
def test_lowering_equals_reference(name: str) -> None:
    sample = SAMPLES[name]
    assert isinstance(sample.op, Op)
    arrays = sample.arrays()
    outputs = sample.op.output_types(*sample.types())
    try:
        result = run_lowered(sample.op, arrays, outputs[0])
    except UnsupportedError:
        whole = sample.op.family in ("conv", "contract", "recurrent", "sort")
        assert not sample.lowers or whole or _decomposes(sample), "no lowering and no decomposition"
        return
    sample.check((result,), sample.op.evaluate(*arrays)[:1])


def _decomposes(sample: Sample) -> bool:
    """Whether the op says what it is composed of; then the composition must compute the same."""
    assert isinstance(sample.op, Op)
    builder = Builder()
    values = [builder.input(f"x{i}", t.dtype, t.shape) for i, t in enumerate(sample.types())]
    result = sample.op.decompose(builder, *values)
    if result is None:
        return False
    outputs = result if isinstance(result, tuple) else (result,)
    graph = builder.finish(**{f"y{i}": value for i, value in enumerate(outputs)})
    sample.check(run_reference(graph, sample.arrays()), sample.op.evaluate(*sample.arrays()))
    return True


@pytest.mark.parametrize("name", SYMBOLIC, ids=SYMBOLIC)
def test_symbolic_shapes_bind_to_the_actual_ones(name: str) -> None:
    sample = SAMPLES[name]
    assert isinstance(sample.op, Op)
    op, sizes = sample.symbolic_op or sample.op, sample.sizes()
    symbolic = op.output_types(*sample.symbolic_types())
    assert tuple(t.bind(sizes) for t in symbolic) == sample.op.output_types(*sample.types())
    assert op.bind(sizes) == sample.op


@pytest.mark.parametrize("name", SINGLE, ids=SINGLE)
def test_cost_and_pickle(name: str) -> None:
    sample = SAMPLES[name]
    assert isinstance(sample.op, Op)
    types = sample.types()
    outputs = sample.op.output_types(*types)
    cost = sample.op.cost(types, outputs)
    assert (type(cost.flops), type(cost.bytes)) == (int, int)
    assert min(cost.flops, cost.bytes) >= 0
    copy = pickle.loads(pickle.dumps(sample.op))
    assert type(copy) is type(sample.op)
    assert copy == sample.op
    assert type(sample.op).build(sample.op.attributes()) == sample.op
    assert hash(copy) == hash(sample.op)


def test_inputs_are_never_changed() -> None:
    for sample in SAMPLES.values():
        if isinstance(sample.op, Op):
            arrays, again = sample.arrays(), sample.arrays()
            sample.op.evaluate(*arrays)
            for before, after in zip(again, arrays, strict=True):
                np.testing.assert_array_equal(before, after)
