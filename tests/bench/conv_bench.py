"""GFLOP/s of the convolution and matrix product kernels, layer by layer, against the machine's measured multiply-add peak.

    python tests/bench/conv_bench.py [part of a layer's name ...] [--target avx2] [--ort]

Each layer is run as a chain of copies with weights of their own (so weights are as cold as in a network), on one thread and on all.
`--ort` runs the same chain in ONNX Runtime, in turns with ours.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the helpers of tests, for a script run by its path

from cpu_conv.cases import matmul_spec, with_bias
from graphc.kernel.spec import ConvSpec, MatmulSpec
from graphc.target import Target
from graphc.types.dtype import f32
from graphc_cpu import host, jit
from graphc_cpu.emit.ir import Function, Value, module, vector_type
from graphc_cpu.kernels import conv, matmul
from graphc_cpu.kernels.pack import pack_conv_weight
from graphc_cpu.micro.tile import multiply_add
from graphc_cpu.runtime.pool import Pool
from graphc_cpu.runtime.state import Step, step_table

CONVS: dict[str, dict[str, Any]] = {
    "resnet stem 7x7/2": {"ic": 3, "oc": 64, "size": (224, 224), "kernel": (7, 7), "stride": (2, 2), "plain_x": True},
    "resnet 56 64-64 3x3": {"ic": 64, "oc": 64, "size": (56, 56), "kernel": (3, 3)},
    "resnet 28 128-128 3x3": {"ic": 128, "oc": 128, "size": (28, 28), "kernel": (3, 3)},
    "resnet 14 256-256 3x3": {"ic": 256, "oc": 256, "size": (14, 14), "kernel": (3, 3)},
    "resnet 7 512-512 3x3": {"ic": 512, "oc": 512, "size": (7, 7), "kernel": (3, 3)},
    "resnet 56 128-128 3x3/2": {"ic": 128, "oc": 128, "size": (56, 56), "kernel": (3, 3), "stride": (2, 2)},
    "resnet 14 512-512 3x3/2": {"ic": 512, "oc": 512, "size": (14, 14), "kernel": (3, 3), "stride": (2, 2)},
    "resnet 56 64-256 1x1": {"ic": 64, "oc": 256, "size": (56, 56), "kernel": (1, 1)},
    "resnet 56 256-64 1x1": {"ic": 256, "oc": 64, "size": (56, 56), "kernel": (1, 1)},
    "resnet 28 512-128 1x1": {"ic": 512, "oc": 128, "size": (28, 28), "kernel": (1, 1)},
    "resnet 14 1024-256 1x1": {"ic": 1024, "oc": 256, "size": (14, 14), "kernel": (1, 1)},
    "resnet 14 256-1024 1x1": {"ic": 256, "oc": 1024, "size": (14, 14), "kernel": (1, 1)},
    "resnet 7 2048-512 1x1": {"ic": 2048, "oc": 512, "size": (7, 7), "kernel": (1, 1)},
    "resnet 7 512-2048 1x1": {"ic": 512, "oc": 2048, "size": (7, 7), "kernel": (1, 1)},
    "resnet 56 256-512 1x1/2": {"ic": 256, "oc": 512, "size": (56, 56), "kernel": (1, 1), "stride": (2, 2)},
    "mobilenet 112 32 dw": {"ic": 32, "oc": 32, "size": (112, 112), "kernel": (3, 3), "groups": 32},
    "mobilenet 112 96 dw/2": {"ic": 96, "oc": 96, "size": (112, 112), "kernel": (3, 3), "stride": (2, 2), "groups": 96},
    "mobilenet 56 144 dw": {"ic": 144, "oc": 144, "size": (56, 56), "kernel": (3, 3), "groups": 144},
    "mobilenet 14 512 dw": {"ic": 512, "oc": 512, "size": (14, 14), "kernel": (3, 3), "groups": 512},
    "mobilenet 7 960 dw": {"ic": 960, "oc": 960, "size": (7, 7), "kernel": (3, 3), "groups": 960},
    "mobilenet 14 96-576 1x1": {"ic": 96, "oc": 576, "size": (14, 14), "kernel": (1, 1)},
    "mobilenet 112 32-16 1x1": {"ic": 32, "oc": 16, "size": (112, 112), "kernel": (1, 1)},
    "shufflenet 28 136-136 g4": {"ic": 136, "oc": 136, "size": (28, 28), "kernel": (1, 1), "groups": 4},
    "resnext 28 256-256 g32 3x3": {"ic": 256, "oc": 256, "size": (28, 28), "kernel": (3, 3), "groups": 32},
    "densenet 28 128-32 3x3": {"ic": 128, "oc": 32, "size": (28, 28), "kernel": (3, 3)},
    "vgg 112 128-128 3x3": {"ic": 128, "oc": 128, "size": (112, 112), "kernel": (3, 3)},
    "vgg 28 512-512 3x3": {"ic": 512, "oc": 512, "size": (28, 28), "kernel": (3, 3)},
}
MATMULS: dict[str, dict[str, Any]] = {
    "matmul 1x1000x2048": {"m": 1, "n": 1000, "k": 2048},
    "matmul 1x4096x4096": {"m": 1, "n": 4096, "k": 4096},
    "matmul 256^3": {"m": 256, "n": 256, "k": 256},
    "matmul 1024^3": {"m": 1024, "n": 1024, "k": 1024},
    "matmul 1000^3 in place": {"m": 1000, "n": 1000, "k": 1000, "packed": False},
    "matmul 512^3 b transposed": {"m": 512, "n": 512, "k": 512, "packed": False, "transpose": "b"},
}


@dataclass
class Chain:
    """A compiled layer, its step table and what the table points at."""

    flops: int
    table: np.ndarray[Any, Any]
    count: int
    seconds: float
    keep: list[Any]

    def time(self, pool: Pool, rounds: int = 7) -> float:
        """Best seconds of one layer."""
        address = int(self.table.ctypes.data)
        repeats = max(1, int(0.02 / (self.count * self.flops / 5e10)))
        return best(lambda: [pool.run(address, self.count) for _ in range(repeats)], rounds) / (self.count * repeats)


def best(call: Callable[[], object], rounds: int) -> float:
    call()
    found = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found = min(found, time.perf_counter() - start)
    return found


def aligned(count: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    raw = np.empty(count + 16, np.float32)
    start = -raw.ctypes.data // 4 % 16
    raw[start : start + count] = rng.standard_normal(count)
    return raw[start : start + count]


def chain(spec: ConvSpec | MatmulSpec, target: Target) -> Chain:
    """The layer with several sets of weights (about 40 MB), one step each."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    if isinstance(spec, ConvSpec):
        f, flops, size = conv.emit_conv(spec, target, "layer"), conv.flops(spec), pack_conv_weight(spec, target, _zeros(spec)).size
    else:
        f, flops, size = matmul.emit_matmul(spec, target, "layer"), matmul.flops(spec), spec.k * (spec.n + 128)
    library = jit.build({"layer": module(target.triple, [f])}, target)
    seconds = time.perf_counter() - start
    copies = min(12, max(2, int(1e7 / size)))
    shared = [aligned(o.elements, rng) for o in (spec.operands[0], *spec.operands[2:])]
    keep: list[Any] = [library, shared]
    steps = []
    for _ in range(copies):
        weights = aligned(size, rng)
        pointers = [shared[0].ctypes.data, weights.ctypes.data, *(a.ctypes.data for a in shared[1:])]
        arguments = (ctypes.c_void_p * len(pointers))(*pointers)
        keep += [weights, arguments]
        steps.append(Step(library["layer"], ctypes.addressof(arguments)))
    return Chain(flops, step_table(steps), copies, seconds, keep)


