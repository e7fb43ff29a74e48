"""Products with weights stored as bf16 or int8 against the model on the very values that are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cpu_conv import cases
from graphc.errors import UnsupportedError
from graphc.target import named
from graphc.types.dtype import f64
from graphc_cpu.kernels.matmul import check_matmul, emit_matmul, pack_matmul_weight
from graphc_cpu.kernels.model import matmul_model
from graphc_cpu.micro.compressed import from_bf16, to_bf16, to_int8

SHAPES: dict[str, dict[str, Any]] = {
    "gemv": {"m": 1, "n": 200, "k": 64, "bias": True},
    "gemv, large": {"m": 1, "n": 513, "k": 700},
    "rows": {"m": 13, "n": 33, "k": 17, "bias": True},
    "tile": {"m": 30, "n": 64, "k": 48},
    "one": {"m": 1, "n": 1, "k": 1},
}


def stored(b: np.ndarray[Any, Any], storage: str) -> np.ndarray[Any, Any]:
    if storage == "bf16":
        return from_bf16(to_bf16(b))
    numbers, scale = to_int8(b)
    return numbers.astype(np.float32) * scale


@pytest.mark.parametrize("level", cases.LEVELS)
@pytest.mark.parametrize("storage", ["bf16", "int8"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_matches_model(shape: dict[str, Any], storage: str, level: str) -> None:
    spec, target, rng = replace(cases.matmul_spec(**shape), storage=storage), named(level), np.random.default_rng(3)
    operands = [cases.random(operand, rng) for operand in spec.operands[:-1]]
    b = operands[1].reshape(spec.k, spec.n)
    packed = [operands[0], pack_matmul_weight(spec, target, b), *operands[2:]]
    seen = [operands[0], stored(b, storage).reshape(-1), *operands[2:]]
    library = cases.compile_one(emit_matmul(spec, target, "kernel"), target)
    cases._check(spec, library, seen, packed, matmul_model, (1, 2, 3))
    assert packed[1].nbytes < (0.55 if storage == "bf16" else 0.45) * b.nbytes or spec.n < 200


def test_rounding_to_bf16_is_to_nearest_even() -> None:
    halfway = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800001, 0xFF800000], np.uint32).view(np.float32)
    assert [hex(v) for v in to_bf16(halfway)[[0, 1, 2, 3, 5]]] == ["0x3f80", "0x3f82", "0x3f81", "0x7f80", "0xff80"]
    assert np.isnan(from_bf16(to_bf16(halfway)[4:5]))[0]
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert (np.abs(from_bf16(to_bf16(x)) - x) <= 2.0**-8 * np.abs(x)).all()


def test_int8_is_exact_to_half_a_step_in_each_column() -> None:
    b = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * np.float32(10) ** np.arange(-3, 4, dtype=np.float32)
    b[:, 3] = 0
    numbers, scale = to_int8(b)
    assert np.abs(numbers).max(axis=0).tolist() == [127, 127, 127, 0, 127, 127, 127]
    assert (np.abs(numbers * scale - b) <= 0.5001 * scale).all()


def test_what_cannot_be_stored_narrow_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="constant float32"):
        check_matmul(replace(cases.matmul_spec(3, 4, 5, packed=False), storage="bf16"))
    with pytest.raises(UnsupportedError, match="constant float32"):
        check_matmul(replace(cases.matmul_spec(3, 4, 5, dtype=f64), storage="int8"))
    with pytest.raises(UnsupportedError, match="infinite or NaN"):
        to_int8(np.array([[1.0, np.inf]], np.float32))
