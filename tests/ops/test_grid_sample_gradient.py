"""The gradient of grid sampling against torch, in every mode and padding, also at whole positions and on the border."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ops.grid_sample import PADDING, GridSample
from ops.runners import run_reference

torch: Any = pytest.importorskip("torch")

MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("mode", list(MODES))
def test_equal_to_torch(mode: str, padding: str, align: bool) -> None:
    rng = np.random.default_rng(2)
    x, grid, incoming = rng.standard_normal((2, 3, 4, 5)), rng.uniform(-1.3, 1.3, (2, 3, 7, 2)), rng.standard_normal((2, 3, 3, 7))
    if padding == "zeros":
        grid[0, 0, 0] = 1 / 3, 0.0
    leaves = [torch.tensor(array, requires_grad=True) for array in (x, grid)]
    options = {"mode": MODES[mode], "padding_mode": padding, "align_corners": align}
    torch.nn.functional.grid_sample(*leaves, **options).backward(torch.from_numpy(incoming))
    builder = Builder()
    values = [builder.constant(array) for array in (x, grid)]
    node = builder.add(GridSample(mode, padding, align), *values).producer
    assert node is not None
    d_x, d_grid = node.op.gradient(builder, node, [builder.constant(incoming)])
    assert d_x is not None
    np.testing.assert_allclose(run_reference(builder.finish(d=d_x), [])[0], leaves[0].grad.numpy(), rtol=1e-9, atol=1e-12)
    if mode == "nearest":
        assert d_grid is None
        return
    assert d_grid is not None
    np.testing.assert_allclose(run_reference(builder.finish(d=d_grid), [])[0], leaves[1].grad.numpy(), rtol=1e-9, atol=1e-12)
