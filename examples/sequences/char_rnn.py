"""Recurrent language models of characters beside n-gram models: bits per character on held-out text, and text that both make up.

    python examples/sequences/char_rnn.py
    python examples/sequences/char_rnn.py --text tinyshakespeare/input.txt --output shakespeare.png

Trains a plain recurrent network and an LSTM (and a GRU with --cell gru) on the first nine tenths of a text, by truncated backpropagation:
each batch goes on where the one before ended. The last tenth is held out; nothing is chosen by it. Without --text the text is 300,000
characters of small tales that `tales.py` makes up.

Prints the training, then the bits per character of each network and of n-gram models with n = 2 to 6 on the held-out tenth, then a sample
of each network and of the longest n-gram, and whether the networks as ONNX files give the same in ONNX Runtime. With --output it draws
the learning curves, with --onnx it writes the networks.

Elman 1990; Hochreiter and Schmidhuber 1997; Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ngram import NGram
from tales import tales

import graphc

CELLS = ("rnn", "lstm", "gru")
ORDERS = range(2, 7)
LENGTH, HELD_OUT = 300_000, 0.1
CLIP = 5.0  # the norm of all gradients


def char_model(cell: str, units: int, layers: int, classes: int, batch: int, dropout: float = 0.0) -> Any:
    """Characters (batch, T) -> logits (batch, classes, T). The states are kept: the next run goes on where this one ended."""

    @graphc.model(name=f"char_{cell}")
    def net(text: graphc.i64[batch, "T"]):
        names = ("h", "c") if cell == "lstm" else ("h",)
        states = {f"{name}0": graphc.state((batch, layers, units), name=name) for name in names}
        y, *last = getattr(graphc, cell)(graphc.one_hot(text, classes), units, layers, dropout=dropout, name=cell, **states)
        for state, new in zip(states.values(), last, strict=True):
            state.assign(new)
        return graphc.linear(y, classes, weight_init="xavier_uniform", name="logits").transpose(0, 2, 1, name="scores")

    return net


class Network:
    """A trained network that reads one text."""

    def __init__(self, trainer: graphc.Trainer, cell: str, units: int, layers: int, classes: int) -> None:
        self.model = char_model(cell, units, layers, classes, batch=1).load(dict(trainer.step.parameters))
        self.run = graphc.compile(self.model)

    def log_likelihoods(self, text: np.ndarray) -> np.ndarray:
        """Logarithms of the probabilities (T, classes) of the next character, behind each character of a text that goes on."""
        scores = self.run(text[None])[0].T.astype(np.float64)
        scores -= scores.max(1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))

    def bits(self, text: np.ndarray, piece: int = 1000) -> float:
        """Bits per character of a text but its first."""
        self.run.reset_state()
        total = 0.0
        for start in range(0, len(text) - 1, piece):
            x, y = text[start : min(start + piece, len(text) - 1)], text[start + 1 : start + piece + 1]
            total -= self.log_likelihoods(x)[np.arange(len(y)), y].sum()
        return total / (len(text) - 1) / math.log(2)

    def sample(self, prompt: np.ndarray, count: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
        """What it says behind a prompt: characters drawn from the probabilities to the power of 1 / temperature."""
        self.run.reset_state()
        made: list[int] = []
        last = self.log_likelihoods(prompt)[-1]
        for _ in range(count):
            made.append(draw(last, temperature, rng))
            last = self.log_likelihoods(np.array(made[-1:]))[-1]
        return np.array(made)


def draw(logs: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    likely = np.exp((logs - logs.max()) / temperature)
    return int(rng.choice(len(likely), p=likely / likely.sum()))


def sample_ngram(model: NGram, prompt: np.ndarray, count: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    text = list(prompt)
    for _ in range(count):
        text.append(draw(np.log(model.next(np.array(text[-model.order + 1 :]))), temperature, rng))
    return np.array(text[len(prompt) :])


def compare(network: Network, text: np.ndarray, path: Path) -> str:
    """The network as a file in ONNX Runtime, its states handed on from piece to piece, against the executable that keeps them."""
    graphc.save_onnx(network.model, path)
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed: the file was not compared"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    network.run.reset_state()
    states = dict(network.run.state)
    worst = 0.0
    for piece in np.split(text, (50, 51, 52, 120)):
        scores, *last = session.run(None, {"text": piece[None], **states})
        states = dict(zip(states, last, strict=True))
        worst = max(worst, float(np.abs(scores - network.run(piece[None])).max()))
    if worst > 1e-3:
        raise click.ClickException(f"{path}: ONNX Runtime's logits differ by {worst:.1e}")
    return f"logits of {len(text)} characters differ by at most {worst:.1e}"


def curves(path: Path, trained: dict[str, graphc.Trainer], grams: dict[int, float]) -> None:
    """Bits per character by epoch, held-out and in training; the n-grams as lines."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (cell, trainer) in enumerate(trained.items()):
        for name, style, label in (("val_loss", "-", cell.upper()), ("loss", ":", None)):
            bits = np.array(trainer.history[name]) / math.log(2)
            axes.plot(trainer.history["epoch"], bits, style, color=f"C{number}", label=label)
    for order, bits in grams.items():
        axes.axhline(bits, color="grey", lw=0.8, ls="--")
        side = "top" if order == max(grams) else "bottom"
        axes.annotate(f"{order}-gram", (1, bits), xycoords=("axes fraction", "data"), ha="right", va=side, fontsize=8, color="grey")
    axes.set(xlabel="epoch", ylabel="bits per character", title="Held-out text; dotted: in training")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=90)


