"""Every layer means what PyTorch's function of that name means: in float64 by the reference, in float32 compiled."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import graphc
from dsl import cases
from dsl.cases import CASES, CONV, MATRIX, NORM, POOL, RECURRENT, Case, torch
from dsl.tracing import graph_of, model_of
from graphc.ir.verify import verify
from graphc.types.dtype import DType
from graphc_reference import ReferenceExecutable


def _input(case: Case) -> np.ndarray:
    rng = np.random.default_rng(len(case.title))
    return rng.uniform(0.1, 2.0, case.shape) if case.positive else rng.uniform(-2.0, 2.0, case.shape)


def _random_parameters(case: Case, dtype: DType) -> dict[str, np.ndarray]:
    """Parameters that are neither 0 nor 1, variances above 0."""
    rng = np.random.default_rng(5)
    shapes = {name: value.type.shape for name, value in graph_of(case.build, dtype[case.shape]).parameters.items()}
    signs = {name: 1 if name.endswith("var") else rng.choice([-1, 1], shape) for name, shape in shapes.items()}
    return {name: rng.uniform(0.2, 1.2, shape) * signs[name] for name, shape in shapes.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_layer_against_torch(case: Case) -> None:
    parameters = _random_parameters(case, graphc.f64)
    graph = model_of(case.build, graphc.f64[case.shape]).graph(parameters=parameters)
    verify(graph)
    x = _input(case)
    expected = case.torch(torch.tensor(x), {name: torch.tensor(array) for name, array in parameters.items()}).numpy()
    found = ReferenceExecutable(graph)(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [*CONV, *POOL, *NORM, *MATRIX[:2], *RECURRENT], ids=lambda case: case.title)
def test_layer_compiled(case: Case) -> None:
    """The same numbers in float32, through passes and machine code."""
    graph = model_of(case.build, graphc.f32[case.shape]).graph(
        parameters={name: array.astype(np.float32) for name, array in _random_parameters(case, graphc.f32).items()}
    )
    x = _input(case).astype(np.float32)
    np.testing.assert_allclose(graphc.compile(graph, threads=1)(x), ReferenceExecutable(graph)(x), rtol=1e-4, atol=1e-4)


def test_no_layer_is_forgotten() -> None:
    """Each function of the DSL occurs in a case, in its title or in what the case builds."""
    text = inspect.getsource(cases)
    no_layers = {
        "bool_", "block", "demo", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "init", "load_script", "Model", "model", "parameter",
        "scope", "state", "Tensor", "u8", "u16", "u32", "u64",
    }  # fmt: skip
    names = set(graphc._DSL) - no_layers
    assert len(names) > 100
    missing = {name for name in names if f"graphc.{name}" not in text and f'"{name}"' not in text}
    assert missing <= {"argmax", "expand", "lrn", "matmul", "max", "mean", "min", "sum", "transpose"}  # methods, operators, a second name


def test_dropout_keeps_its_rate() -> None:
    """Training replaces the op; here it is only the identity."""
    (node,) = graph_of(lambda x: graphc.dropout(x, rate=0.3), graphc.f32["N", 3])
    assert (node.op.name, node.op.attributes()) == ("dropout", {"rate": 0.3})


def test_pool_and_conv_check_the_rank() -> None:
    for layer in (lambda x: graphc.conv2d(x, 3, 3), lambda x: graphc.max_pool2d(x, 2)):
        with pytest.raises(graphc.ShapeError, match="has rank 3"):
            graph_of(layer, graphc.f32["N", 3, 8])


BAD_RECURRENT: dict[str, tuple[dict[str, Any], tuple[int, ...], str]] = {
    "rank": ({}, (2, 3), "no batch of sequences"),
    "no layers": ({"layers": 0}, (2, 4, 3), "layers"),
    "dropout between one layer": ({"dropout": 0.5}, (2, 4, 3), "dropout=0.5 between one layer"),
    "two directions": ({"bidirectional": True, "reverse": True}, (2, 4, 3), "one of them"),
    "lengths": ({"lengths": np.array([1.0, 2.0], np.float32)}, (2, 4, 3), "lengths are f32"),
    "h0": ({"h0": np.zeros((2, 1, 6), np.float32)}, (2, 4, 3), "h0 is"),
    "h0 of another batch": ({"h0": np.zeros((3, 1, 5), np.float32)}, (2, 4, 3), "h0 is"),
}


@pytest.mark.parametrize("title", list(BAD_RECURRENT))
def test_recurrent_layers_check_their_arguments(title: str) -> None:
    given, shape, message = BAD_RECURRENT[title]

    def build(x: Any) -> Any:
        made = {key: graphc.constant(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
        return graphc.gru(x, 5, **made)[0]

    with pytest.raises(graphc.GraphcError, match=message):
        model_of(build, graphc.f32[shape]).graph()
