"""Networks to train, in the DSL and in PyTorch, with the same parameter names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch")
nn = torch.nn

Array = np.ndarray[Any, np.dtype[Any]]


@graphc.model
def lenet5(image: graphc.f32["N", 1, 28, 28]) -> Any:
    x = graphc.conv2d(image, 6, kernel=5, padding=2, activation="tanh", name="c1")
    x = graphc.conv2d(graphc.avg_pool2d(x, 2), 16, kernel=5, activation="tanh", name="c3")
    x = graphc.linear(graphc.flatten(graphc.avg_pool2d(x, 2)), 120, activation="tanh", name="c5")
    return graphc.linear(graphc.linear(x, 84, activation="tanh", name="f6"), 10, name="out")


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c3 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.c5, self.f6, self.out = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Any) -> Any:
        x = nn.functional.avg_pool2d(torch.tanh(self.c1(x)), 2)
        x = nn.functional.avg_pool2d(torch.tanh(self.c3(x)), 2).flatten(1)
        return self.out(torch.tanh(self.f6(torch.tanh(self.c5(x)))))


@graphc.model
def residual(image: graphc.f32["N", 8, 9, 9]) -> Any:
    """A residual block with batch normalisation, and a stride in both branches."""
    x = graphc.batch_norm(graphc.conv2d(image, 20, kernel=3, stride=2, padding=1, bias=False, name="a"), activation="relu", name="an")
    x = graphc.batch_norm(graphc.conv2d(x, 20, kernel=3, padding=1, bias=False, name="b"), name="bn")
    side = graphc.batch_norm(graphc.conv2d(image, 20, kernel=1, stride=2, bias=False, name="s"), name="sn")
    return graphc.linear(graphc.flatten(graphc.global_avg_pool(graphc.relu(x + side))), 5, name="out")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 20, 3, 2, 1, bias=False), nn.Conv2d(20, 20, 3, 1, 1, bias=False)
        self.s = nn.Conv2d(8, 20, 1, 2, bias=False)
        self.an, self.bn, self.sn, self.out = nn.BatchNorm2d(20), nn.BatchNorm2d(20), nn.BatchNorm2d(20), nn.Linear(20, 5)

    def forward(self, image: Any) -> Any:
        x = self.bn(self.b(torch.relu(self.an(self.a(image)))))
        return self.out(torch.relu(x + self.sn(self.s(image))).mean((2, 3)))


@graphc.model
def inception(image: graphc.f32["N", 24, 8, 8]) -> Any:
    """Four branches that are concatenated, as in GoogLeNet."""

    def conv(x: Any, channels: int, kernel: int, name: str) -> Any:
        return graphc.conv2d(x, channels, kernel=kernel, padding=kernel // 2, activation="relu", name=name)

    one = conv(image, 16, 1, "one")
    three = conv(conv(image, 12, 1, "r3"), 32, 3, "three")
    five = conv(conv(image, 4, 1, "r5"), 8, 5, "five")
    pool = conv(graphc.max_pool2d(image, 3, stride=1, padding=1), 16, 1, "pool")
    x = graphc.max_pool2d(graphc.concat([one, three, five, pool], axis=1), 3, stride=2)
    return graphc.linear(graphc.flatten(x), 6, name="out")


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.r3, self.three = nn.Conv2d(24, 16, 1), nn.Conv2d(24, 12, 1), nn.Conv2d(12, 32, 3, padding=1)
        self.r5, self.five, self.pool = nn.Conv2d(24, 4, 1), nn.Conv2d(4, 8, 5, padding=2), nn.Conv2d(24, 16, 1)
        self.out = nn.Linear(72 * 9, 6)

    def forward(self, x: Any) -> Any:
        relu, pooled = torch.relu, nn.functional.max_pool2d(x, 3, 1, 1)
        parts = [relu(self.one(x)), relu(self.three(relu(self.r3(x)))), relu(self.five(relu(self.r5(x)))), relu(self.pool(pooled))]
        return self.out(nn.functional.max_pool2d(torch.cat(parts, 1), 3, 2).flatten(1))


@dataclass(frozen=True)
class Case:
    """A model, its PyTorch twin, and the shape of one image."""

    model: Any
    twin: Callable[[], nn.Module]
    image: tuple[int, ...]
    classes: int

    def batch(self, size: int, seed: int = 0) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((size, *self.image)).astype(np.float32), rng.integers(0, self.classes, size)

    def torch(self, parameters: Mapping[str, Array], dtype: Any = torch.float32) -> nn.Module:
        """The twin with these parameters, training."""
        net = self.twin()
        known = net.state_dict()
        net.load_state_dict({**known, **{name: torch.from_numpy(array) for name, array in parameters.items()}})
        return net.to(dtype).train()


CASES = {
    "lenet5": Case(lenet5, LeNet5, (1, 28, 28), 10),
    "residual": Case(residual, Residual, (8, 9, 9), 5),
    "inception": Case(inception, Inception, (24, 8, 8), 6),
}