@click.command(help="Character models: recurrent networks beside n-grams. Prints bits per character on held-out text, and samples.")
@click.option("--text", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A text file (UTF-8).")
@click.option("--cell", "cells", type=click.Choice(CELLS), multiple=True, default=("rnn", "lstm"), show_default=True)
@click.option("--hidden", type=click.IntRange(1), default=256, show_default=True, help="Units of each layer.")
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Parts of the text that are read side by side.")
@click.option("--steps", type=click.IntRange(1), default=64, show_default=True, help="Characters through which gradients flow back.")
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option("--lr", default=3e-3, show_default=True, help="Learning rate of Adam; falls to 0 by a cosine.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True, help="Between the layers.")
@click.option("--temperature", type=click.FloatRange(0, min_open=True), default=0.7, show_default=True, help="Of the samples.")
@click.option("--sample", "count", type=click.IntRange(0), default=400, show_default=True, help="Characters of each sample.")
@click.option("--threads", type=click.IntRange(1), help="All cores unless given.")
@click.option("--output", type=click.Path(path_type=Path), help="Draw the learning curves here (.png).")
@click.option("--onnx", type=click.Path(file_okay=False, path_type=Path), help="Write the networks as ONNX into this folder.")
@click.option("--small", is_flag=True, help="40,000 characters, one layer of 64 units, 12 epochs.")
def main(
    path: Path | None, cells: tuple[str, ...], hidden: int, layers: int, batch: int, steps: int, epochs: int, lr: float, dropout: float,
    temperature: float, count: int, threads: int | None, output: Path | None, onnx: Path | None, small: bool,
) -> None:  # fmt: skip
    if small:
        hidden, layers, batch, steps, epochs, lr, count = 64, 1, 8, 32, 12, 1e-2, min(count, 80)
    text = path.read_text(encoding="utf-8") if path else tales(LENGTH)
    text = text[:40_000] if small else text
    alphabet = graphc.data.Alphabet.of(text)
    train, held_out = np.split(alphabet.encode(text), [int(len(text) * (1 - HELD_OUT))])
    print(f"{len(train):,} characters to train on, {len(held_out):,} held out, {len(alphabet)} different ones")
    streams, validation = (graphc.data.TextStreams(part, batch, steps) for part in (train, held_out))
    trained, networks = {}, {}
    for cell in dict.fromkeys(cells):
        print(f"\n{cell.upper()}: {layers} x {hidden} units")
        model = char_model(cell, hidden, layers, len(alphabet), batch, dropout)
        trainer = graphc.Trainer(
            model, optimizer=graphc.optim.Adam(lr), schedule=graphc.schedules.Cosine(epochs), metrics=[], threads=threads, clip_norm=CLIP
        )
        trainer.fit(streams, epochs, validation=validation)
        trained[cell], networks[cell] = trainer, Network(trainer, cell, hidden, layers, len(alphabet))
    grams = {order: NGram(train, order, len(alphabet)) for order in ORDERS}
    bits = {order: model.bits(held_out) for order, model in grams.items()}
    print("\nbits per character, held out")
    for name, value in {**{f"{n}-gram": b for n, b in bits.items()}, **{c.upper(): n.bits(held_out) for c, n in networks.items()}}.items():
        print(f"  {name:7} {value:.3f}")
    start = int(np.argmax(held_out == alphabet.encode("\n")[0])) + 1
    prompt, rng, last = held_out[start : start + 40], np.random.default_rng(0), max(ORDERS)
    samples = {f"{last}-gram": sample_ngram(grams[last], prompt, count, temperature, rng)}
    samples.update({cell.upper(): network.sample(prompt, count, temperature, rng) for cell, network in networks.items()})
    for name, made in samples.items():
        print(f"\n--- {name}, temperature {temperature}; it was given the first {len(prompt)} characters")
        print(alphabet.decode(prompt) + alphabet.decode(made))
    print()
    with tempfile.TemporaryDirectory() as temporary:
        folder = onnx or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for cell, network in networks.items():
            print(f"ONNX Runtime, {cell.upper()}: {compare(network, held_out[:200], folder / f'char_{cell}.onnx')}")
    if output:
        curves(output, trained, bits)
        print(f"{output} written")


if __name__ == "__main__":
    main()
