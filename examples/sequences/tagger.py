"""A tagger that needs both directions, on made-up sentences.

    python examples/sequences/tagger.py

A sentence is 4 to 24 words of a language of 20. Two words are marks, "red" and "blue". The tag of a word says which mark was the last one
before it, and which is the next one behind it: "none red", "blue blue", 9 tags. What lies before is known to a network that reads from
left to right, what lies behind to one that reads from right to left, and all of it to a bidirectional one (Schuster and Paliwal 1997).

Trains three LSTMs of nearly as many parameters and prints, for 1,000 sentences that they have not seen, the part of right tags, the part
of sentences without an error, and the most that a network of one direction could reach. Then the best one tags a sentence, is written as
ONNX, and ONNX Runtime computes the same. Sentences of different lengths are batches with padding, which the network does not read (the
lengths are an input) and the loss and the metrics do not count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np

import graphc

RED, BLUE, WORDS, LONGEST = 1, 2, 20, 24
MARKS = ("none", "red", "blue")
TAGS = [f"{before} {after}" for before in MARKS for after in MARKS]
UNITS = {"left to right": 44, "right to left": 44, "both": 28}


@graphc.model
def tagger(word: graphc.i64["N", "T"], length: graphc.i64["N"], *, direction: str = "both"):
    x = graphc.embedding(word, WORDS, 12, name="words")
    both, reverse = direction == "both", direction == "right to left"
    x, *_ = graphc.lstm(x, UNITS[direction], bidirectional=both, reverse=reverse, lengths=length, name="lstm")
    return graphc.linear(x, len(TAGS), name="tags")


def sentences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(words (N, T), lengths (N), tags (N, T)); one word in eight is a mark; behind the end of a sentence is padding."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, LONGEST + 1, count)
    mark = rng.random((count, LONGEST)) < 1 / 8
    words = np.where(mark, rng.integers(RED, BLUE + 1, mark.shape), rng.integers(BLUE + 1, WORDS, mark.shape))
    words[np.arange(LONGEST) >= lengths[:, None]] = 0
    return words, lengths, len(MARKS) * last_mark(words) + last_mark(words[:, ::-1])[:, ::-1]


def last_mark(words: np.ndarray) -> np.ndarray:
    """Of each place the last mark before it: 0 where there is none."""
    found = np.zeros_like(words)
    for place in range(1, words.shape[1]):
        before = words[:, place - 1]
        found[:, place] = np.where((before == RED) | (before == BLUE), before, found[:, place - 1])
    return found


def ceiling(lengths: np.ndarray, tags: np.ndarray, reverse: bool) -> float:
    """The part of right tags where one side of each word is known, and of the other side how often, at this place, it is which mark."""
    rows, places = np.nonzero(np.arange(LONGEST) < lengths[:, None])
    before, after = np.divmod(tags[rows, places], len(MARKS))
    known, hidden, place = (after, before, lengths[rows] - places) if reverse else (before, after, places)
    counts = np.zeros((LONGEST + 1, len(MARKS), len(MARKS)))
    np.add.at(counts, (place, known, hidden), 1)
    return float(counts.max(2).sum() / counts.sum())


@click.command(help="A tagger of made-up sentences that needs both directions: prints the accuracy of each direction and of both.")
@click.option("--epochs", type=click.IntRange(1), default=15, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=50, show_default=True)
@click.option("--lr", default=1e-2, show_default=True, help="Learning rate of Adam; falls to 0 by a cosine.")
@click.option("--threads", type=click.IntRange(1), help="All cores unless given.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the bidirectional network here (.onnx).")
@click.option("--small", is_flag=True, help="1,000 sentences, 10 epochs.")
def main(epochs: int, batch: int, lr: float, threads: int | None, output: Path | None, small: bool) -> None:
    epochs, count = (10, 1000) if small else (epochs, 10_000)
    train, test = sentences(count, seed=1), sentences(1000, seed=2)
    (words, lengths, tags), (test_words, test_lengths, test_tags) = train, test
    held_out = (test_words, test_lengths), (test_tags, test_lengths)
    trainers = {}
    for direction in UNITS:
        print(f"{direction}:")
        trainer = trainers[direction] = graphc.Trainer(
            tagger.configure(direction=direction), graphc.losses.CrossEntropy(axis=-1), graphc.optim.Adam(lr), clip_norm=1.0,
            schedule=graphc.schedules.Cosine(epochs), metrics=["accuracy", "exact_match"], threads=threads,
        )  # fmt: skip
        trainer.fit(((words, lengths), (tags, lengths)), epochs, validation=held_out, batch_size=batch)
    report(trainers, test, batch)
    logits = trainers["both"].predict((test_words, test_lengths), batch)
    with tempfile.TemporaryDirectory() as folder:
        path = output or Path(folder) / "tagger.onnx"
        graphc.save_onnx(trainers["both"], path)
        compare(path, test_words, test_lengths, logits)


def report(trainers: dict[str, graphc.Trainer], test: tuple[np.ndarray, ...], batch: int) -> None:
    """Print what each network gets right, and how two of them tag one sentence."""
    words, lengths, tags = test
    print("\ndirection       parameters  tags    most possible  sentences")
    for direction, trainer in trainers.items():
        found, size = trainer.evaluate(((words, lengths), (tags, lengths)), batch), sum(p.size for p in trainer.step.parameters.values())
        most = 1.0 if direction == "both" else ceiling(lengths, tags, direction == "right to left")
        print(f"{direction:14}  {size:10,}  {found['accuracy']:6.2%}  {most:13.2%}  {found['exact_match']:9.2%}")
    chosen = int(((words == RED).any(1) & (words == BLUE).any(1) & (lengths < 14)).argmax())
    both, left = (trainers[name].predict((words, lengths), batch)[chosen].argmax(1) for name in ("both", "left to right"))
    print("\nword    both       left to right")
    for word, tag, other in zip(words[chosen, : lengths[chosen]], both, left, strict=False):
        print(f"{MARKS[word] if word in (RED, BLUE) else f'word{word}':7} {TAGS[tag]:10} {TAGS[other]}")
    print()


def compare(path: Path, words: np.ndarray, lengths: np.ndarray, expected: np.ndarray) -> None:
    """Print whether ONNX Runtime tags as the trainer does."""
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: the written file was not compared")
        return
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"word": words, "length": lengths})
    inside = np.arange(LONGEST) < lengths[:, None]
    equal = int((found.argmax(-1) == expected.argmax(-1))[inside].sum())
    print(f"onnxruntime: {equal} of {inside.sum()} tags equal, logits differ by at most {np.abs(found - expected).max():.1e}")


if __name__ == "__main__":
    main()
