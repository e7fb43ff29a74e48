"""The examples in examples/training in their small form: each trains to an accuracy that an untrained or broken network does not reach."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("sklearn")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(scripts: Any) -> Iterator[Run]:
    with scripts("training") as found:
        yield found


@pytest.fixture(scope="module")
def idx_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """scikit-learn's digits as the four IDX files of MNIST."""
    folder = tmp_path_factory.mktemp("idx")
    for part, source in zip(("train", "t10k"), importlib.import_module("datasets").digits(size=28), strict=True):
        for kind, array in (("images-idx3", source.x[:, 0]), ("labels-idx1", source.y.astype(np.uint8))):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return str(folder)


def _accuracies(text: str) -> list[float]:
    return [float(number) / 100 for number in re.findall(r"(?:accuracy|head only|all layers|from scratch) +([\d.]+)%", text)]


def test_every_example_is_listed(root: Path) -> None:
    folder = root / "examples" / "training"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for name in (path.stem for path in folder.glob("*.py")):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert f"{name}.py" in readme
        assert name == "datasets" or ("Prints" in text and f"python examples/training/{name}.py" in text)


def test_lenet5_digits(run: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "lenet5.onnx"
    text = run("lenet5_digits", "--output", str(output))
    assert len(re.findall(r"^epoch \d/8", text, re.MULTILINE)) == 8
    (accuracy,) = _accuracies(text)
    assert accuracy > 0.94
    _, test = importlib.import_module("datasets").digits()
    (found,) = onnxruntime.InferenceSession(output).run(None, {"image": test.x.astype(np.float32) / 255})
    assert abs((found.argmax(1) == test.y).mean() - accuracy) < 1e-4  # printed in hundredths of a percent


def test_lenet5_mnist(run: Run, idx_folder: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = tmp_path / "curves.png"
    text = run("lenet5_mnist", "--data", idx_folder, "--augment", "--curves", str(curves))
    assert _accuracies(text)[-1] > 0.85
    assert curves.stat().st_size > 5000


def test_lenet5_mnist_options(run: Run, idx_folder: str) -> None:
    options = ("--schedule", "onecycle", "--activation", "relu", "--pool", "max")
    assert _accuracies(run("lenet5_mnist", "--data", idx_folder, *options))[-1] > 0.85


def test_idx_files_are_missing(run: Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(importlib.import_module("lenet5_mnist").main, ["--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "has 0 files train*images*idx3*" in result.output


def test_resnet18(run: Run, idx_folder: str) -> None:
    assert _accuracies(run("resnet18", "--data", idx_folder, "--batch", "16"))[-1] > 0.75


def test_fine_tune(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    output = tmp_path / "tuned.onnx"
    text = run("fine_tune", "--output", str(output))
    head, tuned, _ = _accuracies(text)
    assert head > 0.75
    assert tuned > head
    assert tuned > 0.9
    assert "360 of 360 predictions equal" in text
    graph = importlib.import_module("graphc").load_onnx(output)
    assert {"c1.weight", "f6.bias"} <= set(graph.parameters)
    assert graph.parameters["output.weight"].type.shape == (2, 84)


def test_lecture(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "lecture.png"
    text = run("lecture", "--output", str(picture))
    lines = re.findall(r"^(.+?) +gradient (\S+) in .*?, (\S+) in", text, re.MULTILINE)
    gradients = {name: float(first) / float(last) for name, first, last in lines}
    assert gradients["logistic"] < 1e-5  # vanished
    assert all(ratio > 0.05 for name, ratio in gradients.items() if name != "logistic")
    accuracy = dict(re.findall(r"^(\S.*?)  .*accuracy (\S+)%", text, re.MULTILINE))
    assert float(accuracy["logistic"]) < 20 < 80 < float(accuracy["logistic, batch norm"])
    assert all(float(accuracy[name]) > 85 for name in ("momentum", "RMSProp"))
    assert picture.stat().st_size > 30_000
