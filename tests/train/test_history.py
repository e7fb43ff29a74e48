"""What training leaves and shows: history files, curves, the progress bar."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.errors import InputError, ResourceError, UnsupportedError
from graphc.train.history import History, from_json, jsonable
from graphc.train.progress import Progress
from train import small


def _history(epochs: int = 3) -> History:
    history = History()
    for epoch in range(1, epochs + 1):
        history.append({"epoch": epoch, "lr": 0.1**epoch, "seconds": 0.5, "loss": 1 / epoch**4, "accuracy": 1 - 1 / (epoch + 1)})
    history.rows[-1].update({"val_loss": 0.25, "val_accuracy": math.nan})
    return history


def test_columns() -> None:
    history = _history()
    assert history.names == ["epoch", "lr", "seconds", "loss", "accuracy", "val_loss", "val_accuracy"]
    np.testing.assert_equal(history["val_loss"], [math.nan, math.nan, 0.25])
    assert len(history) == 3
    with pytest.raises(InputError, match=r"'acc' was not measured.*one of epoch, lr"):
        history["acc"]
    assert "epochs: epoch=3" in repr(history)


def test_files(tmp_path: Path) -> None:
    history = _history()
    history.save(tmp_path / "h.json")
    history.save(tmp_path / "h.csv")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows = json.loads((tmp_path / "h.json").read_text(), parse_constant=refuse)
    np.testing.assert_equal(from_json(rows), history.rows)
    with (tmp_path / "h.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in read] == history["loss"]
    assert read[0]["val_loss"] == ""
    assert jsonable(history.rows)[2]["val_accuracy"] is None
    with pytest.raises(InputError, match="no history format"):
        history.save(tmp_path / "h.txt")
    with pytest.raises(ResourceError):
        history.save(tmp_path / "none" / "h.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.csv", "h.json"]


def test_history_file_and_curves_of_a_training(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    files = [graphc.callbacks.HistoryFile(tmp_path / name) for name in ("h.csv", "h.json")]
    made = small.trainer(None, *files, graphc.callbacks.Curves(tmp_path / "c.png", "small"))
    small.fit(made, 2)
    assert from_json(json.loads((tmp_path / "h.json").read_text())) == made.history.rows
    assert (tmp_path / "h.csv").read_text() == made.history.csv()
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 900
        colours = {colour for count, colour in image.convert("RGB").getcolors(1 << 24) or [] if count > 50}
    assert {(31, 119, 180), (217, 95, 2)} <= colours, "the curves of training and validation"


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_curves_of_any_length(tmp_path: Path, epochs: int) -> None:
    pytest.importorskip("matplotlib")
    from graphc.train.curves import draw

    draw(_history(epochs), tmp_path / "c.svg")
    text = (tmp_path / "c.svg").read_text()
    assert text.count("<svg") == 1
    with pytest.raises(InputError, match="no picture format"):
        draw(_history(), tmp_path / "c.abc")
    with pytest.raises(InputError, match="empty history"):
        draw(History(), tmp_path / "d.png")
    assert [path.name for path in tmp_path.iterdir()] == ["c.svg"]


def test_wrong_endings_are_found_before_training(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="no history format"):
        graphc.callbacks.HistoryFile(tmp_path / "h.txt")
    made = small.trainer(None, graphc.callbacks.Curves(tmp_path / "c.abc"))
    with pytest.raises(InputError, match="no picture format"):
        small.fit(made)
    assert made.steps == 0


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    made = small.trainer(None, graphc.callbacks.Curves(tmp_path / "c.png"))
    with pytest.raises(UnsupportedError, match="pip install"):
        small.fit(made)
    assert made.steps == 0


def _run(terminal: bool) -> str:
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, highlight=False)
    small.fit(small.trainer(None, Progress(console)), 2)
    return text.getvalue()


def test_one_line_per_epoch_where_there_is_no_terminal() -> None:
    lines = _run(terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss ")
    assert all(" val_accuracy " in line and line.endswith(" s") and "\x1b" not in line for line in lines)


def test_a_bar_on_a_terminal() -> None:
    text = _run(terminal=True)
    assert "━" in text
    assert "examples/s" in text
    assert "accuracy" in text
    assert "epoch 2/2  loss " in text


def test_importing_stays_light(root: Path) -> None:
    code = (
        "import sys, graphc; graphc.Trainer; graphc.schedules.Cosine; "
        "bad = {'matplotlib', 'safetensors', 'rich.progress', 'llvmlite', 'onnx'} & set(sys.modules); print(bad or 'light')"
    )
    paths = ":".join(path for path in sys.path if path)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": paths}, check=True)
    assert found.stdout.strip() == "light"
