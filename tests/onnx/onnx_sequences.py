"""Models with sequences and optionals, and comparing what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx_models import Array, info, model

import graphc
from graphc_onnx import load
from graphc_onnx.backend import GraphcBackend, ReferenceBackend
from graphc_reference import ReferenceExecutable

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node
BACKENDS = (GraphcBackend, ReferenceBackend)


def seq(name: str, shape: Sequence[Any] | None = None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, dtype, shape)


def opt(of: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    return helper.make_value_info(of.name, helper.make_optional_type_proto(of.type))


def graph(nodes: Sequence[onnx.NodeProto], takes: Sequence[Any], gives: Sequence[Any], **weights: Array) -> onnx.GraphProto:
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    return helper.make_graph(list(nodes), "body", list(takes), list(gives), tensors)


def floats(*shapes: tuple[int, ...], seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def by_ort(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, dict(feeds))
    return found


def equal(found: Any, wanted: Any) -> None:
    """Arrays, lists of arrays or None, of the same shapes and dtypes; floats up to rounding."""
    if wanted is None:
        assert found is None
    elif isinstance(wanted, list):
        assert isinstance(found, list)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            equal(one, other)
    else:
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def edits() -> onnx.ModelProto:
    """All operators on sequences: [*seq, x] with x in front too and the second one erased; its parts joined; one of them; the count."""
    nodes = [
        node("SequenceInsert", ["seq", "x"], ["a"]),
        node("SequenceInsert", ["a", "x", "first"], ["b"]),
        node("SequenceErase", ["b", "second"], ["out"]),
        node("ConcatFromSequence", ["out"], ["all"], axis=0),
        node("SequenceAt", ["out", "last"], ["one"]),
        node("Exp", ["one"], ["exp"]),
        node("SequenceLength", ["out"], ["count"]),
    ]
    outputs = [seq("out"), info("all", None), info("exp", None), info("count", [], INT64)]
    numbers = {"first": np.asarray(0), "second": np.asarray(1), "last": np.asarray(-1)}
    return model(nodes, [seq("seq", ["N", 3]), info("x", ["M", 3])], outputs, numbers)


def filled(opset: int, of: onnx.ValueInfoProto, out: onnx.ValueInfoProto) -> onnx.ModelProto:
    """The element of an optional, else `other`; and the optional again."""
    branches = {
        "then_branch": graph([node("OptionalGetElement", ["opt"], ["t"])], [], [helper.make_value_info("t", out.type)]),
        "else_branch": graph([node("Identity", ["other"], ["e"])], [], [helper.make_value_info("e", out.type)]),
    }
    nodes = [node("OptionalHasElement", ["opt"], ["has"]), node("If", ["has"], [out.name], **branches), node("Identity", ["opt"], ["same"])]
    inputs = [opt(of), helper.make_value_info("other", out.type)]
    return model(nodes, inputs, [out, info("has", [], BOOL), opt(helper.make_value_info("same", of.type))], opset=opset)


def check(proto: onnx.ModelProto, *calls: Mapping[str, Any], native: int = 0, **given: Any) -> graphc.Graph:
    """Compiled and in the reference as in ONNX Runtime, which gets all feeds; `given`: of load. `native`: loops and choices that stay."""
    made = load(proto, **given)
    assert sum(bool(n.op.bodies()) for n in made.nodes) == native
    constant = given.get("values", {})
    runs: list[Callable[..., Any]] = [graphc.compile(made, backend=backend).run for backend in ("cpu", "reference")]
    runs.append(ReferenceExecutable(made).run)
    for feeds in calls:
        wanted = by_ort(proto, feeds)
        for run in runs:
            found = run({name: value for name, value in feeds.items() if name not in constant})
            assert list(found) == [output.name for output in proto.graph.output]
            equal(list(found.values()), wanted)
    return made
