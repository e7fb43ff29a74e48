"""What goes wrong in training: numbers that are none, labels and data that do not fit, Ctrl-C. Each error says where and what next."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, InputError, NumericalError
from graphc.train.callbacks import LAST
from graphc.train.interrupts import Interrupts
from train.small import line, points, quiet

Array = np.ndarray[Any, np.dtype[Any]]


@graphc.model
def of_eight(x: graphc.f32[8, 3]) -> Any:
    return graphc.linear(x, 2, name="out")


@graphc.model
def logarithm(x: graphc.f32["N", 3]) -> Any:
    return graphc.linear(graphc.log(x, name="ln"), 2, name="out")


def test_nan_names_step_and_node_and_leaves_everything(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    x, y = points(64)
    good = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8)]
    made = quiet(logarithm, checkpoint_dir=tmp_path)
    made.fit(good, 1)
    before, file = made.step.state, (tmp_path / LAST).read_bytes()
    bad = x[:8].copy()
    bad[3, 1] = -1.0
    with pytest.raises(NumericalError, match=r"epoch 2, batch 3, step 11: .*log 'ln'.* is the first node"):
        made.fit([*good[:2], (bad, y[:8]), *good[2:]], 2)
    assert made.steps == int(made.step.state["train.step"]) == 10
    assert (tmp_path / LAST).read_bytes() == file
    with pytest.raises(NumericalError, match="input 'x' holds"):
        made.fit([*good[:2], (np.full_like(bad, np.nan), y[:8]), *good[2:]], 2)
    made.fit([*good, good[0]], 2)
    assert (made.epoch, made.steps) == (2, 17)
    assert not np.array_equal(made.step.state["out.weight"], before["out.weight"])


def test_batches_that_are_skipped_are_counted() -> None:
    x, y = points(16)
    bad = np.full_like(x, np.inf)
    made = quiet(line, nonfinite="skip")
    row = made.fit([(x, y), (bad, y), (x, y)], 1).rows[0]
    assert (row["skipped"], made.steps, made.examples) == (1, 2, 0)
    assert np.isfinite(row["loss"])
    assert np.isnan(made.fit([(bad, y)], 2).rows[1]["loss"])


def test_a_gradient_that_is_not_finite_is_found_after_the_epoch_at_the_latest(tmp_path: Path) -> None:
    """sqrt at 0 has an infinite slope."""
    pytest.importorskip("safetensors")

    @graphc.model
    def root(x: graphc.f32["N", 3]) -> Any:
        return graphc.sqrt(graphc.relu(graphc.linear(x, 2, name="out")))

    x, y = points(16)
    for options, match in (({}, "after step 1: 'out.weight' is not finite"), ({"check_gradients": True}, "epoch 1, batch 1, step 1: ")):
        made = quiet(root, checkpoint_dir=tmp_path, **options)
        made.step.parameters["out.weight"] = np.zeros((2, 3), np.float32)
        made.step.parameters["out.bias"] = np.zeros(2, np.float32)
        with pytest.raises(NumericalError, match=match):
            made.fit((x, y), 1)
        assert not (tmp_path / LAST).exists()


def test_no_checkpoint_of_a_state_that_is_not_finite(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    made = quiet(line, optimizer=graphc.optim.SGD(lr=float("inf")), nonfinite="report")
    made.fit(points(), 1)
    with pytest.raises(NumericalError, match=r"'out.weight' is not finite"):
        made.save(tmp_path / LAST)
    assert not (tmp_path / LAST).exists()


def test_a_metric_that_fails_leaves_position_and_state_together() -> None:
    class Fails(graphc.metrics.Accuracy):
        def part(self, outputs: Array, y: Array) -> Array:
            raise RuntimeError("mine")

    made = quiet(line, metrics=[Fails()])
    with pytest.raises(RuntimeError, match="mine"):
        made.fit(points(), 1)
    assert made.steps == made.batch == int(made.step.state["train.step"]) == 1


def test_labels_out_of_range_name_the_batch() -> None:
    x, y = points(20)
    made = quiet(line)
    with pytest.raises(InputError, match=r"epoch 1, batch 3: labels from 0 to 2, the model has the classes 0 to 1"):
        made.fit((x, np.where(np.arange(20) == 19, 2, y)), 1, batch_size=8, shuffle=False)
    with pytest.raises(InputError, match="evaluation, batch 2: labels"):
        made.evaluate((x, np.where(np.arange(20) == 9, -1, y)), batch_size=8)
    with pytest.raises(InputError, match="labels of dtype float64"):
        quiet(line).fit((x, y.astype(np.float64)), 1)
    with pytest.raises(InputError, match=r"epoch 1 was left after 2 of 3 batches, this data has 5.*the same data"):
        made.fit((x, y), 1, batch_size=4)


def test_a_fixed_batch() -> None:
    made = quiet(of_eight)
    with pytest.raises(InputError, match=r"batches of 8 only, the last batch would have 4 examples.*drop_last=True"):
        made.fit(points(20), 1)
    with pytest.raises(InputError, match="batch_size=4, the model takes batches of 8 only"):
        made.fit(points(20), 1, batch_size=4)
    made.fit(points(20), 1, validation=points(16), drop_last=True)
    assert made.steps == 2
    assert made.predict(points(16)[0]).shape == (16, 2)
    with pytest.raises(InputError, match=r"epoch 2, batch 1.*\(5, 3\)"):
        made.fit([points(5)], 2)
    with pytest.raises(InputError, match="would have 4 examples"):
        made.predict(points(20)[0])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ((np.zeros((0, 3), np.float32), np.zeros(0, np.int64)), "no examples"), ([], "epoch 1: there are no batches"),
        (lambda epoch: iter(()), "there are no batches"), ((np.zeros((4, 3)), np.zeros(4, np.int64)), r"epoch 1, batch 1: .*float64"),
        ((np.zeros((4, 5), np.float32), np.zeros(4, np.int64)), "epoch 1, batch 1: .*axis 1"), (None, "no training data"),
    ],
)  # fmt: skip
def test_data_that_is_none(data: Any, match: str) -> None:
    made = quiet(line)
    with pytest.raises(InputError, match=match):
        made.fit(data, 1)
    assert made.steps == 0


def test_evaluating_nothing() -> None:
    with pytest.raises(InputError, match="no examples to evaluate"):
        quiet(line).evaluate([])


def test_nonsense_arguments() -> None:
    with pytest.raises(AttributeValueError, match="unknown metric"):
        quiet(line, metrics=["acc"])
    with pytest.raises(AttributeValueError, match="schedule"):
        quiet(line, schedule=3)
    with pytest.raises(TypeError, match="nonsense"):
        quiet(line, nonsense=1)
    for epochs in (-1, 1.5, True, "3"):
        with pytest.raises(AttributeValueError, match="epochs"):
            quiet(line).fit(points(), epochs)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 inputs given, the model takes 1"):
        quiet(line).fit(((points()[0], points()[0]), points()[1]), 1)
    with pytest.raises(InputError, match="watches 'val_loss'"):
        quiet(line, callbacks=[graphc.callbacks.EarlyStopping("val_loss")]).fit(points(), 1)
    with pytest.raises(InputError, match="patience=0"):
        graphc.callbacks.EarlyStopping(patience=0)


# interrupts -------------------------------------------------------------------------------------------------------------------


def test_the_second_interrupt_does_not_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.check()
        assert interrupts.whole
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_neither_lost_nor_left_for_later() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    interrupts = Interrupts()

    def fail() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), interrupts:
        fail()
    interrupts.check()


def test_evaluating_after_two_interrupts() -> None:
    class Twice(graphc.callbacks.Callback):
        def on_step_end(self, trainer: Any, logs: Any) -> None:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    made = quiet(line, callbacks=[Twice()])
    with pytest.raises(KeyboardInterrupt):
        made.fit(points(), 1)
    assert made.steps == 1
    assert made.evaluate(points())["loss"] > 0


def test_the_users_handler_and_other_threads_are_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    made = quiet(line)
    thread = threading.Thread(target=made.fit, args=(points(), 1))
    thread.start()
    thread.join()
    assert made.epoch == 1
