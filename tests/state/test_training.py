"""Truncated backpropagation: a training step that carries the model's state, beside PyTorch with detached states; the trainer's epochs,
validation and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import InputError

UNITS, CLASSES, BATCH, STEPS = 12, 9, 4, 7


@graphc.model
def language(text: graphc.i64[BATCH, "T"]):  # type: ignore[no-untyped-def]
    """Characters (BATCH, T) -> logits (BATCH, CLASSES, T); states h and c."""
    h, c = (graphc.state((BATCH, 2, UNITS), name=name) for name in "hc")
    y, last, cell = graphc.lstm(graphc.one_hot(text, CLASSES), UNITS, 2, h0=h, c0=c, name="cell")
    h.assign(last)
    c.assign(cell)
    return graphc.linear(y, CLASSES, name="out").transpose(0, 2, 1)


def _text(length: int, seed: int = 0) -> Any:
    """A number follows from the one two places before, but for noise: what the first steps of a chunk need lies in the chunk before."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, CLASSES, length)
    for place in range(2, length):
        if rng.random() < 0.9:
            text[place] = (text[place - 2] + 1) % CLASSES
    return text


def _streams(length: int = 600, seed: int = 0) -> graphc.data.TextStreams:
    return graphc.data.TextStreams(_text(length, seed), BATCH, STEPS)


def _losses(step: Any, batches: Any) -> list[float]:
    return [step(x, y)["loss"] for x, y in batches]


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_losses_are_those_of_torch(kind: str) -> None:
    """Over 60 steps from equal weights; with the states reset before each step they are others."""
    torch: Any = pytest.importorskip("torch")
    from bench.char_net import char_net, train_twin

    rate = 0.05 if kind == "rnn" else 0.3  # a plain network leaves every other one at a larger rate, PyTorch in float64 too
    net = char_net(kind, UNITS, 2, CLASSES, BATCH, STEPS)
    batches = list(_streams(60 * BATCH * STEPS + 1))
    assert len(batches) == 60
    step = graphc.TrainStep(net.model, optimizer=graphc.optim.SGD(rate, momentum=0.9), threads=2)
    first = {name: array.copy() for name, array in step.parameters.items()}
    mine = _losses(step, batches)
    theirs = train_twin(net, first, lambda parameters: torch.optim.SGD(parameters, rate, momentum=0.9), batches)
    np.testing.assert_allclose(mine, theirs, rtol=2e-4)
    assert np.mean(mine[-5:]) < 0.97 * np.mean(mine[:5])
    fresh = graphc.TrainStep(net.model, optimizer=graphc.optim.SGD(rate, momentum=0.9), threads=2)
    without = []
    for x, y in batches:
        fresh.reset_state()
        without.append(fresh(x, y)["loss"])
    assert without[0] == mine[0]
    assert max(abs(a - b) for a, b in zip(mine, without, strict=True)) > 1e-3


def test_the_state_moves_with_steps_only() -> None:
    step = graphc.TrainStep(language, optimizer=graphc.optim.SGD(0.1))
    (x, y), (x2, y2), *_ = _streams()
    step(x, y)
    before = step.state
    assert before["h"].any()
    assert step.gradients(x2, y2)["loss"] == pytest.approx(step(x2, y2)["loss"], rel=1e-6)
    after = step.state
    assert not np.array_equal(before["h"], after["h"])
    step.gradients(x, y)
    np.testing.assert_array_equal(step.state["h"], after["h"])
    step.reset_state()
    assert not step.state["h"].any()
    np.testing.assert_array_equal(step.state["out.weight"], after["out.weight"])
    np.testing.assert_array_equal(step.parameters["out.weight"], after["out.weight"])


def test_a_state_that_does_not_fit() -> None:
    step = graphc.TrainStep(language)
    with pytest.raises(InputError, match=r"'h' is float32\[4, 2, 12\], got float32\[2, 12\]"):
        step.state = {"h": np.zeros((2, UNITS), np.float32)}


def test_batches_that_wait_move_the_state() -> None:
    """Two batches that make one update see the states that two updates with a rate of 0 see."""
    batches = list(_streams())[:2]
    waiting = graphc.TrainStep(language, optimizer=graphc.optim.SGD(0.1), accumulate=2)
    still = graphc.TrainStep(language, optimizer=graphc.optim.SGD(0.0))
    np.testing.assert_allclose(_losses(waiting, batches), _losses(still, batches), rtol=1e-6)
    np.testing.assert_allclose(waiting.state["c"], still.state["c"], rtol=1e-6, atol=1e-7)


