"""What a lecture on deep networks shows, measured on scikit-learn's digits and drawn: activations, batch normalisation, optimizers.

    python examples/training/lecture.py --output lecture.png

A perceptron with 10 hidden layers of 64 units (Xavier's initial weights for the logistic function and tanh, He's for ReLU), and a small
convolutional network. The picture has four panels:

    gradient of each layer's weight before training (root mean square), for logistic, tanh and ReLU, with and without batch
    normalisation: with the logistic function it falls by a factor of 4 and more with each layer towards the input (its slope is at
    most 1/4)
    training loss of these perceptrons without, and with batch normalisation (SGD with momentum)
    training loss of the convolutional network with SGD, momentum, Nesterov, RMSProp, Adam and AdamW

Prints the gradient of the first and the last layer and the final test accuracy of each network.

Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852; Ioffe and Szegedy 2015, arXiv:1502.03167.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from datasets import digits
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import graphc

DEPTH, WIDTH = 10, 64
INIT = {"sigmoid": "xavier_normal", "tanh": "xavier_normal", "relu": "he_normal"}
LABELS = {"sigmoid": "logistic", "tanh": "tanh", "relu": "ReLU"}
COLOURS = {"sigmoid": "#d62728", "tanh": "#2ca02c", "relu": "#1f77b4"}
OPTIMIZERS = {
    "SGD": graphc.optim.SGD(0.02),
    "momentum": graphc.optim.SGD(0.02, momentum=0.9),
    "Nesterov": graphc.optim.SGD(0.02, momentum=0.9, nesterov=True),
    "RMSProp": graphc.optim.RMSProp(1e-3),
    "Adam": graphc.optim.Adam(1e-3),
    "AdamW, decay 1": graphc.optim.AdamW(1e-3, weight_decay=1.0),
}
DASHED = ("Nesterov", "AdamW, decay 1")  # close to the curve before
Case = tuple[str, bool]  # activation, batch normalisation
CASES = [(activation, norm) for norm in (False, True) for activation in INIT]


@graphc.model
def perceptron(x: graphc.f32["N", 1, 8, 8], *, activation: str = "relu", norm: bool = False):
    x = x.flatten()
    for number in range(1, DEPTH + 1):
        act = None if norm else activation
        x = graphc.linear(x, WIDTH, bias=not norm, activation=act, weight_init=INIT[activation], name=f"hidden{number}")
        x = graphc.batch_norm(x, activation=activation, name=f"norm{number}") if norm else x
    return graphc.linear(x, 10, weight_init="xavier_normal", name="output")


@graphc.model
def convolutional(x: graphc.f32["N", 1, 8, 8]):
    x = graphc.conv2d(x, 16, kernel=3, padding=1, activation="relu", name="c1")
    x = graphc.conv2d(graphc.max_pool2d(x, 2), 32, kernel=3, padding=1, activation="relu", name="c2")
    return graphc.linear(graphc.max_pool2d(x, 2).flatten(), 10, name="output")


def train(model: Any, optimizer: Any, data: Any, test: Any, epochs: int) -> graphc.Trainer:
    """A trainer after so many epochs; every network sees the same batches."""
    trainer = graphc.Trainer(model, optimizer=optimizer, progress=False)
    trainer.fit(graphc.data.Loader(data, 64, drop_last=True), epochs, validation=graphc.data.Loader(test, len(test), shuffle=False))
    return trainer


def gradients_of(model: Any, x: np.ndarray, y: np.ndarray) -> list[float]:
    """Root mean square of the gradient of each layer's weight, first to last."""
    grads = graphc.TrainStep(model).gradients(x, y)["grads"]
    layers = [*(f"hidden{number}" for number in range(1, DEPTH + 1)), "output"]
    return [float(np.sqrt(np.mean(np.square(grads[f"{layer}.weight"], dtype=np.float64)))) for layer in layers]


def draw(path: Path, found: dict[Case, list[float]], deep: dict[Case, graphc.Trainer], flat: dict[str, graphc.Trainer]) -> None:
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    (gradients, optimizers), (plain, normed) = figure.subplots(2, 2)
    for (activation, norm), values in found.items():
        style = {"linestyle": "--", "marker": "s", "mfc": "none"} if norm else {"linestyle": "-", "marker": "o"}
        label = LABELS[activation] + (", batch norm" if norm else "")
        gradients.semilogy(range(1, len(values) + 1), values, color=COLOURS[activation], ms=4, label=label, **style)
    gradients.set(title="Gradient before training, root mean square by layer", xlabel="layer, 1 is next to the input")
    gradients.set_xticks(range(1, DEPTH + 2))
    for axes, norm in ((plain, False), (normed, True)):
        for activation, trainer in ((case[0], trainer) for case, trainer in deep.items() if case[1] == norm):
            label = f"{LABELS[activation]}: {trainer.history['val_accuracy'][-1]:.1%} right"
            axes.semilogy(trainer.history["epoch"], trainer.history["loss"], color=COLOURS[activation], label=label)
        axes.set(title=f"{DEPTH} hidden layers, {'with' if norm else 'without'} batch norm", xlabel="epoch", ylabel="training loss")
    normed.sharey(plain)
    for name, trainer in flat.items():
        label, style = f"{name}: {trainer.history['val_accuracy'][-1]:.1%} right", "--" if name in DASHED else "-"
        optimizers.semilogy(trainer.history["epoch"], trainer.history["loss"], label=label, linestyle=style)
    optimizers.set(title="Optimizers, a small convolutional network", xlabel="epoch", ylabel="training loss")
    for axes in (gradients, optimizers, plain, normed):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=80)


@click.command(help="Compares activations, batch normalisation and optimizers on digits: prints gradients and accuracies, draws curves.")
@click.option("--output", default="lecture.png", show_default=True, type=click.Path(path_type=Path), help="The picture.")
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True)
@click.option("--small", is_flag=True, help="3 epochs, without tanh, two of the optimizers.")
def main(output: Path, epochs: int, small: bool) -> None:
    cases, optimizers = CASES, OPTIMIZERS
    if small:
        epochs, cases = 3, [case for case in CASES if case[0] != "tanh"]
        optimizers = {name: OPTIMIZERS[name] for name in ("momentum", "RMSProp")}
    data, test = digits(size=8)
    x, y = data.x[:256].astype(np.float32) / 255, data.y[:256]
    found: dict[Case, list[float]] = {}
    deep: dict[Case, graphc.Trainer] = {}
    for activation, norm in cases:
        model = perceptron.configure(activation=activation, norm=norm)
        found[activation, norm] = gradients_of(model, x, y)
        deep[activation, norm] = train(model, graphc.optim.SGD(0.02, momentum=0.9), data, test, epochs)
        name = f"{LABELS[activation]}{', batch norm' if norm else ''}"
        first, last = found[activation, norm][0], found[activation, norm][-1]
        accuracy = deep[activation, norm].history["val_accuracy"][-1]
        print(f"{name:22} gradient {first:.1e} in the first layer, {last:.1e} in the last  accuracy {accuracy:.1%}")
    flat = {name: train(convolutional, optimizer, data, test, epochs) for name, optimizer in optimizers.items()}
    for name, trainer in flat.items():
        print(f"{name:22} training loss {trainer.history['loss'][-1]:.4f}  accuracy {trainer.history['val_accuracy'][-1]:.1%}")
    draw(output, found, deep, flat)
    print(f"{output} written")


if __name__ == "__main__":
    main()
