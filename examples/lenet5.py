"""LeNet-5, for handwritten digits: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.

As it is built today, with 61,706 parameters: average pooling without weights, every map of c3 sees all maps of s2, plain tanh, and a
linear output.

    python examples/lenet5.py
"""

from __future__ import annotations

import graphc


@graphc.model
def lenet5(image: graphc.f32["N", 1, 28, 28]):
    x = graphc.conv2d(image, 6, kernel=5, padding=2, activation="tanh", name="c1")
    x = graphc.avg_pool2d(x, 2, name="s2")
    x = graphc.conv2d(x, 16, kernel=5, activation="tanh", name="c3")
    x = graphc.avg_pool2d(x, 2, name="s4")
    x = graphc.conv2d(x, 120, kernel=5, activation="tanh", name="c5")
    x = graphc.linear(x.flatten(), 84, activation="tanh", name="f6")
    return graphc.linear(x, 10, name="output")


if __name__ == "__main__":
    graphc.demo(lenet5)
