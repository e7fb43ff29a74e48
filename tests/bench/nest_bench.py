"""Times generated nest kernels on one thread: `python tests/bench/nest_bench.py [--level avx512] [part of a name ...]`.

GB/s counts every operand once; what fits into L2 should come near its bandwidth. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "tests")]

from cpu_nest import samples  # noqa: E402
from cpu_nest.harness import over_output, random_operand, tensor  # noqa: E402
from graphc.kernel.access import padded  # noqa: E402
from graphc.kernel.expr import call, maximum, minimum, reduce  # noqa: E402
from graphc.kernel.spec import NestSpec  # noqa: E402
from graphc.target import named  # noqa: E402
from graphc.types.dtype import i64  # noqa: E402
from graphc.types.layout import Layout  # noqa: E402
from graphc_cpu import jit  # noqa: E402
from graphc_cpu.emit.ir import module  # noqa: E402
from graphc_cpu.kernels.nest import emit_nest  # noqa: E402

B, H = Layout(16), Layout(16, ((1, 1), (1, 1)))


def _map(shape: tuple[int, ...], layout: Layout, element: Callable[..., object]) -> NestSpec:
    return over_output([tensor(*shape, layout=layout)], tensor(*shape, layout=layout), element)  # type: ignore[arg-type]


CASES: dict[str, Callable[[], NestSpec]] = {
    "copy 512 KB": lambda: _map((1, 64, 32, 64), Layout(), lambda x: lambda *i: x(*i)),
    "relu 28x28x64 blocked": lambda: _map((1, 64, 28, 28), B, lambda x: lambda *i: maximum(x(*i), 0.0)),
    "add relu 56x56x64 with halo": lambda: over_output(
        [tensor(1, 64, 56, 56, layout=H), tensor(1, 64, 56, 56, layout=B)],
        tensor(1, 64, 56, 56, layout=H),
        lambda x, y: lambda *i: maximum(x(*i) + y(*i), 0.0),
    ),
    "gelu 256x256": lambda: _map((256, 256), Layout(), lambda x: lambda *i: x(*i) * (call("erf", x(*i) * 0.7071) + 1.0) * 0.5),
    "max pool 3x3/2 112 blocked": lambda: over_output(
        [tensor(1, 64, 112, 112, layout=B)], tensor(1, 64, 56, 56, layout=B), samples._pool("max", 3, 2, 1)
    ),
    "max pool 3x3/1 28 blocked": lambda: _map((1, 64, 28, 28), B, samples._pool("max", 3, 1, 1)),
    "max pool 3x3/2 112 plain": lambda: over_output([tensor(1, 16, 112, 112)], tensor(1, 16, 56, 56), samples._pool("max", 3, 2, 1)),
    "softmax 100x1000": lambda: _map((100, 1000), Layout(), samples._softmax(1000)),
    "softmax 512x64": lambda: _map((512, 64), Layout(), samples._softmax(64)),
    "argmax 100x1000": lambda: over_output([tensor(100, 1000)], tensor(100, dtype=i64), samples._argmax(1000, 1)),
    "instance norm 28x28x64 blocked": lambda: _map((1, 64, 28, 28), B, samples._instance_norm(28, 28)),
    "mean 7x7x2048 blocked": lambda: over_output(
        [tensor(1, 2048, 7, 7, layout=B)], tensor(1, 2048), lambda x: lambda n, c: reduce("sum", (7, 7), lambda h, w: x(n, c, h, w)) / 49.0
    ),
    "column sums 512x512": lambda: over_output(
        [tensor(512, 512)], tensor(512), lambda x: lambda j: reduce("sum", [512], lambda i: x(i, j))
    ),
    "pack 64x56x56": lambda: over_output([tensor(1, 64, 56, 56)], tensor(1, 64, 56, 56, layout=H), lambda x: lambda *i: padded(x, i, 0.0)),
    "pack 3x224x224": lambda: over_output(
        [tensor(1, 3, 224, 224)], tensor(1, 3, 224, 224, layout=B), lambda x: lambda *i: padded(x, i, 0.0)
    ),
    "unpack 64x56x56": lambda: over_output([tensor(1, 64, 56, 56, layout=B)], tensor(1, 64, 56, 56), lambda x: lambda *i: x(*i)),
    "transpose 512x512": lambda: over_output([tensor(512, 512)], tensor(512, 512), lambda x: lambda i, j: x(j, i)),
    "pad 224 to 230": lambda: over_output(
        [tensor(1, 3, 224, 224)], tensor(1, 3, 230, 230), lambda x: lambda n, c, h, w: padded(x, (n, c, h - 3, w - 3), 0.0)
    ),
    "nearest resize by 2": lambda: over_output(
        [tensor(1, 16, 56, 56)], tensor(1, 16, 112, 112), lambda x: lambda n, c, h, w: x(n, c, h // 2, w // 2)
    ),
    "gather 128 rows of 256": lambda: over_output(
        [tensor(1000, 256), tensor(128, dtype=i64)], tensor(128, 256), lambda x, t: lambda i, j: x(minimum(maximum(t(i), 0), 999), j)
    ),
}


def measure(spec: NestSpec, level: str, repeats: int = 15) -> tuple[float, float, float]:
    """(seconds of one run, best of many; seconds to emit; seconds to compile)."""
    target = named(level)
    started = time.perf_counter()
    text = module(target.triple, [emit_nest(spec, target, "k")])
    emitted = time.perf_counter()
    library = jit.build({"k": text}, target)
    compiled = time.perf_counter()
    arrays = [random_operand(operand, np.random.default_rng(0)) for operand in spec.operands]
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    kernel, args = library.function("k"), ctypes.addressof(pointers)
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(20):
            kernel(args, 0, 1)
        best = min(best, (time.perf_counter() - begin) / 20)
    return best, emitted - started, compiled - emitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", default="avx512")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for name, make in CASES.items():
        if not options.names or any(part in name for part in options.names):
            spec = make()
            seconds, emit, build = measure(spec, options.level)
            size = sum(operand.nbytes for operand in spec.operands)
            times = f"emit {emit * 1e3:5.1f} ms  compile {build * 1e3:5.1f} ms"
            print(f"{name:32} {seconds * 1e6:9.1f} us {size / seconds / 1e9:7.1f} GB/s   {times}")


if __name__ == "__main__":
    main()
