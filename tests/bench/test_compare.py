"""The comparison measures, validates and reports what it says."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench import compare, more_models
from bench.exported import Export
from bench.subjects import Subject

SHAPE = (1, 3, 32, 32)


def feed(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Stands for every model that is asked for."""
    m = Export("tiny", np.concatenate([feed(i) for i in range(2)]), seed=0)
    path = tmp_path / "tiny.onnx"
    onnx.save(m.model(m.relu(m.conv(m.relu(m.conv(m.image, 16, 3)), 24, 1))), path)
    made = Subject("tiny", path, "x", feed)

    def find(name: str, batch: int, folder: Path) -> Subject:
        if name == "unet":
            raise FileNotFoundError(name)
        return made

    monkeypatch.setattr(compare, "subject", find)
    return made


def run(tmp_path: Path, *arguments: str) -> int:
    return compare.main(["--seconds", "0.01", "--threads", "1", "--vs", "onnxruntime", "--lock", str(tmp_path / "lock"), *arguments])


def test_whole_run(tiny: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--models", "resnet18", "--start", "--kernels", "2", "--json", str(tmp_path / "out.json")) == 0
    speed, start, kernels = capsys.readouterr().out.split("\n\n")[1:]
    assert speed.splitlines()[2].startswith("| tiny |")
    assert speed.splitlines()[-1].startswith("| geometric mean |")
    assert start.splitlines()[2].startswith("| tiny |")
    assert len(kernels.strip().splitlines()) == 2 + 2
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert 0 < row["errors"]["graphc"] < 1e-5
    assert row["best"].keys() == {"graphc", "onnxruntime"}
    assert row["lead"] == pytest.approx(row["best"]["onnxruntime"] / row["best"]["graphc"])
    assert row["flops"] >= 2 * 32 * 32 * (3 * 9 * 16 + 16 * 24)
    cold, warm = row["start"]["graphc cold"], row["start"]["graphc"]
    assert cold["total"] == pytest.approx(cold["import"] + cold["load"] + cold["first_run"])
    assert cold["load"] > warm["load"]
    assert all(entry["peak_bytes"] > 1e7 for entry in row["start"].values())


def test_a_model_that_fails_is_said_and_the_others_go_on(tiny: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--models", "unet,resnet18") == 1
    printed = capsys.readouterr()
    assert "unet: FileNotFoundError" in printed.err
    assert "| tiny |" in printed.out


def test_unknown_model_names_the_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, "--models", "resnet19")
    printed = capsys.readouterr().err
    assert all(name in printed for name in ("resnet19", *more_models.NAMES))


def test_cpu_time_is_for_one_thread(tiny: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--models", "resnet18", "--clock", "cpu") == 0
    assert "cpu time" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(tmp_path, "--models", "resnet18", "--clock", "cpu", "--threads", "2")
    assert "counts waiting" in capsys.readouterr().err


def test_lock_is_held(tmp_path: Path) -> None:
    with compare.alone(tmp_path / "lock"), open(tmp_path / "lock", "rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / "lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_figures_of_the_table() -> None:
    rows = [
        compare.Row("a", 2, 1, 10**9, {"graphc": 0.01, "peer": 0.02}, {"graphc": 0.01, "peer": 0.02}, {"peer": 2.1}, {"graphc": 1e-6}),
        compare.Row("b", 2, 1, 10**9, {"graphc": 0.02, "peer": 0.01}, {"graphc": 0.02, "peer": 0.01}, {"peer": 0.5}, {"graphc": 1e-6}),
    ]
    assert [row.lead for row in rows] == [2.0, 0.5]
    lines = compare.speed_table(rows, ["peer"], 1e12)
    assert lines[2] == "| a | 10.00 (10.00) | 20.00 (20.00) | 2.10 | **2.00** | 100 | 10% | 1.0e-06 |"
    assert "**1.00**" in lines[-1]
