"""The README's Python runs as it stands, one block after the other."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphc

README = Path(__file__).parents[2] / "README.md"

def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    sizes = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()))


IMAGES = graphc.f32["N", 1, 28, 28]


@graphc.model
def small_net(input: IMAGES) -> Any:
    x = graphc.conv2d(input, 4, kernel=5, stride=4, activation="relu", name="c1")
    return graphc.linear(graphc.flatten(x), 10, name="output")


def test_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, count in (("train", 128), ("t10k", 64)):
        write_idx(Path(f"{name}-images-idx3-ubyte.gz"), rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(Path(f"{name}-labels-idx1-ubyte.gz"), rng.integers(0, 10, count, dtype=np.uint8))
    graphc.save_onnx(small_net, "model.onnx")
    names: dict[str, Any] = {"x": rng.standard_normal((2, 1, 28, 28)).astype(np.float32)}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, block {number}", "exec"), names)
    assert names["y"].shape == (2, 10)
    assert len(names["trainer"].history) == 20
    trained, original = (onnx.load(name).graph for name in ("trained.onnx", "model.onnx"))
    assert {tensor.name for tensor in trained.initializer} == {tensor.name for tensor in original.initializer}
