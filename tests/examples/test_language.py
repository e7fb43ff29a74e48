"""char_rnn.py and elman.py of examples/sequences in their small form: each learns what an untrained or broken network does not; the n-gram
models against the definition of their smoothing."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc

pytest.importorskip("matplotlib")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(scripts: Any) -> Iterator[Run]:
    with scripts("sequences") as found:
        yield found


def test_char_rnn(run: Run, tmp_path: Path) -> None:
    """Both networks learn more than any n-gram: who a tale is about is known from its first sentence only."""
    pytest.importorskip("onnxruntime")
    picture = tmp_path / "curves.png"
    text = run("char_rnn", "--output", str(picture), "--onnx", str(tmp_path / "onnx"))
    assert "36,000 characters to train on, 4,000 held out, 43 different ones" in text
    assert len(re.findall(r"^epoch \d+/12", text, re.MULTILINE)) == 24
    bits = {name: float(value) for name, value in re.findall(r"^  (\S+) +([\d.]+)$", text, re.MULTILINE)}
    assert list(bits) == ["2-gram", "3-gram", "4-gram", "5-gram", "6-gram", "RNN", "LSTM"]
    assert bits["2-gram"] > bits["3-gram"] > bits["4-gram"] > bits["5-gram"] > bits["6-gram"] > 0.3
    assert max(bits["RNN"], bits["LSTM"]) < 0.25
    assert len(re.findall(r"^--- .* temperature 0.7", text, re.MULTILINE)) == 3
    assert len(re.findall(r"ONNX Runtime, \w+: logits of 200 characters differ by at most", text)) == 2
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"char_rnn.onnx", "char_lstm.onnx"}
    assert picture.stat().st_size > 10_000


def test_char_rnn_of_a_file(run: Run, tmp_path: Path) -> None:
    """A GRU on a text that repeats a line: it is certain of what comes."""
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat,\nand that was that.\n" * 300, encoding="utf-8")
    text = run("char_rnn", "--text", str(path), "--cell", "gru", "--sample", "44")
    (bits,) = re.findall(r"^  GRU +([\d.]+)$", text, re.MULTILINE)
    assert float(bits) < 0.05
    assert text.count("and that was that.") >= 2


def test_elman(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    picture = tmp_path / "elman.png"
    text = run("elman", "--output", str(picture), "--onnx", str(tmp_path / "elman.onnx"))
    rows = {line[:26].strip(): [float(number) for number in re.findall(r"[\d.]+(?=%|\s|$)", line[35:])] for line in text.splitlines()[1:4]}
    (near, vowels, far, beyond), (near2, vowels2, far2, beyond2), (least, least_far) = rows.values()
    assert near - least < 0.05 > far - least_far
    assert vowels == beyond == 100
    assert near2 - least < 0.5 < 2 < far2
    assert vowels2 > 90 > 60 > beyond2
    surprise = [(letter, float(bits)) for letter, bits in re.findall(r"([bdgaiu]) (\d+\.\d\d)", text)]
    assert len(surprise) == 30
    assert all((1 < bits < 2.5) if letter in "bdg" else bits < 0.2 for letter, bits in surprise)
    assert "ONNX Runtime: scores differ by at most" in text
    assert picture.stat().st_size > 10_000


def test_tales_are_the_same_each_time(run: Run) -> None:
    tales = importlib.import_module("tales").tales
    text = tales(5000)
    assert len(text) == 5000
    assert tales(9000).startswith(text)
    assert tales(5000, seed=1) != text
    assert all(text.count(word) > 1 for word in (" wished for ", '"Have you seen ', " found "))


def _by_definition(text: list[int], order: int, classes: int) -> Callable[[tuple[int, ...], int], float]:
    """Interpolated modified Kneser-Ney with counts in dictionaries."""
    grams = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in range(1, order + 1)]
    counts = [Counter(gram[1:] for gram in longer) for longer in grams[1:]] + [grams[-1]]

    def discounts(table: Counter[tuple[int, ...]]) -> list[float]:
        n = [sum(count == i for count in table.values()) for i in (1, 2, 3, 4)]
        if not all(n):
            return [0.5] * 3
        y = n[0] / (n[0] + 2 * n[1])
        return [min(max(i - (i + 1) * y * n[i] / n[i - 1], 0.1), i) for i in (1, 2, 3)]

    taken = [discounts(table) for table in counts]

    @cache
    def likely(context: tuple[int, ...], character: int) -> float:
        shorter = likely(context[1:], character) if context else 1 / classes
        table, off = counts[len(context)], taken[len(context)]
        behind = {gram[-1]: count for gram, count in table.items() if gram[:-1] == context}
        if not behind:
            return shorter
        kept = behind[character] - off[min(behind[character], 3) - 1] if character in behind else 0
        freed = sum(off[min(count, 3) - 1] for count in behind.values())
        return (kept + freed * shorter) / sum(behind.values())

    return likely


def test_nothing_is_impossible(run: Run) -> None:
    """Also of a text that repeats itself, whose discounts would be 0 by the formula."""
    ngram, tales = importlib.import_module("ngram"), importlib.import_module("tales")
    alphabet = graphc.data.Alphabet.of(tales.tales(20_000))
    model = ngram.NGram(alphabet.encode(tales.tales(20_000)), 6, len(alphabet))
    assert all(model.next(alphabet.encode(text)).min() > 0 for text in ("", "Once a", "zzzzz", "wished"))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngrams_are_their_definition(run: Run, order: int) -> None:
    ngram: Any = importlib.import_module("ngram")
    classes, rng = 5, np.random.default_rng(0)
    text, other = np.minimum(rng.geometric(0.45, 400) - 1, classes - 1), rng.integers(0, classes, 60)
    model, likely = ngram.NGram(text, order, classes), _by_definition(text.tolist(), order, classes)
    expected = [likely(tuple(other[max(i - order + 1, 0) : i].tolist()), int(other[i])) for i in range(len(other))]
    np.testing.assert_allclose(model.likelihoods(other), expected, rtol=1e-12)
    assert model.bits(other) == pytest.approx(-np.mean(np.log2(expected[1:])))
    for end in (0, 1, 3, 30):
        found = model.next(other[:end])
        assert found.sum() == pytest.approx(1)
        context = tuple(other[max(end - order + 1, 0) : end].tolist())
        np.testing.assert_allclose(found, [likely(context, c) for c in range(classes)], rtol=1e-12)
