"""ONNX in and out: `load` imports a model as a graphc Graph, `save` and `to_onnx` export one.

`graphc.load_onnx` and `graphc.save_onnx` are these functions.
"""

from __future__ import annotations

from graphc_onnx.exporter import save, to_onnx
from graphc_onnx.exporter import save as save_onnx
from graphc_onnx.importer import load
from graphc_onnx.importer import load as load_onnx

__all__ = ["load", "load_onnx", "save", "save_onnx", "to_onnx"]
