"""Random graphs for property tests: many ops, odd names, constants, parameters, state, dead and repeated nodes; a seed gives the graph.

Every node has an origin of its own ("n0", "n1", ...) and a source, so that tests can follow them through the compiler.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Value
from graphc.ir.op import Op
from graphc.ops.conv import Conv
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat, Expand, Pad, Reshape, ShapeOf, Slice, Tile, Transpose
from graphc.ops.norm import BatchNorm, LayerNorm, Softmax
from graphc.ops.pointwise import Cast, op
from graphc.ops.pool import AvgPool, MaxPool
from graphc.ops.reduce import Reduce
from graphc.source import Source
from graphc.types.dtype import DType, f32, f64
from graphc.types.shape import DimLike, symbol

Array = np.ndarray[Any, np.dtype[Any]]
ODD_NAMES = (
    "a b", "naïve/é", 'quo"te', "back\\slash", "new\nline", "#hash", "1", "nan", "true", "-x", "%", "", "\u2028", "日本", "x, y", "\ud800",
)  # fmt: skip
UNARY = ("relu", "tanh", "sigmoid", "silu", "leaky_relu", "abs", "hard_swish", "identity", "neg", "gelu", "softplus", "mish", "square_of")
BINARY = ("add", "mul", "sub", "max", "min")


def random_graph(seed: int, size: int = 12, *, symbolic: bool = False, odd_names: bool = False, dtype: DType = f32) -> Graph:
    """`size` random nodes over inputs "x" (N, C, H, W) and "v" (N, K); batch N is symbolic on demand, and odd names are given."""
    return _Maker(seed, symbolic, odd_names, dtype).make(size)


def feeds(graph: Graph, seed: int = 0, batch: int = 2) -> dict[str, Array]:
    """Random inputs of order one, float32 numbers in any dtype; symbolic dims are `batch`."""
    rng = np.random.default_rng(seed)
    shapes = {v.name: tuple(d if isinstance(d, int) else batch for d in v.type.shape) for v in graph.inputs}
    return {v.name: rng.uniform(-2, 2, shapes[v.name]).astype(np.float32).astype(v.type.dtype.numpy) for v in graph.inputs}


class _Maker:
    def __init__(self, seed: int, symbolic: bool, odd_names: bool, dtype: DType) -> None:
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.builder = Builder(Graph(self._pick(ODD_NAMES) if odd_names else "random"))
        self.odd_names = odd_names
        batch: DimLike = symbol("N") if symbolic else self._pick((1, 2, 3))
        channels = self._pick((1, 3, 4, 5, 8, 16, 17, 32))
        x = self.builder.input(self._name("x"), dtype, (batch, channels, self._pick((1, 5, 6, 8)), self._pick((1, 4, 7))))
        v = self.builder.input(self._name("v"), dtype, (batch, self._pick((1, 4, 9, 20))))
        self.pool: list[Value] = [x, v]
        self.count = 0

    def make(self, size: int) -> Graph:
        actions: list[Callable[[Value], Value | None]] = [
            self.unary, self.unary, self.binary, self.scaled, self.scaled, self.conv, self.conv, self.depthwise, self.window,
            self.batch_norm, self.concat, self.transpose, self.flatten, self.matmul, self.row_norm, self.reduce, self.pad, self.slice,
            self.stretch, self.cast, self.repeat, self.shape_arithmetic,
        ]  # fmt: skip
        while self.count < size:
            x = self._pick(self.pool[-4:] if self.random.random() < 0.7 else self.pool)
            try:
                value = self._pick(actions)(x)
            except GraphcError:
                continue  # does not fit this value
            if value is not None:
                self.pool.append(value)
        return self._finish()

    def _finish(self) -> Graph:
        graph = self.builder.graph
        if self.random.random() < 0.3:
            self._remember(self._pick(self.pool))
        results = [v for v in self.pool if v.producer is not None]
        outputs = [results[-1], *self.random.sample(self.pool, self._pick((0, 0, 1, 2)))]
        self.builder.finish(**{f"out {i}" if self.odd_names else f"y{i}": v for i, v in enumerate(outputs)})
        if self.random.random() < 0.3:
            graph.metadata[self._pick(ODD_NAMES)] = self._pick(ODD_NAMES)
        return graph

    def _remember(self, x: Value) -> None:
        """A state that becomes a mean of what it was and a value, or another value of its type."""
        if not all(isinstance(size, int) for size in x.type.shape):
            return
        state = self.builder.state(self._name("state"), self._rounded(self.rng.standard_normal(x.type.static_shape)))
        mixed = self.add(op("add"), self.add(op("mul"), state, self.weight(scale=0.5)), x)
        self.pool += [mixed] * self._pick((0, 1))
        self.builder.graph.updates[state] = self._pick((mixed, mixed, x, *(v for v in self.pool if v.type == x.type)))

    def add(self, op: Op, *inputs: Value) -> Value:
        with self.builder.at(Source("net.py", self.count + 1, self._name("node"), op.name), (f"n{self.count}",)):
            value = self.builder.add(op, *inputs, name=self._name(op.name))
        self.count += 1
        return value

    def weight(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> Value:
        data = self._rounded(self.rng.standard_normal(shape) * scale + offset)
        name = self.builder.graph.fresh_name(self._name("w"))
        return self.builder.parameter(name, data) if self.random.random() < 0.5 else self.builder.constant(data, name=name)

    def _rounded(self, data: Array) -> Array:
        """To float32 first, so that a graph in float64 has the same numbers as its float32 twin."""
        return data.astype(np.float32).astype(self.pool[0].type.dtype.numpy)

    def _pick(self, choices: Any) -> Any:
        return self.random.choice(list(choices))

    def _name(self, plain: str) -> str:
        return self.builder.graph.fresh_name(self._pick(ODD_NAMES) + plain) if self.odd_names else plain

    # actions ----------------------------------------------------------------------------------------------------------------

    def unary(self, x: Value) -> Value:
        name = self._pick(UNARY)
        return self.add(op("mul"), x, x) if name == "square_of" else self.add(op(name), x)

    def binary(self, x: Value) -> Value | None:
        same = [v for v in self.pool if v.type == x.type]
        return self.add(op(self._pick(BINARY)), x, self._pick(same))

    def scaled(self, x: Value) -> Value:
        """With a constant: a scalar, or one number per channel."""
        size = x.type.shape[1].__index__() if x.type.rank > 2 and self.random.random() < 0.7 else 1
        c = self.weight(size, *(1,) * (x.type.rank - 2), scale=0.3, offset=1.0) if x.type.rank > 2 else self.weight(scale=0.5)
        return self.add(op(self._pick(("add", "mul", "sub"))), *((x, c) if self.random.random() < 0.7 else (c, x)))

    def conv(self, x: Value) -> Value:
        channels = x.type.shape[1].__index__()
        out, kernel, stride = self._pick((1, 4, 5, 16, 20)), self._pick((1, 1, 2, 3, 3)), self._pick((1, 1, 2))
        groups = self._pick((1, 1, 2)) if channels % 2 == 0 and out % 2 == 0 else 1
        pad, dilation = self._pick((0, kernel // 2, 2)), self._pick((1, 1, 2))
        inputs = [self.weight(out, channels // groups, kernel, kernel, scale=1 / (kernel * channels**0.5))]
        if self.random.random() < 0.6:
            inputs.append(self.weight(out, scale=0.3))
        return self.add(Conv((stride,) * 2, (dilation,) * 2, (pad,) * 2, (self._pick((pad, pad, 0)),) * 2, groups), x, *inputs)

    def depthwise(self, x: Value) -> Value:
        channels, kernel = x.type.shape[1].__index__(), self._pick((2, 3))
        return self.add(Conv((1, 1), (1, 1), (1, 1), (1, 1), channels), x, self.weight(channels, 1, kernel, kernel, scale=0.4))

    def window(self, x: Value) -> Value:
        kernel, stride = self._pick((2, 3)), self._pick((1, 2))
        kind = self._pick((MaxPool, AvgPool))
        pads = self._pick(((0, 0), (1, 1), (0, 1)))
        return self.add(kind((kernel,) * 2, (stride,) * 2, (1, 1), (pads[0],) * 2, (pads[1],) * 2), x)

    def batch_norm(self, x: Value) -> Value:
        c = x.type.shape[1].__index__()
        variance = self.builder.constant(self._rounded(self.rng.uniform(0.5, 2, c)), name=self._name("var"))
        return self.add(BatchNorm(), x, self.weight(c, scale=0.2, offset=1.0), self.weight(c), self.weight(c, scale=0.2), variance)

    def concat(self, x: Value) -> Value:
        axis = self._pick((1, 1, x.type.rank - 1))
        fitting = [v for v in self.pool if v.type.rank == x.type.rank and v.type.dtype == x.type.dtype]
        return self.add(Concat(axis), x, *(self._pick(fitting) for _ in range(self._pick((1, 1, 2)))))

    def transpose(self, x: Value) -> Value:
        axes = list(range(1, x.type.rank))
        self.random.shuffle(axes)
        return self.add(Transpose((0, *axes)), x)

    def flatten(self, x: Value) -> Value:
        total = 1
        for size in x.type.shape[1:]:
            total *= size.__index__()
        shapes: list[tuple[DimLike, ...]] = [(x.type.shape[0], total), (x.type.shape[0], total, 1, 1), (x.type.shape[0], 1, total)]
        return self.add(Reshape(self._pick(shapes)), x)

    def matmul(self, x: Value) -> Value:
        k, n = x.type.shape[-1].__index__(), self._pick((1, 3, 16, 19))
        transposed = self.random.random() < 0.4
        return self.add(MatMul(False, transposed), x, self.weight(*((n, k) if transposed else (k, n)), scale=k**-0.5))

    def row_norm(self, x: Value) -> Value:
        axis = x.type.rank - 1
        if self.random.random() < 0.5:
            return self.add(Softmax(self._pick((1, axis))), x)
        return self.add(LayerNorm(axis), x, self.weight(x.type.shape[axis].__index__(), offset=1.0))

    def reduce(self, x: Value) -> Value:
        axes = self._pick(((x.type.rank - 1,), tuple(range(2, x.type.rank)) or (1,), (1,)))
        keepdims = x.type.rank - len(axes) < 2 or self.random.random() < 0.5
        return self.add(Reduce(self._pick(("mean", "max", "sum")), axes, keepdims), x)

    def pad(self, x: Value) -> Value:
        rank = x.type.rank
        return self.add(Pad((0,) * (rank - 1) + (self._pick((0, 1)),), (0,) * (rank - 1) + (self._pick((0, 2)),)), x)

    def slice(self, x: Value) -> Value:
        shape = list(x.type.shape)
        axis = self.random.randrange(1, x.type.rank)
        step = self._pick((1, 1, 2, -1))
        start = shape[axis].__index__() - 1 if step < 0 else self._pick((0, 1))
        shape[axis] = max((shape[axis].__index__() - start + step - 1) // step if step > 0 else start + 1, 0) or 1
        starts, steps = [0] * x.type.rank, [1] * x.type.rank
        starts[axis], steps[axis] = start, step
        return self.add(Slice(tuple(starts), tuple(steps), tuple(shape)), x)

    def stretch(self, x: Value) -> Value:
        if x.type.shape[-1] == 1:
            return self.add(Expand((*x.type.shape[:-1], 3)), x)
        return self.add(Tile((1,) * (x.type.rank - 1) + (self._pick((1, 2)),)), x)

    def cast(self, x: Value) -> Value:
        return self.add(Cast(x.type.dtype), self.add(Cast(f64), x))

    def repeat(self, x: Value) -> Value | None:
        """The same computation again."""
        node = x.producer
        return self.add(node.op, *node.inputs) if node is not None else None

    def shape_arithmetic(self, x: Value) -> Value | None:
        """Integers made of a shape; never a result of its own, so dead or folded."""
        shape = self.add(ShapeOf(), x)
        self.add(op("mul"), shape, self.builder.constant(np.asarray(2, np.int64)))
        return None


def leaves(graph: Graph) -> list[Value]:
    return [v for v in graph.values.values() if v.kind is not Kind.RESULT]
