"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv:1801.04381, table 2.

3,504,872 parameters; the statistics of batch normalisation are not counted.

    python examples/mobilenet_v2.py
"""

from __future__ import annotations

import graphc

TABLE = (  # expansion t, channels c, repeats n, stride s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_bn(
    x: graphc.Tensor, channels: int, kernel: int, stride: int = 1, groups: int = 1, activation: str | None = "relu6"
) -> graphc.Tensor:
    x = graphc.conv2d(x, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return graphc.batch_norm(x, activation=activation)


@graphc.block
def inverted_residual(x: graphc.Tensor, expansion: int, channels: int, stride: int) -> graphc.Tensor:
    """Table 1: expand, filter each channel, project without an activation."""
    width = x.shape[1] * expansion
    y = conv_bn(x, width, 1) if expansion > 1 else x
    y = conv_bn(y, width, 3, stride, groups=width)
    y = conv_bn(y, channels, 1, activation=None)
    return x + y if stride == 1 and x.shape[1] == channels else y


@graphc.model
def mobilenet_v2(image: graphc.f32["N", 3, 224, 224], *, classes: int = 1000):
    x = conv_bn(image, 32, 3, stride=2)
    for expansion, channels, repeats, stride in TABLE:
        for i in range(repeats):
            x = inverted_residual(x, expansion, channels, stride if i == 0 else 1)
    x = conv_bn(x, 1280, 1)
    x = graphc.dropout(graphc.global_avg_pool(x).flatten(), rate=0.2)
    return graphc.linear(x, classes, name="classifier")


if __name__ == "__main__":
    graphc.demo(mobilenet_v2)
