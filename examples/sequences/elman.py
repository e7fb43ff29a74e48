"""Elman's network learns the words ba, dii and guuu: where its error is high shows what can be predicted, and shared weights where it was
never trained.

    python examples/sequences/elman.py --output elman.png

The three words follow each other at random without spaces. After a consonant the vowels are certain, and how many there will be; which
consonant comes next is not. A letter is given as Elman's six features, and the network (6 inputs, 20 units, 6 outputs) says how likely
each next letter is; in the paper it predicts the six features themselves by squared error.

It learns from sequences of 16 letters and then reads sequences of 48. Beside it a dense network with weights of its own for each place
learns the same predictions: what it knows of place 5 says nothing about place 17. (A dense network over a window that slides along the
sequence would share its weights too, and needs only the last three letters here.)

Prints bits per letter and how many vowels each network predicts, within and beyond the trained length, the surprise at each letter of a
sample, and whether the network as an ONNX file gives the same in ONNX Runtime. With --output it draws the surprise letter by letter and
the bits by place.

Elman, "Finding structure in time", Cognitive Science 14, 1990, section "Structure in letter sequences".
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import graphc

WORDS, LETTERS = ("ba", "dii", "guuu"), "bdgaiu"
CONSONANTS, NOTHING = 3, 6  # the first letters; what is given where there is no letter
FEATURES = np.array(  # consonant, vowel, interrupted, high, back, voiced: table 1 of the paper
    [[1, 0, 1, 0, 0, 1], [1, 0, 1, 1, 0, 1], [1, 0, 1, 0, 1, 1], [0, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 1, 1], [0] * 6],
    np.float32,
)
TRAINED, READ = 16, 48  # letters


@graphc.model
def elman(letters: graphc.i64["N", "T"], *, units: int = 20):
    """Letters (N, T) -> scores of the next letter (N, 6, T)."""
    x = graphc.gather(graphc.constant(FEATURES, name="features"), letters)
    y, _ = graphc.rnn(x, units, name="context")
    return graphc.linear(y, len(LETTERS), weight_init="xavier_uniform", name="next").transpose(0, 2, 1, name="scores")


@graphc.model
def dense(letters: graphc.i64["N", READ], *, units: int = 64):
    """The first letters of a sequence, NOTHING behind them (N, READ) -> scores of the next letter (N, 6)."""
    x = graphc.gather(graphc.constant(FEATURES, name="features"), letters).flatten()
    return graphc.linear(graphc.linear(x, units, activation="relu", name="hidden"), len(LETTERS), name="next")


def sequences(count: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Letters (count, length) from the start of a word on, and the letters that follow."""
    rng = np.random.default_rng(seed)
    texts = ["".join(WORDS[word] for word in rng.integers(0, 3, length)) for _ in range(count)]
    letters = np.array([[LETTERS.index(letter) for letter in text[: length + 1]] for text in texts])
    return letters[:, :-1], letters[:, 1:]


def beginnings(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All beginnings of sequences with NOTHING behind, (sequences * length, READ), and the letter that follows each."""
    length = x.shape[1]
    made = np.full((length, len(x), READ), NOTHING)
    for end in range(length):
        made[end, :, : end + 1] = x[:, : end + 1]
    return made.reshape(-1, READ), y.T.reshape(-1)


def surprises(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-log2 of the probability of what came: scores (N, 6, T), y (N, T) -> (N, T)."""
    scores = scores.astype(np.float64)
    own = np.take_along_axis(scores, y[:, None], 1)[:, 0]
    return (np.log(np.exp(scores).sum(1)) - own) / np.log(2)


def optimum(y: np.ndarray) -> np.ndarray:
    """The least possible mean surprise: log2 3 at a consonant, 0 at a vowel."""
    return np.where(y < CONSONANTS, np.log2(3), 0)


def train(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, batch: int, threads: int | None) -> graphc.Trainer:
    trainer = graphc.Trainer(
        model, optimizer=graphc.optim.Adam(1e-2), schedule=graphc.schedules.Cosine(epochs), metrics=[], threads=threads, progress=False
    )
    trainer.fit((x, y), epochs, batch_size=batch)
    return trainer


def compare(trainer: graphc.Trainer, x: np.ndarray, expected: np.ndarray, path: Path) -> str:
    """The network as a file in ONNX Runtime."""
    graphc.save_onnx(trainer, path)
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed: the file was not compared"
    (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"letters": x})
    worst = float(np.abs(found - expected).max())
    if worst > 1e-3:
        raise click.ClickException(f"{path}: ONNX Runtime's scores differ by {worst:.1e}")
    return f"scores differ by at most {worst:.1e}"


