"""The newer benchmark models have their published sizes, the exporter's forms, and any batch size."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bench import more_models
from bench.exported import Export
from bench.subjects import batched, subject

PUBLISHED = {
    "resnet18": 11_689_512, "mobilenet_v2": 3_504_872, "efficientnet_b0": 5_288_548, "convnext_tiny": 28_589_128, "unet": 31_037_698,
}  # fmt: skip
SIDE = 32  # parameter counts do not depend on it


def small(name: str) -> onnx.ModelProto:
    build, _ = more_models.MODELS[name]
    return build(Export(name, np.concatenate([more_models.image(i, SIDE) for i in range(2)]), seed=0))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    model = small(name)
    onnx.checker.check_model(model, full_check=True)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.dims]
    folded = sum(prod(t.dims) for t in floats if t.name.endswith(".folded_bias"))  # stands for a scale and a bias of the normalisation
    assert sum(prod(t.dims) for t in floats) + folded == PUBLISHED[name]


def test_forms_are_those_of_the_exporter() -> None:
    model = small("mobilenet_v2")
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts == {"Conv": 52, "Clip": 35, "Add": 10, "ReduceMean": 1, "Reshape": 1, "Gemm": 1}


def test_activations_are_calibrated() -> None:
    m = Export("net", np.concatenate([more_models.image(i, SIDE) for i in range(4)]), seed=0)
    x = m.image
    for _ in range(6):
        x = m.conv(m.relu(x), 32, 3)
        assert x.array.std() == pytest.approx(1, rel=0.1)
    assert m.linear(m.transpose(x, 0, 2, 3, 1), 48).array.std() == pytest.approx(1, rel=0.2)
    assert m.conv_transpose(x, 16, 2, 2).array.shape == (4, 16, 64, 64)
    assert m.gemm(m.reshape(m.global_mean(x), 32), 10, 3.0).array.std() == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_batched_model_treats_samples_alone(name: str) -> None:
    model = small(name)
    images = [more_models.image(i, SIDE) for i in (1, 2, 3)]
    one, three = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (model, batched(model, 3))
    )  # fmt: skip
    wanted = np.concatenate([one.run(None, {"x": image})[0] for image in images])
    got = three.run(None, {"x": np.concatenate(images)})[0]
    assert got.shape == (3, more_models.CLASSES)
    assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.abs(wanted[0] - wanted[1]).max() > 0.1


def test_same_image_again() -> None:
    assert more_models.image(3, 224).shape == (1, 3, 224, 224)
    assert (more_models.image(3, SIDE) == more_models.image(3, SIDE)).all()
    assert (more_models.image(3, SIDE) != more_models.image(4, SIDE)).any()


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="convnext_tiny"):
        more_models.model_path("convnext")
    with pytest.raises(ValueError, match="resnet18"):
        subject("resnet19", 1, tmp_path)
