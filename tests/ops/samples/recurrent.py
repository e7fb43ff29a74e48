"""Samples of recurrent layers, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.ops.recurrent import Recurrent
from graphc.ops.recurrent_cell import GATES
from graphc.ops.recurrent_grad import RecurrentGrad
from graphc.ops.recurrent_mask import WithinLengths
from graphc.types.dtype import DType, f16, f32, f64
from ops.recurrent_loop import layer, torch_layer
from ops.sample import Array, Data, Sample

_TOLERANCE: dict[DType, tuple[float, float]] = {f32: (2e-5, 4e-6), f64: (1e-12, 1e-12), f16: (2e-3, 2e-3)}


def _sample(
    label: str, cell: str, t: int, b: int, h: int, dtype: DType = f32, lengths: tuple[int, ...] = (), symbolic: bool = False,
    **attributes: Any,
) -> Sample:  # fmt: skip
    op = Recurrent(cell, **attributes)
    d, gates = len(op.reverse), GATES[cell] * h
    state = (b, d, h) if op.batch_first else (d, b, h)
    shapes = {"bias": (d, h), "peepholes": (d, 3 * h), "h0": state, "c0": state}
    near = 1.5 / max(h, 1) ** 0.5  # of weights that keep the state in the middle of its range
    x = Data((b, t, d * gates) if op.batch_first else (t, b, d * gates), dtype)
    weights = Data((d, gates, h), dtype, -near, near)
    others = [np.asarray(lengths, np.int32) if name == "lengths" else Data(shapes[name], dtype, -1, 1) for name in op.given]
    of_state = f"B,{d},{h}" if op.batch_first else f"{d},B,{h}"
    texts = {"lengths": "B", "bias": f"{d},{h}", "peepholes": f"{d},{3 * h}", "h0": of_state, "c0": of_state}
    first = f"B,T,{d * gates}" if op.batch_first else f"T,B,{d * gates}"
    symbols = (first, f"{d},{gates},{h}", *(texts[name] for name in op.given)) if symbolic else ()

    def oracle(*arrays: Array) -> tuple[Array, ...]:
        named = dict(zip(op.given, arrays[2:], strict=True))
        skipped = ("cell", "given")
        made = layer(cell, arrays[0], arrays[1], **named, **{k: v for k, v in op.attributes().items() if k not in skipped})
        return tuple(made[name].astype(arrays[0].dtype) for name in op.output_names)

    rtol, atol = _TOLERANCE[dtype]
    return Sample(label, op, (x, weights, *others), oracle, symbols, rtol=rtol, atol=atol, differentiable=False)


def _grad_sample(cell: str, direction: str, given: tuple[str, ...] = ()) -> Sample:
    """RecurrentGrad at the results of a layer, in float64, against PyTorch's derivatives of a plain loop."""
    t, b, h, rng, names = 4, 3, 5, np.random.default_rng(3), Recurrent(cell, direction, given).output_names
    layer_op, back = Recurrent(cell, direction, given), RecurrentGrad(cell, direction, given)
    d, gates = len(back.reverse), GATES[cell]
    x, weights = rng.uniform(-1, 1, (t, b, d * gates * h)), rng.uniform(-0.6, 0.6, (d, gates * h, h))
    some = [rng.uniform(-1, 1, (d, b, h)) for _ in given]
    results = dict(zip(names, layer_op.evaluate(x, weights, *some), strict=True))
    seeds = [rng.standard_normal(results[name].shape) for name in ("y", "y_h", "y_c") if name in results]
    saved = [results[name] for name in ("y", "cells", "sums") if name in results]

    def oracle(*arrays: Array) -> tuple[Array, ...]:
        torch = pytest.importorskip("torch")
        leaves = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays[: 2 + len(given)]]
        named = dict(zip(given, leaves[2:], strict=True))
        states = [named.get(key, torch.zeros(d, b, h, dtype=torch.float64, requires_grad=True)) for key in ("h0", "c0")]
        made = torch_layer(torch, cell, back.reverse, *leaves[:2], *states)
        sum((made[key] * torch.tensor(seed)).sum() for key, seed in zip(("y", "y_h", "y_c"), seeds, strict=False)).backward()
        grads = {"dx": leaves[0].grad, "dh0": states[0].grad, "dc0": states[1].grad}
        for key in ("ds", "before", "gated"):
            steps = [[v.grad if key == "ds" else v for v in row] for row in made[key]]
            grads[key] = torch.stack([torch.stack(row) for row in steps]) if key in back.output_names else None
        return tuple(grads[name].detach().numpy() for name in back.output_names)

    label = f"{cell} {direction} {given}"
    return Sample(label, back, (x, weights, *some, *saved, *seeds), oracle, rtol=1e-11, atol=1e-11, differentiable=False)


