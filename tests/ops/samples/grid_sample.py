"""Samples of grid sampling. The oracle is ONNX Runtime, PyTorch for 3-d, and the onnx package's evaluator where both lack a mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops.grid_sample import PADDING, TAPS, GridSample
from graphc.types.dtype import f64, i32
from ops.oracles import by_onnx, by_ort, by_torch
from ops.sample import Data, Sample


def _torch(mode: str, padding: str, corners: bool) -> Any:
    names = {"linear": "bilinear"}
    fn = {"mode": names.get(mode, mode), "padding_mode": padding, "align_corners": corners}
    return by_torch(lambda torch: lambda x, g: torch.nn.functional.grid_sample(x, g, **fn))


def _samples() -> list[Sample]:
    found = []
    for mode in TAPS:
        for padding in PADDING:
            for corners in (False, True):
                op, label = GridSample(mode, padding, corners), f"{mode} {padding} {corners}"
                inputs = Data((2, 3, 4, 5)), Data((2, 3, 7, 2), low=-2.6, high=2.6)
                oracle = by_ort("GridSample", opset=20, mode=mode, padding_mode=padding, align_corners=int(corners))
                found.append(Sample(f"{label}, 2-d", op, inputs, oracle, ("N,C,4,5", "N,H,7,2"), rtol=1e-4, atol=2e-5))
                inputs = Data((1, 2, 3, 4, 2), f64), Data((1, 2, 3, 2, 3), f64, -1.7, 1.7)
                if mode != "cubic":
                    found.append(Sample(f"{label}, 3-d", op, inputs, _torch(mode, padding, corners), rtol=1e-9, atol=1e-10))
    line = Data((1, 2, 6)), Data((1, 9, 1), low=-1.4, high=1.4)
    found.append(Sample("1-d", GridSample("cubic"), line, by_onnx("GridSample", opset=20, mode="cubic"), rtol=1e-4, atol=2e-5))
    integers = Data((1, 1, 3, 3), i32, -9, 9), np.array([[[[-1, -1], [0, 0], [2, 0]]]], np.float32)
    found.append(Sample("i32", GridSample("nearest"), integers, lambda x, g: np.array([[[[x[0, 0, 0, 0], x[0, 0, 1, 1], 0]]]], np.int32)))
    wild = np.array([[[[np.inf, 0], [-np.inf, 0], [1e30, -1e30], [np.nan, 0]]]], np.float32)
    found.append(Sample("wild positions", GridSample("nearest", "border"), (Data((1, 1, 3, 3)), wild), _wild))
    for padding in PADDING:
        single = Data((1, 2, 1, 1)), Data((1, 2, 2, 2), low=-0.9, high=0.9)
        oracle = _torch("linear", padding, True)
        found.append(Sample(f"one pixel, {padding}", GridSample("linear", padding, True), single, oracle))
    found.append(Sample("nothing", GridSample(), (Data((1, 2, 3, 3)), Data((1, 0, 2, 2))), lambda x, g: np.zeros((1, 2, 0, 2), np.float32)))
    return found


def _wild(x: Any, grid: Any) -> Any:
    return np.array([[[x[0, 0, 1, 2], x[0, 0, 1, 0], x[0, 0, 0, 2], x[0, 0, 1, 0]]]]).reshape(1, 1, 1, 4)


SAMPLES = _samples()
