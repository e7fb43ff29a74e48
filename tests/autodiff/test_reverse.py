"""Reverse mode through whole graphs: finite differences, accumulation, pruning, origins, second derivatives, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import graphc
from autodiff.differences import check, run
from graphc.autodiff.reverse import SUFFIX, differentiate, unsupported_gradients
from graphc.errors import InputError, ShapeError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ir.verify import verify
from graphc.ops.norm_training import BatchNormTraining
from graphc.ops.pointwise import op
from graphc.ops.reduce import ArgReduce, Reduce
from graphc.types.dtype import f64
from graphc.types.tensor import TensorType

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)


@graphc.model
def small_net(image: graphc.f64[3, 2, 9, 8], scores: graphc.f64[3, 4]) -> Any:
    """Convolutions with strides, groups and dilation, both poolings, a branch that joins by concat and one by addition, a product."""
    x = graphc.conv2d(image, 6, kernel=3, padding=1, activation="tanh", name="a")
    y = graphc.conv2d(x, 6, kernel=3, stride=2, padding=1, groups=2, name="b")
    z = graphc.conv2d(x, 4, kernel=3, stride=2, padding=2, dilation=2, activation="sigmoid", name="c")
    both = graphc.concat([y, z], axis=1)
    p = graphc.max_pool2d(both, 2) + graphc.avg_pool2d(both, 2)
    q = graphc.batch_norm(p, activation="relu", name="n")
    logits = graphc.linear(graphc.flatten(q), 4, name="fc") * scores
    return graphc.mean(graphc.log_softmax(logits) * scores)


def _feeds(graph: Graph) -> dict[str, Array]:
    return {value.name: RNG.standard_normal(value.type.static_shape) for value in graph.inputs}


def test_whole_net_equals_differences() -> None:
    graph = small_net.graph()
    derived = graphc.grad(graph, [value.name for value in (*graph.inputs, *graph.parameters.values())])
    verify(derived)
    assert check(graph, derived, _feeds(graph), graph.output_names[0]) == 2 + len(graph.parameters) == 14


def test_compiled_gradients_equal_the_reference() -> None:
    derived = graphc.grad(small_net)
    feeds = _feeds(derived)
    expected, found = run(derived, feeds), graphc.compile(derived, threads=2).run(feeds)
    assert list(found) == derived.output_names
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


def _scalar_graph() -> tuple[Graph, Builder, Value]:
    builder = Builder()
    x = builder.input("x", f64, (3,))
    return builder.graph, builder, x


def test_contributions_are_added() -> None:
    graph, builder, x = _scalar_graph()
    y = builder.add(op("mul"), x, builder.add(op("add"), x, builder.add(op("sin"), x)))
    builder.finish(y=builder.add(Reduce("sum", (0,), False), y))
    value = np.array([0.3, -1.0, 2.0])
    found = run(graphc.grad(graph), {"x": value})["grad(x)"]
    np.testing.assert_allclose(found, 2 * value + np.sin(value) + value * np.cos(value), rtol=1e-14)


def test_nothing_is_left_that_no_gradient_needs() -> None:
    graph, builder, x = _scalar_graph()
    w = builder.parameter("w", np.ones(3))
    builder.finish(y=builder.add(Reduce("sum", (0,), False), builder.add(op("mul"), x, w)))
    derived = graphc.grad(graph, "w")
    grad = derived.outputs[1]
    needed, stack = set(), [value.producer for value in derived.outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in needed:
            needed.add(node)
            stack += [value.producer for value in node.inputs]
    assert needed == set(derived.nodes)
    assert grad.type == w.type


def test_backward_nodes_name_what_they_serve() -> None:
    graph = small_net.graph()
    forward = set(graph.origins())
    derived = graphc.grad(graph)
    backward = [node for node in derived.nodes if node.name.endswith(SUFFIX)]
    assert len(backward) > 40
    assert all(node.origins and set(node.origins) <= forward for node in backward)
    assert any(node.name == f"a.conv{SUFFIX}" and node.origins == ("a.conv",) for node in backward)


def test_without_a_way_the_gradient_is_zero() -> None:
    graph, builder, x = _scalar_graph()
    builder.input("z", f64, (2,))
    builder.finish(y=builder.add(Reduce("sum", (0,), False), x))
    np.testing.assert_array_equal(run(graphc.grad(graph), {"x": np.ones(3), "z": np.ones(2)})["grad(z)"], np.zeros(2))


def test_batch_statistics_pass_gradients_too() -> None:
    builder = Builder()
    x, scale, bias = (builder.input(name, f64, shape) for name, shape in (("x", (3, 2, 4)), ("scale", (2,)), ("bias", (2,))))
    outputs = builder.add_many(BatchNormTraining(1e-3), x, scale, bias)
    parts = [builder.add(Reduce("sum_square", tuple(range(v.type.rank)), False), v) for v in outputs]
    total = builder.add(op("add"), builder.add(op("add"), parts[0], parts[1]), builder.add(op("sin"), parts[2]))
    graph = builder.finish(total=builder.add(op("mul"), total, builder.add(op("exp"), parts[1])))
    assert check(graph, graphc.grad(graph), _feeds(graph), "total") == 3


POINTWISE = [
    "tanh", "sigmoid", "softplus", "silu", "exp", "gelu", "mish", "sin", "elu", "log1p", "sqrt", "erf", "atan", "asinh", "cosh", "selu",
    "softsign", "reciprocal", "log",
]  # fmt: skip


@pytest.mark.parametrize("name", POINTWISE)
def test_second_derivative_of_pointwise(name: str) -> None:
    graph, builder, x = _scalar_graph()
    builder.finish(y=builder.add(Reduce("sum", (0,), False), builder.add(op(name), builder.add(op("mul"), x, x))))
    _check_second(graph)


def test_second_derivative_of_conv_and_matmul() -> None:
    @graphc.model
    def net(image: graphc.f64[2, 2, 6, 5]) -> Any:
        x = graphc.conv2d(image, 3, kernel=3, stride=2, padding=1, activation="tanh", name="a")
        x = graphc.conv2d(x, 2, kernel=2, activation="sigmoid", name="b")
        return graphc.mean(graphc.tanh(graphc.linear(graphc.flatten(x), 3, name="fc")))

    _check_second(net.graph())


def test_second_derivative_of_groups_and_transposed_convolutions() -> None:
    @graphc.model
    def net(image: graphc.f64[2, 4, 5, 5]) -> Any:
        x = graphc.conv2d(image, 4, kernel=3, groups=2, dilation=2, padding=1, activation="tanh", name="a")
        x = graphc.conv_transpose2d(x, 2, 3, stride=2, activation="sigmoid", name="b")
        return graphc.mean(graphc.matmul(graphc.transpose(x, (0, 1, 3, 2)), x) * x.mean())

    _check_second(net.graph())


def _check_second(graph: Graph) -> None:
    """The gradient of the squared norm of the first gradients is that norm's slope."""
    first = graphc.grad(graph, [value.name for value in (*graph.inputs, *graph.parameters.values())])
    builder = Builder(first)
    squares = [builder.add(Reduce("sum_square", tuple(range(v.type.rank)), False), v) for v in first.outputs[1:]]
    total = squares[0]
    for square in squares[1:]:
        total = builder.add(op("add"), total, square)
    first.set_outputs({"norm": total})
    second = graphc.grad(first, [value.name for value in (*graph.inputs, *graph.parameters.values())])
    assert check(first, second, _feeds(graph), "norm", rtol=2e-6) == len(squares)


