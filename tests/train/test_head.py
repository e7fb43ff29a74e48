"""Another classifier at the end of a graph: what is found, what is kept, what is refused; and batches made symbolic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphc
from graphc.train.head import find_head
from graphc.train.retype import fixed_batch, open_batch

RNG = np.random.default_rng(7)
Weights = dict[str, np.ndarray]


def made(nodes: list[Any], weights: Weights, x: list[Any], y: list[Any]) -> graphc.Graph:
    from graphc_onnx import load

    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", x), ("y", y))]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", infos[:1], infos[1:], tensors)
    return load(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], kind.lower() + output, **attributes)


def gemm() -> graphc.Graph:
    return made([node("Gemm", "x w b", "y", transB=1)], {"w": normal(5, 3), "b": normal(5)}, ["N", 3], ["N", 5])


def squeeze() -> graphc.Graph:
    """As SqueezeNet ends: convolution, Relu, global mean, Softmax; a batch of one."""
    nodes = [
        node("Conv", "x k", "a"), node("Conv", "a w b", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "p"),
        node("Softmax", "p", "y", axis=1),
    ]  # fmt: skip
    return made(nodes, {"k": normal(4, 3, 3, 3), "w": normal(6, 4, 1, 1), "b": normal(6)}, [1, 3, 6, 6], [1, 6, 1, 1])


def cntk() -> graphc.Graph:
    """As mnist-8 ends: a weight of four axes that is reshaped, a bias (1, C), a fixed batch in a reshape."""
    weights = {"w": normal(2, 3, 3, 5), "b": normal(1, 5), "s": np.array([1, 18], np.int64), "t": np.array([18, 5], np.int64)}
    nodes = [node("Reshape", "x s", "f"), node("Reshape", "w t", "m"), node("MatMul", "f m", "p"), node("Add", "p b", "y")]
    return made(nodes, weights, [1, 2, 3, 3], [1, 5])


def torch_old() -> graphc.Graph:
    nodes = [
        node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t", "p"), node("Add", "b p", "q"), node("LogSoftmax", "q", "y", axis=1),
    ]  # fmt: skip
    return made(nodes, {"w": normal(5, 3), "b": normal(5)}, ["N", 3], ["N", 5])


@pytest.mark.parametrize(("build", "shape"), [(gemm, (2, 3)), (squeeze, (1, 3, 6, 6)), (cntk, (1, 2, 3, 3)), (torch_old, (2, 3))])
def test_head_is_replaced(build: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    before = build()
    after = graphc.replace_head(before, 3, seed=1)
    assert find_head(before).classes in (5, 6)
    assert find_head(after).classes == 3
    assert set(find_head(before).parameters) == {"w", "b"}
    assert [n.name for n in after.nodes] == [n.name for n in before.nodes]
    assert list(after.values) == list(before.values)
    kept = set(before.parameters) - {"w", "b"}
    assert all(np.array_equal(before.parameters[name].data, after.parameters[name].data) for name in kept)
    assert set(graphc.backbone(after)) == kept
    assert not after.parameters["b"].data.any()
    assert after.parameters["w"].data.std() > 0
    x = RNG.standard_normal(shape).astype(np.float32)
    graphc.save_onnx(after, tmp_path / "y.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "y.onnx"), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    assert wanted.shape[1] == 3
    np.testing.assert_allclose(graphc.compile(after)(x), wanted, atol=1e-5)


def test_seed_decides_the_weights() -> None:
    first, again, other = (graphc.replace_head(gemm(), 4, seed=seed).parameters["w"].data for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(first).max() <= np.sqrt(6 / (3 + 4))


@pytest.mark.parametrize("at", [None, "a"])
def test_what_was_said_of_the_old_head_is_gone(at: str | None) -> None:
    before = squeeze()
    before.metadata |= {"labels": '["cat"]', "accuracy": "0.9", "preprocessing": "{}"}
    assert graphc.replace_head(before, 2, at=at).metadata == {"preprocessing": "{}"}
    assert "labels" in before.metadata


def test_cut_at_a_value_or_node() -> None:
    for at in ("a", "conva"):
        cut = graphc.replace_head(squeeze(), 2, at=at)
        assert cut.output_names == ["y"]
        assert list(cut.parameters) == ["k", "head.weight", "head.bias"]
        assert find_head(cut).parameters == ("head.weight", "head.bias")
        x, k = RNG.standard_normal((1, 3, 6, 6)).astype(np.float32), cut.parameters["k"].data
        windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
        features = np.einsum("cijhw,ochw->oij", windows, k).mean((1, 2))
        np.testing.assert_allclose(graphc.compile(cut)(x)[0], cut.parameters["head.weight"].data @ features, rtol=1e-4, atol=1e-5)


def test_no_head_is_an_error_with_candidates() -> None:
    branches = made([node("MatMul", "x w", "p"), node("MatMul", "x v", "q"), node("Mul", "p q", "y")],
                    {"w": normal(3, 4), "v": normal(3, 4)}, ["N", 3], ["N", 4])  # fmt: skip
    with pytest.raises(graphc.ModelError, match="joins two branches"):
        graphc.replace_head(branches, 2)
    shared = made([node("MatMul", "x w", "p"), node("MatMul", "p w", "y")], {"w": normal(3, 3)}, ["N", 3], ["N", 3])
    with pytest.raises(graphc.ModelError, match=r"serves other nodes too.*'p'"):
        graphc.replace_head(shared, 2)
    picture = made([node("Conv", "x k", "a"), node("Conv", "a w", "y")], {"k": normal(4, 3, 3, 3), "w": normal(2, 4, 1, 1)},
                   ["N", 3, 6, 6], ["N", 2, 4, 4])  # fmt: skip
    with pytest.raises(graphc.ModelError, match=r"not one row of classes.*--head-at.*'a'"):
        graphc.replace_head(picture, 2)
    with pytest.raises(graphc.ModelError, match="no value or node 'nowhere'"):
        graphc.replace_head(gemm(), 2, at="nowhere")
    with pytest.raises(graphc.AttributeValueError):
        graphc.replace_head(gemm(), 1)


@pytest.mark.parametrize("build", [squeeze, cntk])
def test_open_batch_is_the_samples_one_by_one(build: Any) -> None:
    graph = build()
    assert fixed_batch(graph) == 1
    opened = open_batch(graph)
    x = RNG.standard_normal((3, *graph.inputs[0].type.shape[1:])).astype(np.float32)
    single = graphc.compile(graph)
    np.testing.assert_allclose(graphc.compile(opened)(x), np.concatenate([single(row[None]) for row in x]), atol=1e-5)
    closed = opened.bind({"N": 1})
    assert [value.type for value in closed.values.values()] == [value.type for value in graph.values.values()]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Softmax", "x", "y", axis=0)],
        [node("Transpose", "x", "y", perm=[1, 0])],
        [node("CumSum", "x zero", "y")],
        [node("Concat", "x x", "y", axis=0)],
    ],
    ids=["softmax", "transpose", "cumsum", "concat"],
)
def test_open_batch_refuses_what_mixes_samples(nodes: list[Any]) -> None:
    graph = made(nodes, {"zero": np.array(0, np.int64)}, [1, 3], ["P", "Q"])
    with pytest.raises(graphc.UnsupportedError, match="symbolic batch"):
        open_batch(graph)


def test_a_node_of_two_outputs_keeps_its_name() -> None:
    """Dropout with its mask: the node that makes the first output has the name of the ONNX node."""
    nodes = [helper.make_node("Dropout", ["x"], ["d", "mask"], "drop"), node("MatMul", "d w", "y")]
    graph = made(nodes, {"w": normal(3, 4)}, ["N", 3], ["N", 4])
    assert [n.name for n in graph.nodes if n.op.name == "dropout"] == ["drop"]
