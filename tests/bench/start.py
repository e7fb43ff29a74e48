"""One engine from nothing to its first result, in a process of its own: seconds and peak memory, as JSON on stdout.

    python tests/bench/start.py graphc MODEL.onnx INPUT_NAME INPUT.npy --threads 2

Whether graphc starts cold or warm depends on the directory in GRAPHC_CACHE_DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

ENGINES = ("graphc", "onnxruntime", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model")
    parser.add_argument("input", help="name of the input")
    parser.add_argument("data", help=".npy file with the input")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accuracy", default="default")
    given = parser.parse_args()
    print(json.dumps(_graphc(given) if given.engine == "graphc" else _peer(given)))


def _graphc(given: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    import numpy as np

    import graphc

    load = graphc.compile
    imported = time.perf_counter()
    executable = load(given.model, threads=given.threads, accuracy=given.accuracy)
    compiled = time.perf_counter()
    executable.run({given.input: np.load(given.data)})
    end = time.perf_counter()
    memory = executable.memory
    return {
        "import": imported - start, "load": compiled - imported, "first_run": end - compiled, "total": end - start,
        "peak_bytes": _peak_bytes(), "arena_bytes": memory.arena, "weight_bytes": memory.weights, "code_bytes": memory.code,
    }  # fmt: skip


def _peer(given: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    from importlib import import_module

    import numpy as np

    from graphc.cli.peers import ONNX_ENGINES

    import_module(given.engine)
    feeds = {given.input: np.load(given.data)}
    imported = time.perf_counter()
    engine = ONNX_ENGINES[given.engine](given.model, feeds, given.threads)
    loaded = time.perf_counter()
    engine.prepare(feeds)()
    end = time.perf_counter()
    return {
        "import": imported - start, "load": loaded - imported, "first_run": end - loaded, "total": end - start, "peak_bytes": _peak_bytes(),
    }  # fmt: skip


def _peak_bytes() -> int:
    """Largest resident set of this process (getrusage would also count what its parent had)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise OSError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    main()
