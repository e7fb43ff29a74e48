"""Top-k, whole sorts and sampling against ONNX Runtime and PyTorch, in turns: `python tests/bench/sort_bench.py [--threads 2] [part ...]`.

Each line: best and median microseconds of each engine, and how many times faster graphc is (paired medians). Floats drawn from a normal
distribution; results are compared on an input not seen before, after the timed calls. PyTorch sorts where k is n, else it takes topk;
sampling is its topk or sort, softmax, cumsum and multinomial.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "frontends"), str(ROOT / "backends")]

import graphc  # noqa: E402
from graphc.inspect.contest import contest  # noqa: E402

Array = np.ndarray[Any, np.dtype[Any]]
Engine = Callable[[Array], Any]
SIZES, COUNTS, ROWS = (10, 1000, 8400, 32_000, 100_000), (1, 5, 50, 1000), (1, 32)
CLASSES = 32_000


@dataclass(frozen=True)
class Sort:
    rows: int
    n: int
    k: int

    @property
    def name(self) -> str:
        return f"{'sort' if self.k == self.n else f'top-{self.k}'} of {self.rows}x{self.n}"

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.n

    def engines(self, threads: int) -> dict[str, Engine]:
        import torch

        @graphc.model
        def net(x: graphc.f32[self.rows, self.n]) -> Any:  # type: ignore[name-defined]
            return graphc.topk(x, self.k)

        def by_torch(x: Array) -> Any:
            with torch.inference_mode():
                rows = torch.from_numpy(x)
                found = torch.sort(rows, descending=True) if self.k == self.n else torch.topk(rows, self.k)
                return tuple(part.numpy() for part in found)

        executable = graphc.compile(net, threads=threads)
        return {"graphc": lambda x: executable(x), "onnxruntime": self._by_onnxruntime(threads), "torch": by_torch}

    def _by_onnxruntime(self, threads: int) -> Engine:
        import onnxruntime

        node = helper.make_node("TopK", ["x", "k"], ["values", "places"], axis=-1)
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        made = [helper.make_tensor_value_info(name, of, (self.rows, self.k)) for name, of in (("values", 1), ("places", 7))]
        k = helper.make_tensor("k", TensorProto.INT64, (1,), [self.k])
        model = helper.make_model(
            helper.make_graph([node], "sort", [given], made, [k]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"x": x})

    def check(self, results: dict[str, Any]) -> None:
        values = results["graphc"][0]
        assert all(np.array_equal(values, other[0]) for other in results.values()), f"{self.name}: different values"


@dataclass(frozen=True)
class Draw:
    """graphc.sample with `top_k` or `top_p`, of which one is given, or none."""

    rows: int
    top_k: int = 0
    top_p: float = 1.0

    @property
    def name(self) -> str:
        rule = f"top_k={self.top_k}" if self.top_k else f"top_p={self.top_p}"
        return f"sample {rule} of {self.rows}x{CLASSES}"

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, CLASSES

    def engines(self, threads: int) -> dict[str, Engine]:
        import torch

        @graphc.model
        def net(x: graphc.f32[self.rows, CLASSES], step: graphc.u64[()]) -> Any:  # type: ignore[name-defined]
            return graphc.sample(x, top_k=self.top_k, top_p=self.top_p, step=step)

        def by_torch(x: Array) -> Any:
            with torch.inference_mode():
                rows = torch.from_numpy(x)
                if not self.top_k and self.top_p == 1:
                    return torch.multinomial(torch.softmax(rows, -1), 1)[:, 0].numpy()
                best, places = torch.topk(rows, self.top_k) if self.top_k else torch.sort(rows, descending=True)
                shares = torch.softmax(best, -1)
                if self.top_p < 1:
                    shares = torch.where(torch.cumsum(shares, -1) - shares < self.top_p, shares, 0.0)
                return places.gather(-1, torch.multinomial(shares, 1))[:, 0].numpy()

        executable, step = graphc.compile(net, threads=threads), np.uint64(3)
        return {"graphc": lambda x: executable(x, step), "torch": by_torch}

    def check(self, results: dict[str, Any]) -> None:
        assert all(found.shape == (self.rows,) and (found >= 0).all() for found in results.values())


def cases() -> Iterator[Sort | Draw]:
    for rows in ROWS:
        for n in SIZES:
            yield from (Sort(rows, n, k) for k in (*(count for count in COUNTS if count < n), n))
        yield from (Draw(rows), Draw(rows, top_k=50), Draw(rows, top_p=0.9))


def measure(case: Sort | Draw, threads: int, rounds: int, calls: int) -> None:
    rng = np.random.default_rng(0)
    first, unseen = (rng.standard_normal(case.shape).astype(np.float32) for _ in range(2))
    engines = case.engines(threads)
    times = contest({name: partial(run, first) for name, run in engines.items()}, range(rounds), calls)
    case.check({name: run(unseen) for name, run in engines.items()})
    mine = times["graphc"]
    found = "  ".join(f"{name} {times[name].best * 1e6:9.1f} {times[name].median * 1e6:9.1f}" for name in times)
    gains = "  ".join(f"{name} x{mine.ratio(times[name]):.2f}" for name in times if name != "graphc")
    print(f"{case.name:28s} us: {found}   {gains}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("names", nargs="*", help="parts of names of cases; default: all")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    for case in cases():
        if not options.names or any(part in case.name for part in options.names):
            measure(case, options.threads, options.rounds, options.calls)


if __name__ == "__main__":
    main()
