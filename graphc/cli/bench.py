"""graphc bench: time a model, also against other engines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show, values
from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.cli.models import Sizes
    from graphc.cli.peers import Engine
    from graphc.executable import Executable
    from graphc.inspect.contest import Latency, Times
    from graphc.ir.graph import Array, Graph

OTHERS = ("machine", "kernels")
VERSUS = ("onnxruntime", "openvino", "torch")
_TOLERANCE = 1e-3  # of the largest value of an output
_ABSOLUTE = 1e-6
_SCALES = (1.0, 0.1, 0.01)  # of the inputs that results are compared on: large ones may saturate a softmax, which hides errors


@dataclass(frozen=True)
class Result:
    """`errors`: engine -> largest difference of graphc's outputs to its, relative to the largest value; on inputs not seen before."""

    model: str
    threads: int
    flops: int
    times: Mapping[str, Times]
    versions: Mapping[str, str]
    errors: Mapping[str, float]
    ok: bool
    latencies: Mapping[str, Latency]


class Bench(click.Command):
    """Times MODEL, unless the first word is the name of something else to time."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        if args and args[0] in OTHERS:
            other: click.Command = import_module(f"graphc.cli.bench_{args[0]}").command
            return other.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=Bench, name="bench", short_help="Time a model, also against other engines; kernels; the machine.")
@options.model_argument
@click.option("--vs", type=values.names(*VERSUS), default=(), metavar="NAME,...", help="Also time onnxruntime, openvino, torch.")
@click.option("--runs", type=click.IntRange(1), metavar="N", default=15, show_default=True, help="Rounds, in rotating order.")
@click.option("--calls", type=click.IntRange(1), metavar="N", default=5, show_default=True, help="Timed calls in a round.")
@click.option(
    "--distribution", type=click.IntRange(1), metavar="N", help="Also N single calls: median, percentiles; CPU use at rest."
)
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Size of the symbolic first dimension of the inputs.")
@click.option("--profile", is_flag=True, help="Also the time of every kernel.")
@options.seed_option
@options.sizes_options
@options.threads_option
@options.target_option
@options.accuracy_option
@options.tune_option
@options.json_option
def command(
    model: str, vs: tuple[str, ...], runs: int, calls: int, distribution: int | None, batch: int | None, profile: bool, **given: Any
) -> None:  # fmt: skip
    """Time MODEL on random inputs, all engines in one process, in turns, with the same number of threads.

    After the timing, graphc's outputs for inputs that were not seen before, large and small, are compared with those of the other engines
    (without any: with the numpy reference). Exit code 1 where they differ by more than 0.1 % of an output's largest value.

    time ratio: how many times as long as graphc, the median over the rounds. Two benches on one machine wait for each other.

    \b
    Examples:
      graphc bench examples/digits/lenet5.onnx --vs onnxruntime --batch 16
      graphc bench kernels examples/digits/lenet5.onnx
      graphc bench machine
    """
    from graphc.cli import models, peers
    from graphc.cli.text import json_text

    peers.require(vs)
    if set(vs) & set(peers.ONNX_ENGINES) and models.is_script(model):
        raise InputError(f"{model} is no ONNX file, and {' and '.join(vs)} run only those", hint="leave --vs out, or --vs torch")
    graph = models.static(_load(model, given["sizes"], batch)).flat()
    with alone():
        result, executable = _bench(model, graph, vs, (runs, calls, distribution or 0), given)
        from graphc.inspect.samples import random_inputs

        steps = executable.profile(*random_inputs(graph, given["seed"]).values()) if profile else []
    if given["as_json"]:
        click.echo(json_text(_data(result) | ({"steps": [vars(step) for step in steps]} if profile else {})))
    else:
        _show(result)
        if profile:
            from graphc.cli.profile import show_steps

            show.line()
            show_steps(steps)
    if not result.ok:
        raise click.exceptions.Exit(1)


def _load(model: str, sizes: Sizes, batch: int | None) -> Graph:
    """With `batch` for the symbolic dims that come first in the shapes of inputs."""
    from graphc.cli import models
    from graphc.types.shape import Dim

    graph = models.load(model, sizes)
    if batch is None:
        return graph
    first = {str(value.type.shape[0]) for value in graph.inputs if value.type.rank and isinstance(value.type.shape[0], Dim)}
    if not first & graph.symbols:
        shown = ", ".join(f"{value.name}: {value.type}" for value in graph.inputs)
        raise InputError(f"--batch: no input has a symbolic first dimension ({shown})", hint="leave --batch out")
    return graph.bind(dict.fromkeys(first & graph.symbols, batch))


def _bench(
    model: str, graph: Graph, vs: Sequence[str], counts: tuple[int, int, int], given: dict[str, Any]
) -> tuple[Result, Executable]:  # fmt: skip
    from graphc.cli.peers import Graphc
    from graphc.driver import compile
    from graphc.inspect.contest import contest, latency
    from graphc.inspect.samples import random_inputs
    from graphc.inspect.summary import summarize
    from graphc_cpu import host

    threads = given["threads"] or host.usable_cpus()
    feeds = random_inputs(graph, given["seed"])
    with show.working("compiling"):
        executable = compile(graph, target=given["target"], threads=threads, accuracy=given["accuracy"], tune=given["tune"])
        engines: dict[str, Engine] = {"graphc": Graphc(executable), **_peers(model, graph, feeds, vs, threads)}
    contestants = {name: engine.prepare(feeds) for name, engine in engines.items()}
    runs, calls, singles = counts
    times = contest(contestants, show.progress(range(runs), "timing", runs), calls)
    latencies = {name: latency(contestants[name], singles) for name in show.progress(contestants, "single calls")} if singles else {}
    errors, ok = _validate(graph, engines, given["seed"] + 1)
    versions = {name: engine.version for name, engine in engines.items()}
    return Result(graph.name, threads, summarize(graph).flops, times, versions, errors, ok, latencies), executable


def _peers(model: str, graph: Graph, feeds: Mapping[str, Array], vs: Sequence[str], threads: int) -> dict[str, Engine]:
    from graphc.cli.peers import ONNX_ENGINES, Torch

    return {name: Torch(graph, threads) if name == "torch" else ONNX_ENGINES[name](model, feeds, threads) for name in vs}


def _validate(graph: Graph, engines: Mapping[str, Engine], seed: int) -> tuple[dict[str, float], bool]:
    """Largest relative error against every other engine, or the reference where there is none; whether all are small."""
    from graphc.inspect.compare import difference
    from graphc.inspect.samples import random_inputs
    from graphc_reference import ReferenceExecutable

    others = {name: engine.outputs for name, engine in engines.items() if name != "graphc"}
    if not others:
        others["reference"] = ReferenceExecutable(graph).run
    errors = dict.fromkeys(others, 0.0)
    ok = True
    for number, scale in enumerate(_SCALES):
        feeds = _scaled(random_inputs(graph, seed + number), scale)
        got = engines["graphc"].outputs(feeds)
        for name, outputs in others.items():
            with show.working(f"comparing with {name}"):
                wanted = outputs(feeds)
            differences = [difference(array, wanted[output]) for output, array in got.items()]
            errors[name] = max(errors[name], *(off.relative for off in differences))
            ok &= all(off.relative <= _TOLERANCE or off.absolute <= _ABSOLUTE for off in differences)
    return errors, ok


def _scaled(feeds: Mapping[str, Array], scale: float) -> dict[str, Array]:
    """The floating point inputs times a factor."""
    return {name: (array * scale).astype(array.dtype) if array.dtype.kind == "f" else array for name, array in feeds.items()}


@contextmanager
def alone() -> Iterator[None]:
    """Hold a lock file in the cache's folder, so that two benches do not time each other."""
    import fcntl

    from graphc_cpu import cache

    found = cache.default()
    if found is None:
        yield
        return
    path = found.directory / "bench.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            show.note("waiting for another bench to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _show(result: Result) -> None:
    from graphc.inspect.units import count, plural, seconds, three

    mine = result.times["graphc"]
    work = f", {count(result.flops, 'FLOP')}" if result.flops else ""
    show.line(f"{result.model}: {plural(result.threads, 'thread')}{work}", "bold")
    rows = []
    for name, times in result.times.items():
        speed = three(result.flops / times.best / 1e9) if result.flops else "-"
        error = f"{result.errors[name]:.1e}" if name in result.errors else ""
        ratio = f"{mine.ratio(times):.2f} x" if name != "graphc" else ""
        rows.append((f"{name} {result.versions[name]}", seconds(times.best), seconds(times.median), speed, ratio, error))
    show.table(["engine", ">best", ">median", ">GFLOP/s", ">time ratio", ">difference"], rows)
    if result.latencies:
        _show_latencies(result)
    if "reference" in result.errors:
        show.line(f"difference to the reference: {result.errors['reference']:.1e}")
    if not result.ok:
        show.line("FAILED: graphc's outputs differ from the others'", "red")


def _show_latencies(result: Result) -> None:
    from graphc.inspect.units import plural, seconds

    show.line()
    runs = next(iter(result.latencies.values())).runs
    rows = [
        (name, *(seconds(time) for time in (found.median, found.p90, found.p99, found.max)), f"{found.idle:.1%}")
        for name, found in result.latencies.items()
    ]
    show.table([plural(runs, "call"), ">median", ">90 %", ">99 %", ">longest", ">CPU at rest"], rows)


def _data(result: Result) -> dict[str, Any]:
    mine = result.times["graphc"]
    engines = [
        {
            "name": name, "version": result.versions[name], "best_seconds": times.best, "median_seconds": times.median,
            "gflops": result.flops / times.best / 1e9, "time_ratio": mine.ratio(times), "max_rel_difference": result.errors.get(name),
        }
        for name, times in result.times.items()
    ]  # fmt: skip
    return {
        "model": result.model, "threads": result.threads, "flops": result.flops, "engines": engines, "ok": result.ok,
        "latencies": {name: vars(found) for name, found in result.latencies.items()},
        "reference_max_rel_difference": result.errors.get("reference"),
    }  # fmt: skip
