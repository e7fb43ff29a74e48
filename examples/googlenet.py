"""GoogLeNet (Inception v1): Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842, table 1.

The network of the paper without its two auxiliary classifiers, which serve training only: 6,998,552 parameters.

    python examples/googlenet.py
"""

from __future__ import annotations

import graphc

# name: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; a row ending in "pool" is followed by max pooling
TABLE = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64, "pool"),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128, "pool"),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@graphc.block
def inception(x: graphc.Tensor, one: int, reduce3: int, three: int, reduce5: int, five: int, projection: int) -> graphc.Tensor:
    """Figure 2 (b): four branches side by side."""
    small = conv(x, one, 1, name="1x1")
    middle = conv(conv(x, reduce3, 1, name="3x3_reduce"), three, 3, name="3x3")
    large = conv(conv(x, reduce5, 1, name="5x5_reduce"), five, 5, name="5x5")
    pooled = conv(graphc.max_pool2d(x, 3, stride=1, padding=1), projection, 1, name="pool_proj")
    return graphc.concat([small, middle, large, pooled], name="output")


def conv(x: graphc.Tensor, channels: int, kernel: int, stride: int = 1, name: str = "") -> graphc.Tensor:
    return graphc.conv2d(x, channels, kernel, stride, padding=kernel // 2, activation="relu", name=name)


def pool(x: graphc.Tensor) -> graphc.Tensor:
    return graphc.max_pool2d(x, 3, stride=2, ceil=True)


@graphc.model
def googlenet(image: graphc.f32["N", 3, 224, 224], *, classes: int = 1000):
    x = graphc.lrn(pool(conv(image, 64, 7, stride=2, name="conv1")), size=5)
    x = conv(conv(x, 64, 1, name="conv2_reduce"), 192, 3, name="conv2")
    x = pool(graphc.lrn(x, size=5))
    for name, (*widths, last) in TABLE.items():
        if last == "pool":
            x = pool(inception(x, *widths, name=f"inception_{name}"))
        else:
            x = inception(x, *widths, last, name=f"inception_{name}")
    x = graphc.dropout(graphc.global_avg_pool(x).flatten(), rate=0.4)
    return graphc.linear(x, classes, name="classifier")


if __name__ == "__main__":
    graphc.demo(googlenet)