def draw(path: Path, sample: tuple[np.ndarray, np.ndarray], by_place: dict[str, np.ndarray], least: np.ndarray) -> None:
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1)
    letters, bits = sample
    colours = ["#d62728" if letter < CONSONANTS else "#1f77b4" for letter in letters]
    above.bar(np.arange(len(letters)), bits, color=colours)
    above.axhline(np.log2(3), color="grey", lw=0.8, ls="--")
    above.set_xticks(np.arange(len(letters)), [LETTERS[letter] for letter in letters])
    above.set(title="Surprise at each letter: consonants cannot be predicted, vowels can", ylabel="bits")
    for name, values in by_place.items():
        below.plot(np.arange(1, READ + 1), values, marker=".", label=name)
    below.plot(np.arange(1, READ + 1), least, color="black", lw=0.8, ls="--", label="least possible")
    below.axvline(TRAINED + 0.5, color="black", lw=0.8)
    below.set(title=f"Bits per letter by place; trained on the first {TRAINED}", xlabel="letters seen", ylabel="bits", yscale="log")
    below.set_ylim(0.2, 20)  # the second letter of a sequence, certain after the first, lies below
    below.legend(frameon=False)
    figure.savefig(path, dpi=90)


@click.command(help="Elman's network on ba, dii, guuu: bits per letter within and beyond the trained length, beside a dense network.")
@click.option("--sequences", "count", type=click.IntRange(1), default=500, show_default=True, help="Of 16 letters, to train on.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Of the dense network a tenth.")
@click.option("--threads", type=click.IntRange(1), help="All cores unless given.")
@click.option("--output", type=click.Path(path_type=Path), help="Draw the picture here (.png).")
@click.option("--onnx", type=click.Path(path_type=Path), help="Write the network here (.onnx).")
@click.option("--small", is_flag=True, help="20 epochs.")
def main(count: int, epochs: int, threads: int | None, output: Path | None, onnx: Path | None, small: bool) -> None:
    epochs = 20 if small else epochs
    x, y = sequences(count, TRAINED, seed=0)
    recurrent = train(elman, x, y, epochs, 20, threads)
    plain = train(dense, *beginnings(x, y), max(epochs // 10, 1), 20, threads)
    x, y = sequences(300, READ, seed=1)
    scores = recurrent.predict(x, len(x))
    by_place = plain.predict(beginnings(x, y)[0], 1000).reshape(READ, len(x), len(LETTERS)).transpose(1, 2, 0)
    found = {"Elman, shared weights": scores, "dense, weights by place": by_place}
    least = optimum(y)
    print(f"{'':26}{'weights':>9}   letters 1 to {TRAINED}: bits, vowels right   {TRAINED + 1} to {READ}: bits, vowels right")
    for (name, values), trainer in zip(found.items(), (recurrent, plain), strict=True):
        weights = sum(array.size for array in trainer.step.parameters.values())
        print(f"{name:26}{weights:9,}   {_row(values, y, slice(0, TRAINED))}   {_row(values, y, slice(TRAINED, READ))}")
    print(f"{'least possible':26}{'':9}   {least[:, :TRAINED].mean():22.3f}{'':15}   {least[:, TRAINED:].mean():15.3f}")
    sample = (y[0, :30], surprises(scores, y)[0, :30])
    print("\nsurprise in bits:", " ".join(f"{LETTERS[letter]} {bits:.2f}" for letter, bits in zip(*sample, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        print(f"ONNX Runtime: {compare(recurrent, x, scores, onnx or Path(folder) / 'elman.onnx')}")
    if output:
        draw(output, sample, {name: surprises(values, y).mean(0) for name, values in found.items()}, least.mean(0))
        print(f"{output} written")


def _row(scores: np.ndarray, y: np.ndarray, places: slice) -> str:
    vowels = y[:, places] >= CONSONANTS
    right = (scores.argmax(1) == y)[:, places][vowels].mean()
    return f"{surprises(scores, y)[:, places].mean():22.3f} {right:14.1%}"


if __name__ == "__main__":
    main()
