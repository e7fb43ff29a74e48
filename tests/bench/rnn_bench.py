"""Recurrent layers against ONNX Runtime and PyTorch, in turns: `python tests/bench/rnn_bench.py [--threads 2] [part of a name ...]`.

100 steps, input 128. Each line: best milliseconds of each engine, how many times faster graphc is (paired medians), the machine's floor
and what percent of it is reached. The floor is the larger of two times on all cores: the multiply-adds, and reading the recurrent
weights once per step from the cache that holds them. Results are compared on an input not seen before, after the timed calls.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "frontends"), str(ROOT / "backends")]

import graphc  # noqa: E402
from graphc.inspect.contest import contest  # noqa: E402
from graphc_cpu import host, machine  # noqa: E402

STEPS, INPUT = 100, 128
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
TO_TORCH = {"lstm": (0, 2, 3, 1), "gru": (1, 0, 2), "rnn": (0,)}  # gates of ONNX in the order of PyTorch
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    kind: str
    hidden: int
    batch: int
    directions: int = 1
    layers: int = 1

    @property
    def name(self) -> str:
        extra = ("-bi" if self.directions == 2 else "") + (f"-{self.layers}layers" if self.layers > 1 else "")
        return f"{self.kind}-{self.hidden}-b{self.batch}{extra}"

    def width(self, layer: int) -> int:
        """Of a layer's input."""
        return INPUT if layer == 0 else self.directions * self.hidden

    def weights(self, layer: int) -> tuple[Array, Array, Array]:
        """W, R and B of ONNX."""
        rng, rows = np.random.default_rng(layer), GATES[self.kind] * self.hidden
        scale = self.hidden**-0.5
        shapes = ((self.directions, rows, self.width(layer)), (self.directions, rows, self.hidden), (self.directions, 2 * rows))
        w, r, b = (rng.uniform(-scale, scale, shape).astype(np.float32) for shape in shapes)
        return w, r, b


CASES = [
    *(Case(kind, hidden, batch) for kind in ("lstm", "gru") for hidden in (256, 512) for batch in (1, 8, 32)),
    *(Case(kind, 256, 8, directions=2) for kind in ("lstm", "gru")),
    *(Case(kind, 256, batch, layers=2) for kind in ("lstm", "gru") for batch in (1, 8)),
    Case("rnn", 256, 1),
]


def onnx_model(case: Case) -> onnx.ModelProto:
    """Stacked layers; a gru with linear_before_reset, as PyTorch has it."""
    nodes, constants, x = [], [], "x"
    for layer in range(case.layers):
        names = [f"{key}{layer}" for key in "wrb"]
        constants += [numpy_helper.from_array(a, n) for n, a in zip(names, case.weights(layer), strict=True)]
        extra = {"linear_before_reset": 1} if case.kind == "gru" else {}
        direction = "bidirectional" if case.directions == 2 else "forward"
        nodes.append(helper.make_node(case.kind.upper(), [x, *names], [f"y{layer}"], hidden_size=case.hidden, direction=direction, **extra))
        constants.append(numpy_helper.from_array(np.array([STEPS, case.batch, case.directions * case.hidden]), f"shape{layer}"))
        nodes.append(helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [f"t{layer}", f"shape{layer}"], [f"o{layer}"]))
        x = f"o{layer}"
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (STEPS, case.batch, INPUT))
    made = helper.make_tensor_value_info(x, TensorProto.FLOAT, (STEPS, case.batch, case.directions * case.hidden))
    graph = helper.make_graph(nodes, case.name, [given], [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_torch(case: Case, threads: int) -> Callable[[Array], Array]:
    import torch

    torch.set_num_threads(threads)
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
    module = kinds[case.kind](INPUT, case.hidden, case.layers, bidirectional=case.directions == 2)
    for layer in range(case.layers):
        w, r, b = case.weights(layer)
        for d in range(case.directions):
            suffix = f"l{layer}" + ("_reverse" if d else "")
            parts = {"weight_ih": w[d], "weight_hh": r[d], "bias_ih": np.split(b[d], 2)[0], "bias_hh": np.split(b[d], 2)[1]}
            for key, array in parts.items():
                gates = np.split(array, GATES[case.kind])
                ordered = np.concatenate([gates[g] for g in TO_TORCH[case.kind]])
                getattr(module, f"{key}_{suffix}").data.copy_(torch.from_numpy(ordered))

    def run(x: Array) -> Array:
        with torch.inference_mode():
            made: Array = module(torch.from_numpy(x))[0].numpy()
        return made

    return run


def by_onnxruntime(path: Path, threads: int) -> Callable[[Array], Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]  # type: ignore[no-any-return]


def floor(case: Case, threads: int) -> float:
    """Seconds; see above."""
    target, limits = host.host_target(), machine.limits(host.host_target())
    side = 0 if threads == 1 else 1
    total = 0.0
    for layer in range(case.layers):
        rows = GATES[case.kind] * case.hidden * case.directions
        flops = 2 * STEPS * case.batch * rows * (case.width(layer) + case.hidden)
        recurrent = 4 * rows * case.hidden
        cache = "l2" if recurrent <= target.l2 * threads else "l3"
        total += max(flops / limits.fma_f32[side], STEPS * recurrent / getattr(limits, cache)[side])
    return total


def measure(case: Case, threads: int, rounds: int, calls: int) -> None:
    rng = np.random.default_rng(0)
    first, unseen = (rng.standard_normal((STEPS, case.batch, INPUT)).astype(np.float32) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(onnx_model(case), path)
        executable = graphc.compile(path, threads=threads)
        engines = {"graphc": lambda x: executable(x), "onnxruntime": by_onnxruntime(path, threads), "torch": by_torch(case, threads)}
    times = contest({name: partial(run, first) for name, run in engines.items()}, range(rounds), calls)
    results = {name: run(unseen) for name, run in engines.items()}
    error = max(float(np.abs(results["graphc"] - results[name]).max()) for name in ("onnxruntime", "torch"))
    assert error < 1e-4, f"{case.name}: differs by {error}"
    mine, least = times["graphc"], floor(case, threads)
    others = [name for name in times if name != "graphc"]
    best = "  ".join(f"{name} {times[name].best * 1e3:7.2f}" for name in times)
    gains = "  ".join(f"{name} x{mine.ratio(times[name]):.2f}" for name in others)
    reached = f"floor {least * 1e3:.2f} ({100 * least / mine.best:.0f} %)"
    print(f"{case.name:22s} ms: {best}   {gains}   {reached}  error {error:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("names", nargs="*", help="parts of names of cases; default: all")
    options = parser.parse_args()
    for case in CASES:
        if not options.names or any(part in case.name for part in options.names):
            measure(case, options.threads, options.rounds, options.calls)


if __name__ == "__main__":
    main()
