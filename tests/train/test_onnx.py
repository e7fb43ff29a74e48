"""From ONNX through training back to ONNX: names stay, onnxruntime predicts the same; what cannot be trained is listed before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import graphc
from graphc.cli.check import command
from graphc.train.step import TrainStep
from train.nets import CASES


def _onnxruntime(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def test_trained_classifier_goes_back(root: Path, tmp_path: Path) -> None:
    source, tuned = root / "examples" / "digits" / "lenet5.onnx", tmp_path / "tuned.onnx"
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 1, 32, 32), np.float32), rng.integers(0, 10, 8)
    step = TrainStep(str(source), optimizer=graphc.optim.Adam(), freeze=["c1.*"])
    losses = [step(x, y)["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    graphc.save_onnx(step, tuned)
    np.testing.assert_allclose(_onnxruntime(tuned, x), graphc.compile(step)(x), rtol=1e-4, atol=1e-6)
    before, after = (
        {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer} for path in (source, tuned)
    )  # fmt: skip
    floats = {name for name, array in before.items() if array.dtype == np.float32}
    assert floats <= after.keys()
    changed = {name for name in floats if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in floats if not name.startswith("c1.")}


def test_batch_norm_goes_back(tmp_path: Path) -> None:
    case, path = CASES["residual"], tmp_path / "residual.onnx"
    step = TrainStep(case.model)
    step(*case.batch(4))
    graphc.save_onnx(step, path)
    x = case.batch(3)[0]
    np.testing.assert_allclose(_onnxruntime(path, x), graphc.compile(step)(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def without_gradient(tmp_path: Path) -> Path:
    """A product, then a scatter that multiplies, which has no gradient."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("ScatterElements", ["a", "i", "u"], ["y"], "bad", axis=0, reduction="mul"),
    ]
    arrays = {"w": np.ones((3, 2), np.float32), "i": np.zeros((1, 2), np.int64), "u": np.ones((1, 2), np.float32)}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 3), ("y", 2)))
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    path = tmp_path / "bad.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_check_lists_what_has_no_gradient(without_gradient: Path, root: Path) -> None:
    found = CliRunner().invoke(command, ["--grad", "--json", str(without_gradient)])
    assert found.exit_code == 1
    (problem,) = json.loads(found.stdout)["problems"]
    assert "'bad'" in problem["where"]
    assert "mul" in problem["reason"]
    assert CliRunner().invoke(command, [str(without_gradient)]).exit_code == 0
    assert CliRunner().invoke(command, ["--grad", str(root / "examples" / "digits" / "lenet5.onnx")]).exit_code == 0
