"""The text form: exact round trips of random graphs and of every kind of attribute and data; hostile text ends in errors with a line."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import GraphcError, ModelError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.text import digest, graph_data, parse_graph, print_graph
from graphc.ops.movement import Reshape
from graphc.ops.pointwise import Cast, op
from graphc.passes.base import Context
from graphc.passes.pipeline import ALL, run_passes
from graphc.target import named
from graphc.types.dtype import ALL as DTYPES
from graphc.types.dtype import f16, f32, i64
from graphc.types.layout import Layout
from graphc.types.shape import DimLike, parse_dim, symbol
from ir.random_graphs import ODD_NAMES, feeds, leaves, random_graph
from ops.runners import run_reference

seeds = st.integers(0, 1 << 32)


def _describe(graph: Graph) -> list[object]:
    """All that a graph holds, with values by name."""

    def value(v: Value) -> object:
        return v.name, v.kind, v.type, v.layout, None if v.data is None else (v.data.dtype.str, v.data.shape, v.data.tobytes())

    def node(n: Node) -> object:
        head = (n.name, repr(n.op), type(n.op), n.kernel, n.algorithm, n.origins, n.source)
        return [head, [v.name for v in n.inputs], [value(v) for v in n.outputs]]

    users = {v.name: sorted((n.outputs[0].name, count) for n, count in v.users.items()) for v in graph.values.values()}
    lists = [[v.name for v in graph.inputs], graph.output_names, [v.name for v in graph.outputs], list(graph.metadata.items())]
    updates = [(s.name, v.name) for s, v in graph.updates.items()]
    return [graph.name, lists, updates, graph.eliminated, users, [value(v) for v in leaves(graph)], [node(n) for n in graph.nodes]]


def _round_trip(graph: Graph) -> Graph:
    text = print_graph(graph)
    again = parse_graph(text, graph_data(graph))
    assert print_graph(again) == text
    assert _describe(again) == _describe(graph)
    return again


@given(seeds, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=150)
def test_random_graphs_come_back(seed: int, symbolic: bool, odd_names: bool, half: bool) -> None:
    graph = random_graph(seed, size=8, symbolic=symbolic, odd_names=odd_names, dtype=f16 if half else f32)
    _round_trip(graph)


@given(seeds, st.sampled_from(ALL))
@settings(max_examples=40)
def test_every_stage_comes_back(seed: int, last: object) -> None:
    graph = random_graph(seed, size=10)
    run_passes(graph, ALL[: ALL.index(last) + 1], Context(named("avx2")))  # type: ignore[arg-type]
    _round_trip(graph)


def test_the_parsed_graph_computes_the_same() -> None:
    graph = random_graph(5, size=12, odd_names=True)
    arrays = list(feeds(graph).values())
    for a, b in zip(run_reference(_round_trip(graph), arrays), run_reference(graph, arrays), strict=True):
        np.testing.assert_array_equal(a, b)


def test_text_of_a_small_graph() -> None:
    builder = Builder(Graph("net"))
    x = builder.input("x", f32, (symbol("N"), 3))
    w = builder.parameter("fc.weight", np.arange(60, dtype=np.float32).reshape(3, 20))
    state = builder.state("steps", np.asarray(7, np.int64))
    y = builder.add(op("elu", alpha=0.5), x, name="act one")
    one = builder.constant(np.asarray(1, np.int64), name="one")
    graph = builder.finish(y=y)
    graph.updates[state] = builder.add(op("add"), state, one)
    graph.eliminated["drop"] = "canonicalize"
    assert w.data is not None
    assert print_graph(graph).splitlines() == [
        "graph net",
        "input %x : f32[N,3]",
        f"param %fc.weight : f32[3,20] = @{digest(w.data)}",
        "state %steps : i64[] = 7",
        "const %one : i64[] = 1",
        '%"act one" = elu(%x) {alpha=0.5} : f32[N,3]',
        "%add = add(%steps, %one) : i64[]",
        'output y = %"act one"',
        "update %steps = %add",
        'eliminated "drop" "canonicalize"',
    ]
    _round_trip(graph)


def test_machine_notes_can_be_left_out() -> None:
    builder = Builder()
    y = builder.add(op("relu"), builder.input("x", f32, (1, 16, 2, 2)))
    graph = builder.finish(y=y)
    graph.nodes[0].kernel, graph.nodes[0].algorithm, y.layout = 3, "winograd2", Layout(16, ((1, 1), (0, 2)))
    assert print_graph(graph).splitlines()[2] == "%relu = relu(%x) : f32[1,16,2,2] kernel 3 algorithm winograd2 layout c16+1:1,0:2"
    assert print_graph(graph, machine=False).splitlines()[2] == "%relu = relu(%x) : f32[1,16,2,2]"
    _round_trip(graph)


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3), seeds)
@settings(max_examples=150)
def test_data_is_exact(dtype: object, shape: list[int], seed: int) -> None:
    kind = dtype.numpy  # type: ignore[attr-defined]
    count = int(np.prod(shape, dtype=int))
    raw = random.Random(seed).randbytes(count * kind.itemsize)
    data = (np.frombuffer(raw, np.uint8) % 2).astype(bool) if kind.kind == "b" else np.frombuffer(raw, kind)
    graph = Graph()
    Builder(graph).parameter("w", data.reshape(shape))
    _round_trip(graph)


def test_every_float16_is_exact() -> None:
    everything = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    graph = Graph()
    for start in range(0, 1 << 16, 16):
        Builder(graph).parameter(f"w{start}", everything[start : start + 16])
    again = parse_graph(print_graph(graph), graph_data(graph))
    together = np.concatenate([again.values[name].data for name in graph.values])  # type: ignore[misc]
    assert together.tobytes() == everything.tobytes()


def test_comments_and_blank_lines() -> None:
    head = "# first\n\ngraph g # the name\ninput %x : f32[2]# a vector\n"
    graph = parse_graph(head + '  %"#y" = relu(%x) : f32[2] # its positive part\n#\noutput y = %"#y"\n')
    assert [value.name for value in graph.values.values()] == ["x", "#y"]


@st.composite
def dims(draw: st.DrawFn, depth: int = 3) -> DimLike:
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(st.integers(0, 9), st.sampled_from("NMK").map(symbol)))
    left, right = draw(dims(depth - 1)), draw(dims(depth - 1))
    mark = draw(st.sampled_from(("+", "-", "*", "//", "%")))
    if mark in ("//", "%"):
        return left if right == 0 else left // right if mark == "//" else left % right
    return left + right if mark == "+" else left - right if mark == "-" else left * right


@given(dims())
@settings(max_examples=300)
def test_dims_come_back(dim: DimLike) -> None:
    assert parse_dim(str(dim)) == dim
    builder = Builder()
    type = f32[(symbol("N"), *([dim] if not isinstance(dim, int) else []))]
    graph = builder.finish(y=builder.add(Reshape(type.shape), builder.input("x", f32, type.shape)))
    assert parse_graph(print_graph(graph)).outputs[0].type == type


NO_DIMS = ("", "N N", "()", "1.5", "N.real", "().__class__", "9**9", "((", "(" * 9999, "N+", "2N", "1//0", "N)", "é")


@pytest.mark.parametrize("text", NO_DIMS, ids=[text[:12] for text in NO_DIMS])
def test_what_is_no_dim(text: str) -> None:
    with pytest.raises(GraphcError, match="is not a dimension"):
        parse_dim(text)


def test_a_dim_does_not_explode() -> None:
    with pytest.raises(GraphcError, match="more than 4096 terms"):
        parse_dim("*".join(f"(a{i}+b{i})" for i in range(40)))


HEAD = "graph g\ninput %x : f32[2,3]\n"
HOSTILE: dict[str, tuple[str, str]] = {
    "": ("line 1", "starts with: graph NAME"),
    "input %x : f32[2]": ("line 1", "expected 'graph', got 'input'"),
    "graph": ("line 1", "ends too early"),
    "graph g h": ("line 1", "unexpected 'h' at the end"),
    HEAD + "%y = frobnicate(%x) : f32[2,3]": ("line 3", "unknown op 'frobnicate'"),
    HEAD + "%y = relu(%z) : f32[2,3]": ("line 3", "'z' is used before it is defined"),
    HEAD + "%y = relu(%y) : f32[2,3]": ("line 3", "'y' is used before it is defined"),
    HEAD + "%y = relu(%x) : f32[2,4]": ("line 3", r"relu gives f32\[2,3\], not f32\[2,4\]"),
    HEAD + "%y = relu(%x) : f32[2,3], f32[2,3]": ("line 3", "relu gives"),
    HEAD + "%y, %z = relu(%x) : f32[2,3]": ("line 3", "for 2 values"),
    HEAD + "%x = relu(%x) : f32[2,3]": ("line 3", "defined twice"),
    HEAD + "%y = relu(%x, %x) : f32[2,3]": ("line 3", "relu takes 1 inputs, got 2"),
    HEAD + "%y = relu(%x : f32[2,3]": ("line 3", "expected '\\)', got ':'"),
    HEAD + "%y = relu(%x)": ("line 3", "expected ':', got 'the end of the line'"),
    HEAD + "%y = relu(%x) : f32[2,3": ("line 3", "lacks its \\]"),
    HEAD + "%y = relu(%x) : f99[2,3]": ("line 3", "expected a dtype, got 'f99'"),
    HEAD + "%y = relu(%x) : f32(2,3)": ("line 3", "expected the shape of a type"),
    HEAD + "%y = relu(%x) : f32[2,-3]": ("line 3", "a size of -3"),
    HEAD + "%y = relu(%x) : f32[2,__import__('os')]": ("line 3", "is not a dimension"),
    HEAD + "%y = relu(%x) {alpha=1.0} : f32[2,3]": ("line 3", "relu has no attribute 'alpha'"),
    HEAD + "%y = elu(%x) {alpha=1.0, alpha=2.0} : f32[2,3]": ("line 3", "'alpha' is given twice"),
    HEAD + '%y = elu(%x) {alpha="1"} : f32[2,3]': ("line 3", "alpha of elu cannot be"),
    HEAD + "%y = elu(%x) {alpha=} : f32[2,3]": ("line 3", "expected a value, got '}'"),
    HEAD + "%y = softmax(%x) : f32[2,3]": ("line 3", "not understood.*axis"),
    HEAD + "%y = softmax(%x) {axis=9} : f32[2,3]": ("line 3", "axis 9"),
    HEAD + "%y = softmax(%x) {axis=true} : f32[2,3]": ("line 3", "axis of softmax cannot be true"),
    HEAD + "%y = transpose(%x) {perm=" + "(" * 5000 + "} : f32[2,3]": ("line 3", "not understood"),
    HEAD + "%y = cast(%x) {to=9} : f32[2,3]": ("line 3", "to of cast cannot be 9"),
    HEAD + "%y = relu(%x) : f32[2,3] kernel -1": ("line 3", "expected a number"),
    HEAD + "%y = relu(%x) : f32[2,3] layout c0": ("line 3", "expected a layout"),
    HEAD + "%y = relu(%x) : f32[2,3] layout plain, plain": ("line 3", "not understood"),
    HEAD + "%y = relu(%x) : f32[2,3] by magic": ("line 3", "unknown note 'by'"),
    HEAD + "%y = relu(%x) : f32[2,3] from y": ("line 3", "expected a quoted string"),
    HEAD + '%y = relu(%x) : f32[2,3] at "f", 1, "n"': ("line 3", "not understood"),
    HEAD + "const %c : f32[] = 1e39": ("line 3", "not understood.*overflow"),
    HEAD + "output y = %y": ("line 3", "'y' is used before"),
    HEAD + "output y = %x\noutput y = %x": ("line 4", "'y' is given twice"),
    HEAD + "update %x = %x": ("x", "is updated but is no state"),
    HEAD + "state %s : i64[] = 1\nupdate %s = %x": ("s", "is updated with"),
    HEAD + 'metadata "a" b': ("line 3", "expected a quoted string"),
    HEAD + 'metadata "a" "b"\nmetadata "a" "c"': ("line 4", "is given twice"),
    HEAD + "frob %y": ("line 3", "unknown statement 'frob'"),
    HEAD + "const %c : f32[2]": ("line 3", "expected '=', got 'the end"),
    HEAD + "const %c : f32[2] = [1.0]": ("line 3", "not understood"),
    HEAD + "const %c : f32[2] = [1.0, [2.0]]": ("line 3", "not understood"),
    HEAD + "const %c : f32[1] = [true]": ("line 3", "true is no number of f32"),
    HEAD + "const %c : i64[1] = [1.5]": ("line 3", "1.5 is no number of i64"),
    HEAD + "const %c : u8[1] = [256]": ("line 3", "not understood"),
    HEAD + "const %c : f32[N] = [1.0]": ("line 3", "is symbolic"),
    HEAD + "const %c : f32[99999999999] = [1.0]": ("line 3", "not understood"),
    HEAD + "const %c : f32[20] = @0123456789abcdef": ("line 3", "data of 'c' is not given"),
    HEAD + "§": ("line 3", "unexpected '§'"),
    HEAD + '%"y = relu(%x) : f32[2,3]': ("line 3", "unexpected"),
    HEAD + '%"\\q" = relu(%x) : f32[2,3]': ("line 3", "not understood"),
}


@pytest.mark.parametrize("text", list(HOSTILE), ids=[text.splitlines()[-1][:60] if text else "empty" for text in HOSTILE])
def test_hostile_text(text: str) -> None:
    where, reason = HOSTILE[text]
    with pytest.raises(GraphcError, match=reason) as error:
        parse_graph(text)
    assert error.value.where.split(":")[0] == where


def test_wrong_data_is_refused() -> None:
    graph = Graph()
    Builder(graph).parameter("w", np.arange(20, dtype=np.float32))
    text = print_graph(graph)
    for wrong in (np.arange(20), np.zeros(20, np.float32), np.arange(20, dtype=np.float32).reshape(4, 5)):
        with pytest.raises(ModelError, match="line 2: the data given for 'w' is not the data of this text"):
            parse_graph(text, {"w": wrong})


@given(seeds, st.integers(0, 1 << 30), st.sampled_from(["delete", "swap", "insert", "cut"]), st.text(max_size=3))
@settings(max_examples=300)
def test_mutated_text_never_crashes(seed: int, place: int, change: str, text: str) -> None:
    graph = random_graph(seed % 20, size=6, symbolic=True, odd_names=seed % 2 == 0)
    good = print_graph(graph)
    at = place % len(good)
    bad = {
        "delete": good[:at] + good[at + 1 + len(text) :],
        "swap": good[:at] + text + good[at + 1 :],
        "insert": good[:at] + text + good[at:],
        "cut": good[:at],
    }[change]
    try:
        parsed = parse_graph(bad, graph_data(graph))
    except GraphcError:
        return
    _round_trip(parsed)


def test_odd_names_everywhere() -> None:
    for name in ODD_NAMES:
        builder = Builder(Graph(name))
        x = builder.input(name, f16, (2,))
        y = builder.add(Cast(i64), x, name=name)
        graph = builder.finish(**{name: y})
        graph.metadata[name] = graph.eliminated[name] = name
        graph.nodes[0].origins = (name, name + "2")
        assert [v.kind for v in _round_trip(graph).values.values()] == [Kind.INPUT, Kind.RESULT]