def _within(x: Array, lengths: Array) -> Array:
    """Row by row."""
    made = np.zeros_like(x)
    for row, length in enumerate(lengths):
        made[: max(length, 0), row] = x[: max(length, 0), row]
    return made


_ALL = ("peepholes", "lengths", "h0", "c0")
SAMPLES = [
    _sample("one row", "rnn", 5, 1, 20),
    _sample("one row", "lstm", 5, 1, 20),
    _sample("one row", "gru", 5, 1, 20),
    _sample("many rows", "lstm", 3, 37, 9),
    _sample("many rows", "gru", 3, 37, 40, linear_before_reset=True),
    _sample("more units than a tile", "rnn", 2, 9, 70, direction="bidirectional"),
    _sample("more units than a tile", "lstm", 2, 3, 70, direction="reverse", symbolic=True),
    _sample("everything", "lstm", 6, 5, 17, direction="bidirectional", given=_ALL, lengths=(6, 0, 3, 1, 4), symbolic=True),
    _sample("everything, batch first", "lstm", 6, 5, 17, direction="bidirectional", given=_ALL, lengths=(6, 0, 3, 1, 4), batch_first=True,
            symbolic=True),
    _sample("lengths out of range", "lstm", 4, 4, 8, given=("lengths",), lengths=(-1, 9, 4, 2), direction="reverse"),
    _sample("input_forget, clip", "lstm", 4, 2, 8, given=("peepholes",), input_forget=True, clip=0.5),
    _sample("linear before reset", "gru", 6, 5, 17, direction="bidirectional", given=("bias", "lengths", "h0"), lengths=(6, 0, 3, 1, 4),
            linear_before_reset=True),
    _sample("reset before product", "gru", 6, 5, 17, direction="bidirectional", given=("lengths", "h0"), lengths=(6, 0, 3, 1, 4),
            batch_first=True, clip=1.0),
    _sample("batch first", "rnn", 6, 5, 17, direction="bidirectional", given=("lengths", "h0"), lengths=(6, 0, 3, 1, 4), batch_first=True),
    _sample("no steps", "lstm", 0, 3, 5, given=("h0", "c0")),
    _sample("no rows", "gru", 4, 0, 5),
    _sample("activations", "lstm", 4, 2, 8, activations=("hard_sigmoid", "softsign", "scaled_tanh"), alpha=(0.3, 0, 0.7),
            beta=(0.4, 0, 1.2)),
    _sample("activations", "gru", 4, 2, 8, activations=("affine", "leaky_relu"), alpha=(0.2, 0.1), beta=(0.1, 0)),
    _sample("activations", "gru", 4, 2, 8, activations=("softplus", "elu"), alpha=(0, 0.9), beta=(0, 0)),
    _sample("activations", "rnn", 4, 2, 8, activations=("thresholded_relu",), alpha=(0.4,), beta=(0,)),
    _sample("activations", "rnn", 4, 2, 8, activations=("relu",)),
    _sample("double", "lstm", 4, 3, 9, f64, direction="bidirectional", given=("peepholes", "h0", "c0")),
    _sample("double", "gru", 4, 3, 9, f64, direction="reverse", given=("h0",)),
    _sample("double", "rnn", 4, 3, 9, f64),
    _sample("half", "lstm", 4, 3, 9, f16, given=("h0", "c0")),
    Sample("", WithinLengths(), (Data((5, 4, 3)), np.array([5, 0, 9, 2], np.int32)), _within, ("T,B,F", "B")),
    Sample("", WithinLengths(batch_first=True), (Data((4, 5, 17)), np.array([-1, 3, 5, 1], np.int32)),
           lambda x, lengths: _within(x.swapaxes(0, 1), lengths).swapaxes(0, 1), ("B,T,F", "B")),
    *(_grad_sample(cell, direction) for cell in ("rnn", "lstm", "gru") for direction in ("forward", "bidirectional")),
    _grad_sample("lstm", "reverse", ("h0", "c0")),
    _grad_sample("gru", "reverse", ("h0",)),
]  # fmt: skip
