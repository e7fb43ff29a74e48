"""Kernels that should run at the speed of memory: the code has the shape that this needs, and the numbers are right."""

from __future__ import annotations

import pytest

from cpu_nest.harness import check, tensor
from graphc.kernel.access import from_operand
from graphc.kernel.expr import Expr, const, index
from graphc.kernel.spec import Nest, NestSpec, StoreAt
from graphc.target import named
from graphc.types.dtype import i64
from graphc.types.layout import Layout
from graphc_cpu.emit.ir import module
from graphc_cpu.kernels.nest import emit_nest


def shuffled(channels: int, groups: int, block: int, halo: bool = True) -> NestSpec:
    """The channel shuffle of ShuffleNet on blocked channels; the last block may be partly filled."""
    x = tensor(1, channels, 3, 5, layout=Layout(block))
    out = tensor(1, channels, 3, 5, layout=Layout(block, ((1, 1), (1, 1)) if halo else ()))
    read = from_operand(0, x)

    def nest(first: int, blocks: int, lanes: int) -> Nest:
        axes = (index("b", blocks), index("h", 3), index("w", 5), index("lane", lanes))
        c: Expr = axes[0] * block + axes[3] + first
        value = read(0, c % groups * (channels // groups) + c // groups, axes[1], axes[2])
        return Nest(axes, (StoreAt(1, out.offset((const(0, i64), c, axes[1], axes[2])), value),))

    parts = [(0, channels // block, block), (channels // block * block, 1, channels % block)]
    return NestSpec("copy", (x,), (out,), tuple(nest(*part) for part in parts if part[1] and part[2]))


@pytest.mark.parametrize(
    ("channels", "groups", "block"),
    [(112, 4, 16), (136, 4, 16), (272, 4, 16), (544, 4, 16), (48, 3, 16), (40, 8, 16), (36, 2, 16), (1040, 4, 16),
     (136, 4, 8), (24, 3, 8), (136, 4, 4), (34, 17, 16)],
)  # fmt: skip
def test_channel_shuffles(channels: int, groups: int, block: int) -> None:
    check(shuffled(channels, groups, block))


@pytest.mark.parametrize(("channels", "groups"), [(112, 4), (136, 4), (272, 4), (544, 4)])
def test_channel_shuffles_load_whole_runs(channels: int, groups: int) -> None:
    target = named("avx512")
    text = module(target.triple, [emit_nest(shuffled(channels, groups, 16), target, "k")])
    assert "gather" not in text
    assert text.count("shufflevector") > channels // 16
