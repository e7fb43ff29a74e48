"""The loss curve of a character model beside PyTorch's, from equal weights on the same text, with states carried from step to step.

    python tests/bench/char_curve.py tinyshakespeare/input.txt --steps 300 --output curve.png

Prints the losses of graphc, of PyTorch in float32 and in float64 every tenth of the way, and the largest relative difference of each to
float64: what is between two engines in float32 is rounding where it is of the size of what is between PyTorch and itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

import graphc
from bench.char_net import GATES, CharNet, char_net, train_twin
from bench.tables import table_head, table_line
from graphc_cpu import host

MOMENTUM = 0.9


def losses(net: CharNet, text: Any, given: argparse.Namespace) -> dict[str, Any]:
    """By engine, float64 last."""
    adam = given.optimizer == "adam"
    optimizer = graphc.optim.Adam(given.lr) if adam else graphc.optim.SGD(given.lr, momentum=MOMENTUM)
    step = graphc.TrainStep(net.model, optimizer=optimizer, threads=given.threads, dims=net.dims)
    first = {name: array.copy() for name, array in step.parameters.items()}

    def twin_optimizer(parameters: Any) -> Any:
        return torch.optim.Adam(parameters, given.lr) if adam else torch.optim.SGD(parameters, given.lr, momentum=MOMENTUM)

    torch.set_num_threads(given.threads)
    found = {"graphc": [step(x, y)["loss"] for x, y in _batches(net, text, given.steps)]}
    for name, dtype in (("PyTorch", torch.float32), ("float64", torch.float64)):
        found[name] = train_twin(net, first, twin_optimizer, _batches(net, text, given.steps), dtype)
    return {name: np.array(values) for name, values in found.items()}


def _batches(net: CharNet, text: Any, steps: int) -> Iterator[Any]:
    streams = graphc.data.TextStreams(text, net.batch, net.image[0])
    for number, batch in enumerate(streams):
        if number == steps:
            return
        yield batch


def report(found: dict[str, Any]) -> list[str]:
    """Markdown."""
    exact = found["float64"]
    lines = table_head(["step", *found])
    for at in np.unique(np.linspace(0, len(exact) - 1, 11).astype(int)):
        lines.append(table_line([str(at + 1), *(f"{values[at]:.6f}" for values in found.values())]))
    apart = {name: np.abs(values - exact) / exact for name, values in found.items() if name != "float64"}
    apart["graphc to PyTorch"] = np.abs(found["graphc"] - found["PyTorch"]) / found["PyTorch"]
    return [*lines, "", *(f"{name}: largest relative difference {d.max():.1e}, at step {d.argmax() + 1}" for name, d in apart.items())]


def draw(found: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, values), style in zip(found.items(), ("-", "--", ":"), strict=True):
        axes.plot(np.arange(1, len(values) + 1), values, style, label=name)
    axes.set(xlabel="step", ylabel="training loss")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=90)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--cell", choices=GATES, default="lstm")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=host.usable_cpus())
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw the curves there")
    given = parser.parse_args(arguments)
    text = given.text.read_text(encoding="utf-8")
    alphabet = graphc.data.Alphabet.of(text)
    found = losses(char_net(given.cell, 256, 2, len(alphabet), batch=32, steps=64), alphabet.encode(text), given)
    print("\n".join(report(found)))
    if given.output:
        draw(found, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
