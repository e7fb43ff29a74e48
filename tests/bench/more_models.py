"""Newer networks than those of `bench.models`, as PyTorch exports them, with random but calibrated weights.

Structure and parameter counts are the published ones (torchvision's; U-Net: 31.0 million parameters, transposed convolutions), with batch
normalisation folded into the convolutions. Outputs are logits; the classifiers' have a standard deviation of 3.

The models are written to the cache folder of `bench.models`.

    python tests/bench/more_models.py [NAME ...]
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

from bench import exported
from bench.exported import Export, Tensor
from bench.models import LOGITS_STD, cache_folder

Floats = NDArray[np.float32]
_CALIBRATION_IMAGES = 4
_SILU_STD = 3.0  # of what enters SiLU, which is quadratic near 0: at 1, brighter images would grow from layer to layer
CLASSES = 1000


def resnet18(m: Export) -> onnx.ModelProto:
    """He et al. 2015, arXiv:1512.03385, table 1."""
    x = m.relu(m.conv(m.image, 64, 7, 2))
    x = m.max_pool(x, 3, 2, pad=1)
    for channels, first_stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first_stride, 1):
            y = m.conv(m.relu(m.conv(x, channels, 3, stride)), channels, 3)
            skip = x if stride == 1 and x.channels == channels else m.conv(x, channels, 1, stride)
            x = m.relu(m.op("Add", [y, skip]))
    return m.model(_classifier(m, x))


def mobilenet_v2(m: Export) -> onnx.ModelProto:
    """Sandler et al. 2018, arXiv:1801.04381, table 2."""
    return m.model(_classifier(m, _mobilenet_v2_features(m)[-1]))


def efficientnet_b0(m: Export) -> onnx.ModelProto:
    """Tan and Le 2019, arXiv:1905.11946, table 1: inverted bottlenecks with squeeze-and-excitation and SiLU."""
    rows = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))
    x = m.silu(m.conv(m.image, 32, 3, 2, std=_SILU_STD))
    for expansion, kernel, first_stride, channels, repeats in rows:
        for i in range(repeats):
            stride, wide = first_stride if i == 0 else 1, x.channels * expansion
            y = x if expansion == 1 else m.silu(m.conv(x, wide, 1, std=_SILU_STD))
            y = m.silu(m.conv(y, wide, kernel, stride, groups=wide, std=_SILU_STD))
            y = m.conv(_squeeze_excite(m, y, x.channels // 4), channels, 1)
            x = m.op("Add", [y, x]) if stride == 1 and x.channels == channels else y
    return m.model(_classifier(m, m.silu(m.conv(x, 1280, 1, std=_SILU_STD))))


def convnext_tiny(m: Export) -> onnx.ModelProto:
    """Liu et al. 2022, arXiv:2201.03545: depthwise 7x7, layer normalisation over channels, GELU, layer scale."""
    x = _norm_channels(m, m.conv(m.image, 96, 4, 4, folded=False, pad=0))
    for channels, depth in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if channels != x.channels:
            x = m.conv(_norm_channels(m, x), channels, 2, 2, folded=False, pad=0)
        for _ in range(depth):
            y = m.transpose(m.conv(x, channels, 7, groups=channels, folded=False), 0, 2, 3, 1)
            y = m.linear(m.op("Gelu", [m.linear(m.layer_norm(y), 4 * channels)], approximate="none"), channels)
            x = m.op("Add", [m.layer_scale(m.transpose(y, 0, 3, 1, 2)), x])
    pooled = _norm_channels(m, m.global_mean(x))
    return m.model(m.gemm(m.reshape(pooled, x.channels), CLASSES, LOGITS_STD))


def unet(m: Export) -> onnx.ModelProto:
    """Ronneberger et al. 2015, arXiv:1505.04597, with padded convolutions and batch normalisation; 3 channels to 2 classes, 256x256."""
    skips, x = [], _double_conv(m, m.image, 64)
    for channels in (128, 256, 512, 1024):
        skips.append(x)
        x = _double_conv(m, m.max_pool(x, 2, 2), channels)
    for skip in reversed(skips):
        up = m.conv_transpose(x, skip.channels, 2, 2)
        x = _double_conv(m, m.op("Concat", [skip, up], axis=1), skip.channels)
    return m.model(m.conv(x, 2, 1, folded=False))


def ssdlite(m: Export) -> onnx.ModelProto:
    """SSDLite on MobileNetV2 (Sandler et al. 2018, section 6.2), 320x320: boxes (1, 3234, 4) and probabilities (1, 3234, 21)."""
    maps = _mobilenet_v2_features(m)
    for channels in (512, 256, 256, 128):
        y = m.relu6(m.conv(maps[-1], channels // 2, 1))
        y = m.relu6(m.conv(y, channels // 2, 3, 2, groups=channels // 2))
        maps.append(m.relu6(m.conv(y, channels, 1)))
    boxes, scores = ([_head(m, x, size) for x in maps] for size in (4, 21))
    concat = m.op("Concat", scores, axis=1)
    return m.model(m.op("Concat", boxes, axis=1), m.op("Softmax", [concat], axis=2))


def _mobilenet_v2_features(m: Export) -> list[Tensor]:
    """The map at stride 16 (expanded, where SSDLite reads it) and the last one."""
    x, middle = m.relu6(m.conv(m.image, 32, 3, 2)), m.image
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, channels, repeats, first_stride in rows:
        for i in range(repeats):
            stride, wide = first_stride if i == 0 else 1, x.channels * expansion
            y = x if expansion == 1 else m.relu6(m.conv(x, wide, 1))
            if channels == 160 and i == 0:
                middle = y
            y = m.conv(m.relu6(m.conv(y, wide, 3, stride, groups=wide)), channels, 1)
            x = m.op("Add", [x, y]) if stride == 1 and x.channels == channels else y
    return [middle, m.relu6(m.conv(x, 1280, 1))]


def _head(m: Export, x: Tensor, size: int) -> Tensor:
    """A depthwise separable predictor of six anchors for each pixel: (N, pixels * 6, size)."""
    y = m.conv(m.relu6(m.conv(x, x.channels, 3, groups=x.channels)), 6 * size, 1, folded=False)
    height, width = y.array.shape[2:]
    return m.reshape(m.transpose(y, 0, 2, 3, 1), height * width * 6, size)


def _squeeze_excite(m: Export, x: Tensor, squeezed: int) -> Tensor:
    """Hu et al. 2018, arXiv:1709.01507. The gates of random weights vary little: else brighter images would be amplified at every block."""
    gate = m.silu(m.conv(m.global_mean(x), squeezed, 1, folded=False, std=0.3))
    return m.op("Mul", [m.op("Sigmoid", [m.conv(gate, x.channels, 1, folded=False, std=0.3)]), x])


def _norm_channels(m: Export, x: Tensor) -> Tensor:
    """Layer normalisation over axis 1."""
    return m.transpose(m.layer_norm(m.transpose(x, 0, 2, 3, 1)), 0, 3, 1, 2)


def _double_conv(m: Export, x: Tensor, channels: int) -> Tensor:
    return m.relu(m.conv(m.relu(m.conv(x, channels, 3)), channels, 3))


def _classifier(m: Export, x: Tensor) -> Tensor:
    """Global mean, then a linear layer."""
    return m.gemm(m.reshape(m.global_mean(x), x.channels), CLASSES, LOGITS_STD)


MODELS: dict[str, tuple[Callable[[Export], onnx.ModelProto], int]] = {
    "resnet18": (resnet18, 224),
    "mobilenet_v2": (mobilenet_v2, 224),
    "efficientnet_b0": (efficientnet_b0, 224),
    "convnext_tiny": (convnext_tiny, 224),
    "unet": (unet, 256),
    "ssdlite": (ssdlite, 320),
}  # name -> what builds it, and the side of its image
NAMES = tuple(MODELS)


def model_path(name: str) -> Path:
    """The file of a model; made on first use, in seconds. Raises ValueError for an unknown name."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; one of {', '.join(NAMES)}")
    source = Path(__file__).read_bytes() + Path(exported.__file__).read_bytes()
    folder = cache_folder()
    path = folder / f"{name}-{hashlib.sha256(source).hexdigest()[:12]}.onnx"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    build, side = MODELS[name]
    images = np.concatenate([image(1000 + i, side) for i in range(_CALIBRATION_IMAGES)])
    model = build(Export(name, images, seed=NAMES.index(name)))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "model.onnx"
        onnx.save(model, made)
        for stale in folder.glob(f"{name}-*.onnx"):
            stale.unlink(missing_ok=True)
        os.replace(made, path)
    return path


def image(seed: int, side: int) -> Floats:
    """A structured random image, float32 (1, 3, side, side) with `side` divisible by 16: patches of several sizes, a colour cast, noise."""
    rng = np.random.default_rng([seed, side])
    made = 0.5 * rng.standard_normal((3, 1, 1))
    for patch, strength in ((side // 4, 0.6), (16, 0.5), (4, 0.4), (1, 0.3)):
        made = made + strength * np.kron(rng.standard_normal((3, side // patch, side // patch)), np.ones((1, patch, patch)))
    return np.ascontiguousarray(made[None], dtype=np.float32)


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        print(model_path(each))
