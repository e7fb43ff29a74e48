"""AlexNet: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012.

The paper's network: two groups of channels (one per GPU, then) in conv2, conv4 and conv5, response normalisation, overlapping pooling:
60,965,224 parameters. The image has 227 pixels a side, which the paper calls 224. (torchvision's alexnet, with 61,100,840, follows a later
paper, arXiv:1404.5997: one group, fewer channels, no normalisation.)

    python examples/alexnet.py
"""

from __future__ import annotations

import graphc


@graphc.model
def alexnet(image: graphc.f32["N", 3, 227, 227], *, classes: int = 1000):
    x = graphc.conv2d(image, 96, kernel=11, stride=4, activation="relu", name="conv1")
    x = graphc.max_pool2d(normalise(x), 3, stride=2)
    x = graphc.conv2d(x, 256, kernel=5, padding=2, groups=2, activation="relu", name="conv2")
    x = graphc.max_pool2d(normalise(x), 3, stride=2)
    x = graphc.conv2d(x, 384, kernel=3, padding=1, activation="relu", name="conv3")
    x = graphc.conv2d(x, 384, kernel=3, padding=1, groups=2, activation="relu", name="conv4")
    x = graphc.conv2d(x, 256, kernel=3, padding=1, groups=2, activation="relu", name="conv5")
    x = graphc.max_pool2d(x, 3, stride=2).flatten()
    x = graphc.dropout(graphc.linear(x, 4096, activation="relu", name="fc6"))
    x = graphc.dropout(graphc.linear(x, 4096, activation="relu", name="fc7"))
    return graphc.linear(x, classes, name="fc8")


def normalise(x: graphc.Tensor) -> graphc.Tensor:
    """Section 3.3: n = 5, k = 2, alpha = 1e-4 (for the sum, where `lrn` takes the mean), beta = 0.75."""
    return graphc.lrn(x, size=5, alpha=5e-4, beta=0.75, bias=2.0)


if __name__ == "__main__":
    graphc.demo(alexnet)
