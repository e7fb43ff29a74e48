"""Training steps of a character model beside PyTorch's (eager), in turns: `python tests/bench/char_bench.py [--adam] [--kernels 20]`.

The model: 65 characters as embeddings, two LSTM layers of 256 units, a linear layer to 65, cross-entropy over all 64 steps of 32 rows.
After the timing both take some more steps from the first parameters on batches not seen before; their losses and parameters are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

import graphc
from bench.conv_bench import peak
from bench.tables import slowest_kernels, table_head, table_line, timed
from graphc_cpu import host
from graphc_cpu.runtime.pool import Pool

CHARACTERS, LAYERS = 65, 2
RATE, CHECK_STEPS = 0.01, 3
Array = np.ndarray[Any, np.dtype[Any]]


class Graphc:
    def __init__(self, given: argparse.Namespace) -> None:
        @graphc.model
        def net(x: graphc.i64[given.batch, given.steps]) -> Any:  # type: ignore[valid-type]
            y, *_ = graphc.lstm(graphc.embedding(x, CHARACTERS, given.units, name="e"), given.units, LAYERS, name="l")
            return graphc.linear(y, CHARACTERS, name="out").reshape(given.batch * given.steps, CHARACTERS)

        optimizer = graphc.optim.Adam(lr=RATE) if given.adam else graphc.optim.SGD(lr=RATE)
        self.step = graphc.TrainStep(net, optimizer=optimizer, threads=given.threads)
        self.rate = np.asarray(RATE)

    def __call__(self, x: Array, y: Array) -> float:
        return float(self.step(x, y.reshape(-1))["loss"])

    def parameters(self) -> dict[str, Array]:
        return {name: np.array(value) for name, value in self.step.parameters.items()}

    def reset(self, parameters: Mapping[str, Array]) -> None:
        self.step.parameters.update(parameters)
        self.step.state = {name: np.zeros_like(array) for name, array in self.step.state.items() if name not in parameters}

    def profile(self, x: Array, y: Array, count: int) -> list[dict[str, Any]]:
        feeds = self.step._feeds(x, y.reshape(-1))
        return slowest_kernels(self.step._step.profile(**feeds, **{"train.rate": self.rate}, runs=9), count)


class Torch(nn.Module):
    """One bias for each LSTM layer, as graphc has it: the second is zero and not trained."""

    def __init__(self, given: argparse.Namespace, parameters: Mapping[str, Array]) -> None:
        super().__init__()
        torch.set_num_threads(given.threads)
        self.embedding = nn.Embedding(CHARACTERS, given.units)
        self.lstm = nn.LSTM(given.units, given.units, LAYERS, batch_first=True)
        self.out = nn.Linear(given.units, CHARACTERS)
        self.adam = given.adam
        self.reset(parameters)

    def reset(self, parameters: Mapping[str, Array]) -> None:
        with torch.no_grad():
            for name, tensor in self.named_parameters():
                if "bias_hh" in name:
                    tensor.zero_().requires_grad_(False)
                else:
                    tensor.copy_(torch.from_numpy(self._taken(name, parameters)))
        trained = [tensor for tensor in self.parameters() if tensor.requires_grad]
        self.optimizer: Any = torch.optim.Adam(trained, lr=RATE) if self.adam else torch.optim.SGD(trained, lr=RATE)

    @staticmethod
    def _taken(name: str, parameters: Mapping[str, Array]) -> Array:
        """Our array of a parameter of this module, its gates in the order of PyTorch."""
        if not name.startswith("lstm"):
            return parameters[name.replace("embedding", "e")]
        kind, layer = {"weight_ih": "weight", "weight_hh": "recurrent_weight", "bias_ih": "bias"}[name[5:-3]], name[-1]
        i, o, f, c = np.split(parameters[f"l.{layer}.{kind}"][0], 4)
        return np.concatenate([i, f, c, o])

    def __call__(self, x: Array, y: Array) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        made = self.out(self.lstm(self.embedding(torch.from_numpy(x)))[0])
        loss = nn.functional.cross_entropy(made.reshape(-1, CHARACTERS), torch.from_numpy(y).reshape(-1))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def batch(given: argparse.Namespace, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, CHARACTERS, (given.batch, given.steps)) for _ in range(2))
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--adam", action="store_true", help="instead of SGD")
    parser.add_argument("--kernels", type=int, default=0, metavar="K", help="also the K kernels that take longest")
    given = parser.parse_args()
    mine = Graphc(given)
    first = mine.parameters()
    peer = Torch(given, first)
    x, y = batch(given, 0)
    times = timed({"graphc": lambda: mine(x, y), "eager": lambda: peer(x, y)}, given.seconds)
    best = "  ".join(f"{name} {t.best * 1e3:.2f} (median {t.median * 1e3:.2f})" for name, t in times.items())
    flops = mine.step.compiled().plan.flops
    with Pool(given.threads) as pool:
        limit = peak(host.host_target(), pool)
    floor = f"floor {flops / limit * 1e3:.2f} ({limit / 1e9:.0f} GFLOP/s)"
    print(f"ms: {best}   eager / graphc {times['graphc'].ratio(times['eager']):.2f}   {floor}")
    mine.reset(first)
    peer.reset(first)
    losses = [(mine(*batch(given, seed)), peer(*batch(given, seed))) for seed in range(100, 100 + CHECK_STEPS)]
    error = max(abs(a - b) for a, b in losses)
    assert error < 1e-4, f"losses differ: {losses}"
    print(f"losses of {CHECK_STEPS} steps on new data differ by at most {error:.1e}")
    if given.kernels:
        print("\n".join(table_head(["kernel", "family", "us", "GFLOP/s", "of peak", "GB/s"])))
        for step in mine.profile(x, y, given.kernels):
            figures = [f"{step['seconds'] * 1e6:.0f}", f"{step['gflops']:.0f}", f"{step['gflops'] * 1e9 / limit:.0%}"]
            figures.append(f"{step['gbytes']:.1f}")
            print(table_line([step["label"], step["family"], *figures]))


if __name__ == "__main__":
    main()
