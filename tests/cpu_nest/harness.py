"""Runs a spec of loops through the generator at every machine level and holds it against the numpy model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.kernel import nest_model
from graphc.kernel.access import from_operand
from graphc.kernel.expr import Expr, index
from graphc.kernel.spec import Nest, NestSpec, Operand, StoreAt, UpdateSpec
from graphc.target import named
from graphc.types.dtype import DType, f32
from graphc.types.layout import PLAIN, Layout
from graphc_cpu import elf, host, jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernel_code import emit_kernel

Array = np.ndarray[Any, Any]
LEVELS = ("avx512", "avx2", "sse2")


def tensor(*shape: int, dtype: DType = f32, layout: Layout = PLAIN, pitch: int = 0) -> Operand:
    return Operand(dtype, shape, layout, pitch)


def over_output(inputs: Sequence[Operand], out: Operand, element: Callable[..., Callable[..., Expr]]) -> NestSpec:
    """One nest over the output's logical index: `element(*accesses)(*index)`. A blocked output: over its physical index."""
    accesses = [from_operand(slot, operand) for slot, operand in enumerate(inputs)]
    nest = output_nest(len(inputs), out, element(*accesses))
    return NestSpec("map", tuple(inputs), (out,), (nest,))


def output_nest(slot: int, out: Operand, element: Callable[..., Expr]) -> Nest:
    block = out.layout.block
    if not block:
        axes = tuple(index(f"a{k}", size) for k, size in enumerate(out.shape))
        return Nest(axes, (StoreAt(slot, out.offset(axes), element(*axes)),))
    n, c, *spatial = out.shape
    sizes = (n, -(-c // block), *spatial, block)
    axes = tuple(index(f"a{k}", size) for k, size in enumerate(sizes))
    value = element(axes[0], axes[1] * block + axes[-1], *axes[2:-1])
    return Nest(axes, (StoreAt(slot, out.physical_offset(axes), value),))


def random_operand(operand: Operand, rng: np.random.Generator) -> Array:
    if operand.dtype.is_float:
        return rng.standard_normal(operand.elements).astype(operand.dtype.numpy)
    if operand.dtype.kind == "b":
        return rng.integers(0, 2, operand.elements).astype(bool)
    return rng.integers(0, 7, operand.elements).astype(operand.dtype.numpy)


@cache
def runs(level: str) -> bool:
    """Whether this machine executes a level (all are compiled in any case)."""
    try:
        host.check_runs(named(level))
    except Exception:
        return False
    return True


def object_code(spec: NestSpec | UpdateSpec, level: str) -> bytes:
    """The kernel's object, which must need no symbol from outside."""
    target = named(level)
    code = jit.compile_objects([("k", lambda: module(target.triple, [emit_kernel(spec, target, "k")]))], target)["k"]
    undefined = elf.symbols(code).undefined
    assert not undefined, undefined
    return code


def check(
    spec: NestSpec | UpdateSpec, arrays: Sequence[Array] | None = None, tolerance: float = 2e-6, levels: Sequence[str] = LEVELS
) -> list[Array]:  # fmt: skip
    """Every level agrees with the model, and any number of threads gives the same bits. Returns the model's buffers."""
    rng = np.random.default_rng(7)
    given = list(arrays) if arrays is not None else [random_operand(operand, rng) for operand in spec.operands]
    expected = [array.copy() for array in given]
    nest_model.run(spec, expected)
    for level in levels:
        with jit.load([object_code(spec, level)]) if runs(level) else _Nothing() as library:
            if library is None:
                continue
            results = [[array.copy() for array in given] for _ in range(3)]
            for threads, buffers in enumerate(results, start=1):
                library.call("k", buffers, threads)
            for number, (got, want) in enumerate(zip(results[0], expected, strict=True)):
                close = {"rtol": 10 * tolerance, "atol": tolerance} if got.dtype.kind == "f" else {"rtol": 0.0, "atol": 0.0}
                np.testing.assert_allclose(got, want, **close, err_msg=f"{level}, operand {number}")
                assert all(got.tobytes() == other[number].tobytes() for other in results[1:]), f"{level}: threads change the result"
    return expected


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
