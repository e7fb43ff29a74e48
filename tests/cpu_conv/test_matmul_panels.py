"""Products with panels: the bits of the product without, whatever the groups, the parts of the sum and the number of threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, compile_one, matmul_spec, random
from graphc.kernel.choose_panels import with_panels
from graphc.kernel.spec import MatmulPanels
from graphc.target import Target, named
from graphc.types.dtype import f64, i32
from graphc_cpu.kernel_code import emit_kernel
from graphc_cpu.kernels.matmul_panels import panel_plan

CASES: dict[str, dict[str, Any]] = {
    "b transposed": {"m": 60, "n": 75, "k": 37, "transpose": "b", "bias": True},
    "a transposed": {"m": 61, "n": 150, "k": 41, "transpose": "a", "bias": True},
    "both": {"m": 33, "n": 40, "k": 20, "transpose": "ab"},
    "neither": {"m": 50, "n": 33, "k": 9, "transpose": "", "bias": True},
    "c transposed": {"m": 33, "n": 40, "k": 20, "transpose": "abc"},
    "batch": {"m": 29, "n": 18, "k": 19, "batch": (2, 3), "transpose": "ab", "bias": True},
    "rows of a batch": {"m": 9, "n": 34, "k": 19, "batch": (4,), "transpose": "b", "shared": "b"},
    "f64": {"m": 30, "n": 40, "k": 21, "dtype": f64, "transpose": "ab"},
    "i32": {"m": 30, "n": 20, "k": 21, "dtype": i32, "transpose": "ab"},
    "one column": {"m": 30, "n": 1, "k": 21, "transpose": "a"},
}
FORMS = {
    "all at once": (1000, 1024, 1000), "groups": (30, 128, 1000), "parts": (28, 128, 16), "odd parts": (1000, 1024, 7),
    "steps": (30, 256, 1),
}  # fmt: skip


def _run(spec: Any, target: Target, operands: list[Any], threads: int) -> Any:
    result = np.full(spec.operands[len(operands)].elements + 32, 77, operands[0].dtype)
    arguments = [*operands, result]
    if isinstance(spec, MatmulPanels):
        arguments.append(np.full(spec.scratch.elements * threads + 64, np.nan if spec.product.dtype.is_float else 99, operands[0].dtype))
        arguments[-1][spec.scratch.elements * threads :] = 55
    compile_one(emit_kernel(spec, target, "kernel"), target).call("kernel", arguments, threads)
    assert (result[-32:] == 77).all(), "written beyond the output"
    if isinstance(spec, MatmulPanels):
        assert (arguments[-1][spec.scratch.elements * threads :] == 55).all(), "written beyond the scratch"
    return result


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_same_bits_as_in_place(case: dict[str, Any], form: tuple[int, int, int], level: str) -> None:
    target, rng = named(level), np.random.default_rng(7)
    spec = matmul_spec(packed=False, **case)
    rows, columns = min(form[0], max(spec.m * int(np.prod(spec.batch)), 28)), min(form[1], -(-spec.n // 16) * 16)
    panels = MatmulPanels(spec, rows, columns, min(form[2], spec.k))
    operands = [random(operand, rng) for operand in spec.operands[:-1]]
    expected = _run(spec, target, operands, 1)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(_run(panels, target, operands, threads), expected)


@pytest.mark.parametrize(
    ("m", "n", "k", "transpose", "panels"),
    [
        (2048, 1024, 256, "b", True), (1024, 256, 2048, "a", True), (64, 120, 400, "b", True), (512, 512, 512, "ab", True),
        (1, 1000, 512, "b", False), (14, 100, 100, "b", False), (120, 400, 8, "a", False), (2048, 256, 1024, "", False),
        (300, 1, 300, "b", False), (40, 40, 1, "ab", False),
    ],
)  # fmt: skip
def test_where_panels_pay(m: int, n: int, k: int, transpose: str, panels: bool) -> None:
    """Long columns of a^T, and b^T for more than one tile of rows."""
    made = with_panels(matmul_spec(m, n, k, packed=False, transpose=transpose), named("avx512"))
    assert isinstance(made, MatmulPanels) == panels
    if isinstance(made, MatmulPanels):
        assert made.scratch.nbytes <= 1.5 * named("avx512").l2


def test_long_sums_are_cut_and_groups_share_out() -> None:
    target = replace(named("avx512"), cores=4)
    made = with_panels(matmul_spec(1024, 256, 5000, packed=False, transpose="a"), target)
    assert isinstance(made, MatmulPanels)
    assert made.parts > 1
    plan = panel_plan(made, target)
    assert plan.rows.parts * plan.columns.parts % target.cores == 0
