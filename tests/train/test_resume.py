"""Interrupted and resumed training against training in one go: the same bits. Checkpoints survive whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import files
from graphc.errors import InputError, ResourceError, UnsupportedError
from graphc.train.callbacks import BEST, LAST
from graphc.train.checkpoint import KEY, Snapshot
from graphc.train.trainer import Trainer
from train import small

pytest.importorskip("safetensors")

EPOCHS, STEPS = 5, 25


class InterruptAt(graphc.callbacks.Callback):
    """Ctrl-C after the given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        if trainer.steps == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Fail(graphc.callbacks.Callback):
    """An exception from one event."""

    def __init__(self, event: str, step: int, error: BaseException) -> None:
        def fail(trainer: Trainer, *logs: Any) -> None:
            if trainer.steps >= step:
                raise error

        setattr(self, event, fail)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    small.fit(small.trainer(folder), EPOCHS)
    return folder


def _meta(snapshot: Snapshot) -> dict[str, Any]:
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in snapshot.meta["history"]]
    return {**snapshot.meta, "history": rows}


def _same(one: Path, other: Path) -> None:
    for name in (LAST, BEST):
        first, second = Snapshot.load(one / name), Snapshot.load(other / name)
        assert _meta(first) == _meta(second)
        assert first.arrays.keys() == second.arrays.keys()
        for key, array in first.arrays.items():
            assert array.tobytes() == second.arrays[key].tobytes(), f"{name}: {key}"


def test_the_run_has_all_kinds_of_state(straight: Path) -> None:
    last = Snapshot.load(straight / LAST)
    kinds = {"c.weight", "n.running_mean", "out.bias.exp_avg_sq", "train.step", "train.metric/f1"}
    assert kinds <= last.arrays.keys()
    assert last.meta["schedule"]["rate"] < 0.01, "the plateau was never reached"
    assert int(last.arrays["train.step"]) == STEPS
    assert len(last.meta["history"]) == EPOCHS


@pytest.mark.parametrize("step", [1, 12, 15])
def test_interrupted_and_resumed_gives_the_same_bits(straight: Path, tmp_path: Path, step: int) -> None:
    """In the first step, in the middle of epoch 3, and at the end of an epoch before its validation."""
    first = small.trainer(tmp_path, InterruptAt(step))
    with pytest.raises(KeyboardInterrupt):
        small.fit(first, EPOCHS)
    kept = Snapshot.load(tmp_path / LAST)
    assert kept.meta["steps"] == int(kept.arrays["train.step"]) == step
    small.fit(small.trainer(tmp_path), EPOCHS, resume=True)
    _same(straight, tmp_path)


def test_interrupted_in_every_epoch_event(straight: Path, tmp_path: Path) -> None:
    for event, step in (("on_epoch_begin", 0), ("on_step_end", 3), ("on_epoch_begin", 10), ("on_epoch_end", 15)):
        with pytest.raises(KeyboardInterrupt):
            small.fit(small.trainer(tmp_path, Fail(event, step, KeyboardInterrupt())), EPOCHS, resume=True)
    small.fit(small.trainer(tmp_path), EPOCHS, resume=True)
    _same(straight, tmp_path)


def test_the_same_trainer_goes_on_after_an_interrupt(straight: Path, tmp_path: Path) -> None:
    made = small.trainer(tmp_path, InterruptAt(8))
    with pytest.raises(KeyboardInterrupt):
        small.fit(made, EPOCHS)
    small.fit(made, EPOCHS)
    _same(straight, tmp_path)


def test_fit_in_two_parts_is_fit_in_one(straight: Path, tmp_path: Path) -> None:
    made = small.trainer(tmp_path)
    small.fit(made, 2)
    small.fit(made, EPOCHS)
    _same(straight, tmp_path)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_other_processes_resume(straight: Path, tmp_path: Path, kind: signal.Signals) -> None:
    """Interrupted or killed in the middle of epoch 3, then resumed in a new process."""
    with _start(tmp_path, "12") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(kind)
        process.communicate(b"go on\n", timeout=60)
    assert process.returncode != 0
    assert Snapshot.load(tmp_path / LAST).meta["steps"] == (12 if kind == signal.SIGINT else 10)
    with _start(tmp_path) as process:
        assert process.communicate(timeout=60) == (b"", None)
    assert process.returncode == 0
    _same(straight, tmp_path)


