"""Tracing: names, scopes, sources, and errors that point at the user's line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc
from dsl.tracing import graph_of, model_of
from graphc.ir.verify import verify

IMAGE = graphc.f32["N", 3, 16, 16]


def _line_of(text: str) -> int:
    """The only line of this file that has `text`, this call's apart."""
    lines = inspect.getsource(inspect.getmodule(_line_of)).splitlines()
    (found,) = [i for i, line in enumerate(lines, start=1) if text in line and "_line_of" not in line]
    return found


def test_automatic_names_count_by_kind_and_scope() -> None:
    def build(x):
        for _ in range(2):
            x = graphc.relu(graphc.conv2d(x, 4, 3))
        with graphc.scope("head"):
            x = graphc.max_pool2d(x, 2)
            with graphc.scope("deep"):
                x = graphc.conv2d(x, 2, 1)
            x = x + 1
        with graphc.scope("head"):
            return x + 1

    names = [node.name for node in graph_of(build, IMAGE)]
    assert names == ["conv1", "relu1", "conv2", "relu2", "head.max_pool1", "head.deep.conv1", "head.add1", "head.add2"]


def test_parameters_are_named_after_their_layer() -> None:
    def build(x):
        x = graphc.batch_norm(graphc.conv2d(x, 4, 3, name="c1"))
        return graphc.linear(x.flatten(), 2, bias=False, name="out")

    assert list(graph_of(build, IMAGE).parameters) == [
        "c1.weight", "c1.bias",
        "batch_norm1.weight", "batch_norm1.bias", "batch_norm1.running_mean", "batch_norm1.running_var",
        "out.weight",
    ]  # fmt: skip


def test_result_has_the_layers_name() -> None:
    graph = graph_of(lambda x: graphc.linear(x, 3, activation="relu", name="l"), graphc.f32[2, 5])
    assert [(node.name, node.op.name, node.output.name) for node in graph] == [
        ("l.matmul", "matmul", "l.matmul"), ("l.add", "add", "l.add"), ("l", "relu", "l"),
    ]  # fmt: skip
    assert graph.origins() == ["l.matmul", "l.add", "l"]
    assert graph.output_names == ["l"]


def test_results_of_one_layer_are_numbered() -> None:
    graph = graph_of(lambda x: tuple(graphc.split(x, 2, name="s")), graphc.f32[2, 6])
    assert graph.output_names == ["s.0", "s.1"]
    top = graph_of(lambda x: graphc.topk(x, 2, name="t"), graphc.f32[2, 6])
    assert [node.name for node in top] == ["t"]
    assert top.output_names == ["t", "t:1"]


def test_blocks_are_scopes() -> None:
    @graphc.block
    def cell(x, channels):
        return graphc.conv2d(x, channels, 1)

    def build(x):
        return cell(cell(cell(x, 2), 3, name="named"), 4)

    assert [node.name for node in graph_of(build, IMAGE)] == ["cell1.conv1", "named.conv1", "cell2.conv1"]


def test_a_function_as_activation_names_its_own_nodes() -> None:
    graph = graph_of(lambda x: graphc.conv2d(x, 2, 1, activation=lambda y: graphc.leaky_relu(y, 0.2), name="c"), IMAGE)
    assert [node.name for node in graph] == ["c", "leaky_relu1"]
    assert graph.nodes[1].op.alpha == 0.2


def test_names_are_unique() -> None:
    def build(x):
        return graphc.relu(graphc.relu(x, name="a"), name="a")  # second a

    with pytest.raises(graphc.ModelError, match=rf"test_tracing.py:{_line_of('second a')}: the name 'a' is used already"):
        graph_of(build, IMAGE)


def test_automatic_names_step_around_given_ones() -> None:
    graph = graph_of(lambda x: graphc.relu(graphc.relu(x, name="relu1")), IMAGE)
    assert [node.name for node in graph] == ["relu1", "relu2"]


def test_every_node_knows_its_line() -> None:
    def build(x):
        x = graphc.conv2d(x, 2, 3, name="c")  # the conv
        return x * 2.0 + 1.0  # the arithmetic

    graph = graph_of(build, IMAGE)
    assert [node.source.line for node in graph] == [_line_of("# the conv"), *[_line_of("# the arithmetic")] * 2]
    assert all(node.source.file == __file__ for node in graph)
    assert str(graph.nodes[0].source) == f"conv2d 'c' at {__file__}:{_line_of('# the conv')}"


def test_same_graph_every_time() -> None:
    def build(x):
        return graphc.linear(graphc.conv2d(x, 4, 3, padding="same").flatten(), 5)

    first, second = (graph_of(build, IMAGE) for _ in range(2))
    verify(first)
    assert [repr(value) for value in first.values.values()] == [repr(value) for value in second.values.values()]
    assert all(np.array_equal(value.data, second.values[name].data) for name, value in first.parameters.items())