@dataclass(frozen=True)
class Opaque(Op):
    """An op with a reason instead of a gradient."""

    name: ClassVar[str] = "opaque"
    not_differentiable: ClassVar[str] = "it is a test"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]


@dataclass(frozen=True)
class Picky(Opaque):
    """An op whose gradient depends on an attribute."""

    name: ClassVar[str] = "picky"
    not_differentiable: ClassVar[str] = ""

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        raise UnsupportedError("not with this attribute")


def _refusing(*ops: Op) -> Graph:
    _, builder, x = _scalar_graph()
    for i, made in enumerate(ops):
        x = builder.add(op("tanh"), builder.add(made, x, name=f"bad{i}"))
    return builder.finish(y=builder.add(Reduce("sum", (0,), False), x))


def test_every_node_without_a_gradient_is_listed() -> None:
    graph = _refusing(Opaque(), Picky(), Opaque())
    missing = unsupported_gradients(graph)
    assert [(entry.node, entry.reason) for entry in missing] == [
        ("bad0", "it is a test"), ("bad1", "not with this attribute"), ("bad2", "it is a test"),
    ]  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"2 nodes have no gradient.*'bad0'.*it is a test.*'bad2'"):
        graphc.grad(graph)
    with pytest.raises(UnsupportedError, match=r"1 node has no gradient.*'bad0'.*not with this attribute"):
        graphc.grad(_refusing(Picky()))


def test_an_index_is_no_way_for_gradients() -> None:
    graph, builder, x = _scalar_graph()
    place = builder.add(ArgReduce("max", 0, False), x)
    builder.finish(y=builder.add(Reduce("sum", (0,), False), x), place=place)
    assert unsupported_gradients(graph) == []
    assert "grad(x)" in graphc.grad(graph).output_names


def test_refusals() -> None:
    graph, builder, x = _scalar_graph()
    builder.input("n", graphc.i64, ())
    builder.finish(y=builder.add(Reduce("sum", (0,), False), x), x=x)
    with pytest.raises(ShapeError, match="must be one floating point number"):
        graphc.grad(graph, of="x")
    with pytest.raises(InputError, match="no output 'z'"):
        graphc.grad(graph, of="z")
    with pytest.raises(InputError, match="no input or parameter 'w'"):
        graphc.grad(graph, "w")
    with pytest.raises(UnsupportedError, match="only floating point"):
        graphc.grad(graph, "n")


def test_the_model_is_left_alone() -> None:
    graph = small_net.graph()
    before = len(graph.nodes), list(graph.values)
    graphc.grad(graph)
    assert (len(graph.nodes), list(graph.values)) == before


def test_seeds_of_several_values() -> None:
    graph, builder, x = _scalar_graph()
    y, z = builder.add(op("exp"), x), builder.add(op("sin"), x)
    found = differentiate(graph, {y: builder.constant(np.full(3, 2.0)), z: builder.constant(np.full(3, 5.0))}, [x])[x]
    assert found is not None
    builder.finish(grad=found)
    value = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(run(graph, {"x": value})["grad"], 2 * np.exp(value) + 5 * np.cos(value), rtol=1e-14)