def _zeros(spec: ConvSpec) -> np.ndarray[Any, Any]:
    return np.zeros(spec.weight_shape, np.float32)


def peak(target: Target, pool: Pool) -> float:
    """FLOP/s of independent multiply-adds in registers, all threads together."""
    lanes, chains, turns = target.lanes(f32), 12, 500_000
    f = Function("peak", [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])
    vector = vector_type("float", lanes)
    place = f.load("ptr", f.parameters[0], 8)
    factor = f.load(vector, place, 4)

    def body(_: Value, totals: tuple[Value, ...]) -> Sequence[Value]:
        return [multiply_add(f, f32, factor, factor, total) for total in totals]

    totals = f.loop(0, turns, 1, body, [Value("zeroinitializer", vector)] * chains, guarded=False)
    for total in totals:
        f.store(total, place, 4)
    library = jit.build({"peak": module(target.triple, [f])}, target)
    buffer = np.zeros(64, np.float32)
    arguments = (ctypes.c_void_p * 1)(buffer.ctypes.data)
    table = step_table([Step(library["peak"], ctypes.addressof(arguments))])
    seconds = best(lambda: pool.run(int(table.ctypes.data), 1), 9)
    return 2.0 * lanes * chains * turns * pool.threads / seconds


def ort_chain(spec: ConvSpec, copies: int, threads: int) -> Callable[[], object]:
    """The same convolutions (with bias and Relu), independent of each other, in one ONNX Runtime session."""
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    rank = len(spec.stride)
    pads = [*spec.pad, *(_after(spec, d) for d in range(rank))]
    nodes, weights, outputs = [], [], []
    for i in range(copies):
        weights += [numpy_helper.from_array(rng.standard_normal(spec.weight_shape).astype(np.float32), f"w{i}")]
        weights += [numpy_helper.from_array(np.zeros(spec.weight_shape[0], np.float32), f"b{i}")]
        nodes += [
            helper.make_node("Conv", ["x", f"w{i}", f"b{i}"], [f"c{i}"], pads=pads, strides=spec.stride, group=spec.groups),
            helper.make_node("Relu", [f"c{i}"], [f"y{i}"]),
            helper.make_node("ReduceMax", [f"y{i}"], [f"m{i}"], keepdims=0),
        ]
        outputs.append(helper.make_tensor_value_info(f"m{i}", onnx.TensorProto.FLOAT, []))
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, spec.x.shape)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], outputs, weights), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    value = rng.standard_normal(spec.x.shape).astype(np.float32)
    return lambda: session.run(None, {"x": value})


