"""Networks whose training is timed: in the DSL and in PyTorch, parameters in the same order, so that both start from the same numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

import graphc
from bench.char_net import char_net
from bench.net import Net

EXPANDED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # MobileNetV2
INCEPTION = (  # GoogLeNet: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection, and whether a pool follows
    (64, 96, 128, 16, 32, 32, False), (128, 128, 192, 32, 96, 64, True), (192, 96, 208, 16, 48, 64, False),
    (160, 112, 224, 24, 64, 64, False), (128, 128, 256, 24, 64, 64, False), (112, 144, 288, 32, 64, 64, False),
    (256, 160, 320, 32, 128, 128, True), (256, 160, 320, 32, 128, 128, False), (384, 192, 384, 48, 128, 128, False),
)  # fmt: skip


@graphc.model
def lenet5(image: graphc.f32["N", 1, 28, 28]) -> Any:
    """LeCun et al. 1998."""
    x = graphc.conv2d(image, 6, kernel=5, padding=2, activation="tanh")
    x = graphc.conv2d(graphc.avg_pool2d(x, 2), 16, kernel=5, activation="tanh")
    x = graphc.linear(graphc.flatten(graphc.avg_pool2d(x, 2)), 120, activation="tanh")
    return graphc.linear(graphc.linear(x, 84, activation="tanh"), 10)


class LeNet5(nn.Sequential):
    def __init__(self) -> None:
        tail = (nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))
        first, second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        super().__init__(first, nn.Tanh(), nn.AvgPool2d(2), second, nn.Tanh(), nn.AvgPool2d(2), *tail)


def _conv_bn(x: Any, channels: int, kernel: int, stride: int = 1, groups: int = 1, activation: str | None = "relu") -> Any:
    x = graphc.conv2d(x, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return graphc.batch_norm(x, activation=activation)


class ConvBn(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: Any = None) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), *([act] if act is not None else []))


@graphc.model
def resnet18(image: graphc.f32["N", 3, 32, 32]) -> Any:
    """He et al. 2015 in the form for CIFAR: a 3x3 stem of stride 1 and no pooling."""
    x = _conv_bn(image, 64, 3)
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = _conv_bn(_conv_bn(x, 64 << stage, 3, stride), 64 << stage, 3, activation=None)
            x = graphc.relu(y + (_conv_bn(x, 64 << stage, 1, stride, activation=None) if stride > 1 else x))
    return graphc.linear(graphc.global_avg_pool(x).flatten(), 10)


class Basic(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = ConvBn(inputs, width, 3, stride, act=nn.ReLU()), ConvBn(width, width, 3)
        self.side = ConvBn(inputs, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        return torch.relu(self.second(self.first(x)) + self.side(x))


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        blocks = [Basic(a, b, 2 if a != b else 1) for a, b in pairwise(widths)]
        self.body, self.out = nn.Sequential(ConvBn(3, 64, 3, act=nn.ReLU()), *blocks), nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        return self.out(self.body(x).mean((2, 3)))


@graphc.model
def mobilenet_v2(image: graphc.f32["N", 3, 96, 96]) -> Any:
    """Sandler et al. 2018, without its dropout."""
    x = _conv_bn(image, 32, 3, 2, activation="relu6")
    for expansion, channels, repeats, first in EXPANDED:
        for stride in (first, *(1,) * (repeats - 1)):
            width = x.shape[1] * expansion
            y = _conv_bn(x, width, 1, activation="relu6") if expansion > 1 else x
            y = _conv_bn(_conv_bn(y, width, 3, stride, width, "relu6"), channels, 1, activation=None)
            x = x + y if stride == 1 and x.shape[1] == channels else y
    x = _conv_bn(x, 1280, 1, activation="relu6")
    return graphc.linear(graphc.global_avg_pool(x).flatten(), 100)


class Inverted(nn.Module):
    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers = [ConvBn(inputs, width, 1, act=nn.ReLU6())] if expansion > 1 else []
        self.body = nn.Sequential(*layers, ConvBn(width, width, 3, stride, width, nn.ReLU6()), ConvBn(width, outputs, 1))
        self.joins = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.joins else self.body(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBn(3, 32, 3, 2, act=nn.ReLU6())]
        inputs = 32
        for expansion, channels, repeats, first in EXPANDED:
            for stride in (first, *(1,) * (repeats - 1)):
                layers.append(Inverted(inputs, expansion, channels, stride))
                inputs = channels
        self.body, self.out = nn.Sequential(*layers, ConvBn(320, 1280, 1, act=nn.ReLU6())), nn.Linear(1280, 100)

    def forward(self, x: Any) -> Any:
        return self.out(self.body(x).mean((2, 3)))


@graphc.model
def googlenet(image: graphc.f32["N", 3, 96, 96]) -> Any:
    """Szegedy et al. 2014, without local response normalisation, dropout and the auxiliary classifiers."""

    def conv(x: Any, channels: int, kernel: int, stride: int = 1) -> Any:
        return graphc.conv2d(x, channels, kernel, stride, padding=kernel // 2, activation="relu")

    def pool(x: Any) -> Any:
        return graphc.max_pool2d(x, 3, stride=2, padding=1)

    x = pool(conv(conv(pool(conv(image, 64, 7, 2)), 64, 1), 192, 3))
    for one, reduce3, three, reduce5, five, projection, pooled in INCEPTION:
        parts = [conv(x, one, 1), conv(conv(x, reduce3, 1), three, 3), conv(conv(x, reduce5, 1), five, 5)]
        x = graphc.concat([*parts, conv(graphc.max_pool2d(x, 3, stride=1, padding=1), projection, 1)])
        x = pool(x) if pooled else x
    return graphc.linear(graphc.global_avg_pool(x).flatten(), 100)


class ConvRelu(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU())


class Inception(nn.Module):
    def __init__(self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, projection: int) -> None:
        super().__init__()
        self.one = ConvRelu(inputs, one, 1)
        self.three = nn.Sequential(ConvRelu(inputs, reduce3, 1), ConvRelu(reduce3, three, 3))
        self.five = nn.Sequential(ConvRelu(inputs, reduce5, 1), ConvRelu(reduce5, five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvRelu(inputs, projection, 1))

    def forward(self, x: Any) -> Any:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [ConvRelu(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), ConvRelu(64, 64, 1), ConvRelu(64, 192, 3), nn.MaxPool2d(3, 2, 1)]
        inputs = 192
        for *widths, pooled in INCEPTION:
            layers.append(Inception(inputs, *widths))
            inputs = widths[0] + widths[2] + widths[4] + widths[5]
            layers += [nn.MaxPool2d(3, 2, 1)] if pooled else []
        self.body, self.out = nn.Sequential(*layers), nn.Linear(inputs, 100)

    def forward(self, x: Any) -> Any:
        return self.out(self.body(x).mean((2, 3)))


NETS = {
    "lenet5": Net(lenet5, LeNet5, (1, 28, 28), 10, 64),
    "resnet18": Net(resnet18, ResNet18, (3, 32, 32), 10, 32),
    "mobilenet_v2": Net(mobilenet_v2, MobileNetV2, (3, 96, 96), 100, 16),
    "googlenet": Net(googlenet, GoogLeNet, (3, 96, 96), 100, 16),
    "char_lstm": char_net("lstm", units=256, layers=2, classes=65, batch=32, steps=64),
}
