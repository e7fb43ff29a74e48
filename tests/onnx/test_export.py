"""Export: valid models that ONNX Runtime runs with the same results; names, kinds and symbolic sizes survive a round trip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import Array, feeds_for, info, model, run, small_cnn

import graphc
from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind
from graphc.ir.op import Op, all_ops
from graphc.ops.conv import Conv, ConvTranspose
from graphc.ops.gather import Gather, GatherElements, GatherND, OneHot, Trilu
from graphc.ops.grid_sample import GridSample
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Concat, Dilate, Expand, Pad, Reshape, ShapeOf, Slice, Tile, Transpose
from graphc.ops.norm import LRN, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from graphc.ops.norm_training import BatchNormTraining
from graphc.ops.pointwise import Cast, op, rows
from graphc.ops.pool import AvgPool, LpPool, MaxPool, MaxPoolIndices
from graphc.ops.random import Dropout
from graphc.ops.reduce import ArgReduce, CumSum, Reduce
from graphc.ops.resize import Resize
from graphc.ops.scatter import ScatterElements, ScatterND
from graphc.ops.softmax import LogSoftmax, Softmax
from graphc.ops.sort import TopK
from graphc.types import dtype as dt
from graphc.types.shape import symbol
from graphc_onnx import load, save, to_onnx
from graphc_onnx.emitter import export_of
from graphc_reference import ReferenceExecutable

RNG = np.random.default_rng(7)


def checked(graph: Graph) -> onnx.ModelProto:
    proto = to_onnx(graph)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def agree(graph: Graph, feeds: dict[str, Array]) -> None:
    """The exported model in ONNX Runtime, and imported again, gives what the reference gives."""
    proto = checked(graph)
    expected = list(ReferenceExecutable(graph).run(feeds).values())
    again = ReferenceExecutable(load(proto)).run(feeds)
    assert list(again) == graph.output_names
    for want, there, back in zip(expected, run(proto, feeds), again.values(), strict=True):
        assert want.dtype == there.dtype == back.dtype
        np.testing.assert_allclose(there, want, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(back, want, rtol=2e-5, atol=2e-6)


def single(made: Op, *inputs: Array) -> tuple[Graph, dict[str, Array]]:
    builder = Builder(Graph("single"))
    values = [builder.input(f"x{i}", dt.dtype(array.dtype), array.shape) for i, array in enumerate(inputs)]
    outputs = builder.add_many(made, *values)
    return builder.finish(**{f"y{i}": value for i, value in enumerate(outputs)}), {f"x{i}": array for i, array in enumerate(inputs)}


def f(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return RNG.uniform(low, high, shape).astype(np.float32)


def ints(*shape: int, low: int = 0, high: int = 3) -> Array:
    return RNG.integers(low, high, shape)


X = f(2, 4, 5, 6)
_POSITIVE = {"log", "sqrt", "acosh", "log1p", "pow", "reciprocal"}
_UNIT = {"acos", "asin", "atanh"}


def pointwise_case(name: str) -> tuple[Graph, dict[str, Array]]:
    row = rows()[name].row
    if name in ("shift_left", "shift_right"):
        return single(op(name), ints(3, 4, high=100).astype(np.uint32), ints(3, 4, high=8).astype(np.uint32))
    low, high = (1.0, 2.0) if name in _POSITIVE else (-0.9, 0.9) if name in _UNIT else (-3.0, 3.0)
    arrays: list[Array] = []
    for i, letter in enumerate(row.types):
        array = f(3, 4, low=low, high=high) if i == 0 else f(4, low=low, high=high)
        if letter == "B" or row.dtypes == {dt.bool_}:
            array = array > 0
        elif dt.f32 not in row.dtypes:
            array = ints(*array.shape, low=1, high=9).astype(np.int32)
        arrays.append(array)
    return single(op(name), *arrays)


@pytest.mark.parametrize("name", sorted(rows()))
def test_pointwise(name: str) -> None:
    agree(*pointwise_case(name))


CASES: dict[str, tuple[Op, tuple[Array, ...]]] = {
    "leaky_relu": (op("leaky_relu", alpha=0.2), (X,)),
    "elu": (op("elu", alpha=0.5), (X,)),
    "selu": (op("selu", alpha=1.5, gamma=1.1), (X,)),
    "shrink": (op("shrink", lambd=0.7, bias=0.1), (X,)),
    "silu alpha": (op("silu", alpha=1.7), (X,)),
    "clip": (op("clip", lo=-0.5, hi=0.5), (X,)),
    "clip one side": (op("clip", hi=0.5), (X,)),
    "clip integers": (op("clip", lo=-1.5, hi=float("inf")), (ints(5, low=-9, high=9),)),
    "isinf": (op("isinf", detect_negative=False), (np.asarray([1, np.inf, -np.inf, np.nan], np.float32),)),
    "mod floats": (op("mod"), (f(7), f(7, low=0.5))),
    "mod floats fmod": (op("mod", fmod=True), (f(7), f(7, low=0.5))),
    "mod integers": (op("mod"), (ints(7, low=-9, high=9), ints(7, low=1, high=4))),
    "floor_div integers": (op("floor_div"), (ints(7, low=-9, high=9), ints(7, low=1, high=4))),
    "expm1 near zero": (op("expm1"), (f(9, low=-1e-4, high=1e-4),)),
    "log1p near zero": (op("log1p"), (f(9, low=-1e-4, high=1e-4),)),
    "log1p large": (op("log1p"), (np.asarray([1e10, 1e20, np.inf, -1], np.float32),)),
    "prelu wider slope": (op("prelu"), (f(4), f(3, 4))),
    "relu integers": (op("relu"), (ints(5, low=-3, high=3).astype(np.int64),)),
    "cast": (Cast(dt.i32), (f(5, low=-9, high=9),)),
    "cast to bool": (Cast(dt.bool_), (ints(5),)),
    "shape": (ShapeOf(), (X,)),
    "reshape": (Reshape((4, 60)), (X,)),
    "reshape empty": (Reshape((0, 7)), (f(0, 3),)),
    "transpose": (Transpose((0, 2, 3, 1)), (X,)),
    "expand": (Expand((3, 2, 4)), (f(2, 1),)),
    "slice": (Slice((0, 1, 3, 5), (1, 2, -1, -2), (2, 2, 4, 3)), (X,)),
    "slice nothing": (Slice((0, 0), (1, 1), (3, 4)), (f(3, 4),)),
    "slice empty": (Slice((0, 2), (1, 1), (3, 0)), (f(3, 4),)),
    "concat": (Concat(1), (f(2, 3), f(2, 1), f(2, 2))),
    "pad": (Pad((1, 0), (0, 2), "constant", 1.5), (f(3, 4),)),
    "pad crop": (Pad((-1, 0), (1, -2)), (f(3, 4),)),
    "pad value": (Pad((1, 0), (0, 2)), (f(3, 4), f(1))),
    "pad reflect": (Pad((1, 2), (2, 1), "reflect"), (f(3, 4),)),
    "pad edge": (Pad((1, 2), (2, 1), "edge"), (f(3, 4),)),
    "tile": (Tile((2, 3)), (f(3, 4),)),
    "dilate": (Dilate((1, 3, 2)), (f(2, 3, 4),)),
    "gather": (Gather(1), (X, ints(2, 3, low=-4, high=4))),
    "gather_elements": (GatherElements(1), (f(3, 4), ints(3, 2))),
    "gather_nd": (GatherND(0), (f(3, 4), ints(5, 2))),
    "scatter_elements": (ScatterElements(1, "add"), (f(3, 4), ints(3, 2), f(3, 2))),
    "scatter_nd": (ScatterND("none"), (f(3, 4), np.asarray([[1], [2]]), f(2, 4))),
    "one_hot": (OneHot(4, 0), (ints(3), np.asarray([-1, 5], np.float32))),
    "trilu": (Trilu(False, 1), (f(4, 5),)),
    "top_k": (TopK(3, 1), (f(4, 5),)),
    "top_k smallest": (TopK(2, 0, False), (f(4, 5),)),
    "arg max": (ArgReduce("max", 1, False), (X,)),
    "arg min last": (ArgReduce("min", 2, True, True), (ints(3, 4, 5).astype(np.float32),)),
    "cumsum": (CumSum(1, True, True), (f(3, 4),)),
    "conv": (Conv((2, 1), (1, 2), (1, 0), (0, 2), 2), (X, f(6, 2, 3, 2), f(6))),
    "conv 1-d": (Conv((1,), (1,), (1,), (1,)), (f(1, 2, 7), f(3, 2, 3))),
    "conv_transpose": (ConvTranspose((2, 2), (1, 1), (1, 0), (0, 1), (1, 0), 1), (X, f(4, 3, 3, 2), f(3))),
    "max_pool": (MaxPool((3, 2), (2, 1), (1, 1), (1, 0), (0, 1), True), (X,)),
    "max_pool_indices": (MaxPoolIndices((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), (X,)),
    "avg_pool": (AvgPool((3, 3), (2, 2), (1, 1), (1, 1), (1, 1), False, True), (X,)),
    "lp_pool": (LpPool((2, 2), (2, 2), (1, 1), (0, 0), (0, 0), False, 3), (X,)),
    "batch_norm": (BatchNorm(1e-3), (X, f(4), f(4), f(4), f(4, low=0.5))),
    "batch_norm_training": (BatchNormTraining(1e-3), (X, f(4), f(4))),
    "dropout": (Dropout(0.25), (X,)),
    "instance_norm": (InstanceNorm(1e-3), (X, f(4), f(4))),
    "group_norm": (GroupNorm(2, 1e-3), (X, f(4), f(4))),
    "layer_norm": (LayerNorm(2, 1e-3), (X, f(5, 6), f(5, 6))),
    "layer_norm plain": (LayerNorm(3), (X,)),
    "layer_norm broadcast": (LayerNorm(2), (X, f(6), f(1))),
    "rms_norm": (RMSNorm(3, 1e-3), (X, f(6))),
    "rms_norm plain": (RMSNorm(1), (X,)),
    "lrn": (LRN(3, 0.01, 0.6, 1.5), (X,)),
    "softmax": (Softmax(1), (X,)),
    "log_softmax": (LogSoftmax(2), (X,)),
    "matmul": (MatMul(), (f(2, 3, 4), f(4, 5))),
    "matmul transposed": (MatMul(True, True), (f(4, 3), f(5, 4))),
    "matmul transposed batch": (MatMul(True, True), (f(2, 4, 3), f(5, 4))),
    "matmul integers": (MatMul(), (ints(2, 3).astype(np.int32), ints(3, 2).astype(np.int32))),
    "resize sizes": (Resize((2, 4, 10, 9), (1.0, 1.0, 2.0, 1.5), "linear"), (X,)),
    "resize scales": (Resize((2, 4, 3, 4), (1.0, 1.0, 0.7, 0.7), "linear"), (X,)),
    "resize cubic": (Resize((2, 4, 10, 12), (1.0, 1.0, 2.0, 2.0), "cubic", "align_corners"), (X,)),
    "resize nearest": (Resize((2, 4, 10, 12), (1.0, 1.0, 2.0, 2.0), "nearest", "asymmetric", "floor"), (X,)),
    "grid_sample": (GridSample("cubic", "border", True), (X, f(2, 3, 3, 2, low=-1, high=1))),
    **{f"reduce {fn}": (Reduce(fn, (1, 3), True), (f(2, 4, 5, 6, low=0.5),)) for fn in
       ("sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum", "log_sum_exp")},
    **{f"reduce {fn}": (Reduce(fn, (1,), False), (X > 1,)) for fn in ("any", "all")},
    **{f"reduce {fn} of nothing": (Reduce(fn, ()), (f(3, low=0.5),)) for fn in ("sum", "l2", "sum_square", "log_sum")},
}  # fmt: skip


@pytest.mark.parametrize("label", sorted(CASES))
def test_op(label: str) -> None:
    made, inputs = CASES[label]
    agree(*single(made, *inputs))


# ops that only lowering and gradients make; their graphs are not exported
_INTERNAL = {"resample"}
_ELSEWHERE = {"recurrent", "loop", "if"}  # tests/recurrent/test_export.py, tests/control/test_onnx.py


def test_every_op_of_the_models_has_an_exporter_and_a_case() -> None:
    covered = {made.name for made, _ in CASES.values()} | set(rows())
    imported = {made.name for made in all_ops() if made.onnx} - _INTERNAL - _ELSEWHERE
    assert {name for name in imported if export_of(name) is None} == set()
    assert imported - covered == set()


def test_round_trip_keeps_names_and_kinds() -> None:
    graph = load(small_cnn())
    proto = checked(graph)
    assert {t.name for t in proto.graph.initializer} >= set(graph.parameters)
    assert {"conv", "bn", "relu", "pool", "flatten", "fc", "softmax"} <= {name for node in proto.graph.node for name in [node.name]}
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    again = load(proto)
    assert set(again.parameters) == set(graph.parameters)
    for size in (1, 3):
        feeds = feeds_for(graph, {"N": size})
        np.testing.assert_allclose(run(proto, feeds)[0], run(small_cnn(), feeds)[0], rtol=1e-6)


def test_float_constants_do_not_become_parameters() -> None:
    builder = Builder(Graph("constants"))
    x = builder.input("x", "f32", (2,))
    graph = builder.finish(y=builder.add(op("mul"), x, builder.constant([2.0, 3.0], dt.f32, "factor")))
    again = load(to_onnx(graph))
    assert again.parameters == {}
    assert again.values["factor"].kind is Kind.CONSTANT


def test_outputs_that_are_inputs_constants_or_named_otherwise() -> None:
    builder = Builder(Graph("odd"))
    x = builder.input("x", "f32", (2,))
    w = builder.parameter("w", np.ones(2, np.float32))
    y = builder.add(op("add"), x, w, name="sum")
    graph = builder.finish(same=x, weight=w, first=y, second=y)
    agree(graph, {"x": f(2)})


def test_symbolic_sizes_are_computed_from_the_inputs() -> None:
    """Two symbols, products, sums and floor divisions in one shape."""
    n, m = symbol("N"), symbol("M")
    builder = Builder(Graph("symbolic"))
    x = builder.input("x", "f32", (n, m, 4))
    flat = builder.add(Reshape((n * 4, m)), x)
    wide = builder.add(Expand((3, n * 4, m)), flat)
    cut = builder.add(Slice((0, 1, 0), (1, 1, 1), (3, n * 4 - 1, m)), wide)
    graph = builder.finish(y=cut)
    proto = checked(graph)
    for sizes in ({"N": 2, "M": 3}, {"N": 1, "M": 5}):
        feeds = feeds_for(graph, sizes)
        np.testing.assert_array_equal(run(proto, feeds)[0], ReferenceExecutable(graph).run(feeds)["y"])


def test_an_op_without_onnx_form_is_named() -> None:
    graph, _ = single(op("shift_left"), ints(3).astype(np.int32), ints(3).astype(np.int32))
    with pytest.raises(UnsupportedError, match="signed"):
        to_onnx(graph)


def test_state_and_metadata() -> None:
    builder = Builder(Graph("stateful"))
    counter = builder.state("counter", np.zeros((), np.float32))
    x = builder.input("x", "f32", ())
    graph = builder.finish(y=builder.add(op("add"), counter, x))
    graph.metadata["author"] = "nobody"
    proto = checked(graph)
    assert [tensor.name for tensor in proto.graph.initializer] == ["counter"]
    assert load(proto).metadata == {"author": "nobody"}


# files -------------------------------------------------------------------------------------------------------------------------


def test_save(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    graph = load(small_cnn())
    graphc.save_onnx(graph, path)
    assert os.listdir(tmp_path) == ["out.onnx"]
    feeds = feeds_for(graph)
    np.testing.assert_array_equal(run(str(path), feeds)[0], run(to_onnx(graph), feeds)[0])


def test_save_with_external_data(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    graph = load(small_cnn())
    save(graph, path, external=True)
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx.data").stat().st_size >= data_size(graph)
    assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in onnx.load(path, load_external_data=False).graph.initializer)
    onnx.checker.check_model(str(path), full_check=True)
    feeds = feeds_for(graph)
    np.testing.assert_array_equal(run(str(path), feeds)[0], run(to_onnx(graph), feeds)[0])
    np.testing.assert_array_equal(load(path).parameters["fc.weight"].data, graph.parameters["fc.weight"].data)


def data_size(graph: Graph) -> int:
    return sum(value.data.nbytes for value in graph.parameters.values() if value.data is not None)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    bad, _ = single(op("shift_left"), ints(3).astype(np.int32), ints(3).astype(np.int32))
    for external in (False, True):
        with pytest.raises(UnsupportedError):
            save(bad, path, external=external)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.onnx"]


# real models -------------------------------------------------------------------------------------------------------------------

REAL = [
    "cifar10_smallcnn", "mnist-8", "super_resolution-10", "ultraface_rfb320", "yunet_n_320", "squeezenet1.1_fp32", "squeezenet1.1_fp16",
    "dtln_1", "gtcrn_stream", "nnsplit_byte_bilstm", "silero_vad_16k_noif",
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_pretrained(name: str, shared_data: Path) -> None:
    """Import, export: ONNX Runtime gives the same for both files."""
    path = shared_data / "onnx-models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"needs {path}")
    graph = load(path)
    assert not [node for node in graph.nodes if node.op.name == "shape"]
    proto = checked(graph)
    feeds = feeds_for(graph)
    for want, got in zip(run(str(path), feeds), run(proto, feeds), strict=True):
        scale = np.abs(want.astype(np.float64)).max()
        assert np.abs(got.astype(np.float64) - want).max() <= 1e-5 * scale


def test_dtypes_round_trip() -> None:
    arrays: dict[str, Any] = {d.name: np.asarray([0, 1, 2], d.numpy) for d in dt.ALL}
    nodes = [helper.make_node("Cast", [f"w_{name}"], [f"y_{name}"], to=onnx.TensorProto.FLOAT) for name in arrays]
    outputs = [info(f"y_{name}", [3]) for name in arrays]
    graph = load(model(nodes, [], outputs, {f"w_{name}": array for name, array in arrays.items()}))
    again = load(to_onnx(graph))
    for name, array in arrays.items():
        data = again.values[f"w_{name}"].data
        assert data is not None
        np.testing.assert_array_equal(data, array)
        assert data.dtype == array.dtype