def _after(spec: ConvSpec, d: int) -> int:
    last = (spec.output.shape[2 + d] - 1) * spec.stride[d] + (spec.weight_shape[2 + d] - 1) * spec.dilation[d]
    return max(0, last + 1 - spec.pad[d] - spec.x.shape[2 + d])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of layer names; default all")
    parser.add_argument("--target", default="host")
    parser.add_argument("--ort", action="store_true", help="run ONNX Runtime too (convolutions)")
    options = parser.parse_args()
    target = host.resolve(options.target)
    pools = [Pool(count) for count in sorted({1, target.cores})]
    peaks = [peak(target, pool) for pool in pools]
    print(f"{target.name}: peak " + ", ".join(f"{p / 1e9:.0f} GFLOP/s on {pool.threads}" for p, pool in zip(peaks, pools, strict=True)))
    compile_seconds = 0.0
    for name, case in {**CONVS, **MATMULS}.items():
        if options.names and not any(part in name for part in options.names):
            continue
        spec: ConvSpec | MatmulSpec = matmul_spec(**case) if name in MATMULS else with_bias(target, **case)
        layer = chain(spec, target)
        compile_seconds += layer.seconds
        text = f"{name:28} {layer.seconds * 1e3:4.0f} ms to compile"
        for pool, limit in zip(pools, peaks, strict=True):
            seconds = layer.time(pool)
            rate = layer.flops / seconds
            text += f" | {pool.threads}: {seconds * 1e6:8.1f} us {rate / 1e9:6.0f} GFLOP/s {rate / limit:4.0%}"
            if options.ort and isinstance(spec, ConvSpec):
                theirs = best(ort_chain(spec, layer.count, pool.threads), 7) / layer.count
                text += f" {theirs / seconds:5.2f} x ORT"
        print(text, flush=True)
    print(f"compiled in {compile_seconds:.2f} s; {prod(spec.output.shape)} elements in the last output")
    for pool in pools:
        pool.close()


if __name__ == "__main__":
    main()