ERRORS: list[tuple[Callable[[graphc.Tensor], object], type[Exception], str]] = [
    (lambda x: graphc.conv2d(x, 8, 3, weight=graphc.zeros((8, 4, 3, 3)), name="c3"), graphc.ShapeError,
     "conv2d 'c3' at FILE: input has 3 channels, weight expects 4 (groups=1). Try: an input of shape (N, 4, ...), or another weight"),
    (lambda x: graphc.conv2d(x, 8, 3, groups=2), graphc.ShapeError,
     "conv2d 'conv1' at FILE: 3 input and 8 output channels do not both split into 2 groups. Try: a common divisor"),
    (lambda x: graphc.conv2d(x, 8, 17, name="big"), graphc.ShapeError, "conv2d 'big' at FILE: conv: kernel 17"),
    (lambda x: graphc.conv2d(x, "8", 3), graphc.AttributeValueError, "channels is '8'. Try: a whole number of at least 1"),
    (lambda x: graphc.conv2d(x, 8, (3, 3, 3)), graphc.AttributeValueError, "kernel is (3, 3, 3). Try: one number, or 2 of them"),
    (lambda x: graphc.conv2d(x, 8, 3, padding="full"), graphc.AttributeValueError, "padding is 'full'. Try: \"same\""),
    (lambda x: graphc.conv2d(x, 8, 3, activation="rellu"), graphc.AttributeValueError, "unknown activation 'rellu'. Try: 'relu'"),
    (lambda x: graphc.conv2d(x, 8, 3, activation="zzz"), graphc.AttributeValueError, "Try: abs, arctan"),
    (lambda x: graphc.conv2d(x, 8, 3, activation=3), graphc.AttributeValueError, "activation is 3"),
    (lambda x: graphc.conv2d(x, 8, 3, weight_init="he"), graphc.AttributeValueError, "unknown initialiser 'he'"),
    (lambda x: graphc.linear(x, 8, weight=graphc.zeros((8, 7))), graphc.ShapeError, "input f32[N,3,16,16] has 16 features"),
    (lambda x: x + np.zeros(16), graphc.TypeMismatchError, "add 'add1' at FILE: add needs inputs of one dtype, got f32, f64"),
    (lambda x: x + graphc.zeros((5,)), graphc.ShapeError, "add 'add1' at FILE: shapes [N,3,16,16] and [5] do not broadcast: 16 against 5"),
    (lambda x: x.cast("int32") + 1.5, graphc.TypeMismatchError, "the number 1.5 does not fit i32"),
    (lambda x: x.cast("uint8") + 300, graphc.TypeMismatchError, "the number 300 does not fit u8"),
    (lambda x: x.cast("int32") / 2, graphc.TypeMismatchError, "a / b of i32. Try: a // b rounds down"),
    (lambda x: graphc.one_hot(x, 3, dtype="complex"), graphc.AttributeValueError, "there is no dtype 'complex'"),
    (lambda x: x.cast(None), graphc.AttributeValueError, "there is no dtype None"),
    (lambda x: x.cast("complex"), graphc.AttributeValueError, "there is no dtype 'complex'"),
    (lambda x: x + "text", graphc.TypeMismatchError, "a Tensor was expected, got str"),
    (lambda x: graphc.zeros((2, 3)).reshape(4, -1), graphc.ShapeError, "reshape 'reshape1' at FILE: cannot reshape 6 elements"),
    (lambda x: x.sum(4), graphc.AttributeValueError, "axis 4 of a tensor of rank 4. Try: -4 to 3"),
    (lambda x: x[:, 3], graphc.ShapeError, "index 3 is outside of axis 1 of size 3"),
    (lambda x: x[0, 0, 0, 0, 0], graphc.ShapeError, "5 indices for a tensor of rank 4"),
    (lambda x: x[x > 0], graphc.UnsupportedError, "a bool mask as index"),
    (lambda x: x["a"], graphc.UnsupportedError, "an index of type str"),
    (lambda x: x if x.sum() > 0 else -x, graphc.UnsupportedError, "FILE: whether <Tensor greater1: bool[]> is true is not known while"),
    (lambda x: float(x.sum()), graphc.UnsupportedError, "FILE: <Tensor sum1: f32[]> has no value while the model is traced"),
    (lambda x: np.asarray(x), graphc.UnsupportedError, "has no value while the model is traced"),
    (lambda x: x.__setitem__(0, 1), graphc.UnsupportedError, "cannot be changed in place"),
    (lambda x: list(x), graphc.ShapeError, "FILE: a loop over a tensor of <Tensor x: f32[N,3,16,16]>: its first dim N is symbolic"),
    (lambda x: graphc.split(x, 2), graphc.ShapeError, "axis 1 of f32[N,3,16,16] does not split into 2 equal parts"),
    (lambda x: graphc.dropout(x, 1.5), graphc.AttributeValueError, "dropout rate 1.5"),
    (lambda x: graphc.concat([]), graphc.ShapeError, "concat of no tensor"),
    (lambda x: graphc.resize(x, 3, scale=2), graphc.AttributeValueError, "give one of them"),
    (lambda x: graphc.leaky_relu(x, alpha="a"), graphc.AttributeValueError,
     "leaky_relu 'leaky_relu1' at FILE: leaky_relu: alpha must be a number"),
    (lambda x: graphc.conv_transpose2d(x, 2, 3, padding="same"), graphc.AttributeValueError, "ambiguous"),
    (lambda x: graphc.gather(x, [0.5]), graphc.AttributeValueError, "the indices are [0.5]. Try: whole numbers"),
    (lambda x: graphc.gather(x, [[0, 1], [1]]), graphc.AttributeValueError, "the indices are [[0, 1], [1]]. Try: lists of equal lengths"),
    (lambda x: graphc.sample(x, temperature="hot"), graphc.AttributeValueError, "temperature is 'hot'. Try: a number"),
    (lambda x: 3, graphc.ModelError, "returns int. Try: return a Tensor"),
    (lambda x: (), graphc.ModelError, "returns nothing"),
    (lambda x: graphc.conv2d(np.zeros((1, 3, 8, 8)), 4, 3), graphc.TypeMismatchError,
     "conv2d at FILE: a Tensor was expected, got ndarray. Try: graphc.constant(array) makes one"),
    (lambda x: graphc.depthwise_conv2d(None, 3), graphc.TypeMismatchError, "depthwise_conv2d at FILE: a Tensor was expected, got NoneType"),
    (lambda x: graphc.concat([x, None]), graphc.TypeMismatchError, "a Tensor was expected, got NoneType"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_error_names_layer_line_reason_and_next_step(number: int) -> None:
    build, kind, message = ERRORS[number]
    with pytest.raises(kind, match=re.escape(message).replace("FILE", rf"{re.escape(__file__)}:\d+")) as caught:
        graph_of(build, IMAGE)
    error = caught.value
    assert isinstance(error, graphc.GraphcError)
    if __file__ in error.where:
        line = inspect.getsource(inspect.getmodule(_line_of)).splitlines()[int(error.where.rpartition(":")[2]) - 1]
        assert "lambda x" in line or "return build" in line


def test_layers_need_a_model() -> None:
    with pytest.raises(graphc.ModelError, match="there is no model under construction"):
        graphc.zeros((3,))
    kept = []
    graph_of(lambda x: kept.append(x) or x + 1, IMAGE)
    with pytest.raises(graphc.ModelError, match="no model under construction"):
        graphc.relu(kept[0])
    with pytest.raises(graphc.ModelError, match="a tensor of another model"):
        graph_of(lambda x: x + kept[0], IMAGE)
    with pytest.raises(graphc.ModelError, match="returns a tensor of another trace"):
        graph_of(lambda x: kept[0], IMAGE)


def test_an_error_leaves_no_trace_running() -> None:
    with pytest.raises(graphc.GraphcError):
        graph_of(lambda x: x + "text", IMAGE)
    with pytest.raises(graphc.ModelError, match="there is no model under construction"):
        graphc.zeros((3,))


def test_symbolic_sizes_go_through() -> None:
    def build(x):
        x = graphc.conv2d(x, 4, 3, padding="same")
        x = graphc.max_pool2d(x, 2)
        return x.mean((2, 3)), x.flatten(2)[:, :, 1:], graphc.upsample(x, 3)

    graph = model_of(build, graphc.f32["N", 3, "2*H", 6]).graph()
    assert [str(value.type) for value in graph.outputs] == ["f32[N,4]", "f32[N,4,3*H-1]", "f32[N,4,3*H,9]"]
    with pytest.raises(graphc.ShapeError, match=r'padding="same" with stride 2 depends on the size 2\*H'):
        graph_of(lambda x: graphc.conv2d(x, 4, 3, stride=2, padding="same"), graphc.f32["N", 3, "2*H", 6])


@pytest.mark.parametrize("dtype", [graphc.f64, "f64", "float64", np.float64, np.dtype("float64")], ids=repr)
def test_dtypes_by_any_name(dtype: object) -> None:
    @graphc.model
    def net(i: graphc.i64[3]):
        made = [graphc.zeros((2,), dtype), graphc.ones((2,), dtype), graphc.constant([1, 2], dtype), graphc.arange(2, dtype=dtype)]
        return *made, graphc.one_hot(i, 4, dtype=dtype), graphc.sequence_mask(i, 2, dtype), graphc.parameter("p", (2,), dtype=dtype)

    assert all(value.type.dtype == graphc.f64 for value in net.graph().outputs)
