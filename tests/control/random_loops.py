"""Random graphs with loops and choices, nested, that carry, scan, stack and capture values of one shape."""

from __future__ import annotations

import random

import numpy as np

from graphc.ir.body import Body
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ops.control import If, Loop
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Reshape, Transpose
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.types.dtype import f32, i64

SIZE = 6  # every value is a SIZE x SIZE matrix
UNARY, BINARY = ("tanh", "neg", "sigmoid", "abs"), ("add", "sub", "mul", "max")


class _Maker:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def matrix(self, builder: Builder, pool: list[Value]) -> Value:
        """A node on values of the pool."""
        kind = self.rng.randrange(6)
        a, b = self.rng.choice(pool), self.rng.choice(pool)
        if kind == 0:
            flags = self.rng.random() < 0.2, self.rng.random() < 0.5
            return builder.add(op("tanh"), builder.add(MatMul(*flags), a, b))
        if kind == 1:
            return builder.add(Transpose((1, 0)), a)
        if kind == 2:
            return builder.add(op("sub"), a, builder.add(Reduce("mean", (1,), True), b))
        if kind == 3:
            return builder.add(op(self.rng.choice(UNARY)), a)
        return builder.add(op(self.rng.choice(BINARY)), a, b)

    def fill(self, builder: Builder, pool: list[Value], nodes: int, depth: int) -> None:
        """Nodes, now and then a loop or a choice, each of which may read all that is there by then."""
        for _ in range(nodes):
            kind = self.rng.randrange(8) if depth else 2
            if kind == 0:
                pool += self.loop(builder, pool, depth - 1)
            elif kind == 1:
                pool += self.choice(builder, pool, depth - 1)
            else:
                pool.append(self.matrix(builder, pool))

    def loop(self, builder: Builder, pool: list[Value], depth: int) -> list[Value]:
        states, xs, ys = self.rng.randint(0, 3), self.rng.randint(0, 2), self.rng.randint(0, 2)
        trips = self.rng.choice((0, 1, 2, 3, SIZE)) if not xs else SIZE
        conditional = self.rng.random() < 0.3
        body = Body(builder, "loop")
        inner = body.builder
        inner.input("i", i64, ())
        own = [inner.input(f"s{k}", f32, (SIZE, SIZE)) for k in range(states)]
        back = [not conditional and self.rng.random() < 0.5 for _ in range(xs + ys)]
        axes = [self.rng.randrange(2) for _ in range(xs)]
        deep = [self.rng.random() < 0.5 for _ in range(xs)]
        rows = [inner.input(f"x{k}", f32, (SIZE,) * (1 + whole)) for k, whole in enumerate(deep)]
        wide = [inner.add(op("mul"), row, inner.constant(np.ones((SIZE, 1), np.float32))) for row in rows]
        matrices = [x if whole else y for x, y, whole in zip(rows, wide, deep, strict=True)]
        seen = [*own, *matrices, *(body.capture(value) for value in self.rng.sample(pool, min(len(pool), 2)))]
        self.fill(inner, seen, self.rng.randint(1, 4), depth)
        results = [self.rng.choice(seen) for _ in range(states + ys)]
        if states and self.rng.random() < 0.5:  # a sum of products, as the gradient of a weight is
            product = inner.add(MatMul(trans_a=True), self.rng.choice(seen), self.rng.choice(seen))
            results[0] = inner.add(op("add"), own[0], product)
        if ys and self.rng.random() < 0.5:
            results[-1] = inner.add(MatMul(trans_b=self.rng.random() < 0.5), self.rng.choice(seen), self.rng.choice(seen))
        flags = []
        if conditional:
            total = inner.add(Reduce("sum", (0, 1), False), self.rng.choice(seen))
            flags = [inner.add(op("less"), total, inner.constant(np.float32(4)))]
        captured = body.finish((value.name, value) for value in (*flags, *results))
        first = [builder.constant(np.asarray(True))] if conditional else []
        loop = Loop(
            body.graph, states, tuple(axes), tuple(back[:xs]), tuple(self.rng.randrange(3) for _ in range(ys)), tuple(back[xs:]), trips,
            conditional=conditional,
        )  # fmt: skip
        given = [self.rng.choice(pool) for _ in range(states)]
        given += [self.cube(builder, pool) if whole else self.rng.choice(pool) for whole in deep]
        *made, _ = builder.add_many(loop, *first, *given, *captured)
        return [*made[:states], *(self.square(builder, y, axis) for y, axis in zip(made[states:], loop.y_axes, strict=True))]

    def cube(self, builder: Builder, pool: list[Value]) -> Value:
        a, b = self.rng.choice(pool), self.rng.choice(pool)
        return builder.add(op("mul"), builder.add(Reshape((SIZE, 1, SIZE)), a), builder.add(Reshape((1, SIZE, SIZE)), b))

    def square(self, builder: Builder, stack: Value, axis: int) -> Value:
        """What is stacked, as a matrix again."""
        return builder.add(Reduce("sum", (axis,), False), stack)

    def choice(self, builder: Builder, pool: list[Value], depth: int) -> list[Value]:
        count = self.rng.randint(1, 2)
        flag = builder.add(op("less"), builder.add(Reduce("sum", (0, 1), False), self.rng.choice(pool)), builder.constant(np.float32(1)))
        bodies, captured = [], []
        for name in ("then", "else"):
            body = Body(builder, name)
            seen = [body.capture(value) for value in self.rng.sample(pool, min(len(pool), 2))]
            self.fill(body.builder, seen, self.rng.randint(0, 3), depth)
            bodies.append(body.graph)
            captured += body.finish((value.name, value) for value in (self.rng.choice(seen) for _ in range(count)))
        return list(builder.add_many(If(bodies[0], bodies[1]), flag, *captured))


def random_loops(seed: int) -> Graph:
    """A graph of two inputs and some parameters."""
    maker, builder = _Maker(seed), Builder(Graph("loops"))
    pool = [builder.input(name, f32, (SIZE, SIZE)) for name in ("a", "b")]
    rng = np.random.default_rng(seed)
    pool += [builder.parameter(name, rng.standard_normal((SIZE, SIZE)).astype(np.float32)) for name in ("p", "q")]
    while not any(node.op.bodies() for node in builder.graph.nodes):
        maker.fill(builder, pool, 4, 2)
    return builder.finish(y=pool[-1], z=pool[-2], w=maker.rng.choice(pool[4:]))
