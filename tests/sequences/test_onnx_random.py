"""ONNX Multinomial and Bernoulli: distribution, new draws in each run, the same in each executable, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphc
from graphc.errors import ModelError, UnsupportedError

ROWS, DRAWS = 64, 200


def _file(folder: Path, *nodes: Any, x: list[Any], y: int, kind: int = TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info(name, y, None) for node in nodes for name in node.output],
    )  # fmt: skip
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_multinomial(tmp_path: Path) -> None:
    node = helper.make_node("Multinomial", ["x"], ["y"], sample_size=DRAWS, seed=3.0, dtype=TensorProto.INT64)
    path = _file(tmp_path, node, x=["N", 4], y=TensorProto.INT64)
    logits = np.log(np.array([0.1, 0.4, 0.0, 0.5], np.float32), where=[True, True, False, True], out=np.full(4, -np.inf, np.float32))
    x = np.tile(logits, (ROWS, 1))
    exe = graphc.compile(path, threads=2)
    first, second = exe(x), exe(x)
    assert first.shape == (ROWS, DRAWS)
    assert first.dtype == np.int64
    for drawn in (first, second):
        found, expected = np.bincount(drawn.reshape(-1), minlength=4), np.array([0.1, 0.4, 0.0, 0.5]) * ROWS * DRAWS
        kept = expected > 0
        assert found[2] == 0
        assert ((found - expected)[kept] ** 2 / expected[kept]).sum() < 13.82  # the quantile 0.999 with 2 degrees of freedom
    assert 0.4 < (first != second).mean() < 0.75  # 0.58 of independent draws differ
    again = graphc.compile(path, threads=1)
    np.testing.assert_array_equal(again(x), first)
    np.testing.assert_array_equal(again(x), second)


def test_a_value_of_the_model_may_have_the_name_of_the_state(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["runs"]), helper.make_node("Multinomial", ["runs"], ["y"], sample_size=DRAWS),
             helper.make_node("Bernoulli", ["runs"], ["z"])]  # fmt: skip
    exe = graphc.compile(_file(tmp_path, *nodes, x=[2, 3], y=TensorProto.FLOAT), threads=1)
    (_, one, _), (_, two, _) = exe(np.zeros((2, 3), np.float32)), exe(np.zeros((2, 3), np.float32))
    assert (one != two).any()


def test_nodes_and_seeds_draw_apart(tmp_path: Path) -> None:
    nodes = [helper.make_node("Multinomial", ["x"], [name], sample_size=DRAWS, **seed)
             for name, seed in (("a", {}), ("b", {}), ("c", {"seed": 0.5}))]  # fmt: skip
    a, b, c = graphc.compile(_file(tmp_path, *nodes, x=[ROWS, 8], y=TensorProto.INT32), threads=1)(np.zeros((ROWS, 8), np.float32))
    assert a.dtype == np.int32
    for one, two in ((a, b), (b, c), (a, c)):
        assert 0.85 < (one != two).mean() < 0.9


def test_bernoulli(tmp_path: Path) -> None:
    path = _file(tmp_path, helper.make_node("Bernoulli", ["x"], ["y"], seed=1.0), x=[5, "N"], y=TensorProto.DOUBLE, kind=TensorProto.DOUBLE)
    chance = np.array([0, 1, 0.5, 0.1, 0.99])
    x = np.repeat(chance[:, None], 20_000, axis=1)
    exe = graphc.compile(path, threads=2)
    first, second = exe(x), exe(x)
    assert set(np.unique(first)) == {0.0, 1.0}
    for drawn in (first, second):
        assert drawn[0].sum() == 0
        assert drawn[1].all()
        assert (abs(drawn.mean(1) - chance) <= 3.3 * np.sqrt(chance * (1 - chance) / 20_000)).all()  # the quantile 0.999
    assert 0.45 < (first[2] != second[2]).mean() < 0.55


def test_refusals(tmp_path: Path) -> None:
    for shape, size in (([2, 3, 4], 1), ([2, 3], 0)):
        node = helper.make_node("Multinomial", ["x"], ["y"], sample_size=size)
        with pytest.raises(ModelError, match=f"{size} samples from"):
            graphc.compile(_file(tmp_path, node, x=shape, y=TensorProto.INT32))


def test_in_loops(tmp_path: Path) -> None:
    """Unrolled ones draw anew in each iteration; a native one, which would not, is refused."""
    inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))]
    outputs = [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("s", TensorProto.INT32, [ROWS, 64])]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Multinomial", ["x"], ["s"], sample_size=64)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    for trips in (3, 1000):
        count = helper.make_node("Constant", [], ["n"], value=helper.make_tensor("n", TensorProto.INT64, [], [trips]))
        path = _file(tmp_path, count, helper.make_node("Loop", ["n", ""], ["y"], body=body), x=[ROWS, 8], y=TensorProto.INT32)
        if trips == 3:
            _, (a, b, c) = graphc.compile(path, threads=1)(np.zeros((ROWS, 8), np.float32))
            assert all(0.8 < (one != two).mean() < 0.95 for one, two in ((a, b), (b, c), (a, c)))
        else:
            with pytest.raises(UnsupportedError, match=r"Multinomial in a sub-graph that is not unrolled.*GRAPHC_UNROLL"):
                graphc.compile(path)
