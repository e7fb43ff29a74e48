"""graphc verify: hold the compiled program against other evaluations of the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show, values
from graphc.errors import BackendError, InputError

if TYPE_CHECKING:
    from graphc.cli.models import Sizes
    from graphc.inspect.compare import Verdict
    from graphc.ir.graph import Array, Graph

AGAINST = ("reference", "onnxruntime")
_ABSOLUTE = 1e-6  # ONNX Runtime's sigmoid is that far off near zero


@click.command(name="verify", short_help="Compare with the numpy reference and ONNX Runtime; exit code 1 if off.")
@options.model_argument
@click.argument("files", nargs=-1, metavar="[FILE]...")
@options.input_option
@click.option("--against", type=values.names(*AGAINST), metavar="NAME,...", help="reference, onnxruntime [default: all that apply].")
@click.option("--factor", type=click.FloatRange(min=0), metavar="X", default=8.0, show_default=True, help="k of the rule.")
@click.option(
    "--tolerance", type=click.FloatRange(min=0), metavar="X", default=1e-3, show_default=True,
    help="Largest difference to ONNX Runtime, relative to the largest value of the output; 1e-6 is always allowed.",
)  # fmt: skip
@options.seed_option
@options.sizes_options
@options.threads_option
@options.target_option
@options.accuracy_option
@options.json_option
def command(model: str, files: tuple[str, ...], named: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Run MODEL compiled and otherwise on the same inputs (FILEs: .npy or .npz; else random), and compare every output.

    reference: numpy, node by node. The rule: the error against a float64 evaluation is at most k times the error of the evaluation in the
    model's own precision. Integer outputs must be equal.
    onnxruntime: the same file in ONNX Runtime.

    \b
    Example:
      graphc verify examples/digits/lenet5.onnx --dims N=4
    """
    from graphc.cli.text import json_text

    against = given["against"] or _default(model)
    _check(model, against)
    graph, feeds = _inputs(model, files, named, given["sizes"], given["seed"])
    verdicts = _verify(model, graph, feeds, against, given)
    ok = all(verdict.ok for verdict in verdicts)
    if given["as_json"]:
        click.echo(json_text({"model": graph.name, "ok": ok, "comparisons": [_data(verdict) for verdict in verdicts]}))
    else:
        _show(verdicts)
    if not ok:
        raise click.exceptions.Exit(1)


def _default(model: str) -> tuple[str, ...]:
    from graphc.cli.models import is_script

    if is_script(model):
        return ("reference",)
    if find_spec("onnxruntime") is None:
        show.note("onnxruntime is not installed: compared with the reference only")
        return ("reference",)
    return AGAINST


def _check(model: str, against: Sequence[str]) -> None:
    from graphc.cli.models import is_script

    if "onnxruntime" in against:
        if is_script(model):
            raise InputError(f"{model} is no ONNX file, and ONNX Runtime runs only those", hint="--against reference")
        if find_spec("onnxruntime") is None:
            raise BackendError("onnxruntime is not installed", hint="pip install onnxruntime, or --against reference")


def _inputs(
    model: str, files: Sequence[str], named: Sequence[tuple[str, str]], sizes: Sizes, seed: int
) -> tuple[Graph, dict[str, Array]]:  # fmt: skip
    """The graph with static dims and an array for each of its tensors that is an input."""
    from pathlib import Path

    from graphc.cli import feeds, models
    from graphc.inspect.samples import random_inputs
    from graphc.inspect.sizes import sizes_of

    if not files and not named:
        graph = models.static(models.load(model, sizes))
        return graph, random_inputs(graph, seed)
    archives, others = feeds.split(files)
    graph, fixed = models.load_with(model, sizes, feeds.arrays_by_name(archives, feeds.named_files(named)))

    def picture(name: str, path: Path) -> Array:
        raise InputError("pictures are for `graphc run`", where=str(path), hint="a .npy or .npz file")

    types = {value.name: value.type for value in graph.inputs}
    calls = feeds.runs(types, fixed, others, picture, None)
    if len(calls) != 1:
        raise InputError(f"{len(calls)} files for one input", hint="one set of inputs at a time")
    return graph.bind(sizes_of(graph, calls[0].feeds)), calls[0].feeds


def _verify(model: str, graph: Graph, feeds: Mapping[str, Array], against: Sequence[str], given: dict[str, Any]) -> list[Verdict]:
    from graphc.driver import compile

    flat = graph.flat()
    with show.working("compiling"):
        executable = compile(flat, target=given["target"], threads=given["threads"], accuracy=given["accuracy"])
        got = executable.run(feeds)
    verdicts: list[Verdict] = []
    if "reference" in against:
        with show.working("evaluating the reference"):
            verdicts += _against_reference(flat, feeds, got, given["factor"])
    if "onnxruntime" in against:
        with show.working("running ONNX Runtime"):
            verdicts += _against_onnxruntime(model, graph, feeds, got, given["tolerance"])
    return verdicts


def _against_reference(graph: Graph, feeds: Mapping[str, Array], got: Mapping[str, Array], factor: float) -> list[Verdict]:
    from graphc.inspect.compare import compare, widen, widen_inputs
    from graphc_reference import ReferenceExecutable

    naive = ReferenceExecutable(graph).run(feeds)
    exact = ReferenceExecutable(widen(graph)).run(widen_inputs(feeds))
    return compare(got, exact, naive, factor=factor, against="reference")


def _against_onnxruntime(
    model: str, graph: Graph, feeds: Mapping[str, Array], got: Mapping[str, Array], tolerance: float
) -> list[Verdict]:  # fmt: skip
    import numpy as np

    from graphc.cli.peers import OnnxRuntime
    from graphc.inspect.compare import Verdict, difference
    from graphc.ir.parts import put_together, taken_apart

    given: Any = put_together(graph.takes, feeds)
    wanted = taken_apart(graph.gives, OnnxRuntime(model, given, threads=1).outputs(given))
    verdicts = []
    for name, array in got.items():
        want = wanted[name]
        finite = np.abs(want[np.isfinite(want)]) if want.dtype.kind == "f" else np.zeros(0)
        limit = tolerance * float(finite.max()) + _ABSOLUTE if finite.size else 0.0
        verdicts.append(Verdict(name, "onnxruntime", difference(array, want), limit))
    return verdicts


def _show(verdicts: Sequence[Verdict]) -> None:
    rows = []
    for verdict in verdicts:
        off = verdict.difference
        unequal = f"{off.unequal}/{off.elements}"
        numbers = (f"{off.absolute:.2e}", f"{off.relative:.2e}", f"{verdict.limit:.2e}")
        rows.append((verdict.output, verdict.against, unequal, *numbers, "ok" if verdict.ok else "FAILED"))
    show.table(["~output", "against", ">unequal", ">max abs", ">max rel", ">abs limit", ""], rows)


def _data(verdict: Verdict) -> dict[str, Any]:
    entry = {"output": verdict.output, "against": verdict.against, "ok": verdict.ok, "limit": verdict.limit}
    off = verdict.difference
    return {**entry, "max_abs": off.absolute, "max_rel": off.relative, "unequal": off.unequal, "elements": off.elements}
