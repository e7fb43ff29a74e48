"""graphc beside ONNX Runtime and OpenVINO (float32), over many networks: one table.

    python tests/bench/compare.py --models resnet50,vgg19 --threads 2 --batch 1 --json out.json

Times come from `graphc.inspect.contest`: one process, in turns, rotated order, a gap and an untimed call before the timed ones. The outputs
are compared after the timing, on an input that was not seen before: largest difference to ONNX Runtime, relative to the largest output.
`--start` also measures each engine from nothing to its first result in a process of its own: graphc with an empty cache (cold), then with a
full one (warm); peak resident memory; graphc's arena and weights.

`--clock cpu` counts the CPU time of the process instead of the time that passes: on a busy machine, the way to compare engines on one
thread. GFLOP/s are the model's FLOPs over time: Winograd convolutions need fewer, so more than 100 % of the peak is possible.

Holds a lock file (--lock) all the time, so that measurements on one machine do not disturb each other: do not wrap it in flock(1).
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

import graphc
from bench.conv_bench import peak
from bench.start import ENGINES
from bench.subjects import NAMES, Subject, subject
from bench.tables import slowest_kernels, table_head, table_line, timed
from graphc.cli.peers import ONNX_ENGINES, Engine, Graphc, Torch
from graphc.inspect.compare import difference
from graphc.inspect.summary import summarize
from graphc_cpu import host
from graphc_cpu.runtime.pool import Pool

PEERS = (*ONNX_ENGINES, "torch")
LOCK = Path(tempfile.gettempdir()) / "graphc-bench.lock"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Row:
    """One model: seconds by engine; `ratios`: the peer's time over graphc's, paired; `errors`: difference to ONNX Runtime."""

    model: str
    threads: int
    batch: int
    flops: int
    best: dict[str, float]
    median: dict[str, float]
    ratios: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    start: dict[str, dict[str, float]] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lead(self) -> float:
        """Time of the fastest peer over graphc's, best against best."""
        return min(seconds for name, seconds in self.best.items() if name != "graphc") / self.best["graphc"]


def measure(what: Subject, given: argparse.Namespace) -> Row:
    """Compile, time and validate one model."""
    graph = graphc.load_onnx(what.path)
    feeds = {what.input: what.feed(1)}
    executable = graphc.compile(graph, threads=given.threads, accuracy=given.accuracy)
    engines: dict[str, Engine] = {"graphc": Graphc(executable)}
    for name in given.vs:
        engines[name] = Torch(graph, given.threads) if name == "torch" else ONNX_ENGINES[name](str(what.path), feeds, given.threads)
    times = timed({name: engine.prepare(feeds) for name, engine in engines.items()}, given.seconds, CLOCKS[given.clock])
    mine = times["graphc"]
    row = Row(
        what.name, given.threads, given.batch, summarize(graph).flops, {name: t.best for name, t in times.items()},
        {name: t.median for name, t in times.items()}, {name: mine.ratio(t) for name, t in times.items() if name != "graphc"},
    )  # fmt: skip
    row.errors = _errors(engines, {what.input: what.feed(2)})
    if given.kernels:
        row.steps = slowest_kernels(executable.profile(**feeds), given.kernels)
    return row


def _errors(engines: Mapping[str, Engine], feeds: Mapping[str, Any]) -> dict[str, float]:
    if "onnxruntime" not in engines:
        return {}
    wanted = engines["onnxruntime"].outputs(feeds)
    found = {}
    for name, engine in engines.items():
        if name != "onnxruntime":
            got = engine.outputs(feeds)
            found[name] = max(difference(got[output], array).relative for output, array in wanted.items())
    return found


