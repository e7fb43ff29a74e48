"""What `graphc run` shows: classes with probabilities, or a line for each output; times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import ZipFile

import click

from graphc.cli import classes, show
from graphc.cli.text import json_text
from graphc.errors import InputError
from graphc.files import write_atomic
from graphc.inspect.units import plural, seconds, three

if TYPE_CHECKING:
    from graphc.cli.feeds import Run
    from graphc.cli.pictures import Preprocessing
    from graphc.ir.graph import Array, Graph

_FEW = 8  # values that are shown in full


@dataclass(frozen=True)
class Report:
    """`top`: how many classes the user asked for. Classes are shown where labels were given, where the user asked for them, or where the
    first output that may hold scores holds probabilities."""

    graph: Graph
    calls: Sequence[Run]
    results: Sequence[Mapping[str, Array]]
    preprocessing: Mapping[str, Preprocessing]
    labels: Sequence[str]
    top: int | None
    times: Mapping[str, float]
    explicit_labels: bool = False
    notes: list[str] = field(default_factory=list)

    @cached_property
    def scores_name(self) -> str | None:
        """The output that holds the classes' scores."""
        first, samples = self.results[0], len(self.calls[0].samples)
        names = [name for name, array in first.items() if classes.rows(array, samples) is not None]
        fitting = [name for name in names if self.labels and self._rows(0, name).shape[1] == len(self.labels)]
        if fitting:
            return fitting[0]
        if self.explicit_labels:
            found = f"output {names[0]!r} has {self._rows(0, names[0]).shape[1]} classes" if names else "no output holds scores of classes"
            raise InputError(f"{len(self.labels)} labels, but {found}", hint="a file with one label a line for each class")
        if names and (self.top is not None or classes.are_probabilities(self._rows(0, names[0]))):
            return names[0]
        return None

    @cached_property
    def ranked(self) -> list[classes.Ranked]:
        """The best classes of every sample; a note where the output had to be turned into probabilities."""
        if self.scores_name is None:
            return []
        samples = sum(len(call.samples) for call in self.calls)
        top = self.top or (5 if samples == 1 and self._rows(0, self.scores_name).shape[0] == 1 else 1)
        labels = self.labels if self._rows(0, self.scores_name).shape[1] == len(self.labels) else []
        made: list[classes.Ranked] = []
        for number, call in enumerate(self.calls):
            scores = self._rows(number, self.scores_name)
            if not classes.are_probabilities(scores):
                text = f"{self.scores_name} holds scores, not probabilities; the percentages are their softmax"
                self.notes.extend([] if text in self.notes else [text])
                scores = classes.softmax(scores)
            made += classes.rank(scores, labels, call.samples, top)
        return made

    def _rows(self, number: int, name: str) -> Array:
        found = classes.rows(self.results[number][name], len(self.calls[number].samples))
        if found is None:
            raise InputError(f"output {name!r} holds NaN or infinity for {self.calls[number].samples[0]}", hint="check the preprocessing")
        return found


def show_text(report: Report) -> None:
    """For people."""
    for name, preprocessing in report.preprocessing.items():
        show.line(f"{name}: {preprocessing.describe()}", "dim")
    if report.ranked:
        _show_classes(report.ranked)
    _show_outputs(report, [name for name in report.results[0] if name != report.scores_name])
    for text in report.notes:
        show.line(f"note: {text}", "dim")
    show.line(_time_text(report), "dim")


def _show_classes(ranked: Sequence[classes.Ranked]) -> None:
    several = any(len(sample.classes) > 1 for sample in ranked)
    rows: list[tuple[object, ...]] = []
    for sample in ranked:
        for place, (index, label, probability) in enumerate(sample.classes):
            name = sample.sample if place == 0 else ""
            rows.append((name, index, label, f"{probability:.1%}", show.bar(probability)))
        if several and sample is not ranked[-1]:
            rows.append(("", "", "", "", ""))
    labelled = any(label for sample in ranked for _, label, _ in sample.classes)
    columns = ["~input", ">class", "~label", ">", ""]
    if not labelled:
        columns.remove("~label")
        rows = [(*row[:2], *row[3:]) for row in rows]
    show.table(columns, rows)


