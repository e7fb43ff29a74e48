"""Every sample through the text form and through ONNX: what comes back computes the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.errors import UnsupportedError
from graphc.ir.text import graph_data, parse_graph, print_graph
from graphc.ops.recurrent import Recurrent
from graphc_onnx import load, to_onnx
from graphc_onnx.emitter import export_of
from ops.runners import run_reference
from ops.sample import by_name

SAMPLES = by_name()
REFUSED = {  # label -> why ONNX cannot say it
    "output shape by negative pads": "ConvTranspose with negative pads",
    "3-d linear": "is neither by scales nor by sizes",
    **dict.fromkeys(("early end", "cut off", "not begun"), "as long as it runs, not padded"),
}
ids = pytest.mark.parametrize("name", list(SAMPLES), ids=list(SAMPLES))


@ids
def test_text(name: str) -> None:
    graph = SAMPLES[name].graph()
    text = print_graph(graph)
    again = parse_graph(text, graph_data(graph))
    assert print_graph(again) == text
    assert [node.op for node in again] == [node.op for node in graph]


@ids
def test_onnx(name: str) -> None:
    sample = SAMPLES[name]
    graph = sample.graph()
    if isinstance(sample.op, Recurrent) and sample.op.name == "recurrent":  # its inner results have no ONNX form
        public = (name in ("y", "y_h", "y_c") for name in sample.op.output_names)
        graph.set_outputs({name: value for name, value, wanted in zip(graph.output_names, graph.outputs, public, strict=True) if wanted})
    missing = {node.op.name for node in graph if export_of(node.op.name) is None}
    if missing:
        with pytest.raises(UnsupportedError, match=f"no ONNX form for {min(missing)}"):
            to_onnx(graph)
        return
    if sample.label in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[sample.label]):
            to_onnx(graph)
        return
    again = load(to_onnx(graph))
    assert [(v.name, v.type) for v in again.inputs] == [(v.name, v.type) for v in graph.inputs]
    assert again.output_names == graph.output_names
    assert [v.type for v in again.outputs] == [v.type for v in graph.outputs]
    # ONNX has float attributes (epsilon, alpha) in float32 only.
    sample = replace(sample, rtol=max(sample.rtol, 1e-6), atol=max(sample.atol, 1e-7))
    sample.check(run_reference(again, sample.arrays()), run_reference(graph, sample.arrays()))


def test_most_ops_have_an_onnx_form() -> None:
    ops = {node.op.name for sample in SAMPLES.values() for node in sample.graph()}
    without = {name for name in ops if export_of(name) is None}
    assert len(without) < len(ops) / 8, sorted(without)
