"""graphc run: run a model on pictures or arrays and show what it says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show
from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.cli.feeds import Run
    from graphc.cli.pictures import Preprocessing
    from graphc.executable import Executable
    from graphc.ir.graph import Array, Graph


@click.command(name="run", short_help="Run a model on pictures or arrays.")
@options.model_argument
@click.argument("files", nargs=-1, metavar="[FILE]...")
@options.input_option
@click.option("--labels", type=click.Path(path_type=Path), help="File with one class name a line.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Classes to show for each sample [default: 5 for one sample, else 1].")
@options.picture_options
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Pictures in one call, where that is open [default: all].")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the outputs to this .npz (or .npy) file.")
@click.option("--repeat", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="Run N times; show best and median.")
@options.sizes_options
@options.threads_option
@options.target_option
@options.accuracy_option
@options.tune_option
@options.json_option
def command(model: str, files: tuple[str, ...], named: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Run MODEL on FILEs: pictures (PNG, JPEG, ...), .npy arrays, .npz archives with inputs by name.

    Pictures are fitted to the model's input by default: scaled so that they just cover it, cropped to the middle, pixels divided by 255.
    Models may carry other defaults in their metadata. Several pictures make one batch where the batch size is symbolic, else several
    runs. The value of a pixel is (pixel * scale - mean) / std.

    Outputs of several runs are written to --output joined along the first axis. The elements of a sequence are inputs and outputs of
    their own: seq[0], seq[1] and so on.

    \b
    Examples:
      graphc run examples/digits/lenet5.onnx examples/digits/*.png --labels examples/digits/labels.txt
      graphc run squeezenet.onnx cat.jpg --bgr --scale 1 --mean 103.94,116.78,123.68 --labels imagenet.txt
      graphc run speech.onnx --input audio=audio.npy --input state=state.npy --output out.npz
      graphc run join.onnx --input 'parts[0]=a.npy' --input 'parts[1]=b.npy' --shape hint=none
    """
    from graphc.cli import report

    _check_output(given["output"])
    graph, calls, preprocessing = _prepare(model, files, named, given)
    labels = _labels(graph, given)
    executable, compile_time = _compile(graph, calls, given)
    results, times = _run(executable, calls, given["repeat"])
    if given["output"] is not None:
        report.save(given["output"], results)
    times = {"compile": compile_time, **times}
    made = report.Report(graph, calls, results, preprocessing, labels, given["top"], times, explicit_labels=given["labels"] is not None)
    report.show_json(made) if given["as_json"] else report.show_text(made)
    if given["output"] is not None and not given["as_json"]:
        show.line(f"wrote {given['output']}")


def _check_output(path: Path | None) -> None:
    if path is not None and path.suffix not in (".npz", ".npy"):
        raise InputError(f"--output {path}: not a name for arrays", hint="a name that ends in .npz, or .npy for one output")
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {path.absolute().parent}", hint="make the folder first")


def _prepare(
    model: str, files: Sequence[str], named: Sequence[tuple[str, str]], given: dict[str, Any]
) -> tuple[Graph, list[Run], dict[str, Preprocessing]]:  # fmt: skip
    """The graph with its tensors as inputs and outputs, the calls to make, and how pictures were prepared for which input."""
    from graphc.cli import feeds, models, pictures

    by_name = feeds.named_files(named)
    archives, others = feeds.split(files)
    graph, fixed = models.load_with(model, given["sizes"], feeds.arrays_by_name(archives, by_name))
    graph = graph.flat()
    types = {value.name: value.type for value in graph.inputs}
    metadata = {} if given["no_metadata"] else graph.metadata
    settled: dict[str, Preprocessing] = {}

    def picture(name: str, path: Path) -> Array:
        if name not in settled:
            settled[name] = pictures.settle(name, types[name], options.pictures_of(given), metadata)
        return settled[name].load(path)

    for name, path in by_name.items():
        if feeds.is_picture(path):
            if name not in types:
                raise InputError(f"the model has no input {name!r}", hint=f"its inputs: {', '.join(types)}")
            fixed[name] = picture(name, path)
    return graph, feeds.runs(types, fixed, others, picture, given["batch"]), settled


def _labels(graph: Graph, given: dict[str, Any]) -> list[str]:
    from graphc.cli import classes

    if given["labels"] is not None:
        return classes.read_labels(given["labels"])
    return [] if given["no_metadata"] else classes.stored_labels(graph.metadata)


def _compile(graph: Graph, calls: Sequence[Run], given: dict[str, Any]) -> tuple[Executable, float]:
    """Compiled for the sizes of the first call; seconds."""
    from graphc.driver import compile
    from graphc.inspect.sizes import sizes_of

    start = time.perf_counter()
    with show.working("compiling"):
        options = {name: given[name] for name in ("target", "threads", "accuracy", "tune")}
        executable = compile(graph, **options)
        executable.compiled(sizes_of(graph, calls[0].feeds))
    return executable, time.perf_counter() - start


def _run(executable: Executable, calls: Sequence[Run], repeat: int) -> tuple[list[dict[str, Array]], dict[str, float]]:
    """The outputs of each call; seconds for all calls: best and median of `repeat`."""
    from statistics import median

    results: list[dict[str, Array]] = []
    times = []
    for _ in show.progress(range(repeat), "running", repeat) if repeat > 1 else range(repeat):
        start = time.perf_counter()
        results = [executable.run(call.feeds) for call in calls]
        times.append(time.perf_counter() - start)
    return results, {"run": min(times), "run_median": median(times)}
