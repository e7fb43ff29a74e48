"""Training steps of graphc beside PyTorch's (eager, and with --compile torch.compile): forward, loss, backward, SGD with momentum.

    python tests/bench/train.py --models lenet5,resnet18 --threads 2 --kernels 20 --json out.json

Times come from `graphc.inspect.contest`: one process, in turns, rotated order, a gap and an untimed call before the timed ones. After the
timing every contestant takes some more steps from the first parameters on batches that it has not seen; `error` is the rms difference of
all parameters' changes to those of PyTorch in float64, relative to the rms change, and is given for PyTorch's float32 too.
`--start` measures each engine in a process of its own: seconds from the model to the end of the first step (graphc with an empty cache,
imports not counted), and the peak of resident memory (VmHWM) after three steps less what the imports took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

import graphc
from bench.conv_bench import peak
from bench.net import Net, ordered
from bench.tables import slowest_kernels, table_head, table_line, timed
from bench.train_nets import NETS
from graphc_cpu import host
from graphc_cpu.runtime.pool import Pool

RATE, MOMENTUM = 0.01, 0.9
CHECK_STEPS = 3
ENGINES = ("graphc", "eager", "compile")


@dataclass
class Row:
    """One network: seconds by engine; `ratios`: an engine's time over graphc's, paired."""

    model: str
    threads: int
    batch: int
    flops: int
    best: dict[str, float]
    median: dict[str, float]
    ratios: dict[str, float]
    errors: dict[str, float]
    arena: int
    steps: list[dict[str, Any]] = field(default_factory=list)
    start: dict[str, dict[str, float]] = field(default_factory=dict)


class Graphc:
    def __init__(self, net: Net, threads: int) -> None:
        optimizer = graphc.optim.SGD(lr=RATE, momentum=MOMENTUM)
        self.net = net
        self.step = graphc.TrainStep(net.model, optimizer=optimizer, threads=threads, dims=net.dims)

    def parameters(self) -> list[Any]:
        """In PyTorch's order."""
        return list(self.net.convert(self.step.parameters).values())

    def load(self, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            self.step.parameters[name] = array
        self.step.state = {name: np.zeros_like(array) for name, array in self.step.state.items() if name.endswith("momentum_buffer")}
        self.step.reset_state()

    def __call__(self, x: Any, y: Any, lr: float = RATE) -> float:
        return float(self.step(x, y, lr)["loss"])


class Torch:
    """`compiled`: forward and loss through torch.compile, whose backward is then compiled too."""

    def __init__(self, net: Net, parameters: Mapping[str, Any], threads: int, compiled: bool = False, dtype: Any = torch.float32) -> None:
        torch.set_num_threads(threads)
        self.net, self.dtype, self.convert = net.torch(parameters, dtype), dtype, net.convert
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=RATE, momentum=MOMENTUM)
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def _loss(self, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def parameters(self) -> list[Any]:
        return [tensor.detach().numpy().copy() for tensor in ordered(self.net).values()]

    def load(self, arrays: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for tensor, array in zip(ordered(self.net).values(), self.convert(arrays).values(), strict=True):
                tensor.copy_(torch.from_numpy(array))
        self.optimizer.state.clear()
        if hasattr(self.net, "reset"):
            self.net.reset()

    def __call__(self, x: Any, y: Any, lr: float = RATE) -> float:
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        inputs = torch.from_numpy(x)
        loss = self.loss(inputs.to(self.dtype) if inputs.is_floating_point() else inputs, torch.from_numpy(y))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def measure(name: str, given: argparse.Namespace) -> Row:
    """Compile, time and validate one network."""
    net = NETS[name]
    mine = Graphc(net, given.threads)
    first = {name: array.copy() for name, array in mine.step.parameters.items()}
    contestants: dict[str, Any] = {"graphc": mine, "eager": Torch(net, first, given.threads)}
    if given.compile:
        contestants["compile"] = Torch(net, first, given.threads, compiled=True)
    batch = net.data(0)
    times = timed({key: partial(engine, *batch) for key, engine in contestants.items()}, given.seconds)
    compiled = mine.step.compiled()
    row = Row(
        name, given.threads, net.batch, compiled.plan.flops, {key: t.best for key, t in times.items()},
        {key: t.median for key, t in times.items()}, {key: times["graphc"].ratio(t) for key, t in times.items() if key != "graphc"},
        _errors(net, contestants, first, given.threads), compiled.program.memory.arena,
    )  # fmt: skip
    if given.kernels:
        row.steps = slowest_kernels(mine.step.profile(*batch, runs=5), given.kernels)
    return row


def _errors(net: Net, contestants: Mapping[str, Any], first: Mapping[str, Any], threads: int) -> dict[str, float]:
    """Of CHECK_STEPS steps on fresh data, by engine."""
    oracle = Torch(net, first, threads, dtype=torch.float64)
    changes = {}
    for name, engine in {"float64": oracle, **contestants}.items():
        engine.load(first)
        for seed in range(CHECK_STEPS):
            engine(*net.data(1000 + seed), net.check_rate)
        pairs = zip(engine.parameters(), net.convert(first).values(), strict=True)
        changes[name] = [after.astype(np.float64) - before for after, before in pairs]
    wanted = changes.pop("float64")
    scale = sum(float(np.sum(want**2)) for want in wanted)
    errors = {name: sum(float(np.sum((g - w) ** 2)) for g, w in zip(got, wanted, strict=True)) for name, got in changes.items()}
    return {name: (error / scale) ** 0.5 for name, error in errors.items()}


def measure_start(name: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By engine: `first` (seconds), `peak` (bytes above the imports)."""
    found = {}
    for engine in ENGINES if given.compile else ENGINES[:2]:
        with tempfile.TemporaryDirectory(prefix="graphc-train-") as folder:
            environment = {
                **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GRAPHC_CACHE_DIR": folder,
                "TORCHINDUCTOR_CACHE_DIR": folder,
            }  # fmt: skip
            command = [sys.executable, __file__, "--models", name, "--threads", str(given.threads), "--child", engine]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{engine} on {name}: {done.stderr.strip()[-500:]}")
        found[engine] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(engine: str, net: Net, threads: int) -> None:
    baseline, batch = _status("VmRSS"), net.data(0)
    if engine == "graphc":
        start = time.perf_counter()
        step: Any = Graphc(net, threads)
    else:
        parameters = net.model.parameters()
        start = time.perf_counter()
        step = Torch(net, parameters, threads, engine == "compile")
    step(*batch)
    first = time.perf_counter() - start
    for _ in range(2):
        step(*batch)
    print(json.dumps({"first": first, "peak": _status("VmHWM") - baseline}))


def _status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"no {key} in /proc/self/status")


def report(rows: Sequence[Row], limit: float) -> list[str]:
    """Markdown: one table of networks, then one of kernels for each."""
    engines = [engine for engine in ENGINES if engine in rows[0].best]
    peers = engines[1:]
    lines = table_head(["network", "batch", *engines, *(f"{p} / graphc, paired" for p in peers), "GFLOP/s", "of peak", "error", "torch's"])
    for row in rows:
        rate = row.flops / row.best["graphc"]
        cells = [row.model, str(row.batch), *(f"{row.best[e] * 1e3:.2f} ({row.median[e] * 1e3:.2f})" for e in engines)]
        cells += [*(f"**{row.ratios[p]:.2f}**" for p in peers), f"{rate / 1e9:.0f}", f"{rate / limit:.0%}"]
        lines.append(table_line([*cells, f"{row.errors['graphc']:.1e}", f"{row.errors['eager']:.1e}"]))
    if any(row.start for row in rows):
        head = ["network", *(f"{e}: first step, s" for e in engines), *(f"{e}: peak, MB" for e in engines), "arena, MB"]
        lines += ["", *table_head(head)]
        for row in rows:
            cells = [*(f"{row.start[e]['first']:.2f}" for e in engines), *(f"{row.start[e]['peak'] / 1e6:.0f}" for e in engines)]
            lines.append(table_line([row.model, *cells, f"{row.arena / 1e6:.0f}"]))
    for row in rows:
        if row.steps:
            lines += ["", *table_head([f"{row.model}: kernel", "family", "us", "share", "GFLOP/s", "of peak", "GB/s"])]
        for step in row.steps:
            figures = [f"{step['seconds'] * 1e6:.0f}", f"{step['seconds'] / row.best['graphc']:.1%}", f"{step['gflops']:.0f}"]
            figures += [f"{step['gflops'] * 1e9 / limit:.0%}", f"{step['gbytes']:.1f}"]
            lines.append(table_line([step["label"], step["family"], *figures]))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(NETS), help=f"of {', '.join(NETS)}")
    parser.add_argument("--threads", type=int, default=host.usable_cpus())
    parser.add_argument("--seconds", type=float, default=8.0, help="of timing for each network")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--start", action="store_true", help="also the first step and memory")
    parser.add_argument("--kernels", type=int, default=0, metavar="K", help="also the K kernels that take longest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    names = [name for name in given.models.split(",") if name]
    if unknown := set(names) - NETS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(NETS)}")
    if given.child:
        _child(given.child, NETS[names[0]], given.threads)
        return 0
    with Pool(given.threads) as pool:
        limit = peak(host.host_target(), pool)
    rows = []
    for name in names:
        rows.append(measure(name, given))
        rows[-1].start = measure_start(name, given) if given.start else {}
        print(f"{name}: {rows[-1].best['graphc'] * 1e3:.2f} ms, eager / graphc {rows[-1].ratios['eager']:.2f}", file=sys.stderr, flush=True)
    print(f"Threads {given.threads}; peak {limit / 1e9:.0f} GFLOP/s. Milliseconds per step, best (median):\n")
    print("\n".join(report(rows, limit)))
    if given.json:
        given.json.write_text(json.dumps({"peak_flops": limit, "rows": [asdict(row) for row in rows]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
