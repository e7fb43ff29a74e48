"""Samples: one application of an op each. Tests are data, runners are code.

A family's samples are the list `SAMPLES` of `tests/ops/samples/<family>.py`; every runner (reference against an oracle, lowering,
shape inference, the compiled program at every level) goes through `all_samples()`. The data of a sample follow from its label alone.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Op
from graphc.types.dtype import DType, dtype, f32
from graphc.types.shape import parse_dim
from graphc.types.tensor import TensorType

Array = np.ndarray[Any, np.dtype[Any]]
Compose = Callable[..., Union[Value, tuple[Value, ...]]]  # (builder, *values) -> value or values
SPECIAL = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-40, 3e38, -3e38)


@dataclass(frozen=True)
class Data:
    """A random input: uniform in [low, high) for floats, low..high-1 for integers, coin flips for bool.

    `special`: the first elements are NaN, inf, -inf, 0, -0, a denormal and huge numbers (floats only).
    """

    shape: tuple[int, ...]
    dtype: DType = f32
    low: float = -2.0
    high: float = 2.0
    special: bool = False

    def array(self, rng: np.random.Generator) -> Array:
        if self.dtype.kind == "b":
            return np.asarray(rng.integers(0, 2, self.shape), dtype=bool)
        if not self.dtype.is_float:
            low = int(self.low) if self.dtype.kind == "i" else max(int(self.low), 0)
            return np.asarray(rng.integers(low, int(self.high), self.shape), dtype=self.dtype.numpy)
        values = np.asarray(rng.uniform(self.low, self.high, self.shape)).astype(self.dtype.numpy)
        if self.special:
            count = min(len(SPECIAL), values.size)
            with np.errstate(over="ignore"):
                values.reshape(-1)[:count] = np.asarray(SPECIAL[:count]).astype(self.dtype.numpy)
        return values


@dataclass(frozen=True)
class Sample:
    """`op` (or a builder function, for what is composed of ops) on `inputs`.

    oracle: arrays -> expected array or tuple; independent of graphc (torch, onnxruntime, a numpy formula).
    symbolic: one text per input such as "N,3,H,W": shape inference with these must give the actual shape once the symbols are bound;
    `symbolic_op`: the op for that, where an attribute holds symbols.
    rtol, atol: allowed |actual - expected| <= atol * max(1, median of |expected|) + rtol * |expected|, also between back ends.
    lowers: False where the op has no lowering of its own (conv, matmul, decomposed ops are detected and need no flag).
    """

    label: str
    op: Op | Compose
    inputs: tuple[Data | Array, ...]
    oracle: Callable[..., Any]
    symbolic: tuple[str, ...] = ()
    symbolic_op: Op | None = None
    rtol: float = 1e-5
    atol: float = 2e-6
    lowers: bool = True
    differentiable: bool = True

    @property
    def name(self) -> str:
        """Test id: the op with its attributes (or the builder function), and the label."""
        if isinstance(self.op, Op):
            attributes = ", ".join(f"{key}={value}" for key, value in self.op.attributes().items())
            what = f"{self.op.name}({attributes})" if attributes else self.op.name
        else:
            what = getattr(self.op, "__name__", "composed")
        return f"{what}: {self.label}" if self.label else what

    def arrays(self) -> tuple[Array, ...]:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return tuple(item.array(rng) if isinstance(item, Data) else np.asarray(item) for item in self.inputs)

    def types(self) -> tuple[TensorType, ...]:
        return tuple(TensorType(dtype(a.dtype), tuple(a.shape)) for a in self.arrays())

    def expected(self) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            result = self.oracle(*self.arrays())
        return tuple(np.asarray(r) for r in result) if isinstance(result, (tuple, list)) else (np.asarray(result),)

    def graph(self) -> Graph:
        """The sample as a graph: inputs x0, x1, ...; outputs y0, y1, ..."""
        builder = Builder()
        values = [builder.input(f"x{i}", t.dtype, t.shape) for i, t in enumerate(self.types())]
        if isinstance(self.op, Op):
            results: Any = builder.add_many(self.op, *values)
        else:
            results = self.op(builder, *values)
        outputs = results if isinstance(results, tuple) else (results,)
        return builder.finish(**{f"y{i}": value for i, value in enumerate(outputs)})

    def symbolic_types(self) -> tuple[TensorType, ...]:
        shapes = (tuple(parse_dim(d) for d in text.split(",") if d) for text in self.symbolic)
        return tuple(TensorType(t.dtype, shape) for t, shape in zip(self.types(), shapes, strict=True))

    def sizes(self) -> dict[str, int]:
        """What the symbols of `symbolic` stand for here (each must occur alone as a dim)."""
        found: dict[str, int] = {}
        for symbolic, actual in zip(self.symbolic_types(), self.types(), strict=True):
            for dim, size in zip(symbolic.shape, actual.static_shape, strict=True):
                if not isinstance(dim, int) and str(dim).isidentifier():
                    found[str(dim)] = size
        return found

    def check(self, actual: tuple[Array, ...], expected: tuple[Array, ...] | None = None) -> None:
        """Assert that dtypes, shapes, NaN and inf positions agree, and the numbers within the tolerance."""
        expected = self.expected() if expected is None else expected
        assert len(actual) == len(expected), f"{len(actual)} outputs, expected {len(expected)}"
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert a.shape == e.shape, f"output {i}: shape {a.shape}, expected {e.shape}"
            assert a.dtype == e.dtype, f"output {i}: dtype {a.dtype}, expected {e.dtype}"
            finite = np.abs(e[np.isfinite(e)].astype(np.float64)) if e.dtype.kind == "f" else np.zeros(0)
            scale = max(1.0, float(np.median(finite))) if finite.size else 1.0
            exact = e.dtype.kind != "f"
            np.testing.assert_allclose(a, e, rtol=0 if exact else self.rtol, atol=0 if exact else self.atol * scale, equal_nan=True)


def all_samples() -> Iterator[Sample]:
    """The samples of every family, in the order of the files."""
    for path in sorted((Path(__file__).parent / "samples").glob("*.py")):
        samples: list[Sample] = importlib.import_module(f"ops.samples.{path.stem}").SAMPLES
        yield from samples


def by_name() -> Mapping[str, Sample]:
    """All samples by name; two of one name are an error of the tests."""
    found: dict[str, Sample] = {}
    for sample in all_samples():
        assert sample.name not in found, f"two samples are called {sample.name!r}"
        found[sample.name] = sample
    return found
