"""verify: every invariant, broken on purpose, is found and the message names the place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import VerifyError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.verify import verify
from graphc.ops.pointwise import op
from graphc.passes.base import Context, Pass
from graphc.passes.pipeline import run_passes
from graphc.source import UNKNOWN, Source
from graphc.types.dtype import f32, i64
from graphc.types.layout import Layout
from graphc.types.tensor import TensorType
from ir.random_graphs import random_graph


def _graph() -> Graph:
    """y = relu(x * w) + x; the state `steps` counts runs."""
    builder = Builder(Graph("net"))
    x = builder.input("x", f32, (2, 3))
    w = builder.parameter("w", np.ones(3, np.float32))
    with builder.at(Source("net.py", 7), ("first",)):
        product = builder.add(op("mul"), x, w, name="product")
    positive = builder.add(op("relu"), product, name="positive")
    steps = builder.state("steps", np.asarray(0, np.int64))
    graph = builder.finish(y=builder.add(op("add"), positive, x, name="sum"))
    graph.updates[steps] = builder.add(op("add"), steps, builder.constant(np.asarray(1, np.int64)), name="step")
    return graph


def _rename(graph: Graph) -> None:
    graph.values["product"].name = "other"


def _forget_producer(graph: Graph) -> None:
    graph.values["product"].producer = None


def _swap_nodes(graph: Graph) -> None:
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


def _repeat_node(graph: Graph) -> None:
    graph.nodes.append(graph.nodes[1])


def _drop_node(graph: Graph) -> None:
    del graph.nodes[0]


def _silent_input(graph: Graph) -> None:
    """An input exchanged behind the back of the use lists."""
    graph.nodes[1].inputs = [graph.values["x"]]


def _wrong_count(graph: Graph) -> None:
    graph.values["x"].users[graph.nodes[0]] = 2


def _foreign_user(graph: Graph) -> None:
    Node("stranger", op("relu"), [graph.values["x"]], UNKNOWN, ())


def _foreign_input(graph: Graph) -> None:
    value = Value("alien", TensorType(f32, (2, 3)), Kind.RESULT)
    node = graph.nodes[1]
    node.inputs = [value]
    graph.values["product"].users = {}
    value.users = {node: 1}


def _wrong_type(graph: Graph) -> None:
    graph.values["positive"].type = TensorType(f32, (2, 4))


def _wrong_op(graph: Graph) -> None:
    graph.nodes[1].op = op("not")


def _negative_size(graph: Graph) -> None:
    graph.values["x"].type = TensorType(f32, (-2, 3))


def _no_data(graph: Graph) -> None:
    graph.values["w"].data = None


def _wrong_data(graph: Graph) -> None:
    graph.values["w"].data = np.ones(4, np.float32)


def _wide_data(graph: Graph) -> None:
    graph.values["w"].data = np.ones(3)


def _unlisted_input(graph: Graph) -> None:
    graph.inputs.clear()


def _input_twice(graph: Graph) -> None:
    graph.inputs *= 2


def _constant_input(graph: Graph) -> None:
    graph.inputs.append(graph.values["w"])


def _unknown_input(graph: Graph) -> None:
    graph.inputs.append(Value("z", TensorType(f32, (2,)), Kind.INPUT))


def _leaf_layout(graph: Graph) -> None:
    graph.values["w"].layout = Layout(16)


def _result_kind(graph: Graph) -> None:
    graph.values["product"].kind = Kind.CONSTANT


def _stolen_output(graph: Graph) -> None:
    graph.nodes[0].outputs = []


def _foreign_producer(graph: Graph) -> None:
    graph.values["product"].producer = Node("stranger", op("relu"), [], UNKNOWN, ())


def _nameless_output(graph: Graph) -> None:
    graph.outputs.append(graph.values["product"])


def _same_name(graph: Graph) -> None:
    _nameless_output(graph)
    graph.output_names.append("y")


def _foreign_output(graph: Graph) -> None:
    graph.outputs[0] = Value("alien", TensorType(f32, (2, 3)), Kind.RESULT)


def _update_of_parameter(graph: Graph) -> None:
    graph.updates[graph.values["w"]] = graph.values["w"]


def _update_of_other_type(graph: Graph) -> None:
    graph.updates[graph.values["steps"]] = graph.values["product"]


def _kernel_of_two_values(graph: Graph) -> None:
    for node in graph.nodes:
        node.kernel = 4


BROKEN: dict[Callable[[Graph], None], str] = {
    _rename: r"^other: is stored under the name 'product'",
    _forget_producer: r"^product: has no producer",
    _swap_nodes: r"^relu 'positive': uses 'product' before it is computed",
    _repeat_node: r"^relu 'positive': occurs twice",
    _drop_node: r"^x: is used by a node outside the graph",
    _silent_input: r"^product: has 1 uses by relu 'positive' on record, not 0",
    _wrong_count: r"^x: has 2 uses by mul 'product' \(net.py:7\) on record, not 1",
    _foreign_user: r"^x: is used by a node outside the graph",
    _foreign_input: r"^relu 'positive': uses 'alien' before it is computed",
    _wrong_type: r"^relu 'positive': infers f32\[2,3\], has f32\[2,4\]",
    _wrong_op: r"^not 'positive': has inputs that its op refuses: not does not take f32",
    _negative_size: r"^x: has a negative size: f32\[-2,3\]",
    _no_data: r"^w: has no data",
    _wrong_data: r"^w: holds other data than f32\[3\]: float32\[4\]",
    _wide_data: r"^w: holds other data than f32\[3\]: float64\[3\]",
    _unlisted_input: r"^x: is an input, or not, but not listed so",
    _input_twice: r"^net: has an input twice",
    _constant_input: r"^w: is an input, or not, but not listed so",
    _unknown_input: r"^z: is an input that the graph does not know",
    _leaf_layout: r"^w: is a leaf and has the layout c16",
    _result_kind: r"^mul 'product' \(net.py:7\): computes 'product', a leaf",
    _stolen_output: r"^product: is not among the outputs of its producer",
    _foreign_producer: r"^product: is computed by a node outside the graph",
    _nameless_output: r"^net: has outputs without names",
    _same_name: r"^net: has an output name twice: \['y', 'y'\]",
    _foreign_output: r"^alien: is an output that nothing computes",
    _update_of_parameter: r"^w: is updated but is no state",
    _update_of_other_type: r"^steps: of type i64\[\] is updated with f32\[2,3\]",
    _kernel_of_two_values: r"^add 'step': is in kernel 4, which stores 'sum', 'step'; a kernel stores one value",
}


def test_the_graph_is_sound_before_it_is_broken() -> None:
    verify(_graph())


@pytest.mark.parametrize("spoil", list(BROKEN), ids=[spoil.__name__.strip("_") for spoil in BROKEN])
def test_what_is_broken_is_found(spoil: Callable[[Graph], None]) -> None:
    graph = _graph()
    spoil(graph)
    with pytest.raises(VerifyError, match=BROKEN[spoil]):
        verify(graph)


@given(st.integers(0, 1 << 32), st.booleans())
def test_what_the_builder_makes_is_sound(seed: int, symbolic: bool) -> None:
    graph = random_graph(seed, symbolic=symbolic)
    verify(graph)
    verify(graph.copy())


def test_an_error_names_the_pass() -> None:
    def spoil(graph: Graph, context: Context) -> int:
        _no_data(graph)
        return 1

    with pytest.raises(VerifyError, match=r"^after pass spoil: w: has no data"):
        run_passes(_graph(), [Pass("spoil", "to be caught", spoil)], Context())


def test_a_pass_that_loses_an_origin_is_caught() -> None:
    def forget(graph: Graph, context: Context) -> int:
        graph.nodes[0].origins = ()
        return 1

    with pytest.raises(VerifyError, match=r"^after pass forget: net: the original nodes 'first' are lost"):
        run_passes(_graph(), [Pass("forget", "to be caught", forget)], Context())


def test_a_pass_that_raises_is_named_in_a_note() -> None:
    def fail(graph: Graph, context: Context) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        run_passes(_graph(), [Pass("nothing", "first", lambda g, c: 0), Pass("fail", "to be caught", fail)], Context())
    assert getattr(error.value, "__notes__", ["in pass fail, after nothing"]) == ["in pass fail, after nothing"]  # Python 3.10 has no notes


def test_verification_is_a_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_VERIFY", "0")
    graph = _graph()
    graph.values["w"].type = TensorType(i64, (3,))
    run_passes(graph, [], Context())
    run_passes(graph, [Pass("nothing", "", lambda g, c: 0)], Context())
