"""Small networks, one with everything that training keeps state for, and data that they learn; also run in processes of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc.train.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]
BATCH, EXAMPLES, CLASSES = 16, 72, 4  # 5 batches an epoch, the last of 8


@graphc.model
def small(image: graphc.f32["N", 3, 6, 6]) -> Any:
    x = graphc.batch_norm(graphc.conv2d(image, 8, kernel=3, bias=False, name="c"), activation="relu", name="n")
    return graphc.linear(graphc.dropout(graphc.flatten(x), 0.2), CLASSES, name="out")


@graphc.model
def line(x: graphc.f32["N", 3]) -> Any:
    return graphc.linear(x, 2, name="out")


def data(examples: int = EXAMPLES, seed: int = 3) -> tuple[Array, Array]:
    """Images whose class is the brightest quarter."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, examples)
    x = rng.standard_normal((examples, 3, 6, 6)).astype(np.float32)
    for number, label in enumerate(y):
        top, left = divmod(int(label), 2)
        x[number, :, 3 * top : 3 * top + 3, 3 * left : 3 * left + 3] += 0.7
    return x, y


def schedule() -> graphc.schedules.Schedule:
    """Of steps and of epochs, with a state: the plateau is reached at once."""
    plateau = graphc.schedules.Plateau(factor=0.5, patience=0, threshold=0.5)
    return graphc.schedules.Warmup(7, plateau)


def trainer(folder: Path | None, *callbacks: Any, **options: Any) -> Trainer:
    kept = {"schedule": schedule(), "metrics": ["accuracy", "top2", graphc.metrics.MacroF1(CLASSES)], "seed": 5, "threads": 1}
    early = graphc.callbacks.EarlyStopping(patience=50)
    optimizer = graphc.optim.Adam(lr=0.01)
    everything = {**kept, "checkpoint_dir": folder, "progress": False, **options}
    return Trainer(small, optimizer=optimizer, callbacks=[early, *callbacks], **everything)


def fit(made: Trainer, epochs: int = 5, **options: Any) -> None:
    made.fit(data(), epochs, validation=data(24, seed=4), batch_size=BATCH, **options)


def points(count: int = 20) -> tuple[Array, Array]:
    """For `line`: whether the first number is above the second."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (count, 3)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def quiet(model: Any, *args: Any, **options: Any) -> Trainer:
    """One thread, nothing printed."""
    return Trainer(model, *args, **{"threads": 1, "progress": False, **options})


class Pause(graphc.callbacks.Callback):
    """After the given step: says so, and waits for a line."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer, logs: Any) -> None:
        if trainer.steps == self.step:
            print("waiting", flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    fit(trainer(Path(sys.argv[1]), *(Pause(int(step)) for step in sys.argv[3:])), epochs=int(sys.argv[2]), resume=True)
