"""ZFNet: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, arXiv:1311.2901, figure 3.

AlexNet with a smaller window and stride in the first layer, and without groups: 62,357,608 parameters.

    python examples/zfnet.py
"""

from __future__ import annotations

import graphc


@graphc.model
def zfnet(image: graphc.f32["N", 3, 224, 224], *, classes: int = 1000):
    x = graphc.conv2d(image, 96, kernel=7, stride=2, padding=1, activation="relu", name="conv1")
    x = graphc.lrn(graphc.max_pool2d(x, 3, stride=2, ceil=True), size=5)
    x = graphc.conv2d(x, 256, kernel=5, stride=2, activation="relu", name="conv2")
    x = graphc.lrn(graphc.max_pool2d(x, 3, stride=2, ceil=True), size=5)
    x = graphc.conv2d(x, 384, kernel=3, padding=1, activation="relu", name="conv3")
    x = graphc.conv2d(x, 384, kernel=3, padding=1, activation="relu", name="conv4")
    x = graphc.conv2d(x, 256, kernel=3, padding=1, activation="relu", name="conv5")
    x = graphc.max_pool2d(x, 3, stride=2).flatten()
    x = graphc.dropout(graphc.linear(x, 4096, activation="relu", name="fc6"))
    x = graphc.dropout(graphc.linear(x, 4096, activation="relu", name="fc7"))
    return graphc.linear(x, classes, name="fc8")


if __name__ == "__main__":
    graphc.demo(zfnet)
