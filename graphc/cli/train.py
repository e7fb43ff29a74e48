"""graphc train: train or fine-tune a model and write it back as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show
from graphc.cli.recipes import AUGMENTATIONS, OPTIMIZERS, SCHEDULES
from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.cli.datasets import Data
    from graphc.cli.training import Report
    from graphc.ir.graph import Graph
    from graphc.train.trainer import Trainer

_PATH = click.Path(path_type=Path)
_LABELS = ".labels.txt"


@click.command(name="train", short_help="Train or fine-tune a model; write it back as ONNX.")
@options.model_argument
@click.option("--data", required=True, metavar="DATA", help="FOLDER with a folder of pictures per class, or another form (see above).")
@click.option("--validation", metavar="DATA", help="As --data, or the part of --data to hold out, e.g. 0.2.")
@click.option("--epochs", type=click.IntRange(0), metavar="N", default=10, show_default=True, help="Epochs in all, those resumed included.")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Examples in a batch [default: 32, or the model's own above 1].")
@click.option("-o", "--output", type=_PATH, metavar="FILE.onnx", help="Write the trained model, and its class names as FILE.labels.txt.")
@click.option("--classes", type=click.IntRange(2), metavar="N", help="Outputs of the model; where it has others, a new head is made.")
@click.option("--new-head", is_flag=True, help="A freshly initialised head in any case.")
@click.option("--head-at", metavar="NAME", help="Cut the model at this node or value; a new linear layer is the head.")
@click.option("--freeze", multiple=True, metavar="PATTERN", help="Parameters that stay as they are, e.g. 'conv*'; may be repeated.")
@click.option("--freeze-backbone", is_flag=True, help="Train the head only.")
@click.option("--loss", default="cross_entropy", show_default=True, metavar="NAME", help="Or nll, mse, l1, huber, bce, ...")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="adam", show_default=True)
@click.option("--lr", type=click.FloatRange(0, min_open=True), metavar="X", help="Learning rate [default: that of graphc.optim].")
@click.option("--momentum", type=click.FloatRange(0), metavar="X", help="Of sgd and rmsprop.")
@click.option("--weight-decay", type=click.FloatRange(0), metavar="X", help="Decoupled in adamw, else added to the gradient.")
@click.option("--schedule", metavar="NAME", help=f"{SCHEDULES}.")
@click.option("--clip-norm", type=click.FloatRange(0, min_open=True), metavar="X", help="Largest norm of all gradients together.")
@click.option("--augment", metavar="LIST", help=f"Of the training pictures: {AUGMENTATIONS}.")
@click.option("--metrics", metavar="LIST", help="accuracy, top5, f1, balanced_accuracy, mae, ... [default: accuracy of classes].")
@options.picture_options
@click.option("--checkpoint-dir", type=_PATH, metavar="DIR", help="Keep last.safetensors and best.safetensors here.")
@click.option("--best", is_flag=True, help="Write the best epoch's model, by the validation's loss, instead of the last's.")
@click.option("--resume", is_flag=True, help="Go on from DIR/last.safetensors, bit for bit, if there is one.")
@click.option("--history", type=_PATH, metavar="FILE", help="Write a row per epoch: .json or .csv.")
@click.option("--curves", type=_PATH, metavar="FILE", help="Draw the learning curves: .png, .svg or .pdf.")
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Of head, order, dropout, ...")
@options.sizes_options
@options.threads_option
@options.target_option
@options.json_option
def command(model: str, **given: Any) -> None:
    """Train MODEL on DATA: all of it, or a new head on what it has learnt (transfer learning).

    DATA is a folder with a folder of pictures for each class, idx:IMAGES,LABELS (the files of MNIST), cifar10:FOLDER (its binary version),
    or an .npz file with the arrays x and y.

    Where the folders are another number of classes than the model has, its last layer is replaced by a new one. Pictures are prepared as by
    `graphc run`, with the same options. The file that is written is for inference, with the names of nodes and parameters that came in;
    `graphc run` reads labels and preprocessing from it.

    Ctrl-C ends after the step: the checkpoint is written, and the same command with --resume goes on from there.

    \b
    Examples:
      for d in 0 1 2; do mkdir -p digits/$d; cp examples/digits/$d.png digits/$d; done
      graphc train examples/digits/lenet5.onnx --data digits --freeze-backbone -o tuned.onnx
      graphc run tuned.onnx examples/digits/2.png
    \b
      graphc train net.onnx --data photos --validation 0.2 --augment flip,crop:4 -o tuned.onnx
      graphc train net.onnx --data photos --schedule warmup:100+cosine --checkpoint-dir runs/1
      graphc train examples/lenet5.py --data idx:train-images.gz,train-labels.gz -o lenet5.onnx
    """
    from graphc.cli import training

    _check(given)
    graph, head, data, validation = training.prepare(model, given)
    trainer, report = training.trainer(graph, head, data, validation, given)
    try:
        training.fit(trainer, data, validation, given, report)
    except KeyboardInterrupt as stop:
        _say_interrupted(trainer, given)
        raise click.exceptions.Exit(1) from stop
    if given["best"]:
        training.go_to_best(trainer, given["checkpoint_dir"], report)
    _write(trainer, graph, data, given, report)
    _show_json(report) if given["as_json"] else _show(report)


def _check(given: dict[str, Any]) -> None:
    """What can be said without reading the model or the data."""
    from graphc.cli import outputs
    from graphc.train.callbacks import BEST, LAST
    from graphc.train.losses import find_loss

    if given["output"] is None and given["checkpoint_dir"] is None:
        raise InputError("nothing would be kept", hint="-o FILE.onnx, or --checkpoint-dir DIR")
    if given["best"] and (given["checkpoint_dir"] is None or given["validation"] is None):
        raise InputError("--best needs --checkpoint-dir and --validation", hint="both: best.safetensors is what it writes")
    if given["resume"] and given["checkpoint_dir"] is None:
        raise InputError("--resume without --checkpoint-dir", hint="the folder that holds last.safetensors")
    kept = [] if given["checkpoint_dir"] is None else [given["checkpoint_dir"] / name for name in (LAST, BEST)]
    for path in kept:
        if path.exists() and not given["resume"]:
            hint = "--resume to go on from it, or another --checkpoint-dir"
            raise InputError("there is a checkpoint already", where=str(path), hint=hint)
    if given["new_head"] and given["head_at"]:
        raise InputError("--new-head and --head-at exclude each other", hint="--head-at makes a new head")
    find_loss(given["loss"])
    outputs.check({
        "--output": (given["output"], (".onnx",)), "--history": (given["history"], (".json", ".csv")),
        "--curves": (given["curves"], (".png", ".svg", ".pdf")),
    })  # fmt: skip
    if given["curves"] is not None:
        from graphc.train.curves import library

        library()


def _say_interrupted(trainer: Trainer, given: dict[str, Any]) -> None:
    from graphc.train.callbacks import LAST

    place = f"interrupted in epoch {trainer.epoch + 1} after {trainer.batch} batches"
    last = given["checkpoint_dir"] / LAST if given["checkpoint_dir"] is not None else None
    if last is not None and last.exists():
        show.note(f"{place}; the same command with --resume goes on from {last}")
    else:
        show.note(f"{place}; nothing was kept" + (" (--checkpoint-dir DIR would)" if last is None else ""))


def _write(trainer: Trainer, graph: Graph, data: Data, given: dict[str, Any], report: Report) -> None:
    from graphc.cli.training import finished, labels
    from graphc.files import write_atomic
    from graphc.train.callbacks import BEST, LAST
    from graphc_onnx import save_onnx

    output = given["output"]
    if output is not None:
        save_onnx(finished(trainer, graph, data, report), output)
        report.files.append(str(output))
        names = labels(graph, data)
        if names:
            path = output.with_suffix(_LABELS)
            write_atomic(path, lambda file: file.write("".join(f"{name}\n" for name in names).encode()))
            report.files.append(str(path))
    for name in ("history", "curves"):
        if given[name] is not None:
            report.files.append(str(given[name]))
    if given["checkpoint_dir"] is not None:
        report.files += [str(path) for name in (LAST, BEST) if (path := given["checkpoint_dir"] / name).exists()]


def _show(report: Report) -> None:
    from graphc.inspect.units import seconds

    show.line()
    columns = (report.before, report.final)
    rows = [(name, *(f"{column[name]:.4g}" if name in column else "" for column in columns)) for name in report.final]
    show.table([f"on {report.measured}", ">before", ">after"], rows)
    show.line()
    if report.best is not None:
        show.line(f"the model of epoch {report.best} of {len(report.history)}")
    show.line(f"{report.trained} of {report.parameters} parameters trained, {report.examples} examples, {report.steps} steps")
    if report.epoch_seconds is not None and report.speed is not None:
        show.line(f"{seconds(report.epoch_seconds)} per epoch, {report.speed:,.0f} examples/s")
    for path in report.files:
        show.line(f"wrote {path}")


def _show_json(report: Report) -> None:
    from graphc.cli.text import json_text

    click.echo(json_text(vars(report)))


