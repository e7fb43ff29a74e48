"""The character model whose training is timed: 2 layers of 256 units over one-hot characters, states carried from step to step, in the DSL
and in PyTorch. The weights are those of graphc; `convert` has them in PyTorch's shapes and order of gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import graphc
from bench.net import Array, Net

GATES = {"rnn": (0,), "lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}  # graphc's gates in PyTorch's order


def char_model(cell: str, units: int, layers: int, classes: int, batch: int) -> Any:
    """Characters (batch, T) -> logits (batch, classes, T)."""

    @graphc.model(name=f"char_{cell}")
    def net(text: graphc.i64[batch, "T"]) -> Any:
        names = ("h", "c") if cell == "lstm" else ("h",)
        states = {f"{name}0": graphc.state((batch, layers, units), name=name) for name in names}
        y, *last = getattr(graphc, cell)(graphc.one_hot(text, classes), units, layers, name="cell", **states)
        for state, new in zip(states.values(), last, strict=True):
            state.assign(new)
        return graphc.linear(y, classes, name="out").transpose(0, 2, 1)

    return net


class CharTwin(nn.Module):
    """The same in PyTorch. Of its two biases the recurrent one stays 0, but for the state gate of a gru: that is what graphc has."""

    def __init__(self, cell: str, units: int, layers: int, classes: int) -> None:
        super().__init__()
        self.kind, self.units, self.classes = cell, units, classes
        self.cell: Any = getattr(nn, cell.upper())(classes, units, layers, batch_first=True)
        self.out, self.state = nn.Linear(units, classes), None
        for name, tensor in self.cell.named_parameters():
            if name.startswith("bias_hh") and cell == "gru":
                tensor.register_hook(lambda grad: torch.cat([torch.zeros_like(grad[: 2 * units]), grad[2 * units :]]))
            elif name.startswith("bias_hh"):
                tensor.requires_grad_(False)

    def reset(self) -> None:
        self.state = None

    def forward(self, text: Any) -> Any:
        x = nn.functional.one_hot(text, self.classes).to(self.out.weight.dtype)
        y, state = self.cell(x, self.state)
        self.state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        return self.out(y).transpose(1, 2)


@dataclass(frozen=True)
class CharNet(Net):
    """`image`: the steps of a batch."""

    cell: str = "lstm"
    layers: int = 2

    @property
    def dims(self) -> dict[str, int]:
        return {"T": self.image[0]}

    def data(self, seed: int) -> tuple[Array, Array]:
        rows = np.random.default_rng(seed).integers(0, self.classes, (self.batch, self.image[0] + 1))
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])

    def convert(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """By PyTorch's names, in its order."""
        made: dict[str, Array] = {}
        for k in range(self.layers):
            weight, recurrent, bias = (parameters[f"cell.{k}.{part}"][0] for part in ("weight", "recurrent_weight", "bias"))
            inside = np.zeros_like(bias)
            if self.cell == "gru":
                inside[-len(bias) // 3 :] = parameters[f"cell.{k}.recurrent_bias"][0]
            parts = {"weight_ih": weight, "weight_hh": recurrent, "bias_ih": bias, "bias_hh": inside}
            made |= {f"cell.{part}_l{k}": self._ordered(array) for part, array in parts.items()}
        return made | {"out.weight": parameters["out.weight"], "out.bias": parameters["out.bias"]}

    def _ordered(self, rows: Array) -> Array:
        parts = np.split(rows, len(GATES[self.cell]))
        return np.concatenate([parts[gate] for gate in GATES[self.cell]])


def char_net(cell: str, units: int, layers: int, classes: int, batch: int, steps: int) -> CharNet:
    twin = (cell, units, layers, classes)
    return CharNet(char_model(*twin, batch), lambda: CharTwin(*twin), (steps,), classes, batch, cell, layers, check_rate=0.3)


def train_twin(net: CharNet, parameters: Mapping[str, Array], optimizer: Any, batches: Any, dtype: Any = torch.float32) -> list[float]:
    """Losses of a PyTorch twin that starts from graphc's parameters. optimizer: makes one of the trained parameters."""
    twin = net.torch(parameters, dtype)
    made = optimizer([tensor for tensor in twin.parameters() if tensor.requires_grad])
    losses = []
    for x, y in batches:
        made.zero_grad()
        loss = nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        made.step()
        losses.append(float(loss.detach()))
    return losses
