"""The model in examples/digits against another engine: it reads its ten pictures, at any batch size, and is built as documented."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "examples" / "digits"


@pytest.fixture(scope="module")
def model(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / "lenet5.onnx")


def _pictures(folder: Path) -> np.ndarray:
    images = [Image.open(folder / f"{digit}.png") for digit in range(10)]
    assert {(image.mode, image.size) for image in images} == {("L", (32, 32))}
    return np.stack([np.asarray(image) for image in images])[:, None].astype(np.float32) / 255


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_reads_its_pictures(folder: Path, batch: int) -> None:
    session = onnxruntime.InferenceSession(folder / "lenet5.onnx", providers=["CPUExecutionProvider"])
    x = _pictures(folder)
    y = np.concatenate([session.run(None, {"image": x[i : i + batch]})[0] for i in range(0, 10, batch)])
    assert y.argmax(1).tolist() == list(range(10))
    assert y.max(1).min() > 0.9


def test_model_is_as_documented(folder: Path, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["N", 1, 32, 32]
    assert all(node.name for node in model.graph.node)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    labels = (folder / "labels.txt").read_text(encoding="utf-8").split()
    assert len(labels) == 10
    assert json.loads(metadata["labels"]) == labels
    assert json.loads(metadata["preprocessing"])["size"] == [32, 32]
    assert (folder / "lenet5.onnx").stat().st_size < 400_000
