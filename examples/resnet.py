"""ResNet: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, table 1.

Layers are named as in torchvision, whose weights fit: resnet50.load(state). As there, the stride of a bottleneck lies on its 3x3
convolution. Parameters: resnet18 11,689,512, resnet34 21,797,672, resnet50 25,557,032, resnet101 44,549,160, resnet152 60,192,808.

    python examples/resnet.py --depth 50
"""

from __future__ import annotations

import argparse

import graphc

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv_bn(
    x: graphc.Tensor, channels: int, kernel: int, stride: int = 1, activation: str | None = "relu", name: str = "", norm: str = ""
) -> graphc.Tensor:
    x = graphc.conv2d(x, channels, kernel, stride, padding=kernel // 2, bias=False, name=name)
    return graphc.batch_norm(x, activation=activation, name=norm)


@graphc.block
def basic(x: graphc.Tensor, width: int, stride: int) -> graphc.Tensor:
    """Figure 5, left."""
    y = conv_bn(x, width, 3, stride, name="conv1", norm="bn1")
    y = conv_bn(y, width, 3, activation=None, name="conv2", norm="bn2")
    return graphc.relu(y + shortcut(x, width, stride))


@graphc.block
def bottleneck(x: graphc.Tensor, width: int, stride: int) -> graphc.Tensor:
    """Figure 5, right."""
    y = conv_bn(x, width, 1, name="conv1", norm="bn1")
    y = conv_bn(y, width, 3, stride, name="conv2", norm="bn2")
    y = conv_bn(y, 4 * width, 1, activation=None, name="conv3", norm="bn3")
    return graphc.relu(y + shortcut(x, 4 * width, stride))


def shortcut(x: graphc.Tensor, channels: int, stride: int) -> graphc.Tensor:
    """The identity, or where the shape changes a projection (option B)."""
    if x.shape[1] == channels and stride == 1:
        return x
    return conv_bn(x, channels, 1, stride, activation=None, name="downsample.0", norm="downsample.1")


@graphc.model
def resnet(image: graphc.f32["N", 3, 224, 224], *, depth: int = 50, classes: int = 1000):
    block = basic if depth < 50 else bottleneck
    x = conv_bn(image, 64, 7, stride=2, name="conv1", norm="bn1")
    x = graphc.max_pool2d(x, 3, stride=2, padding=1)
    for stage, count in enumerate(STAGES[depth]):
        for i in range(count):
            x = block(x, 64 << stage, stride=2 if stage and i == 0 else 1, name=f"layer{stage + 1}.{i}")
    return graphc.linear(graphc.global_avg_pool(x).flatten(), classes, name="fc")


resnet18 = resnet.configure(depth=18, name="resnet18")
resnet50 = resnet.configure(depth=50, name="resnet50")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="ResNet: summary, and a run on a random image")
    parser.add_argument("--depth", type=int, choices=STAGES, default=50)
    depth = parser.parse_args().depth
    graphc.demo(resnet.configure(depth=depth, name=f"resnet{depth}"))
