"""Trainer: epochs of compiled steps with schedule, metrics, validation and checkpoints; what it resumes continues bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from graphc.autodiff.optim import Optimizer
from graphc.errors import AttributeValueError, GraphcError, InputError
from graphc.ir.graph import Graph
from graphc.train.batches import ArrayBatches, Batches, as_batches, length_of, reading, size_of
from graphc.train.callbacks import LAST, Callback, Checkpoint
from graphc.train.checkpoint import Snapshot
from graphc.train.evaluate import Evaluation, sizes_of
from graphc.train.history import History
from graphc.train.interrupts import Interrupts
from graphc.train.losses import LossLike
from graphc.train.metrics import MetricLike, find_metrics
from graphc.train.progress import Progress
from graphc.train.resume import capture, check_finite, restore
from graphc.train.schedules import Schedule, as_schedule
from graphc.train.step import TrainStep, by_name
from graphc.train.totals import Totals

BATCH = 32  # examples in a batch where neither the user nor the model says


class Trainer:
    """Trains a model: `fit`, `evaluate`, `predict`, `save`, `load`.

    model, loss, optimizer, threads: as for `TrainStep`, and `options` too (freeze, clip_norm, dims, target, ...). schedule: one of
    `graphc.schedules`, or a function of the epoch that gives a factor. metrics: names or objects of `graphc.metrics` (None: accuracy where
    the targets are labels). callbacks: of `graphc.callbacks`. checkpoint_dir: where a `Checkpoint` is kept, which watches `monitor`.
    seed: of dropout and of the order of the examples. progress: a bar on a terminal, one line per epoch elsewhere, on standard output.
    The state of a model that has some (`graphc.state`) is carried from batch to batch and reset at the start of each epoch, validation
    and prediction, each with a state of its own; batches must then come in order, as from `graphc.data.TextStreams`.

    `epoch`, `batch`: epochs done, and batches of this epoch done; `steps`: updates done; `history`: rows of the epochs done.
    """

    def __init__(
        self, model: Any, loss: LossLike = "cross_entropy", optimizer: Optimizer | None = None, *,
        schedule: Schedule | Callable[[int], float] | None = None, metrics: Iterable[MetricLike] | MetricLike | None = None,
        callbacks: Sequence[Callback] = (), checkpoint_dir: str | os.PathLike[str] | None = None, monitor: str | None = None,
        seed: int = 0, threads: int | None = None, progress: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        self.step = TrainStep(model, loss, optimizer, threads, seed=seed, **options)
        self.schedule = as_schedule(schedule)
        self.checkpoint_dir = Path(checkpoint_dir) if checkpoint_dir is not None else None
        added = [Checkpoint(checkpoint_dir, monitor)] if checkpoint_dir is not None else []
        shown = [Progress()] if progress else []
        # checkpoints last: they keep what the others have seen of the epoch
        self.callbacks: list[Callback] = sorted([*shown, *callbacks, *added], key=lambda callback: isinstance(callback, Checkpoint))
        self.seed, self.history = seed, History()
        self.epoch = self.batch = self.steps = self.epochs = 0
        self.epoch_length: int | None = None
        self.stop = False
        loss = self.step.recipe.loss
        default = ("accuracy",) if loss.labels else ()
        self.totals = Totals(find_metrics(default if metrics is None else metrics, getattr(loss, "axis", 1)))
        self.metrics = self.totals.metrics
        self.schedule_state = self.schedule.start()
        self.last_rate = self.rate
        self.sizes: dict[str, int] | None = None
        self._evaluation = Evaluation(self.step)
        self._interrupts = Interrupts()

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule.rate(self.step.recipe.optimizer.lr, self.steps, self.epoch, self.schedule_state)

    @property
    def examples(self) -> int:
        """Examples of this epoch so far."""
        return self.totals.examples

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint (safetensors), whole or not at all. Raises NumericalError where the state is not finite, ResourceError where
        the file cannot be written."""
        capture(self).save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint. Rates and other numbers of optimizer and schedule are this Trainer's.

        Raises InputError, before anything is changed, where parameters, moments, sums of metrics or the state of the schedule have other
        names or shapes, or the seed is another.
        """
        restore(self, Snapshot.load(path), str(path))

    def graph(self) -> Graph:
        """The trained model, for `graphc.compile` and `graphc.save_onnx`."""
        return self.step.graph()

    # train ------------------------------------------------------------------------------------------------------------------

    def fit(
        self, data: Any, epochs: int, validation: Any = None, batch_size: int | None = None, *,
        shuffle: bool = True, drop_last: bool = False, resume: bool | str | os.PathLike[str] = False,
    ) -> History:  # fmt: skip
        """Train until `epochs` epochs are done, those before this call and those resumed included.

        data, validation: a pair (x, y) of arrays, or what `graphc.train.batches.as_batches` takes. batch_size: of pairs (None: the model's,
        else 32). drop_last: leave out the last batch of a pair where it is smaller; a model with a fixed batch needs that, others
        compile a second program. resume: a checkpoint, or True for the last one in checkpoint_dir if there is one.

        Loss and metrics of the training are of each batch before its update, weighed by its examples. Ctrl-C ends after the step;
        checkpoints are written first, then KeyboardInterrupt is raised. Raises NumericalError for a loss that is not finite (see
        `nonfinite` and `check_gradients` of `TrainStep`): then nothing has changed since the step before, and the checkpoints stay.
        """
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
            raise AttributeValueError(f"epochs={epochs!r}", hint="a whole number of epochs in all")
        batches = self._batches(data, batch_size, shuffle, drop_last)
        held_out = None if validation is None else self._batches(validation, batch_size, False, False)
        last = self._last(resume)
        if last is not None:
            self.load(last)
        length = length_of(batches)
        if self.batch and length != self.epoch_length:
            reason = f"epoch {self.epoch + 1} was left after {self.batch} of {self.epoch_length} batches, this data has {length}"
            raise InputError(reason, hint="the same data and batch_size, or a new Trainer")
        self.epochs, self.stop, self.epoch_length = epochs, False, length
        try:
            with self._interrupts:
                self._tell("on_fit_begin")
                while self.epoch < epochs and not self.stop:
                    self._epoch(batches, held_out)
        except KeyboardInterrupt:
            if self._interrupts.whole:
                self._tell("on_interrupt")
            raise
        finally:
            self._tell("on_fit_end")
        return self.history

    def _epoch(self, batches: Batches, held_out: Batches | None) -> None:
        started = perf_counter()
        if not self.batch:
            self.step.reset_state()
        batches.set_position(self.epoch, self.batch)
        self._tell("on_epoch_begin")
        with reading(batches) as found:
            for x, y in found:
                with self._interrupts.held():
                    loss = self._step(x, y)
                self._tell("on_step_end", {"loss": loss, "lr": self.last_rate, "mean_loss": self.totals.mean_loss})
                self._interrupts.check()
        if not self.batch:
            raise InputError("there are no batches", where=f"epoch {self.epoch + 1}", hint="a new iterable for each epoch")
        if self.step.recipe.nonfinite != "report":
            check_finite(self.step.state, self.steps)
        skipped = {} if self.step.recipe.nonfinite == "raise" else {"skipped": self.totals.skipped}
        row = {"epoch": self.epoch + 1, "lr": self.last_rate, "seconds": 0.0, **skipped, **self.totals.logs()}
        if held_out is not None:
            row.update({f"val_{name}": value for name, value in self._evaluate(held_out).items()})
        row["seconds"] = perf_counter() - started
        with self._interrupts.held():
            self.schedule_state = self.schedule.observe(self.schedule_state, self.step.recipe.optimizer.lr, row)
            self.history.append(row)
            self.epoch, self.batch = self.epoch + 1, 0
            self.totals.reset()
        self._tell("on_epoch_end", row)
        self._interrupts.check()

    def _step(self, x: Any, y: Any) -> float:
        """One batch, and the position behind it. The last one of an epoch completes an update with those that wait."""
        rate, recipe = self.rate, self.step.recipe
        last, place = recipe.accumulate > 1 and self.batch + 1 == self.epoch_length, f"epoch {self.epoch + 1}, batch {self.batch + 1}"
        try:
            feeds = by_name(self.step._model, x)
            if self.sizes is None:
                self.sizes = sizes_of(self.step._model, feeds)
            found = self.step(feeds, y, lr=rate, update=True if last else None)
            self.last_rate, self.batch, self.steps = rate, self.batch + 1, self.steps + found["updated"]
            if found["finite"]:
                examples = size_of(feeds)
                self.totals.add(found["loss"] * (examples if recipe.loss.reduction == "mean" else 1), examples, found["outputs"], x, y)
            else:
                self.totals.skipped += 1
        except GraphcError as error:
            error.where = ", ".join(filter(None, (place, error.where)))
            raise
        return float(found["loss"])

    def _tell(self, event: str, *logs: Mapping[str, float]) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *logs)

    def _last(self, resume: bool | str | os.PathLike[str]) -> Path | None:
        """The checkpoint to resume from; None: there is none yet."""
        if not isinstance(resume, bool):
            return Path(resume)
        if resume and self.checkpoint_dir is None:
            raise InputError("resume=True without a checkpoint_dir", hint="Trainer(..., checkpoint_dir=...), or resume=PATH")
        return self.checkpoint_dir / LAST if resume and self.checkpoint_dir and (self.checkpoint_dir / LAST).exists() else None

    # look -------------------------------------------------------------------------------------------------------------------

    def evaluate(self, data: Any, batch_size: int | None = None) -> dict[str, float]:
        """Loss and metrics of the model in inference, means over the examples of `data` (as for `fit`)."""
        return self._evaluate(self._batches(data, batch_size, False, False))

    def _evaluate(self, batches: Batches) -> dict[str, float]:
        totals = self.totals.fresh()
        self._evaluation.reset_state()
        batches.set_position(0, 0)
        with reading(batches) as found:
            for number, (x, y) in enumerate(found):
                try:
                    totals.add(*self._evaluation(x, y), x, y)
                except GraphcError as error:
                    error.at(f"evaluation, batch {number + 1}")
                    raise
                self._interrupts.check()
        if not totals.examples:
            raise InputError("there are no examples to evaluate", hint="at least one batch")
        return totals.logs()

    def predict(self, x: Any, batch_size: int | None = None) -> Any:
        """The model's outputs in inference: an array (N, ...), or a tuple of them. x: an array (N, ...), a tuple of arrays, or by name."""
        batches = self._batches((x, np.zeros(size_of(x))), batch_size, False, False)
        self._evaluation.reset_state()
        parts = [self._evaluation.predict(part) for part, _ in batches]
        if len(parts) == 1:
            return parts[0]
        columns = list(zip(*parts, strict=True)) if isinstance(parts[0], tuple) else [tuple(parts)]
        for column in columns:
            if any(array.ndim == 0 for array in column):
                raise InputError("an output has no axis of examples, and the batches cannot be joined", hint="one batch_size for all of x")
        outputs = tuple(np.concatenate(column) for column in columns)
        return outputs if isinstance(parts[0], tuple) else outputs[0]

    def _batches(self, data: Any, batch_size: int | None, shuffle: bool, drop_last: bool) -> Batches:
        """Raises InputError where the model has a fixed batch and arrays do not fit it."""
        first = self.step._model.inputs[0].type.shape[:1]
        fixed = first[0] if first and isinstance(first[0], int) else None
        if fixed and batch_size not in (None, fixed):
            raise InputError(f"batch_size={batch_size}, the model takes batches of {fixed} only", hint="a model with a symbolic batch")
        batches = as_batches(data, batch_size or fixed or BATCH, shuffle=shuffle, seed=self.seed, drop_last=drop_last)
        rest = batches.examples % fixed if fixed and isinstance(batches, ArrayBatches) and not batches.drop_last else 0
        if rest:
            reason = f"the model takes batches of {fixed} only, the last batch would have {rest} examples"
            raise InputError(reason, hint=f"a multiple of {fixed}, drop_last=True in training, or a model with a symbolic batch")
        return batches

    def __repr__(self) -> str:
        return f"<graphc.Trainer {self.step!r}: epoch {self.epoch}, {self.steps} steps>"