def measure_start(what: Subject, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Engine (graphc: "graphc cold" and "graphc") -> what `bench.start` prints."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="graphc-start-") as scratch:
        data = Path(scratch) / "input.npy"
        np.save(data, what.feed(1))
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": paths, "GRAPHC_CACHE_DIR": str(Path(scratch) / "cache"), "GRAPHC_CACHE": "1"}
        for label in ("graphc cold", *(name for name in ENGINES if name == "graphc" or name in given.vs)):
            command = [
                sys.executable, str(Path(__file__).with_name("start.py")), label.split()[0], str(what.path), what.input, str(data),
                "--threads", str(given.threads), "--accuracy", given.accuracy,
            ]  # fmt: skip
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{label} on {what.name}: {done.stderr.strip()[-500:]}")
            found[label] = json.loads(done.stdout)
    return found


def speed_table(rows: Sequence[Row], vs: Sequence[str], limit: float) -> list[str]:
    """Markdown: best milliseconds (median in brackets), ratios, speed, error."""
    head = ["model", "graphc", *vs, *(f"{name} / graphc, paired" for name in vs), "fastest / graphc", "GFLOP/s", "of peak", "error"]
    lines = table_head(head)
    for row in rows:
        rate = row.flops / row.best["graphc"]
        cells = [row.model, *(f"{row.best[name] * 1e3:.2f} ({row.median[name] * 1e3:.2f})" for name in ("graphc", *vs))]
        cells += [*(f"{row.ratios[name]:.2f}" for name in vs), f"**{row.lead:.2f}**", f"{rate / 1e9:.0f}", f"{rate / limit:.0%}"]
        lines.append(table_line([*cells, f"{row.errors['graphc']:.1e}" if row.errors else ""]))
    means = [f"{_geometric_mean([row.ratios[name] for row in rows]):.2f}" for name in vs]
    means.append(f"**{_geometric_mean([row.lead for row in rows]):.2f}**")
    return [*lines, table_line(["geometric mean", *[""] * (1 + len(vs)), *means, "", "", ""])]


def start_table(rows: Sequence[Row], vs: Sequence[str]) -> list[str]:
    """Markdown: seconds from nothing to the first result, and memory."""
    engines = [name for name in ENGINES if name == "graphc" or name in vs]
    head = ["model", "graphc cold, s", *(f"{name}{' warm' if name == 'graphc' else ''}, s" for name in engines)]
    lines = table_head([*head, *(f"{name} peak, MB" for name in engines), "arena, MB", "weights, MB", "code, MB"])
    for row in rows:
        mine = row.start["graphc"]
        cells = [row.model, *(f"{row.start[name]['total']:.2f}" for name in ("graphc cold", *engines))]
        cells += [f"{row.start[name]['peak_bytes'] / 1e6:.0f}" for name in engines]
        lines.append(table_line([*cells, *(f"{mine[part] / 1e6:.1f}" for part in ("arena_bytes", "weight_bytes", "code_bytes"))]))
    return lines


def kernel_table(row: Row) -> list[str]:
    """Markdown: the kernels that take longest."""
    lines = table_head([f"{row.model}: kernel", "family", "us", "share", "GFLOP/s", "GB/s", "nodes"])
    for step in row.steps:
        share = step["seconds"] / row.best["graphc"]
        figures = [f"{step['seconds'] * 1e6:.0f}", f"{share:.0%}", f"{step['gflops']:.0f}", f"{step['gbytes']:.1f}"]
        lines.append(table_line([step["label"], step["family"], *figures, " ".join(step["origins"])]))
    return lines


def _geometric_mean(numbers: Sequence[float]) -> float:
    return exp(sum(map(log, numbers)) / len(numbers))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file."""
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(part for part in text.split(",") if part)
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
        return names

    return parse


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_names(NAMES), default=NAMES, help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--vs", type=_names(PEERS), default=("onnxruntime", "openvino"), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=host.usable_cpus())
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--accuracy", choices=("default", "exact"), default="default")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--seconds", type=float, default=8.0, help="of timing for each model")
    parser.add_argument("--kernels", type=int, default=0, metavar="K", help="also the K kernels of graphc that take longest")
    parser.add_argument("--start", action="store_true", help="also start times and memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--lock", type=Path, default=LOCK)
    given = parser.parse_args(arguments)
    if given.clock == "cpu" and given.threads != 1:
        parser.error("--clock cpu is for --threads 1: with more, it also counts waiting")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a model could not be measured."""
    given = _arguments(arguments)
    rows, failed = [], 0
    with alone(given.lock), tempfile.TemporaryDirectory(prefix="graphc-compare-") as folder:
        with Pool(given.threads) as pool:
            limit = peak(host.host_target(), pool)
        for name in given.models:
            try:
                what = subject(name, given.batch, Path(folder))
                row = measure(what, given)
                row.start = measure_start(what, given) if given.start else {}
            except Exception as error:
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                continue
            rows.append(row)
            gc.collect()
            print(f"{name}: {row.best['graphc'] * 1e3:.2f} ms, {row.lead:.2f} x the fastest peer", file=sys.stderr, flush=True)
    if rows:
        _report(rows, given, limit)
    return int(failed > 0)


def _report(rows: list[Row], given: argparse.Namespace, limit: float) -> None:
    print(f"Threads {given.threads}, batch {given.batch}, accuracy {given.accuracy}; peak {limit / 1e9:.0f} GFLOP/s.")
    print(f"Milliseconds of {given.clock} time, best (median):\n")
    lines = speed_table(rows, given.vs, limit)
    if given.start:
        lines += ["", *start_table(rows, given.vs)]
    for row in rows if given.kernels else ():
        lines += ["", *kernel_table(row)]
    print("\n".join(lines))
    if given.json:
        given.json.write_text(json.dumps({"peak_flops": limit, "rows": [{**asdict(row), "lead": row.lead} for row in rows]}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
