"""graphc: a declarative graph compiler for CNN and RNN models.

    exe = graphc.compile("model.onnx")      # or a graphc.Graph, or a @graphc.model of the DSL
    y = exe(x)

Names resolve on first use, so `import graphc` is fast and loads no LLVM and no ONNX.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES: dict[str, str] = {
    "compile": "graphc.driver",
    "Executable": "graphc.executable",
    "Graph": "graphc.ir.graph",
    "Target": "graphc.target",
    "load_onnx": "graphc_onnx",
    "save_onnx": "graphc_onnx",
    **{
        name: "graphc.errors"
        for name in (
            "GraphcError", "ModelError", "UnsupportedError", "TypeMismatchError", "ShapeError", "DynamicShapeError", "InputError",
            "AttributeValueError", "VerifyError", "ResourceError", "BackendError",
        )
    },
}  # fmt: skip
__version__ = "0.1.0"
__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
