"""The benchmark models are what they promise: weights are constants, outputs depend on the input and are not saturated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bench.models import IMAGE, light_input, light_model, light_names, light_path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_BENCH_CACHE", str(folder))
        yield folder


def test_names_are_those_of_the_onnx_package() -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    assert sorted(light_names()) == sorted(path.stem.removeprefix("light_") for path in folder.glob("light_*.onnx"))


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_weights_are_constants_and_outputs_mean_something(name: str) -> None:
    model = light_model(name)
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    assert not any(node.op_type == "ConstantOfShape" for node in model.graph.node)
    session = onnxruntime.InferenceSession(light_path(name), providers=["CPUExecutionProvider"])
    a, b = (session.run(None, {image.name: light_input(seed)})[0].ravel() for seed in (1, 2))
    for probabilities in (a, b):
        assert probabilities.sum() == pytest.approx(1, abs=1e-4)
        assert 0.01 < probabilities.max() < 0.9
    assert np.abs(a - b).max() > 0.3 * a.max()


def test_same_model_again(cache: Path) -> None:
    path = light_path("squeezenet")
    first = path.read_bytes()
    path.unlink()
    assert light_path("squeezenet") == path
    assert path.read_bytes() == first
    assert len(list(cache.glob("light_squeezenet-*"))) == 1


def test_inputs() -> None:
    assert light_input(1).shape == IMAGE
    assert light_input(1).dtype == np.float32
    assert (light_input(1) == light_input(1)).all()
    assert (light_input(1) != light_input(2)).any()


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="resnet50"):
        light_path("resnet51")