def test_a_batch_that_is_skipped_leaves_the_state() -> None:
    @graphc.model
    def net(x: graphc.f32[2]) -> Any:
        s = graphc.state((2,), name="s")
        s.assign(s + x)
        return s * graphc.parameter("w", (2,), 1.0) + x

    step = graphc.TrainStep(net, loss="mse", nonfinite="skip")
    good, bad, y = np.ones(2, np.float32), np.array([1, np.nan], np.float32), np.zeros(2, np.float32)
    assert step(good, y)["finite"]
    assert not step(bad, y)["finite"]
    assert step.state["s"].tolist() == [1, 1]


def test_pairs_of_an_onnx_model(tmp_path: Path) -> None:
    """The model as a file, its states kept, trains as the model."""
    path, batches = tmp_path / "language.onnx", list(_streams())[:6]
    graphc.save_onnx(language, path)
    step = graphc.TrainStep(language, optimizer=graphc.optim.SGD(0.1))
    again = graphc.TrainStep(path, optimizer=graphc.optim.SGD(0.1), state={"h": "h.next", "c": "c.next"})
    np.testing.assert_allclose(_losses(again, batches), _losses(step, batches), rtol=1e-6)


def test_the_trained_model_starts_afresh() -> None:
    """The graph has the trained parameters and the state's initial value."""
    step = graphc.TrainStep(language, optimizer=graphc.optim.SGD(0.1))
    batches = list(_streams())
    _losses(step, batches[:3])
    exe = graphc.compile(step)
    assert not exe.state["h"].any()
    logits = exe(batches[0][0])
    assert logits.shape == (BATCH, CLASSES, STEPS)


# the trainer ------------------------------------------------------------------------------------------------------------------


def _trainer(folder: Path | None = None, lr: float = 0.1, **options: Any) -> graphc.Trainer:
    return graphc.Trainer(language, optimizer=graphc.optim.Adam(lr), checkpoint_dir=folder, progress=False, threads=2, **options)


def test_an_epoch_starts_from_the_initial_state() -> None:
    """Without learning every epoch is the same, and is a pass of a compiled model."""
    trainer, streams = _trainer(lr=0.0), _streams()
    trainer.fit(streams, 3)
    assert len(set(trainer.history["loss"])) == 1
    exe = graphc.compile(language)
    assert trainer.history["loss"][0] == pytest.approx(_mean_loss(exe, streams), rel=1e-5)


def _mean_loss(exe: Any, streams: graphc.data.TextStreams) -> float:
    streams.set_position(0, 0)
    losses = []
    for x, y in streams:
        logits = exe(x).astype(np.float64)
        likely = np.take_along_axis(logits, y[:, None], 1)[:, 0]
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - likely))
    return float(np.mean(losses))


def test_validation_has_a_state_of_its_own() -> None:
    """It does not change the training, starts afresh each time, and carries its state from batch to batch."""
    train, held_out = _streams(), _streams(400, seed=1)
    plain, watched = _trainer(), _trainer()
    plain.fit(train, 2)
    watched.fit(train, 2, validation=held_out)
    assert watched.history["loss"] == plain.history["loss"]
    for name, array in plain.step.state.items():
        np.testing.assert_array_equal(watched.step.state[name], array)
    assert watched.evaluate(held_out) == watched.evaluate(held_out)
    assert watched.evaluate(held_out)["loss"] == pytest.approx(_mean_loss(graphc.compile(watched), held_out), rel=1e-5)
    x = next(iter(held_out))[0]
    np.testing.assert_array_equal(watched.predict(x), watched.predict(x))


class _StopAt(graphc.callbacks.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Any, logs: Any) -> None:
        if trainer.steps == self.step:
            raise InterruptedError


def test_resumed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """From a checkpoint within the second epoch, a new trainer gives the same bits: the states are in the checkpoint."""
    safetensors: Any = pytest.importorskip("safetensors.numpy")
    train, held_out, options = _streams(), _streams(400, seed=1), {"callbacks": [_StopAt(30)]}
    straight = _trainer()
    straight.fit(train, 3, validation=held_out)
    assert len(train) < 30 < 2 * len(train)
    first = _trainer(**options)
    with pytest.raises(InterruptedError):
        first.fit(train, 3, validation=held_out)
    first.save(tmp_path / "middle.safetensors")
    assert safetensors.load_file(tmp_path / "middle.safetensors")["h"].any()
    second = _trainer()
    second.fit(train, 3, validation=held_out, resume=tmp_path / "middle.safetensors")
    rows = [[{name: row[name] for name in ("loss", "val_loss", "accuracy")} for row in t.history.rows] for t in (straight, second)]
    assert rows[0] == rows[1]
    for name, array in straight.step.state.items():
        np.testing.assert_array_equal(second.step.state[name], array)