def _show_outputs(report: Report, names: Sequence[str]) -> None:
    if not names:
        return
    many = len(report.calls) > 1
    rows = []
    for call, result in zip(report.calls, report.results, strict=True):
        for name in names:
            facts = _facts(result[name])
            sample = (", ".join(call.samples),) if many else ()
            rows.append((*sample, name, facts["type"], *(_number(facts[key]) for key in ("min", "mean", "max"))))
    show.table([*(["~input"] if many else []), "~output", "type", ">min", ">mean", ">max"], rows)
    if not many:
        for name in names:
            if 0 < report.results[0][name].size <= _FEW:
                show.line(f"{name} = {report.results[0][name].tolist()}")


def _number(value: float | None) -> str:
    return "-" if value is None else three(value)


def _facts(array: Array) -> dict[str, Any]:
    """Type and range; NaN shows in min, mean and max."""
    import numpy as np

    from graphc.types.dtype import dtype

    facts: dict[str, Any] = {"type": f"{dtype(array.dtype)}[{','.join(map(str, array.shape))}]", "min": None, "mean": None, "max": None}
    if array.size:
        with np.errstate(all="ignore"):
            wide = array.astype(np.float64)
            facts.update(min=float(wide.min()), mean=float(wide.mean()), max=float(wide.max()))
    return facts


def _time_text(report: Report) -> str:
    times, calls = report.times, len(report.calls)
    samples = sum(len(call.samples) for call in report.calls)
    what = plural(samples, "sample") + (f" in {plural(calls, 'call')}" if calls > 1 else "")
    text = f"compiled in {seconds(times['compile'])}; ran {what} in {seconds(times['run'])}"
    return text if times["run"] == times["run_median"] else f"{text} (best; median {seconds(times['run_median'])})"


def show_json(report: Report) -> None:
    """For machines."""
    ranked = iter(report.ranked)
    found = []
    for call, result in zip(report.calls, report.results, strict=True):
        entry: dict[str, Any] = {"inputs": list(call.samples), "outputs": {name: _facts(array) for name, array in result.items()}}
        if report.scores_name is not None:
            count = len(classes.rows(result[report.scores_name], len(call.samples)))  # type: ignore[arg-type]
            entry["classes"] = [_ranked_entry(next(ranked)) for _ in range(count)]
        found.append(entry)
    preprocessing = {name: made.describe() for name, made in report.preprocessing.items()}
    times = {f"{name}_seconds": time for name, time in report.times.items()}
    data = {"model": report.graph.name, "runs": found, "preprocessing": preprocessing, "notes": report.notes, "times": times}
    click.echo(json_text(data))


def _ranked_entry(sample: classes.Ranked) -> dict[str, Any]:
    best = [{"index": index, "label": label, "probability": probability} for index, label, probability in sample.classes]
    return {"input": sample.sample, "top": best}


def save(path: Path, results: Sequence[Mapping[str, Array]]) -> None:
    """Write the outputs; those of several calls joined along the first axis. Raises InputError where they cannot be joined."""
    import numpy as np

    joined = {name: _join(name, [result[name] for result in results]) for name in results[0]}
    if path.suffix == ".npy":
        if len(joined) != 1:
            raise InputError(f"--output {path}: the model has {len(joined)} outputs", hint="a name that ends in .npz")
        (only,) = joined.values()
        write_atomic(path, lambda file: np.save(file, only))
        return

    def fill(file: BinaryIO) -> None:
        with ZipFile(file, "w", allowZip64=True) as archive:  # numpy.savez takes no array that is called "file"
            for name, array in joined.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, array, allow_pickle=False)

    write_atomic(path, fill)


def _join(name: str, arrays: Sequence[Array]) -> Array:
    import numpy as np

    if len(arrays) == 1:
        return arrays[0]
    if any(array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        raise InputError(f"output {name!r} of several runs cannot be joined: its shapes differ", hint="one run at a time")
    return np.concatenate(arrays)
