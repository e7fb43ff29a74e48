"""Recurrent layers as plain loops: row by row, step by step, in float64. Independent of graphc."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[[Array], Array]
ORDER = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
USUAL = {"rnn": ("tanh",), "lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}
FUNCTIONS: Mapping[str, Callable[[Array, float, float], Array]] = {
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "affine": lambda x, a, b: a * x + b,
    "leaky_relu": lambda x, a, b: np.where(x < 0, a * x, x),
    "thresholded_relu": lambda x, a, b: np.where(x > a, x, 0),
    "scaled_tanh": lambda x, a, b: a * np.tanh(b * x),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x < 0, a * (np.exp(x) - 1), x),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.log1p(np.exp(x)),
}


def layer(
    kind: str, x: Array, weights: Array, *, direction: str = "forward", bias: Array | None = None, peepholes: Array | None = None,
    lengths: Array | None = None, h0: Array | None = None, c0: Array | None = None, batch_first: bool = False,
    activations: Sequence[str] = (), alpha: Sequence[float] = (), beta: Sequence[float] = (), clip: float = np.inf,
    linear_before_reset: bool = False, input_forget: bool = False,
) -> dict[str, Array]:  # fmt: skip
    """y, y_h, y_c, cells and sums of the op `recurrent`, in float64; x is the input product (T, B, D*G*H)."""
    x, weights = x.astype(np.float64), weights.astype(np.float64)
    if batch_first:
        x = x.transpose(1, 0, 2)
    steps, rows, _ = x.shape
    d, gates, hidden = weights.shape
    x = x.reshape(steps, rows, d, gates)
    names = tuple(activations) or USUAL[kind]
    numbers = zip(names, tuple(alpha) or (0.0,) * len(names), tuple(beta) or (0.0,) * len(names), strict=True)
    functions = [lambda v, n=n, a=a, b=b: FUNCTIONS[n](np.clip(v, -clip, clip), a, b) for n, a, b in numbers]
    made = {key: np.zeros((steps, d, rows, hidden)) for key in ("y", "cells")}
    made |= {"sums": np.zeros((steps, d, rows, gates)), "y_h": np.zeros((d, rows, hidden)), "y_c": np.zeros((d, rows, hidden))}
    for k, backwards in enumerate(ORDER[direction]):
        for row in range(rows):
            state = {
                key: np.zeros(hidden) if given is None else (given[row, k] if batch_first else given[k, row]).astype(np.float64)
                for key, given in (("h", h0), ("c", c0))
            }
            length = steps if lengths is None else int(np.clip(lengths[row], 0, steps))
            inside = None if bias is None else bias[k].astype(np.float64)
            holes = None if peepholes is None else np.split(peepholes[k].astype(np.float64), 3)
            for t in reversed(range(steps)) if backwards else range(steps):
                h, c, sums = _step(
                    kind, x[t, row, k], weights[k], state["h"], state["c"], functions, inside, holes, linear_before_reset, input_forget
                )
                made["sums"][t, k, row] = sums
                if t < length:
                    state = {"h": h, "c": c}
                    made["y"][t, k, row] = h
                made["cells"][t, k, row] = state["c"]
            made["y_h"][k, row], made["y_c"][k, row] = state["h"], state["c"]
    if batch_first:
        made["y"] = made["y"].transpose(2, 0, 1, 3)
        made["y_h"], made["y_c"] = made["y_h"].transpose(1, 0, 2), made["y_c"].transpose(1, 0, 2)
    return made


def _step(
    kind: str, x: Array, weights: Array, h: Array, c: Array, functions: Sequence[Function], bias: Array | None,
    holes: Sequence[Array] | None, linear_before_reset: bool, input_forget: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """One row in one step: the new h and c, and the sums."""
    sums = weights @ h
    if kind == "rnn":
        return functions[0](x + sums), c, x + sums
    if kind == "gru":
        xz, xr, xn = np.split(x, 3)
        sz, sr, sn = np.split(sums, 3)
        z, r = functions[0](xz + sz), functions[0](xr + sr)
        if linear_before_reset:
            n = functions[1](xn + r * (sn if bias is None else sn + bias))
        else:
            sn = xn + np.split(weights, 3)[2] @ (r * h)
            n = functions[1](sn)
        return (1 - z) * n + z * h, c, np.concatenate([xz + sz, xr + sr, sn])
    i, o, f, g = np.split(x + sums, 4)
    pi, po, pf = holes if holes is not None else (np.zeros_like(c),) * 3
    enter = functions[0](i + pi * c)
    keep = 1 - enter if input_forget else functions[0](f + pf * c)
    c = keep * c + enter * functions[1](g)
    return functions[0](o + po * c) * functions[2](c), c, x + sums


def torch_layer(
    torch: Any, kind: str, order: Sequence[bool], x: Any, weights: Any, h0: Any, c0: Any
) -> dict[str, Any]:  # fmt: skip
    """The same in PyTorch, all rows at once and of full length, with the usual activations: results, and per direction and step the
    recurrent products `ds` (whose gradients are kept), the states `before` and the `gated` ones."""
    steps, rows, _ = x.shape
    d, gates, hidden = weights.shape
    made: dict[str, Any] = {"ds": [], "before": [], "gated": []}
    y, last = [[None] * d for _ in range(steps)], {"y_h": [], "y_c": []}
    for k, backwards in enumerate(order):
        h, c, kept = h0[k], c0[k], {key: [None] * steps for key in ("ds", "before", "gated")}
        for t in reversed(range(steps)) if backwards else range(steps):
            parts = x.reshape(steps, rows, d, gates)[t, :, k].split(hidden, 1)
            s, gated = h @ weights[k].T, h
            if kind == "gru":
                s = torch.cat([s[:, : 2 * hidden], torch.zeros(rows, hidden, dtype=x.dtype)], 1)  # the last product comes behind
            s.retain_grad()
            if kind == "gru":
                gated = torch.sigmoid(parts[1] + s[:, hidden : 2 * hidden]) * h
                inner = gated @ weights[k, 2 * hidden :].T + s[:, 2 * hidden :]
            kept["ds"][t], kept["before"][t], kept["gated"][t] = s, h, gated
            sums = s.split(hidden, 1)
            if kind == "rnn":
                h = torch.tanh(parts[0] + sums[0])
            elif kind == "gru":
                z, n = torch.sigmoid(parts[0] + sums[0]), torch.tanh(parts[2] + inner)
                h = (1 - z) * n + z * h
            else:
                i, o, f = (torch.sigmoid(parts[g] + sums[g]) for g in range(3))
                c = f * c + i * torch.tanh(parts[3] + sums[3])
                h = o * torch.tanh(c)
            y[t][k] = h
        last["y_h"].append(h)
        last["y_c"].append(c)
        for key, values in kept.items():
            made[key].append(values)
    made["y"] = torch.stack([torch.stack(step) for step in y])
    return made | {key: torch.stack(values) for key, values in last.items()}
