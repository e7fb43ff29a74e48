"""Whole networks, small enough for tests and large enough that threads share the work: residual, branching, separable, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ops.conv import Conv
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat, Reshape, Transpose
from graphc.ops.norm import BatchNorm, LayerNorm, Softmax
from graphc.ops.pointwise import op
from graphc.ops.pool import AvgPool, MaxPool
from graphc.ops.reduce import Reduce
from graphc.types.dtype import f32

Array = np.ndarray[Any, np.dtype[Any]]


class _Net:
    def __init__(self, name: str, *shape: int) -> None:
        self.build = Builder(Graph(name))
        self.rng = np.random.default_rng(len(name))
        self.x = self.build.input("x", f32, shape)

    def weight(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> Value:
        data = self.rng.standard_normal(shape) * scale + offset
        return self.build.parameter(f"w{len(self.build.graph.values)}", data.astype(np.float32))

    def conv(self, x: Value, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Value:
        channels = x.type.shape[1].__index__() // groups
        w = self.weight(out, channels, kernel, kernel, scale=(channels * kernel * kernel) ** -0.5)
        pad = (kernel // 2,) * 2
        return self.build.add(Conv((stride,) * 2, (1, 1), pad, pad, groups), x, w, self.weight(out, scale=0.1))

    def norm(self, x: Value) -> Value:
        c = x.type.shape[1].__index__()
        variance = self.build.constant(self.rng.uniform(0.5, 2, c).astype(np.float32), name="var")
        return self.build.add(BatchNorm(), x, self.weight(c, scale=0.1, offset=1.0), self.weight(c), self.weight(c), variance)

    def act(self, x: Value, name: str = "relu") -> Value:
        return self.build.add(op(name), x)

    def add(self, a: Value, b: Value) -> Value:
        return self.build.add(op("add"), a, b)

    def dense(self, x: Value, out: int) -> Value:
        k = x.type.shape[-1].__index__()
        return self.add(self.build.add(MatMul(), x, self.weight(k, out, scale=k**-0.5)), self.weight(out, scale=0.1))

    def classify(self, x: Value) -> Graph:
        pooled = self.build.add(Reduce("mean", (2, 3), False), x)
        return self.build.finish(y=self.build.add(Softmax(1), self.dense(pooled, 37)))


def residual() -> Graph:
    """A stem, two blocks with shortcuts, stride 2, batch 2."""
    net = _Net("residual", 2, 3, 33, 31)
    x = net.act(net.norm(net.conv(net.x, 32, 7, 2)))
    x = net.build.add(MaxPool((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), x)
    for width, stride in ((32, 1), (48, 2)):
        y = net.act(net.norm(net.conv(x, width, 3, stride)))
        y = net.norm(net.conv(y, width, 3))
        x = net.act(net.add(y, x if stride == 1 else net.norm(net.conv(x, width, 1, stride))))
    return net.classify(x)


def branching() -> Graph:
    """Two inception modules: branches of several kernels, written into one concat."""
    net = _Net("branching", 1, 16, 14, 14)
    x = net.x
    for _ in range(2):
        pooled = net.build.add(AvgPool((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), x)
        wide, wider = net.conv(net.act(net.conv(x, 8, 1)), 32, 3), net.conv(net.conv(x, 4, 1), 16, 5)
        x = net.act(net.build.add(Concat(1), net.conv(x, 16, 1), wide, wider, net.conv(pooled, 20, 1)))
    return net.classify(x)


def separable() -> Graph:
    """Inverted residuals: expand, depthwise, project; hard swish and a gate of squeeze and excitation."""
    net = _Net("separable", 1, 3, 32, 32)
    x = net.act(net.conv(net.x, 16, 3, 2), "hard_swish")
    for _ in range(2):
        y = net.act(net.conv(x, 72, 1), "hard_swish")
        y = net.act(net.conv(y, 72, 3, 1, 72), "relu")
        gate = net.act(net.conv(net.build.add(Reduce("mean", (2, 3), True), y), 72, 1), "sigmoid")
        x = net.add(x, net.conv(net.build.add(op("mul"), y, gate), 16, 1))
    return net.classify(x)


def attention() -> Graph:
    """One transformer block over 24 tokens of width 64, 4 heads."""
    net = _Net("attention", 2, 24, 64)
    b = net.build

    def heads(x: Value) -> Value:
        return b.add(Transpose((0, 2, 1, 3)), b.add(Reshape((2, 24, 4, 16)), x))

    h = b.add(LayerNorm(2), net.x, net.weight(64, scale=0.1, offset=1.0), net.weight(64))
    q, k, v = (heads(net.dense(h, 64)) for _ in range(3))
    scores = b.add(op("mul"), b.add(MatMul(False, True), q, k), b.constant(np.float32(0.25)))
    mixed = b.add(MatMul(), b.add(Softmax(3), scores), v)
    x = net.add(net.x, net.dense(b.add(Reshape((2, 24, 64)), b.add(Transpose((0, 2, 1, 3)), mixed)), 64))
    y = net.dense(net.act(net.dense(b.add(LayerNorm(2), x), 256), "gelu"), 64)
    return b.finish(y=net.add(x, y), largest=b.add(Reduce("max", (1, 2), False), y))


NETWORKS: dict[str, Callable[[], Graph]] = {net.__name__: net for net in (residual, branching, separable, attention)}


def image(graph: Graph, seed: int) -> Array:
    """An input of order one."""
    return np.random.default_rng(seed).standard_normal(graph.inputs[0].type.static_shape).astype(np.float32)
