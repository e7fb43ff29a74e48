"""What a training shows while it runs: a bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from graphc.train.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from graphc.train.trainer import Trainer

_QUIET = ("epoch", "seconds", "lr")


class Progress(Callback):
    """A bar with loss, accuracy or the first metric, examples per second and the time left of the epoch; then one line per epoch."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console as Made

        self.console = console or Made(highlight=False)
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._started = 0.0
        self._examples = 0

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._started, self._examples = perf_counter(), trainer.examples
        if self.console.is_terminal:
            self._open(trainer)

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        if self._bar is None or self._task is None:
            return
        metric = "".join(f"  {metric.name} {metric.result():.4g}" for metric in trainer.metrics[:1])
        text = f"loss {logs['mean_loss']:.4g}{metric}  {self._speed(trainer):,.0f} examples/s"
        self._bar.update(self._task, completed=trainer.batch, status=text)

    def on_epoch_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        self._close()
        values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items() if name not in _QUIET)
        head = f"epoch {int(logs['epoch'])}/{trainer.epochs}"
        self.console.print(f"{head}  {values}  lr {logs['lr']:.3g}  {logs['seconds']:.1f} s", soft_wrap=True)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._close()

    def _speed(self, trainer: Trainer) -> float:
        return (trainer.examples - self._examples) / max(perf_counter() - self._started, 1e-9)

    def _open(self, trainer: Trainer) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Made

        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
        self._bar = Made(*columns, TimeRemainingColumn(), console=self.console, transient=True)
        name = f"epoch {trainer.epoch + 1}/{trainer.epochs}"
        status = "" if trainer.steps else "compiling"
        self._task = self._bar.add_task(name, total=trainer.epoch_length, completed=trainer.batch, status=status)
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
