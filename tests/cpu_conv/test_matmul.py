"""Matrix products against numpy, on every machine level that runs here."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, check_matmul, compile_one, matmul_spec
from graphc.errors import UnsupportedError
from graphc.target import named
from graphc.types.dtype import f16, f64, i32, i64
from graphc_cpu.kernels.matmul import emit_matmul, flops, matmul_plan, pack_matmul_weight

CASES: dict[str, dict[str, Any]] = {
    "gemv": {"m": 1, "n": 200, "k": 64},
    "gemv in place": {"m": 1, "n": 77, "k": 64, "packed": False},
    "classifier": {"m": 1, "n": 10, "k": 84, "bias": True},
    "odd": {"m": 13, "n": 33, "k": 17, "bias": True},
    "tile": {"m": 14, "n": 32, "k": 16},
    "in place": {"m": 29, "n": 65, "k": 31, "packed": False, "bias": True},
    "batch": {"m": 5, "n": 7, "k": 9, "batch": (2, 3), "packed": False},
    "batch, shared a": {"m": 5, "n": 20, "k": 9, "batch": (2, 3), "packed": False, "shared": "a", "bias": True},
    "batch merged into rows": {"m": 5, "n": 7, "k": 9, "batch": (2, 3), "bias": True},
    "batch of in-place b": {"m": 20, "n": 20, "k": 32, "batch": (2,), "packed": False, "shared": "b"},
    "transposed a": {"m": 5, "n": 17, "k": 9, "packed": False, "transpose": "a"},
    "transposed b": {"m": 15, "n": 19, "k": 37, "packed": False, "transpose": "b", "bias": True},
    "transposed b, batch": {"m": 4, "n": 33, "k": 16, "batch": (3,), "packed": False, "transpose": "b"},
    "transposed c": {"m": 5, "n": 17, "k": 9, "packed": False, "transpose": "c", "bias": True},
    "all transposed": {"m": 6, "n": 17, "k": 9, "packed": False, "transpose": "abc"},
    "rows 4 KB apart": {"m": 20, "n": 20, "k": 1024},
    "f64": {"m": 30, "n": 40, "k": 64, "dtype": f64},
    "f64 transposed": {"m": 9, "n": 11, "k": 20, "dtype": f64, "packed": False, "transpose": "b"},
    "i32": {"m": 9, "n": 21, "k": 20, "dtype": i32, "packed": False},
    "i64": {"m": 9, "n": 21, "k": 20, "dtype": i64},
    "one": {"m": 1, "n": 1, "k": 1},
    "empty sum": {"m": 3, "n": 4, "k": 0, "packed": False, "bias": True},
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_matches_model(case: dict[str, Any], level: str) -> None:
    check_matmul(matmul_spec(**case), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_around_the_tile(off: int, level: str) -> None:
    plan = matmul_plan(matmul_spec(200, 600, 8), named(level))
    m, n = plan.rows.width + off, plan.columns.width * plan.lanes + off
    for packed in (True, False):
        check_matmul(matmul_spec(m, n, 5, packed=packed, bias=True), level)


def test_large_b_puts_columns_outside() -> None:
    target = named("avx512")
    spec = matmul_spec(3, 512, 512)
    assert matmul_plan(spec, target).columns_outer
    check_matmul(spec, "avx512")


def test_rows_that_share_a_cache_set_are_few() -> None:
    target = named("avx512")
    assert matmul_plan(matmul_spec(64, 64, 1024), target).rows.width <= 6
    assert matmul_plan(matmul_spec(56, 64, 1000), target).rows.width == 14


def test_b_is_not_read_beyond_its_end() -> None:
    """The last rows of b end where an unreadable page begins."""
    target = named("avx2")
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 0) == 0
    for transpose in ("", "b"):
        spec = matmul_spec(2, 5, 3, packed=False, transpose=transpose)
        b = np.frombuffer(memory, np.float32, 15, page - 60)
        b[:] = np.arange(15)
        a, out = np.ones((2, 3), np.float32), np.zeros((2, 5), np.float32)
        compile_one(emit_matmul(spec, target, "kernel"), target).call("kernel", [a, b, out])
        matrix = b.reshape(5, 3).T if transpose else b.reshape(3, 5)
        np.testing.assert_array_equal(out, a @ matrix)


def test_what_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="f16"):
        emit_matmul(matmul_spec(2, 2, 2, dtype=f16), named("avx2"), "k")


def test_packing_and_flops() -> None:
    target = named("avx2")
    spec = matmul_spec(4, 11, 3)
    b = np.arange(33, dtype=np.float32).reshape(3, 11)
    packed = pack_matmul_weight(spec, target, b)
    assert packed.size == 2 * 8 * 3
    assert packed.sum() == b.sum()
    assert flops(spec) == 2 * 4 * 11 * 3
