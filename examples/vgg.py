"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv:1409.1556, table 1.

Columns A, B, D and E: vgg11 (132,863,336 parameters), vgg13 (133,047,848), vgg16 (138,357,544), vgg19 (143,667,240).

    python examples/vgg.py --depth 16
"""

from __future__ import annotations

import argparse

import graphc

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions before each pooling
CHANNELS = (64, 128, 256, 512, 512)


@graphc.model
def vgg(image: graphc.f32["N", 3, 224, 224], *, depth: int = 16, classes: int = 1000):
    x = image
    for stage, (channels, count) in enumerate(zip(CHANNELS, STAGES[depth], strict=True), start=1):
        for i in range(1, count + 1):
            x = graphc.conv2d(x, channels, kernel=3, padding=1, activation="relu", name=f"conv{stage}_{i}")
        x = graphc.max_pool2d(x, 2, name=f"pool{stage}")
    x = graphc.dropout(graphc.linear(x.flatten(), 4096, activation="relu", name="fc6"))
    x = graphc.dropout(graphc.linear(x, 4096, activation="relu", name="fc7"))
    return graphc.linear(x, classes, name="fc8")


vgg16 = vgg.configure(depth=16, name="vgg16")
vgg19 = vgg.configure(depth=19, name="vgg19")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="VGG: summary, and a run on a random image")
    parser.add_argument("--depth", type=int, choices=STAGES, default=16)
    depth = parser.parse_args().depth
    graphc.demo(vgg.configure(depth=depth, name=f"vgg{depth}"))
