"""choose_chain: whether a convolution and the depthwise convolution that reads it run as one step, and how that is cut into items.

No answer changes a bit of a result. One step keeps the map between in a core's second-level cache and saves a barrier; it computes the rows
again that two bands of output rows read, and its items may share out unevenly. All times are in cycles of the multiply-add loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from graphc.kernel.choose import machine_of
from graphc.kernel.spec import ChainBands, ConvChain
from graphc.knobs import knob
from graphc.target import Target

CHAIN = knob("GRAPHC_CHAIN", int, 0, "depthwise convolutions join the convolution that they read; 0: by a model, 1: always, -1: never")
_WORTH = 0.97  # of the time of two steps: less must be left
_MOST_BANDS = 16
_CACHE_SHARE = 0.4  # of the second-level cache that the map between may take
_NEAR, _FAR, _MEMORY = 16.0, 5.5, 2.5  # bytes per cycle: a core's second-level cache, another core's or the third level, memory
_TILE = 12.0  # cycles to begin and end a register tile, beside 2 for each accumulator
_ITEM = 150.0
_INPUT = 0.75  # of the time that the input takes to arrive is not hidden behind sums


@dataclass(frozen=True)
class ChainShape:
    """`reduction`: terms of a sum of the first convolution; `input_bytes`: of the map that it reads for a sample. `height`, `width`: of the
    map between, `out_height`, `out_width`: of the output. Vertically, the depthwise kernel reaches over `reach` rows, `stride` apart, the
    first one `pad` rows above the map."""

    batch: int
    reduction: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    taps: int
    reach: int
    stride: int
    pad: int
    itemsize: int
    input_bytes: int

    @classmethod
    def of(
        cls, x: Sequence[int], weight: Sequence[int], between: Sequence[int], kernel: Sequence[int], output: Sequence[int],
        stride: int, dilation: int, pad: int, itemsize: int,
    ) -> ChainShape:  # fmt: skip
        """From logical shapes: the first convolution's input, weight and output, the depthwise kernel (rows, columns) and its output;
        `stride`, `dilation`, `pad`: of the rows of the depthwise convolution."""
        n, channels, height, width = between
        return cls(
            batch=n, reduction=prod(weight[1:]), channels=channels, height=height, width=width, out_height=output[2], out_width=output[3],
            taps=prod(kernel), reach=(kernel[0] - 1) * dilation + 1, stride=stride, pad=pad, itemsize=itemsize,
            input_bytes=prod(x[1:]) * itemsize,
        )  # fmt: skip

    def bands(self, count: int) -> Iterator[tuple[int, int]]:
        """Rows of the map between, and output rows, that each of `count` bands computes."""
        for number in range(count):
            top, end = (self.out_height * n // count for n in (number, number + 1))
            first, last = top * self.stride - self.pad, (end - 1) * self.stride - self.pad + self.reach
            yield max(min(last, self.height) - max(first, 0), 0), end - top


@dataclass(frozen=True)
class ChainForm:
    """Blocks of channels and bands of output rows (see `ChainBands`), with predicted cycles."""

    chunk: int
    bands: int
    cycles: float


def shape_of(chain: ConvChain) -> ChainShape:
    first, second = chain.first, chain.second
    return ChainShape.of(
        first.x.shape, first.weight_shape, first.output.shape, second.weight_shape[2:], second.output.shape,
        second.stride[0], second.dilation[0], second.pad[0], first.x.dtype.itemsize,
    )  # fmt: skip


def banded(chain: ConvChain, target: Target) -> ChainBands:
    """The chain in its fastest form."""
    form = choose_chain(shape_of(chain), target)
    return ChainBands(chain, form.chunk, form.bands)


def is_worth(shape: ChainShape, target: Target) -> bool:
    """Whether one step is faster than two, or GRAPHC_CHAIN says so."""
    if CHAIN.get():
        return CHAIN.get() > 0
    return choose_chain(shape, target).cycles < _WORTH * _Model(shape, target).two_steps()


@lru_cache(maxsize=1024)
def choose_chain(shape: ChainShape, target: Target) -> ChainForm:
    """The form with the fewest predicted cycles."""
    return min(chain_forms(shape, target), key=lambda form: form.cycles)


def chain_forms(shape: ChainShape, target: Target) -> Iterator[ChainForm]:
    """Every form, with its prediction."""
    model = _Model(shape, target)
    for chunk in range(1, min(model.blocks, 4 if target.registers >= 32 and target.vector_bytes > 16 else 2) + 1):
        for bands in range(1, min(shape.out_height, _MOST_BANDS) + 1):
            yield ChainForm(chunk, bands, model.one_step(chunk, bands))


class _Model:
    def __init__(self, shape: ChainShape, target: Target) -> None:
        self.shape, self.target = shape, target
        machine = machine_of(target)
        self.fma, self.step = machine.fma, machine.step
        self.lanes = target.vector_bytes // shape.itemsize
        self.blocks = -(-shape.channels // self.lanes)

    def two_steps(self) -> float:
        s, cores = self.shape, self.target.cores
        chunk = min(2, self.blocks)
        first = s.height * self._first_row(chunk) * self.blocks / chunk
        between = s.batch * s.height * s.width * self.blocks * self.target.vector_bytes
        near = cores == 1 and between <= _CACHE_SHARE * self.target.l2  # several share out the two steps by different elements
        rate = _NEAR if near else _FAR if between <= _CACHE_SHARE * self.target.l3 else _MEMORY
        sums = s.batch * (first + s.out_height * self.blocks * self._second_row())
        read = _INPUT * s.batch * s.input_bytes / _FAR
        return (sums + 2 * between / rate + read) / cores + self.step * (cores > 1)

    def one_step(self, chunk: int, bands: int) -> float:
        """The time of the core with the most work; each has a contiguous part of the items."""
        s, cores = self.shape, self.target.cores
        parts = -(-self.blocks // chunk)
        wide = self.blocks - parts * (-(-self.blocks // parts) - 1)
        widths = [-(-self.blocks // parts) - (part >= wide) for part in range(parts)]
        items = [self._item(width, *rows) for rows in s.bands(bands) for width in widths] * s.batch
        shares = [(len(items) * core // cores, len(items) * (core + 1) // cores) for core in range(cores)]
        return max(sum(items[first:last]) + self._reads(last - first, parts, bands) for first, last in shares)

    def _reads(self, items: int, parts: int, bands: int) -> float:
        """The input of `items` items: a band of it comes from afar for the first of its chunks, and for all where it does not stay near."""
        band = self.shape.input_bytes / bands
        first = -(-items // parts)
        again = _NEAR if band <= _CACHE_SHARE * self.target.l2 else _FAR
        return _INPUT * band * (first / _FAR + (items - first) / again)

    def _item(self, chunk: int, rows: int, out_rows: int) -> float:
        s = self.shape
        scratch = chunk * rows * s.width * self.target.vector_bytes
        rate = _NEAR if scratch <= _CACHE_SHARE * self.target.l2 else _FAR
        return _ITEM + rows * self._first_row(chunk) + out_rows * chunk * self._second_row() + 2 * scratch / rate

    def _first_row(self, chunk: int) -> float:
        """One row of the map between, `chunk` blocks."""
        width = self.shape.width
        most = max(1, min(28, (self.target.registers - chunk - 1) // chunk))
        rows = max(1, most // width)
        parts = -(-width // most)
        pixels = rows * width / parts
        step = max(pixels * chunk, pixels + chunk, 8) + 0.03 * pixels + 0.3 * chunk
        return self.fma * parts * (self.shape.reduction * step + 2 * pixels * chunk + _TILE) / rows

    def _second_row(self) -> float:
        """One output row of one block."""
        return self.fma * self.shape.out_width * (1.2 * self.shape.taps + 3)
