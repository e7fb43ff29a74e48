"""The networks in examples/: parameter counts as published, output shapes, and the smallest of them compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc_reference import ReferenceExecutable

# torchvision's counts for VGG, ResNet and MobileNetV2; the papers' networks for the others (see the examples' docstrings)
MODELS = {
    "lenet5.py": (None, {}, 61_706, "f32[N,10]"),
    "alexnet.py": (None, {}, 60_965_224, "f32[N,1000]"),
    "zfnet.py": (None, {}, 62_357_608, "f32[N,1000]"),
    "vgg.py:vgg16": ("vgg16", {}, 138_357_544, "f32[N,1000]"),
    "vgg.py:vgg19": ("vgg19", {}, 143_667_240, "f32[N,1000]"),
    "vgg.py:vgg, 11": ("vgg", {"depth": 11}, 132_863_336, "f32[N,1000]"),
    "vgg.py:vgg, 13": ("vgg", {"depth": 13}, 133_047_848, "f32[N,1000]"),
    "googlenet.py": (None, {}, 6_998_552, "f32[N,1000]"),
    "resnet.py:resnet18": ("resnet18", {}, 11_689_512, "f32[N,1000]"),
    "resnet.py:resnet, 34": ("resnet", {"depth": 34}, 21_797_672, "f32[N,1000]"),
    "resnet.py:resnet50": ("resnet50", {}, 25_557_032, "f32[N,1000]"),
    "resnet.py:resnet, 101": ("resnet", {"depth": 101}, 44_549_160, "f32[N,1000]"),
    "resnet.py:resnet, 152": ("resnet", {"depth": 152}, 60_192_808, "f32[N,1000]"),
    "mobilenet_v2.py": (None, {}, 3_504_872, "f32[N,1000]"),
}


def test_every_example_is_here(root: Path) -> None:
    assert {path.name for path in (root / "examples").glob("*.py")} == {title.partition(":")[0] for title in MODELS}


@pytest.mark.parametrize("title", MODELS)
def test_parameters_as_published(root: Path, title: str) -> None:
    name, options, count, output = MODELS[title]
    summary = graphc.load_script(root / "examples" / title.partition(":")[0], name).configure(**options).summary()
    assert summary.parameters == count
    assert [str(type) for type in summary.outputs.values()] == [output]
    assert summary.flops > 0
    text = (root / "examples" / title.partition(":")[0]).read_text(encoding="utf-8")
    assert f"{count:,}" in text


def test_resnet_is_named_as_in_torchvision(root: Path) -> None:
    names = list(graphc.load_script(root / "examples" / "resnet.py", "resnet50").graph(None).parameters)
    assert names[:5] == ["conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]
    assert {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var", "layer4.2.bn3.bias", "fc.bias"} <= set(names)


def test_lenet_compiled(root: Path) -> None:
    lenet5 = graphc.load_script(root / "examples" / "lenet5.py")
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28), dtype=np.float32)
    expected = ReferenceExecutable(lenet5.graph())(x)
    assert expected.std() > 0.1
    np.testing.assert_allclose(lenet5(x), expected, rtol=1e-4, atol=1e-5)


def test_a_residual_block_compiled(root: Path) -> None:
    """One block of ResNet with random statistics: strides, projection, shared input."""
    script = sys.modules[graphc.load_script(root / "examples" / "resnet.py", "resnet50").function.__module__]

    @graphc.model
    def part(x: graphc.f32[1, 16, 12, 12]):
        return script.basic(script.bottleneck(x, 8, 2), 32, 1)

    rng = np.random.default_rng(1)
    arrays = {name: rng.uniform(0.1, 0.5, array.shape).astype(np.float32) for name, array in part.parameters().items()}
    x = rng.standard_normal((1, 16, 12, 12), dtype=np.float32)
    part.load(arrays)
    expected = ReferenceExecutable(part.graph())(x)
    assert expected.shape == (1, 32, 6, 6)
    np.testing.assert_allclose(part(x), expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def test_examples_run_as_scripts(root: Path) -> None:
    path = os.pathsep.join(str(root / folder) for folder in (".", "frontends", "backends"))
    command = [sys.executable, str(root / "examples" / "lenet5.py")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "parameters 61,706" in done.stdout
    assert "[1, 10], mean" in done.stdout
