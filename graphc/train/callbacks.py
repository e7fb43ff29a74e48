"""What happens around training: stopping early, checkpoints, history files, curves. All of it is a `Callback`."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.errors import InputError, ResourceError
from graphc.files import safetensors
from graphc.train.history import check_format

if TYPE_CHECKING:
    from graphc.train.trainer import Trainer

__all__ = ["EarlyStopping", "Checkpoint", "HistoryFile", "Curves", "Monitor", "Callback"]

LAST, BEST = "last.safetensors", "best.safetensors"


class Callback:
    """Every method does nothing here. An exception from one ends the training. `trainer.stop = True` ends it after the epoch."""

    def on_fit_begin(self, trainer: Trainer) -> None: ...

    def on_epoch_begin(self, trainer: Trainer) -> None: ...

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        """logs: loss (of the batch), lr, and of the epoch so far the mean loss as `mean_loss`."""

    def on_epoch_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        """logs: the row of the history. `trainer.epoch` counts this epoch already."""

    def on_interrupt(self, trainer: Trainer) -> None:
        """Ctrl-C, between two steps."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Always called, after errors too."""

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the callback: what JSON can hold."""
        return {}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None: ...


class Monitor(Callback):
    """Watches one quantity: `best` so far, `monitor` (None: val_loss where there is a validation, else loss), `mode` (None: what the
    metric says, "min" for a loss)."""

    def __init__(self, monitor: str | None = None, mode: str | None = None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise InputError(f"mode={mode!r}", hint='"min", "max" or None')
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta
        self.best: float | None = None

    def better(self, trainer: Trainer, logs: Mapping[str, float]) -> bool:
        """Whether the quantity is better than its best by more than `min_delta`: then it is the best. Raises InputError if not measured."""
        name = self.monitor or ("val_loss" if "val_loss" in logs else "loss")
        if name not in logs:
            raise InputError(f"{type(self).__name__} watches {name!r}, which is not measured", hint=f"one of {', '.join(logs)}")
        modes = {metric.name: metric.mode for metric in trainer.metrics}
        sign = 1.0 if (self.mode or modes.get(name.removeprefix("val_"), "min")) == "max" else -1.0
        found = logs[name] == logs[name] and (self.best is None or sign * logs[name] > sign * self.best + self.min_delta)
        if found:
            self.best = float(logs[name])
        return found

    @property
    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.best = _number(state["best"])


class EarlyStopping(Monitor):
    """Stops after `patience` epochs in a row without a better value. The best parameters are in `best.safetensors` of a Checkpoint."""

    def __init__(self, monitor: str | None = None, patience: int = 5, mode: str | None = None, min_delta: float = 0.0) -> None:
        super().__init__(monitor, mode, min_delta)
        if patience < 1:
            raise InputError(f"patience={patience}", hint="a number of epochs, at least 1")
        self.patience, self.waited = patience, 0

    def on_fit_begin(self, trainer: Trainer) -> None:
        trainer.stop = trainer.stop or self.waited >= self.patience

    def on_epoch_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        self.waited = 0 if self.better(trainer, logs) else self.waited + 1
        trainer.stop = trainer.stop or self.waited >= self.patience

    @property
    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = _number(state["best"]), int(state["waited"])


class Checkpoint(Monitor):
    """Writes `last.safetensors` after each epoch, each `every` updates and at Ctrl-C, and `best.safetensors` after each better epoch.

    Raises ResourceError for a folder that cannot be written and UnsupportedError without safetensors, before the first step.
    """

    def __init__(
        self, folder: str | os.PathLike[str], monitor: str | None = None, mode: str | None = None, every: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(monitor, mode)
        if every is not None and every < 1:
            raise InputError(f"every={every}", hint="a number of updates, at least 1")
        self.folder, self.every, self._written = Path(folder), every, 0

    def on_fit_begin(self, trainer: Trainer) -> None:
        safetensors()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except (OSError, ValueError) as error:
            reason = f"cannot hold checkpoints: {getattr(error, 'strerror', None) or error}"
            raise ResourceError(reason, where=str(self.folder), hint="another checkpoint_dir") from error

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        if self.every and trainer.steps % self.every == 0 and trainer.steps != self._written:
            trainer.save(self.folder / LAST)
            self._written = trainer.steps

    def on_epoch_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        if self.better(trainer, logs):
            trainer.save(self.folder / BEST)  # first: who resumes from a last checkpoint that knows of a best one finds it
        trainer.save(self.folder / LAST)

    def on_interrupt(self, trainer: Trainer) -> None:
        trainer.save(self.folder / LAST)


class HistoryFile(Callback):
    """Writes the history after each epoch: .csv or .json. Raises InputError for another ending."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_format(self.path)

    def on_epoch_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        trainer.history.save(self.path)


class Curves(Callback):
    """Draws the learning curves at the end of the training: .png, .svg, .pdf, ... Raises, before the first step, UnsupportedError without
    matplotlib and InputError for an ending that it does not know."""

    def __init__(self, path: str | os.PathLike[str], title: str = "") -> None:
        self.path, self.title = Path(path), title

    def on_fit_begin(self, trainer: Trainer) -> None:
        from graphc.train.curves import check_format

        check_format(self.path)  # before hours of training, not after them

    def on_fit_end(self, trainer: Trainer) -> None:
        from graphc.train.curves import draw

        if trainer.history.rows:
            draw(trainer.history, self.path, self.title)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
