"""Exporters of ops, one file per family; importing this package fills the table of `graphc_onnx.emitter`."""

from graphc_onnx.exports import control, indexing, movement, neural, pointwise, recurrent, reduce

__all__ = ["control", "indexing", "movement", "neural", "pointwise", "recurrent", "reduce"]
