"""The tagger and the translation of dates in examples/sequences in their small form, their data, and their exported models."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMES = ("tagger", "seq2seq")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(scripts: Any) -> Iterator[Run]:
    with scripts("sequences") as found:
        yield found


def test_they_are_listed(root: Path) -> None:
    folder = root / "examples" / "sequences"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"python examples/sequences/{name}.py" in readme
        assert f"python examples/sequences/{name}.py" in (folder / f"{name}.py").read_text(encoding="utf-8")


def test_tagger(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    output = tmp_path / "tagger.onnx"
    text = run("tagger", "--output", str(output))
    rows = re.findall(r"^(left to right|right to left|both) +[\d,]+ +([\d.]+)% +([\d.]+)% +([\d.]+)%$", text, re.MULTILINE)
    found = {name: [float(number) for number in numbers] for name, *numbers in rows}
    assert set(found) == {"left to right", "right to left", "both"}
    for name in ("left to right", "right to left"):
        tags, most, _ = found[name]
        assert 35 < tags <= most < 55
    assert found["both"][0] > 99
    assert found["both"][2] > 90
    equal, count, difference = re.findall(r"onnxruntime: (\d+) of (\d+) tags equal, logits differ by at most (\S+)$", text, re.MULTILINE)[0]
    assert int(equal) >= 0.999 * int(count) > 10_000
    assert float(difference) < 1e-4
    assert output.stat().st_size > 30_000


def test_tags_are_what_they_say(run: Run) -> None:
    module: Any = importlib.import_module("tagger")
    words, lengths, tags = module.sentences(50, seed=3)
    for row in range(50):
        sentence = words[row, : lengths[row]].tolist()
        assert (words[row, lengths[row] :] == 0).all()
        for place in range(len(sentence)):
            before = [word for word in sentence[:place] if word in (module.RED, module.BLUE)]
            after = [word for word in sentence[place + 1 :] if word in (module.RED, module.BLUE)]
            name = f"{module.MARKS[before[-1] if before else 0]} {module.MARKS[after[0] if after else 0]}"
            assert module.TAGS[tags[row, place]] == name


def test_seq2seq(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    text = run("seq2seq", "--output", str(tmp_path / "models"))
    exact = [float(number) for number in re.findall(r"exact match, .*: ([\d.]+)% of 300 dates", text)]
    assert len(exact) == 2
    assert min(exact) > 70
    equal = re.findall(r"onnxruntime, .*: (\d+) of 300 translations equal", text)
    assert len(equal) == 2
    assert min(int(count) for count in equal) >= 299  # a tie within rounding may fall otherwise
    assert len(re.findall(r"\d{4}-\d\d-\d\d \([\d.]+%\)", re.findall(r"12 ju 2019 may be (.*)", text)[0])) == 4
    assert len(re.findall(r"^\S.*  \(is \d{4}-\d\d-\d\d\)$", text.partition("wrong:")[2], re.MULTILINE)) == round(300 - 3 * exact[1])
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"encoder.onnx", "decoder.onnx"}


def test_dates_are_written_rightly_and_no_day_is_in_both(run: Run) -> None:
    module: Any = importlib.import_module("seq2seq")
    ways = [module.written(date(2019, 3, 3), way) for way in module.WAYS]
    assert "the 3rd of march 2019" in ways
    assert "sunday, the 3rd of march 2019" in ways
    assert "3.iii.2019" in ways
    assert "3/3/19" in ways
    assert module.written(date(2001, 11, 12), "the {nth}") == "the 12th"
    assert all(module.mistyped(text, np.random.default_rng(0)) == text for text in ("3.3.2019", ""))
    errors = {module.mistyped("3 may 2019", np.random.default_rng(seed)) for seed in range(200)}
    assert {"3 my 2019", "3 mmay 2019", "3 amy 2019", "3 may 2019"} <= errors
    assert all(error.startswith("3 ") and error.endswith("2019") for error in errors)
    train, test = module.examples(3000, 200)
    assert len(train) == 3000
    assert len(test) == len({found for _, found in test}) == 200
    assert not {found for _, found in train} & {found for _, found in test}
    (source, length, before), target = module.numbers(test)
    letters = " " + module.LETTERS
    for row, (text, found) in enumerate(test):
        assert "".join(letters[number] for number in source[row, : length[row]]) == text
        assert "".join(module.DIGITS[token] for token in target[row, :-1]) == found
    np.testing.assert_array_equal(before[:, 1:], target[:, :-1])
    assert (before[:, 0] == module.BEGIN).all()
    assert (target[:, -1] == module.END).all()
