"""What `graphc train` does between its options and its report: model, head, data, trainer, the model that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from graphc.cli import datasets, models, options, recipes, show
from graphc.errors import InputError, UnsupportedError
from graphc.train.callbacks import BEST, LAST, Callback, Curves, HistoryFile
from graphc.train.checkpoint import Snapshot
from graphc.train.head import backbone, find_head, replace_head
from graphc.train.retype import BATCH, fixed_batch, open_batch
from graphc.train.trainer import BATCH as DEFAULT_BATCH
from graphc.train.trainer import Trainer

if TYPE_CHECKING:
    from graphc.cli.datasets import Data
    from graphc.cli.pictures import Preprocessing
    from graphc.ir.graph import Graph
    from graphc.train.data import Loader


@dataclass
class Report:
    """`before`, `final`: loss and metrics on `measured` (the validation, else the training while it went on). `speed`: examples/s."""

    model: str
    classes: tuple[str, ...]
    new_head: str  # what was replaced by what; "" where the head was kept
    batch: int
    opened: int | None  # the batch of the model, which the training has made symbolic
    measured: str
    trained: int
    parameters: int
    examples: int
    before: dict[str, float] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    epoch_seconds: float | None = None
    speed: float | None = None
    best: int | None = None  # the epoch whose model was taken, from 1; None: the last
    files: list[str] = field(default_factory=list)


class Clock(Callback):
    """Seconds of the training of each epoch, without validation and checkpoints, and the examples in it; of epochs with steps: one that was
    interrupted behind its last step has none when it is resumed."""

    def __init__(self) -> None:
        self.epochs: list[tuple[float, int]] = []
        self._started, self._first = 0.0, 0
        self._now = (0.0, 0)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._started, self._first, self._now = perf_counter(), trainer.examples, (0.0, 0)

    def on_step_end(self, trainer: Trainer, logs: Any) -> None:
        self._now = perf_counter() - self._started, trainer.examples - self._first

    def on_epoch_end(self, trainer: Trainer, logs: Any) -> None:
        if self._now[1]:
            self.epochs.append(self._now)


def prepare(model: str, given: dict[str, Any]) -> tuple[Graph, str, Data, Data | None]:
    """The graph with its head, what was done to that, and the data. Raises GraphcError for everything that cannot be trained so."""
    graph = models.load(model, given["sizes"])
    if len(graph.inputs) != 1:
        names = ", ".join(value.name for value in graph.inputs)
        raise UnsupportedError(f"the model has {len(graph.inputs)} inputs ({names})", hint="graphc.Trainer in Python takes several")
    wanted = options.pictures_of(given)
    metadata = {} if given["no_metadata"] else graph.metadata
    data = datasets.load(given["data"], graph.inputs[0], wanted, metadata)
    validation = _validation(graph, data, given)
    _check_labels(data, given)
    made, text = _with_head(graph, data, given)
    if text:
        show.note(text)
    return made, text, *((data, None) if validation is None else validation)


def _validation(graph: Graph, data: Data, given: dict[str, Any]) -> tuple[Data, Data] | None:
    """Training and validation."""
    spec = given["validation"]
    if spec is None:
        return None
    part = _number(spec)
    if part is None:
        metadata = {} if given["no_metadata"] else graph.metadata
        held_out = datasets.load(spec, graph.inputs[0], options.pictures_of(given), metadata, train=False)
        datasets.check_same_classes(data, held_out)
        return data, held_out
    if not 0 < part < 1:
        raise InputError(f"--validation {spec}", hint="a part between 0 and 1, or data of its own")
    return datasets.split(data, part, given["seed"])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_labels(data: Data, given: dict[str, Any]) -> None:
    from graphc.train.losses import find_loss

    wants = find_loss(given["loss"]).labels
    if wants and not data.counted:
        reason = f"--loss {given['loss']} needs class numbers, the labels are {data.labels.dtype}{list(data.labels.shape)}"
        raise InputError(reason, hint="integers (N,), or --loss mse")
    if not wants and data.counted:
        raise InputError(f"--loss {given['loss']} compares numbers, the labels are class numbers", hint="--loss cross_entropy")


def _with_head(graph: Graph, data: Data, given: dict[str, Any]) -> tuple[Graph, str]:
    """A new head where one was asked for, or where the classes need one; and what was done."""
    asked = given["new_head"] or given["head_at"]
    if not data.counted:
        if given["classes"] or asked:
            raise InputError("a new head is for class numbers", hint="leave --classes, --new-head and --head-at out")
        return graph, ""
    count = given["classes"] or data.class_count
    if count < data.class_count:
        raise InputError(f"--classes {count}, the data has {data.class_count}", hint=f"--classes {data.class_count}")
    own, named = _outputs(graph), bool(given["classes"] or data.classes)
    if not asked and (own == count or (not named and own is not None and own > count)):
        return graph, ""
    made = replace_head(graph, count, at=given["head_at"], seed=given["seed"])
    return made, f"new head for {count} classes: {', '.join(find_head(made).parameters)}" + (f" (there were {own})" if own else "")


def _outputs(graph: Graph) -> int | None:
    """How many classes the first output has."""
    shape = graph.outputs[0].type.shape if graph.outputs else ()
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None


def trainer(graph: Graph, head: str, data: Data, validation: Data | None, given: dict[str, Any]) -> tuple[Trainer, Report]:
    """The trainer, with an open batch, and the first part of the report."""
    freeze = [*given["freeze"], *(backbone(graph) if given["freeze_backbone"] else ())]
    fixed = fixed_batch(graph)
    batch = given["batch"] or (fixed if fixed is not None and fixed > 1 else DEFAULT_BATCH)
    opened = fixed is not None and (batch != fixed or any(len(part) % fixed for part in (data, validation) if part is not None))
    trained = open_batch(graph, _free_name(graph)) if opened else graph
    optimizer = recipes.optimizer(given["optimizer"], given["lr"], given["momentum"], given["weight_decay"])
    steps = -(-len(data) // batch) * given["epochs"]
    schedule = recipes.schedule(given["schedule"], optimizer.lr, steps, given["epochs"]) if given["schedule"] else None
    files: list[Callback] = [HistoryFile(given["history"])] if given["history"] else []
    files += [Curves(given["curves"], graph.name)] if given["curves"] else []
    metrics = recipes.metrics(given["metrics"], _outputs(graph) or 1) if given["metrics"] else None
    made = Trainer(
        trained, given["loss"], optimizer, schedule=schedule, metrics=metrics,
        callbacks=[*files, Clock()], checkpoint_dir=given["checkpoint_dir"], seed=given["seed"], threads=given["threads"],
        progress=not given["as_json"], freeze=freeze, clip_norm=given["clip_norm"], target=given["target"],
    )  # fmt: skip
    return made, _report(trained, head, data, validation, batch, fixed if opened else None, freeze)


def _free_name(graph: Graph) -> str:
    name = BATCH
    while name in graph.symbols:
        name += "_"
    return name


def _report(
    graph: Graph, head: str, data: Data, validation: Data | None, batch: int, opened: int | None, freeze: Sequence[str]
) -> Report:  # fmt: skip
    from graphc.autodiff.training import trainable

    numbers = [int(value.type.size) for value in graph.parameters.values()]
    trained = sum(int(value.type.size) for value in trainable(graph, freeze))
    if not trained:
        raise InputError("nothing is left to train: every parameter is frozen", hint="fewer --freeze patterns")
    measured = "validation" if validation is not None else "training"
    return Report(graph.name, data.classes, head, batch, opened, measured, trained, sum(numbers), len(data))


def fit(trainer: Trainer, data: Data, validation: Data | None, given: dict[str, Any], report: Report) -> None:
    """Train, and fill the report."""
    size = _size(trainer.step._model)
    augment = recipes.augmentations(given["augment"], size) if given["augment"] else []
    batches = _loader(data, given, report.batch, augment)
    held_out = None if validation is None else _loader(validation, given, report.batch, None)
    resumed = given["resume"] and (given["checkpoint_dir"] / LAST).exists()
    if held_out is not None and not resumed:
        with show.working("compiling"):
            report.before = trainer.evaluate(held_out)
    trainer.fit(batches, given["epochs"], validation=held_out, resume=given["resume"])
    report.history, report.steps = trainer.history.rows, trainer.steps
    last = report.history[-1] if report.history else {}
    if held_out is not None:
        report.final = _validated(last) or report.before
    else:
        report.final = {name: value for name, value in last.items() if name not in ("epoch", "lr", "seconds")}
    clock = next(callback for callback in trainer.callbacks if isinstance(callback, Clock))
    if clock.epochs:
        seconds, examples = clock.epochs[-1]
        report.epoch_seconds, report.speed = median(row["seconds"] for row in report.history[-len(clock.epochs) :]), examples / seconds


def go_to_best(trainer: Trainer, folder: Path, report: Report) -> None:
    """Parameters and statistics of the best epoch, and its row in the report; nothing where no epoch was better than nan."""
    if not (folder / BEST).exists():
        return
    found = Snapshot.load(folder / BEST)
    moved = trainer.step.state.keys() & trainer.step.parameters.keys()
    trainer.step.state = {name: found.arrays[name] for name in moved}
    report.best = found.meta["epoch"]
    report.final = _validated(next(row for row in report.history if row["epoch"] == report.best))


def _validated(row: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}


def _size(graph: Graph) -> tuple[int, int] | None:
    """(height, width) of the input, where it has them and they are known."""
    shape = graph.inputs[0].type.shape
    height, width = shape[-2:] if len(shape) == 4 else (None, None)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _loader(data: Data, given: dict[str, Any], batch: int, augment: Sequence[Any] | None) -> Loader:
    """Batches for the training, in a new order each epoch (augment: a list), or for the validation (None)."""
    from graphc.train.data import Loader

    normalise = datasets.normalisation(data, options.pictures_of(given))
    return Loader(data.source, batch, shuffle=augment is not None, seed=given["seed"], augment=augment, normalise=normalise)


def finished(trainer: Trainer, graph: Graph, data: Data, report: Report) -> Graph:
    """The trained model with the batch that came in, its metadata what `graphc run` needs to know."""
    made = trainer.graph()
    if report.opened is not None:
        made = made.bind(dict.fromkeys(made.symbols - graph.symbols, report.opened))
    if data.classes:
        made.metadata.pop("labels", None)
    made.metadata.pop("accuracy", None)  # of the model that came in
    if labels(graph, data):
        made.metadata["labels"] = json.dumps(list(data.classes))
    if data.preprocessing is not None:
        made.metadata["preprocessing"] = json.dumps(_preprocessing(data.preprocessing))
    return made


def labels(graph: Graph, data: Data) -> tuple[str, ...]:
    """The names of the classes, where each output has one."""
    return data.classes if len(data.classes) == _outputs(graph) else ()


def _preprocessing(found: Preprocessing) -> dict[str, Any]:
    """As `graphc.cli.pictures.from_metadata` reads it; an offset is part of the mean."""
    given = found.options
    size = found.cover or given.crop
    entry: dict[str, Any] = {
        "color": "gray" if found.channels == 1 else "bgr" if given.bgr else "rgb", "layout": found.axes.lower(), "scale": given.scale,
        "mean": [number - (given.offset or 0.0) for number in given.mean or ()], "std": list(given.std or ()),
    }  # fmt: skip
    if size is not None:
        entry["size"] = [size[1], size[0]]
    if given.resize is not None:
        entry["resize"] = given.resize if isinstance(given.resize, int) else [given.resize[1], given.resize[0]]
    return entry