def _start(folder: Path, *pauses: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-W", "error", "-m", "train.small", str(folder), str(EPOCHS), *pauses]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, **pipes)  # type: ignore[call-overload]


def test_every_steps(tmp_path: Path) -> None:
    made = small.trainer(None, graphc.callbacks.Checkpoint(tmp_path, every=4), Fail("on_step_end", 9, RuntimeError("mine")))
    with pytest.raises(RuntimeError, match="mine"):
        small.fit(made, EPOCHS)
    assert Snapshot.load(tmp_path / LAST).meta["steps"] == 8


def test_early_stopping_stays_stopped(tmp_path: Path) -> None:
    def made() -> Trainer:
        return small.trainer(tmp_path, graphc.callbacks.EarlyStopping("lr", patience=2, mode="max", min_delta=1.0))

    first = made()
    small.fit(first, EPOCHS)
    assert first.epoch == 3
    again = made()
    small.fit(again, EPOCHS, resume=True)
    assert (again.epoch, again.steps) == (3, first.steps)


def test_interrupted_between_the_two_files_of_an_epoch(straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last checkpoint that knows of a better epoch is never there without that epoch's file."""
    made, save, names = small.trainer(tmp_path), Trainer.save, []

    def once(trainer: Trainer, path: Path) -> None:
        if names:
            raise RuntimeError("the machine goes down")
        names.append(path.name)
        save(trainer, path)

    monkeypatch.setattr(Trainer, "save", once)
    with pytest.raises(RuntimeError, match="goes down"):
        small.fit(made, EPOCHS)
    monkeypatch.undo()
    assert names == os.listdir(tmp_path) == [BEST]
    small.fit(small.trainer(tmp_path), EPOCHS, resume=True)
    _same(straight, tmp_path)


# files ------------------------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_checkpoint(straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.trainer(tmp_path)
    small.fit(made, 1)
    before = (tmp_path / LAST).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        small.fit(made, 2)
    assert (tmp_path / LAST).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [BEST, LAST]
    monkeypatch.undo()
    small.fit(small.trainer(tmp_path), EPOCHS, resume=True)
    _same(straight, tmp_path)


def test_interrupted_while_writing_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small.trainer(tmp_path)
    small.fit(made, 1)
    before = (tmp_path / LAST).read_bytes()

    def interrupt(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.save(tmp_path / LAST)
    monkeypatch.undo()
    assert (tmp_path / LAST).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [BEST, LAST]


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = small.trainer(tmp_path / "file" / "folder")
    with pytest.raises(ResourceError, match="cannot hold checkpoints"):
        small.fit(made)
    assert made.steps == 0


def test_an_unwritable_file(tmp_path: Path) -> None:
    made = small.trainer(None)
    with pytest.raises(ResourceError, match="cannot be written"):
        made.save(tmp_path / "none" / "x.safetensors")


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UnsupportedError, match="pip install"):
        small.trainer(None).save(tmp_path / LAST)
    made = small.trainer(tmp_path)
    with pytest.raises(UnsupportedError, match="pip install"):
        small.fit(made)
    assert made.steps == 0


def test_a_callback_whose_state_is_no_json(tmp_path: Path) -> None:
    class Odd(graphc.callbacks.Callback):
        state = {"x": object()}  # type: ignore[assignment]  # noqa: RUF012

    with pytest.raises(InputError, match="no JSON"):
        small.trainer(None, Odd()).save(tmp_path / LAST)


def test_a_checkpoint_of_before_the_first_step(tmp_path: Path) -> None:
    first, second = small.trainer(None), small.trainer(None)
    first.step.parameters["out.bias"] = np.arange(4, dtype=np.float32)
    first.save(tmp_path / LAST)
    second.load(tmp_path / LAST)
    x, y = small.data(16)
    assert second.evaluate((x, y)) == first.evaluate((x, y)) != small.trainer(None).evaluate((x, y))
    small.fit(first, 1)
    small.fit(second, 1)
    assert all(np.array_equal(array, first.step.state[name]) for name, array in second.step.state.items())


# what does not fit ------------------------------------------------------------------------------------------------------------


def _load(path: Path, made: Trainer | None = None) -> None:
    made = made or small.trainer(None)
    before = made.step.state
    try:
        made.load(path)
    finally:
        assert made.steps == 0
        assert not made.history.rows
        assert all(np.array_equal(array, before[name]) for name, array in made.step.state.items() if name in before)


def _write(path: Path, snapshot: Snapshot, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
    Snapshot({**snapshot.arrays, **arrays}, {**snapshot.meta, **meta}).save(path)
    return path


def test_another_model_optimizer_metric_schedule_or_seed(straight: Path) -> None:
    last = straight / LAST

    @graphc.model
    def wider(image: graphc.f32["N", 3, 6, 6]) -> Any:
        return graphc.linear(graphc.flatten(image), 4, name="out")

    with pytest.raises(InputError, match=r"'out.weight' is float32\[4, 128\], here float32\[4, 108\]"):
        _load(last, Trainer(wider, optimizer=graphc.optim.Adam(), schedule=small.schedule(), seed=5))
    sgd = Trainer(small.small, schedule=small.schedule(), seed=5)
    with pytest.raises(InputError, match=r"'n.weight.exp_avg' is unknown|'[a-z.]*exp_avg"):
        _load(last, sgd)
    with pytest.raises(InputError, match=r"'train.metric/mae' is missing"):
        _load(last, small.trainer(None, metrics=["accuracy", "top2", graphc.metrics.MacroF1(4), "mae"]))
    with pytest.raises(InputError, match="another schedule"):
        _load(last, small.trainer(None, schedule=None))
    with pytest.raises(InputError, match=r"seed 5.*seed=5"):
        _load(last, small.trainer(None, seed=6))


def test_tensors_that_do_not_fit(straight: Path, tmp_path: Path) -> None:
    last, path = Snapshot.load(straight / LAST), tmp_path / "x.safetensors"
    for arrays, match in (
        ({"c.weight": last.arrays["c.weight"].astype(np.float64)}, "'c.weight' is float64"),
        ({"out.bias.exp_avg": np.zeros(1, np.float32)}, r"'out.bias.exp_avg' is float32\[1\], here float32\[4\]"),
        ({"new": np.zeros(1, np.float32)}, "'new' is unknown here"),
        ({"train.metric/f1": np.zeros((2, 2), np.int64)}, "train.metric/f1"),
    ):
        with pytest.raises(InputError, match=match):
            _load(_write(path, last, arrays, {}))
    Snapshot({name: array for name, array in last.arrays.items() if name != "n.running_var"}, last.meta).save(path)
    with pytest.raises(InputError, match=r"'n.running_var' is missing.*Try: "):
        _load(path)


@pytest.mark.parametrize(
    "meta",
    [
        {"epoch": -1}, {"steps": "7"}, {"batch": None}, {"batch": True}, {"history": 7}, {"history": [1]}, {"schedule": []},
        {"totals": {"loss": "x"}}, {"totals": 3}, {"sizes": {"M": 3}}, {"sizes": {"N": -3}}, {"sizes": {"N": 10**15}}, {"sizes": 3},
        {"sizes": {"N": "a"}}, {"schedule": {"best": "x", "bad": [], "cooldown": 0, "rate": {}}}, {"callbacks": None},
        {"callbacks": {"EarlyStopping.0": 3}}, {"history": [{"loss": "x"}]},
    ],
)  # fmt: skip
def test_damaged_numbers(straight: Path, tmp_path: Path, meta: dict[str, Any]) -> None:
    path = _write(tmp_path / "x.safetensors", Snapshot.load(straight / LAST), {}, meta)
    with pytest.raises(graphc.GraphcError):
        _load(path)


def test_damaged_files(straight: Path, tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "x.safetensors"
    whole = (straight / LAST).read_bytes()
    for data in (b"", whole[:100], whole[:-1], b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(InputError, match="cannot be read as a checkpoint"):
            _load(path)
    with pytest.raises(InputError, match="cannot be read"):
        _load(tmp_path / "none")
    for metadata in (None, {KEY: "{"}, {KEY: "[]"}, {KEY: json.dumps({"format": 99})}):
        path.write_bytes(safetensors.numpy.save({"x": np.zeros(1)}, metadata))
        with pytest.raises(InputError, match="no graphc checkpoint"):
            _load(path)


def test_resume_without_a_folder() -> None:
    with pytest.raises(InputError, match="checkpoint_dir"):
        small.fit(small.trainer(None), resume=True)


def test_frozen_parameters_come_from_the_checkpoint(tmp_path: Path) -> None:
    first, second = (small.trainer(tmp_path, freeze=["c.*"]) for _ in range(2))
    first.step.parameters["c.weight"] = np.full_like(first.step.parameters["c.weight"], 0.25)
    small.fit(first, 1)
    second.load(tmp_path / LAST)
    x, y = small.data(16)
    assert second.evaluate((x, y)) == first.evaluate((x, y))
    np.testing.assert_array_equal(second.step.parameters["c.weight"], first.step.parameters["c.weight"])
