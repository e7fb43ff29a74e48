"""Nests as op lowerings write them. Each sample: a name and a function that makes the spec."""

from __future__ import annotations

import math
from collections.abc import Callable

from cpu_nest.harness import output_nest, over_output, tensor
from graphc.kernel.access import Access, broadcast, flat_index, from_function, from_operand, padded, unflatten
from graphc.kernel.expr import Expr, call, cast, const, equal, index, load, maximum, minimum, reduce, select
from graphc.kernel.spec import Nest, NestSpec, StoreAt
from graphc.types.dtype import ALL, DType, bool_, f16, f32, f64, i8, i32, i64
from graphc.types.layout import Layout

C16, C8 = Layout(16), Layout(8)
HALO = Layout(16, ((1, 2), (2, 1)))
SAMPLES: dict[str, Callable[[], NestSpec]] = {}


def sample(name: str) -> Callable[[Callable[[], NestSpec]], Callable[[], NestSpec]]:
    def add(make: Callable[[], NestSpec]) -> Callable[[], NestSpec]:
        SAMPLES[name] = make
        return make

    return add


def _pool(kind: str, kernel: int, stride: int, pad: int) -> Callable[[Access], Callable[..., Expr]]:
    def element(x: Access) -> Callable[..., Expr]:
        def at(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
            outside = -math.inf if kind == "max" else 0.0
            window = lambda i, j: padded(x, (n, c, h * stride + i - pad, w * stride + j - pad), outside)  # noqa: E731
            total = reduce(kind, (kernel, kernel), window)
            return total if kind == "max" else total / float(kernel * kernel)

        return at

    return element


def _softmax(size: int) -> Callable[[Access], Callable[..., Expr]]:
    def element(x: Access) -> Callable[..., Expr]:
        def at(*i: Expr) -> Expr:
            row = i[:-1]
            highest = reduce("max", [size], lambda r: x(*row, r))
            again = highest if size > 40 else reduce("max", [size], lambda q: x(*row, q))  # written twice, it is still computed once
            total = reduce("sum", [size], lambda r: call("exp", x(*row, r) - again))
            return call("exp", x(*i) - highest) / total

        return at

    return element


def _moments(x: Access, count: int, at: Callable[..., Expr], extents: tuple[int, ...]) -> tuple[Expr, Expr]:
    mean = reduce("sum", extents, at) / float(count)
    variance = reduce("sum", extents, lambda *r: (at(*r) - mean) * (at(*r) - mean)) / float(count)
    return mean, variance


def _instance_norm(height: int, width: int) -> Callable[[Access], Callable[..., Expr]]:
    def element(x: Access) -> Callable[..., Expr]:
        def at(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
            mean, variance = _moments(x, height * width, lambda i, j: x(n, c, i, j), (height, width))
            return (x(n, c, h, w) - mean) / call("sqrt", variance + 1e-5)

        return at

    return element


def _argmax(size: int, axis: int) -> Callable[[Access], Callable[..., Expr]]:
    def element(x: Access) -> Callable[..., Expr]:
        def at(i: Expr) -> Expr:
            item = (lambda r: x(i, r)) if axis else (lambda r: x(r, i))
            highest = reduce("max", [size], item)
            return reduce("min", [size], lambda r: select(equal(item(r), highest), r, const(size - 1, i64)))

        return at

    return element


def _clamped(value: Expr, size: int) -> Expr:
    return minimum(maximum(value, 0), size - 1)


# elementwise and movement -------------------------------------------------------------------------------------------------------------

sample("relu over 4 axes")(
    lambda: over_output([tensor(2, 5, 7, 9)], tensor(2, 5, 7, 9), lambda x: lambda *i: maximum(x(*i), 0.0))
)  # fmt: skip
sample("bias by channel")(
    lambda: over_output([tensor(2, 5, 7, 9), tensor(5)], tensor(2, 5, 7, 9), lambda x, b: lambda n, c, h, w: x(n, c, h, w) + b(c))
)
sample("bias by lane, blocked")(
    lambda: over_output(
        [tensor(2, 32, 5, 7, layout=C16), tensor(32)], tensor(2, 32, 5, 7, layout=C16), lambda x, b: lambda n, c, *s: x(n, c, *s) * b(c)
    )
)
sample("numpy broadcasting")(
    lambda: over_output(
        [tensor(4, 1, 9), tensor(7, 1)], tensor(4, 7, 9), lambda x, y: lambda *i: broadcast(x, i, (4, 7, 9)) - broadcast(y, i, (4, 7, 9))
    )
)
sample("inlined producer")(
    lambda: over_output(
        [tensor(6, 21)],
        tensor(21, 6),
        lambda x: lambda i, j: from_function((6, 21), f32, lambda a, b: call("tanh", x(a, b)) * 2.0)[j, i],
    )
)
sample("large flat map")(lambda: over_output([tensor(30_011)], tensor(30_011), lambda x: lambda i: x(i) * x(i) + 1.0))
sample("few rows, long")(lambda: over_output([tensor(3, 9_001), tensor(3)], tensor(3, 9_001), lambda x, y: lambda i, j: x(i, j) * y(i)))
sample("many small rows")(lambda: over_output([tensor(700, 5), tensor(700)], tensor(700, 5), lambda x, y: lambda i, j: x(i, j) * y(i)))
sample("scalar")(lambda: over_output([tensor()], tensor(), lambda x: lambda: x() * 2.0))
sample("empty")(lambda: over_output([tensor(0, 5)], tensor(0, 5), lambda x: lambda i, j: x(i, j)))
sample("transpose")(lambda: over_output([tensor(37, 21)], tensor(21, 37), lambda x: lambda i, j: x(j, i)))
sample("transpose of 4 axes")(
    lambda: over_output([tensor(2, 17, 5, 19)], tensor(2, 5, 19, 17), lambda x: lambda n, h, w, c: x(n, c, h, w))
)
sample("slice with step")(lambda: over_output([tensor(6, 75)], tensor(6, 35), lambda x: lambda i, j: x(i, j * 2 + 3)))
sample("slice with step 3")(lambda: over_output([tensor(6, 110)], tensor(6, 35), lambda x: lambda i, j: x(i, j * 3 + 3)))
sample("flip")(lambda: over_output([tensor(6, 35)], tensor(6, 35), lambda x: lambda i, j: x(5 - i, 34 - j)))
sample("reshape")(
    lambda: over_output([tensor(6, 35)], tensor(7, 30), lambda x: lambda *i: x(*unflatten(flat_index(i, (7, 30)), (6, 35))))
)
sample("transpose and reshape")(
    lambda: over_output([tensor(6, 35)], tensor(7, 30), lambda x: lambda i, j: x(*unflatten(flat_index((j, i), (30, 7)), (6, 35))))
)
sample("channel shuffle, blocked")(
    lambda: over_output(
        [tensor(1, 48, 5, 3, layout=C16)],
        tensor(1, 48, 5, 3, layout=C16),
        lambda x: lambda n, c, *s: x(n, c % 3 * 16 + c // 3, *s),
    )
)
sample("pad")(lambda: over_output([tensor(6, 70)], tensor(9, 100), lambda x: lambda i, j: padded(x, (i - 1, j - 17), 2.5)))
sample("pad narrow")(lambda: over_output([tensor(6, 7)], tensor(9, 11), lambda x: lambda i, j: padded(x, (i - 1, j - 2), 2.5)))
sample("nearest resize")(
    lambda: over_output([tensor(2, 3, 5, 7)], tensor(2, 3, 10, 21), lambda x: lambda n, c, h, w: x(n, c, h // 2, w // 3))
)
sample("nearest resize by 2")(
    lambda: over_output([tensor(2, 5, 19)], tensor(2, 10, 38), lambda x: lambda c, h, w: x(c, h // 2, w // 2))
)
sample("window over blocked channels")(
    lambda: over_output(
        [tensor(1, 40, 3, 5, layout=C16)],
        tensor(1, 48, 3, 5, layout=C16),
        lambda x: lambda n, c, *s: reduce("sum", [5], lambda r: padded(x, (n, c + r - 2, *s), 0.0) * padded(x, (n, c + r - 2, *s), 0.0)),
    )
)
sample("channels shifted by 5, blocked")(
    lambda: over_output(
        [tensor(2, 43, 3, 5, layout=C16)], tensor(2, 48, 3, 5, layout=C16), lambda x: lambda n, c, *s: padded(x, (n, c - 5, *s), 0.0)
    )
)
sample("range f32")(lambda: over_output([], tensor(100), lambda: lambda i: cast(i * 3 - 7, f32)))
sample("range i64")(lambda: over_output([], tensor(99, dtype=i64), lambda: lambda i: i * 3 - 7))
sample("lower triangle")(
    lambda: over_output([tensor(19, 37)], tensor(19, 37), lambda x: lambda i, j: select(j <= i, x(i, j), 0.0))
)  # fmt: skip


@sample("concat by nests")
def _() -> NestSpec:
    parts, out = (tensor(3, 5), tensor(3, 18), tensor(3, 1)), tensor(3, 24)
    nests, start = [], 0
    for slot, part in enumerate(parts):
        i, j = index("i", part.shape[0]), index("j", part.shape[1])
        nests.append(Nest((i, j), (StoreAt(3, out.offset((i, j + start)), from_operand(slot, part)(i, j)),)))
        start += part.shape[1]
    return NestSpec("copy", parts, (out,), tuple(nests))


@sample("halo zeroing")
def _() -> NestSpec:
    out = tensor(2, 32, 5, 6, layout=HALO)
    n, cb, rows, width, lanes = out.physical_shape
    zero = const(0.0, f32)
    nests = []
    for first, count in ((0, 1), (rows - 2, 2)):
        axes = tuple(index(f"z{k}", size) for k, size in enumerate((n, cb, count, width, lanes)))
        offset = sum((a * s for a, s in zip(axes, out.strides, strict=True)), const(first * out.strides[2], i64))
        nests.append(Nest(axes, (StoreAt(0, offset, zero),)))
    return NestSpec("copy", (), (out,), tuple(nests))


@sample("two stores")
def _() -> NestSpec:
    x, sums, squares = tensor(9, 40), tensor(9), tensor(9)
    i, access = index("i", 9), from_operand(0, x)
    total = reduce("sum", [40], lambda r: access(i, r))
    square = reduce("sum", [40], lambda r: access(i, r) * access(i, r))
    return NestSpec("reduce", (x,), (sums, squares), (Nest((i,), (StoreAt(1, i, total), StoreAt(2, i, square))),))


# layouts ------------------------------------------------------------------------------------------------------------------------------

sample("pack 35 channels")(
    lambda: over_output([tensor(2, 35, 6, 7)], tensor(2, 35, 6, 7, layout=C16), lambda x: lambda *i: padded(x, i, 0.0))
)
sample("pack 3 channels into a halo buffer")(
    lambda: over_output([tensor(1, 3, 20, 21)], tensor(1, 3, 20, 21, layout=HALO), lambda x: lambda *i: padded(x, i, 0.0))
)
sample("pack 8")(lambda: over_output([tensor(1, 16, 9, 9)], tensor(1, 16, 9, 9, layout=C8), lambda x: lambda *i: padded(x, i, 0.0)))
sample("unpack")(lambda: over_output([tensor(2, 35, 6, 7, layout=C16)], tensor(2, 35, 6, 7), lambda x: lambda *i: x[i]))
sample("halo to no halo")(
    lambda: over_output([tensor(2, 32, 6, 7, layout=HALO)], tensor(2, 32, 6, 7, layout=C16), lambda x: lambda *i: x[i] + 1.0)
)

# windows ------------------------------------------------------------------------------------------------------------------------------

sample("max pool 3x3 s2")(lambda: over_output([tensor(2, 3, 19, 47)], tensor(2, 3, 10, 24), _pool("max", 3, 2, 1)))
sample("max pool 2x2 s2")(lambda: over_output([tensor(2, 3, 18, 46)], tensor(2, 3, 9, 23), _pool("max", 2, 2, 0)))
sample("average pool 5x5")(lambda: over_output([tensor(1, 3, 19, 23)], tensor(1, 3, 19, 23), _pool("sum", 5, 1, 2)))
sample("max pool blocked")(
    lambda: over_output([tensor(2, 32, 19, 23, layout=C16)], tensor(2, 32, 10, 12, layout=C16), _pool("max", 3, 2, 1))
)
sample("max pool blocked, halos")(
    lambda: over_output([tensor(2, 32, 19, 23, layout=HALO)], tensor(2, 32, 10, 12, layout=HALO), _pool("max", 3, 2, 1))
)
sample("average pool blocked 7x7")(
    lambda: over_output([tensor(1, 16, 9, 9, layout=C16)], tensor(1, 16, 9, 9, layout=C16), _pool("sum", 7, 1, 3))
)

# reductions ---------------------------------------------------------------------------------------------------------------------------

for _size in (1, 3, 10, 15, 16, 17, 33, 64, 130):
    sample(f"softmax over {_size}")(lambda size=_size: over_output([tensor(5, size)], tensor(5, size), _softmax(size)))
sample("softmax of one row")(lambda: over_output([tensor(1, 130)], tensor(1, 130), _softmax(130)))
sample("layer norm")(
    lambda: over_output(
        [tensor(6, 77), tensor(77), tensor(77)],
        tensor(6, 77),
        lambda x, g, b: lambda i, j: (
            (x(i, j) - _moments(x, 77, lambda r: x(i, r), (77,))[0])
            / call("sqrt", _moments(x, 77, lambda r: x(i, r), (77,))[1] + 1e-5) * g(j) + b(j)
        ),
    )
)  # fmt: skip
sample("instance norm")(lambda: over_output([tensor(2, 3, 9, 11)], tensor(2, 3, 9, 11), _instance_norm(9, 11)))
sample("instance norm blocked")(
    lambda: over_output([tensor(2, 32, 9, 11, layout=C16)], tensor(2, 32, 9, 11, layout=C16), _instance_norm(9, 11))
)
for _layout in (C16, Layout()):
    sample(f"global average {_layout}")(
        lambda layout=_layout: over_output(
            [tensor(2, 32, 7, 9, layout=layout)],
            tensor(2, 32),
            lambda x: lambda n, c: reduce("sum", (7, 9), lambda h, w: x(n, c, h, w)) / 63.0,
        )
    )
sample("column sums")(lambda: over_output([tensor(40, 103)], tensor(103), lambda x: lambda j: reduce("sum", [40], lambda i: x(i, j))))
sample("sum of all")(lambda: over_output([tensor(37, 41)], tensor(), lambda x: lambda: reduce("sum", (37, 41), lambda i, j: x(i, j))))
sample("sum over the middle")(
    lambda: over_output([tensor(5, 23, 6)], tensor(5, 6), lambda x: lambda i, j: reduce("sum", [23], lambda r: x(i, r, j)))
)
sample("product")(lambda: over_output([tensor(5, 23)], tensor(5), lambda x: lambda i: reduce("prod", [23], lambda r: x(i, r))))
sample("empty sum")(lambda: over_output([tensor(5, 0)], tensor(5), lambda x: lambda i: reduce("sum", [0], lambda r: x(i, r))))
sample("empty max of i32")(
    lambda: over_output([tensor(5, 0, dtype=i32)], tensor(5, dtype=i32), lambda x: lambda i: reduce("max", [0], lambda r: x(i, r)))
)
sample("argmax of rows")(lambda: over_output([tensor(6, 77)], tensor(6, dtype=i64), _argmax(77, 1)))
sample("argmax of columns")(lambda: over_output([tensor(33, 77)], tensor(77, dtype=i64), _argmax(33, 0)))
sample("cumulative sum")(
    lambda: over_output(
        [tensor(6, 20)], tensor(6, 20), lambda x: lambda i, j: reduce("sum", [20], lambda r: select(r <= j, x(i, r), 0.0))
    )
)
sample("small product of matrices")(
    lambda: over_output(
        [tensor(9, 13), tensor(13, 21)], tensor(9, 21), lambda a, b: lambda i, j: reduce("sum", [13], lambda k: a(i, k) * b(k, j))
    )
)
sample("reduction inside a reduction")(
    lambda: over_output(
        [tensor(5, 19, 3), tensor(7, 19)],
        tensor(5),
        lambda x, y: lambda i: reduce(
            "max", [3], lambda j: reduce("sum", [19], lambda k: call("exp", x(i, k, j)) * reduce("sum", [7], lambda m: y(m, k)))
        ),
    )
)
sample("any")(
    lambda: over_output([tensor(5, 37, dtype=bool_)], tensor(5, dtype=bool_), lambda x: lambda i: reduce("any", [37], lambda r: x(i, r)))
)
sample("all over columns")(
    lambda: over_output([tensor(3, 37, dtype=bool_)], tensor(37, dtype=bool_), lambda x: lambda i: reduce("all", [3], lambda r: x(r, i)))
)

# gathers and other dtypes -------------------------------------------------------------------------------------------------------------

sample("gather rows")(
    lambda: over_output([tensor(7, 45), tensor(6, dtype=i64)], tensor(6, 45), lambda x, at: lambda i, j: x(_clamped(at(i), 7), j))
)
sample("gather columns")(
    lambda: over_output([tensor(7, 45), tensor(50, dtype=i64)], tensor(7, 50), lambda x, at: lambda i, j: x(i, _clamped(at(j), 45)))
)
sample("gather elements by i32")(
    lambda: over_output(
        [tensor(7, 45), tensor(6, 45, dtype=i32)], tensor(6, 45), lambda x, at: lambda i, j: x(_clamped(cast(at(i, j), i64), 7), j)
    )
)
sample("where")(
    lambda: over_output(
        [tensor(5, 37, dtype=bool_), tensor(5, 37), tensor(37)], tensor(5, 37), lambda c, x, y: lambda i, j: select(c(i, j), x(i, j), y(j))
    )
)
sample("compare")(
    lambda: over_output([tensor(5, 37), tensor(37)], tensor(5, 37, dtype=bool_), lambda x, y: lambda i, j: x(i, j) < y(j))
)
sample("mixed widths")(
    lambda: over_output(
        [tensor(5, 37), tensor(37, dtype=f64), tensor(5, 37, dtype=i8)],
        tensor(5, 37, dtype=f64),
        lambda x, y, z: lambda i, j: cast(x(i, j), f64) * y(j) + cast(z(i, j), f64),
    )
)
sample("f16 doubled")(
    lambda: over_output([tensor(5, 37, dtype=f16)], tensor(5, 37, dtype=f16), lambda x: lambda i, j: cast(cast(x(i, j), f32) * 2.0, f16))
)


def _dtype_samples(dtype: DType) -> None:
    sample(f"copy {dtype}")(
        lambda: over_output([tensor(3, 67, dtype=dtype)], tensor(3, 67, dtype=dtype), lambda x: lambda i, j: x(i, j))
    )  # fmt: skip
    sample(f"transpose {dtype}")(
        lambda: over_output([tensor(19, 37, dtype=dtype)], tensor(37, 19, dtype=dtype), lambda x: lambda i, j: x(j, i))
    )
    sample(f"pad {dtype}")(
        lambda: over_output([tensor(5, 37, dtype=dtype)], tensor(7, 45, dtype=dtype), lambda x: lambda i, j: padded(x, (i - 1, j - 4), 0))
    )
    if dtype.is_int or dtype in (f32, f64):
        sample(f"sum {dtype}")(
            lambda: over_output(
                [tensor(5, 37, dtype=dtype)], tensor(5, dtype=dtype), lambda x: lambda i: reduce("sum", [37], lambda r: x(i, r))
            )
        )
        sample(f"max of columns {dtype}")(
            lambda: over_output(
                [tensor(5, 37, dtype=dtype)], tensor(37, dtype=dtype), lambda x: lambda i: reduce("max", [5], lambda r: x(r, i))
            )
        )


for _dtype in ALL:
    _dtype_samples(_dtype)


@sample("tile of f64 in 16 lanes")
def _() -> NestSpec:
    x, y, out = tensor(22), tensor(50, dtype=f64), tensor(120)
    i, j = index("i", 15), index("j", 8)
    value = load(0, i + j, f32) + cast(load(1, i * 3 + j, f64), f32)
    return NestSpec("map", (x, y), (out,), (Nest((i, j), (StoreAt(2, i + j * 15, value),)),))


@sample("moving sums: lanes outside another loop")
def _() -> NestSpec:
    x, y, out = tensor(9), tensor(23), tensor(16)
    i, j = index("i", 8), index("j", 2)
    value = load(0, i + j, f32) + reduce("sum", [16], lambda r: load(1, i + r, f32))
    return NestSpec("map", (x, y), (out,), (Nest((i, j), (StoreAt(2, i + j * 8, value),)),))


def lanes_sample(size: int) -> NestSpec:
    """Row sums with a map over the same row: every kind of tail."""
    x, out = tensor(2, size), tensor(2, size)
    access = from_operand(0, x)
    nest = output_nest(1, out, lambda i, j: access(i, j) - reduce("sum", [size], lambda r: access(i, r)))
    return NestSpec("map", (x,), (out,), (nest,))
