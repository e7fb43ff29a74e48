"""choose: how a convolution is computed. Candidates with predicted times, from a small model of a machine.

Candidates of a 3x3 convolution of stride 1 (float32, one group): the direct sum; Winograd F(2, 3) and F(4, 3); each of the two fused (one
step, tiles in a thread's own cache) or in three steps (each weight is read once).

Two questions with different inputs. *Which sum* (direct, tile 2, tile 4) decides the bits of a result, so it follows from the shape and
the machine level alone, priced for `REFERENCE_CORES` cores and the level's generic caches: the same on every machine of that level, for
any number of threads. *Which form* leaves every bit as it is and follows from the cores and caches of the real target, and from its
measured rates where there are some. Of a weight gradient only the sum is chosen (`choose_gradient`); its form follows from the shape.

Accuracy rule: an algorithm may be chosen where its rms error against float64 is at most `MAX_ERROR` times that of the direct sum in the
same precision. Measured ratios are in `ERROR_RATIO`; `accuracy="exact"` allows the direct sum alone; weights that are
trained allow what is no less exact than it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from graphc.errors import AttributeValueError
from graphc.kernel.spec import TileGrid, tile_buffer
from graphc.knobs import knob
from graphc.target import TARGETS, Limits, Target
from graphc.types.dtype import f32

DIRECT = "direct"
ALGORITHMS = {DIRECT: 0, "winograd2": 2, "winograd4": 4}  # name -> Winograd's tile, 0 for none
CONV = knob("GRAPHC_CONV", str, "", "compute every convolution that allows it by one algorithm: direct, winograd2 or winograd4")
MAX_ERROR = 3.0
ERROR_RATIO = {DIRECT: 1.0, "winograd2": 0.8, "winograd4": 2.1}
TRAINING = "training"  # an accuracy: of weights that change between runs, whose gradients must be as exact as the direct sum's
REFERENCE_CORES = 2
LARGE_TILE_GAIN = 1.22
"""F(4, 3) must be predicted to be so many times faster than the others: its error is 2.6 times that of F(2, 3), its weights 2.25 times as
large, and where the two were close in measurements (14x14 maps at batch 1), F(2, 3) was the faster."""
GRADIENT_PANEL = (8, 4)  # blocks of input and of output channels that a weight gradient takes together
GRADIENT_TILES = 64  # of 2x2 pixels, likewise


@dataclass(frozen=True)
class ConvShape:
    """What the choice depends on: batch, channels, and the size of the output map."""

    batch: int
    inputs: int
    outputs: int
    height: int
    width: int

    def grid(self, m: int) -> TileGrid:
        return TileGrid(m, self.batch, -(-self.height // m), -(-self.width // m))


@dataclass(frozen=True)
class Candidate:
    """One way to compute a convolution. `tiles` at a time per thread (0: three steps), `chunk` blocks of output channels at a time."""

    algorithm: str
    tiles: int = 0
    chunk: int = 0
    cycles: float = 0.0

    @property
    def m(self) -> int:
        return ALGORITHMS[self.algorithm]


@dataclass(frozen=True)
class Machine:
    """Rates of one core, in cycles of the multiply-add loop: `fma` cycles per vector multiply-add; bytes per cycle from each level.

    The defaults lie between those of the two AVX-512 machines on which the model was fitted: one with units of 32 bytes, one of 64.
    """

    fma: float
    l2: float = 40.0
    l3: float = 10.0
    memory: float = 5.0
    memory_all: float = 8.0  # all cores together
    step: float = 1500.0  # a barrier and the uneven end of a step


_SHARE = {"l2": 1.27, "l3": 0.96, "memory": 1.0, "memory_all": 0.74}  # rates of the model over what `graphc bench machine` reads
_BARRIER = 1050.0  # cycles of a barrier on the machine that `step` was fitted on


def machine_of(target: Target, limits: Limits | None = None) -> Machine:
    """Defaults scaled by the width of vectors; with `limits`, what a machine reads per multiply-add."""
    fma = max(target.vector_bytes / 64, 0.25)
    fitted = Machine(fma if target.has_fma else 2 * fma)
    if limits is None:
        return fitted
    cycle = 2 * target.lanes(f32) * fitted.fma / limits.fma_f32[0]
    reads = {"l2": limits.l2[0], "l3": limits.l3[0], "memory": limits.memory[0], "memory_all": limits.memory[1]}
    rates = {name: share * reads[name] * cycle for name, share in _SHARE.items()}
    return replace(fitted, **rates, step=fitted.step + limits.barrier[1] / cycle - _BARRIER)


def allowed(accuracy: str) -> tuple[str, ...]:
    """The algorithms that may be chosen. Raises AttributeValueError for a wrong GRAPHC_CONV."""
    forced = CONV.get()
    if forced and forced not in ALGORITHMS:
        raise AttributeValueError(f"GRAPHC_CONV={forced!r}", hint=f"one of {', '.join(ALGORITHMS)}")
    if accuracy == "exact":
        return (DIRECT,)
    limit = 1.0 if accuracy == TRAINING else MAX_ERROR
    return (forced,) if forced else tuple(name for name, ratio in ERROR_RATIO.items() if ratio <= limit)


def choose_algorithm(shape: ConvShape, target: Target, accuracy: str) -> str:
    """The name of the sum: a key of ALGORITHMS."""
    names = allowed(accuracy)
    return names[0] if len(names) == 1 else _cheapest_algorithm(shape, target.name, target.vector_bytes, names)


@lru_cache(maxsize=4096)
def _cheapest_algorithm(shape: ConvShape, level: str, vector_bytes: int, names: tuple[str, ...]) -> str:
    generic = next((t for t in TARGETS.values() if t.name == level), None)
    generic = generic or next(t for t in TARGETS.values() if t.vector_bytes == vector_bytes)
    reference = replace(generic, cores=REFERENCE_CORES)
    found = (c for name in names for c in candidates(shape, name, reference))
    return min(found, key=lambda c: c.cycles * (LARGE_TILE_GAIN if c.m == 4 else 1)).algorithm


def choose_gradient(shape: ConvShape, target: Target, accuracy: str) -> str:
    """The sum of a convolution's weight gradient, direct or by tiles of 2x2 pixels: `shape` is that of the convolution.

    Both have their work per pixel in multiply-adds; the transforms of a tile are done anew for each panel of the other map's channels.
    """
    names = [name for name in allowed(accuracy if accuracy == "exact" else TRAINING) if name != "winograd4"]
    if len(names) != 2:
        return names[0] if names else DIRECT
    lanes = target.lanes(f32)
    inputs, outputs = -(-shape.inputs // lanes), -(-shape.outputs // lanes)
    fma = machine_of(target).fma
    transforms = inputs * -(-outputs // GRADIENT_PANEL[1]) * _INPUT[2] + outputs * -(-inputs // GRADIENT_PANEL[0]) * _OUTPUT[2]
    tiles = -(-shape.height // 2) * -(-shape.width // 2)
    by_tiles = tiles * (1.15 * 16 * inputs * lanes * outputs * fma + transforms * target.vector_bytes / 64)
    direct = 1.05 * 9 * shape.height * shape.width * shape.inputs * outputs * fma
    return "winograd2" if by_tiles < direct else DIRECT


@lru_cache(maxsize=4096)
def choose_form(shape: ConvShape, algorithm: str, target: Target, limits: Limits | None = None) -> Candidate:
    """The fastest form of a sum on a machine."""
    return min(candidates(shape, algorithm, target, limits), key=lambda c: c.cycles)


def candidates(shape: ConvShape, algorithm: str, target: Target, limits: Limits | None = None) -> Iterator[Candidate]:
    """Every form of one algorithm, with its predicted cycles."""
    model = _Model(shape, target, machine_of(target, limits))
    if algorithm == DIRECT:
        yield Candidate(DIRECT, cycles=model.direct())
        return
    m = ALGORITHMS[algorithm]
    count = shape.grid(m).count
    for chunk in _chunks(model.out_blocks, target):
        yield Candidate(algorithm, 0, chunk, model.steps(m, chunk))
        for parts in sorted({-(-count // tiles) for tiles in (10, 14, 18, 24, 28, 36, 42)}):
            tiles = -(-count // parts)
            yield Candidate(algorithm, tiles, chunk, model.fused(m, tiles, chunk))


def _chunks(blocks: int, target: Target) -> Iterator[int]:
    most = 4 if target.registers >= 32 and target.vector_bytes > 16 else 2
    return iter(range(1, min(blocks, most) + 1))


_INPUT = {2: 58.0, 4: 190.0}  # cycles per tile and 64 bytes of channels: loads, transform, stores
_OUTPUT = {2: 52.0, 4: 178.0}


class _Model:
    """Predicted cycles of one convolution, all cores together at work."""

    def __init__(self, shape: ConvShape, target: Target, machine: Machine) -> None:
        self.shape, self.target, self.machine = shape, target, machine
        self.lanes = target.lanes(f32)
        self.in_blocks, self.out_blocks = -(-shape.inputs // self.lanes), -(-shape.outputs // self.lanes)

    def direct(self) -> float:
        s, cores = self.shape, self.target.cores
        sums = s.batch * s.height * s.width * self.out_blocks * s.inputs * 9 * self.machine.fma / cores
        return _overlapped(1.02 * sums, self._weights(9) / self.machine.memory_all)

    def steps(self, m: int, chunk: int) -> float:
        grid, cores = self.shape.grid(m), self.target.cores
        buffers = [tile_buffer(f32, grid, grid.count, b, self.lanes).nbytes for b in (self.in_blocks, self.out_blocks)]
        weights = self._weights(grid.positions)
        spill = sum(self._fetch(size, sum(buffers)) for size in buffers)
        sums = self._products(grid, grid.count, chunk, weights / self.machine.memory_all * cores)
        return (self._transforms(grid, grid.count) + sums + spill) / cores + 2 * self.machine.step * (cores > 1)

    def fused(self, m: int, tiles: int, chunk: int) -> float:
        grid, cores = self.shape.grid(m), self.target.cores
        parts = -(-grid.count // tiles)
        turns = -(-parts // cores)
        buffer, small = (tile_buffer(f32, grid, tiles, blocks, self.lanes).nbytes for blocks in (self.in_blocks, chunk))
        weights = self._weights(grid.positions)
        reads = self._fetch(buffer, buffer + small) * (-(-self.out_blocks // chunk) - 1)
        again = self._fetch(weights, weights + buffer + small)
        first = self._products(grid, tiles, chunk, weights * min(cores, parts) / self.machine.memory_all)  # each core reads all weights
        later = self._products(grid, tiles, chunk, again)
        return first + (turns - 1) * later + turns * (0.3 * reads + self._transforms(grid, tiles))

    def _transforms(self, grid: TileGrid, tiles: int) -> float:
        scale = self.target.vector_bytes / 64
        return tiles * scale * (self.in_blocks * _INPUT[grid.m] + self.out_blocks * _OUTPUT[grid.m])

    def _products(self, grid: TileGrid, tiles: int, chunk: int, stream: float) -> float:
        """Multiply-adds of `tiles` tiles with all output channels, in the register tiles that the kernels use.

        `stream`: cycles that the weights take to arrive; they do so while the first group of tiles is computed.
        """
        groups = -(-tiles // max(1, (self.target.registers - chunk - 1) // chunk))
        pixels = -(-tiles // groups)
        step = max(pixels * chunk, pixels + chunk, 8) + 0.03 * pixels + 0.3 * chunk
        step += 2.5 * chunk * pixels / self.shape.inputs  # stores
        one = grid.positions * self.shape.inputs * (self.out_blocks / chunk) * step * self.machine.fma
        return (groups - 1) * one + _overlapped(one, stream)

    def _weights(self, positions: int) -> int:
        return positions * self.shape.inputs * self.out_blocks * self.lanes * 4

    def _fetch(self, nbytes: float, footprint: float) -> float:
        """Cycles for one core to read bytes that live in the smallest cache which holds the footprint."""
        if footprint <= 0.75 * self.target.l2:
            return nbytes / self.machine.l2
        return nbytes / (self.machine.l3 if footprint <= 0.75 * self.target.l3 else self.machine.memory)


def _overlapped(compute: float, stream: float) -> float:
    """Compute while weights arrive: about the longer of both, more where they are equal."""
    return float((compute**3 + stream**3) ** (1 / 3))
