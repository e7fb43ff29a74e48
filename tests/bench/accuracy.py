"""Training of graphc beside PyTorch's: accuracy and wall time on Fashion-MNIST, the same weights, batches, rates and epochs.

    python tests/bench/accuracy.py FOLDER --models lenet5,resnet18 --json out.json

FOLDER holds the four IDX files. Both start from the same numbers and see the same batches in the same order, without augmentation; epochs
alternate, so that what else the machine does meets both. graphc is `graphc.Trainer`, PyTorch an eager loop that reads the loss of each
step. Seconds are those of training alone: the first epoch of graphc contains compilation; tests are not timed. LeNet-5 is tested after each
epoch; ResNet-18 takes 10,000 training images, padded to 32x32, and is tested after the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

import graphc
from bench.net import ordered
from bench.train_nets import NETS
from graphc.autodiff.optim import SGD, Adam, Group, Optimizer
from graphc.train.batches import ArrayBatches

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[Array, Array]
MEAN, STD = 0.2860, 0.3530  # of the training images
TEST_BATCH = 250
ENGINES = ("graphc", "PyTorch")


@dataclass(frozen=True)
class Task:
    """What is trained. `images`: of the training set; `tested`: after each epoch, not only after the last."""

    batch: int
    epochs: int
    images: int
    tested: bool
    optimizer: Optimizer


TASKS = {
    "lenet5": Task(64, 10, 60_000, True, Adam(lr=2e-3)),
    "resnet18": Task(32, 3, 10_000, False, SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, groups=Group(max_rank=1, weight_decay=0.0))),
}


@dataclass(frozen=True)
class Row:
    """One epoch of one engine; `accuracy`: of the test images, None where it was not tested; `seconds`: of training."""

    model: str
    engine: str
    epoch: int
    loss: float
    accuracy: float | None
    seconds: float


class Graphc:
    def __init__(self, name: str, task: Task, schedule: Any, threads: int) -> None:
        self.trainer = graphc.Trainer(NETS[name].model, optimizer=task.optimizer, schedule=schedule, threads=threads, progress=False)

    def epoch(self, batches: ArrayBatches, number: int) -> float:
        return self.trainer.fit(batches, number + 1)["loss"][-1]

    def test(self, test: Pair) -> float:
        return self.trainer.evaluate(test, TEST_BATCH)["accuracy"]


class Torch:
    def __init__(self, name: str, task: Task, schedule: Any, threads: int, parameters: Mapping[str, Array]) -> None:
        torch.set_num_threads(threads)
        self.net, self.schedule, self.base, self.steps = NETS[name].torch(parameters), schedule, task.optimizer.lr, 0
        self.optimizer = _twin(task.optimizer, self.net)

    def epoch(self, batches: ArrayBatches, number: int) -> float:
        self.net.train()
        total = 0.0
        batches.set_position(number, 0)
        for x, y in batches:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.rate(self.base, self.steps)
            self.optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(self.net(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()
            self.optimizer.step()
            self.steps += 1
            total += loss.item()
        return total / len(batches)

    def test(self, test: Pair) -> float:
        self.net.eval()
        with torch.inference_mode():
            parts = [self.net(torch.from_numpy(test[0][i : i + TEST_BATCH])) for i in range(0, len(test[0]), TEST_BATCH)]
        return float((torch.cat(parts).argmax(1).numpy() == test[1]).mean())


def _twin(optimizer: Optimizer, net: Any) -> Any:
    """PyTorch's optimizer with the same options; without weight decay for parameters of one axis."""
    tensors = list(net.parameters())
    if isinstance(optimizer, Adam):
        return torch.optim.Adam(tensors, optimizer.lr)
    assert isinstance(optimizer, SGD)
    groups = [{"params": [t for t in tensors if t.ndim > 1]}, {"params": [t for t in tensors if t.ndim == 1], "weight_decay": 0.0}]
    return torch.optim.SGD(groups, optimizer.lr, optimizer.momentum, weight_decay=optimizer.weight_decay)


def images(folder: Path, part: str, shape: tuple[int, ...], count: int | None = None) -> Pair:
    """Normalised pictures (N, *shape), padded and with the grey channel repeated where the network wants that, and their labels."""
    source = graphc.data.idx(folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz")
    pad = (shape[1] - source.x.shape[2]) // 2
    x = (np.pad(source.x[:count], ((0, 0), (0, 0), (pad, pad), (pad, pad))).astype(np.float32) / 255 - MEAN) / STD
    return np.repeat(x.astype(np.float32), shape[0], axis=1), source.y[:count].astype(np.int64)


def measure(name: str, folder: Path, given: argparse.Namespace, show: Callable[[Row], None]) -> list[Row]:
    """All epochs of both engines, in turns."""
    task, net = TASKS[name], NETS[name]
    epochs = given.epochs or task.epochs
    train, test = images(folder, "train", net.image, given.images or task.images), images(folder, "t10k", net.image)
    batches = ArrayBatches(*train, task.batch, drop_last=True)
    schedule = graphc.schedules.Cosine(epochs * len(batches), per="step")
    mine = Graphc(name, task, schedule, given.threads)
    first = {key: array.copy() for key, array in mine.trainer.step.parameters.items()}
    engines: dict[str, Any] = dict(zip(ENGINES, (mine, Torch(name, task, schedule, given.threads, first)), strict=True))
    assert len(ordered(engines["PyTorch"].net)) == len(first)
    rows = []
    for number in range(epochs):
        for engine, trained in engines.items():
            start = time.perf_counter()
            loss = trained.epoch(batches, number)
            seconds = time.perf_counter() - start
            accuracy = trained.test(test) if task.tested or number + 1 == epochs else None
            rows.append(Row(name, engine, number + 1, loss, accuracy, seconds))
            show(rows[-1])
            time.sleep(0.2)  # threads that spin after their work come to rest
    return rows


def table(rows: list[Row]) -> list[str]:
    """One line per epoch, then the sum."""
    head = ("network", "epoch", "loss, graphc", "PyTorch", "accuracy, graphc", "PyTorch", "seconds, graphc", "PyTorch", "ratio")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(row.model for row in rows):
        mine, other = ([row for row in rows if row.model == name and row.engine == engine] for engine in ENGINES)
        for a, b in zip(mine, other, strict=True):
            accuracies = " | ".join("" if row.accuracy is None else f"{row.accuracy:.2%}" for row in (a, b))
            times = f"{a.seconds:.1f} | {b.seconds:.1f} | {b.seconds / a.seconds:.2f}"
            lines.append(f"| {name} | {a.epoch} | {a.loss:.4f} | {b.loss:.4f} | {accuracies} | {times} |")
        totals = [sum(row.seconds for row in part) for part in (mine, other)]
        lines.append(f"| {name} | all | | | | | {totals[0]:.1f} | {totals[1]:.1f} | **{totals[1] / totals[0]:.2f}** |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--epochs", type=int, help="instead of 10 (LeNet-5) and 3 (ResNet-18)")
    parser.add_argument("--images", type=int, help="of the training set, instead of 60,000 and 10,000")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for name in given.models.split(","):
        rows += measure(name, given.folder, given, lambda row: print(row, file=sys.stderr, flush=True))
    print(f"{given.threads} threads; torch {torch.__version__}\n")
    print("\n".join(table(rows)))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
