"""MODEL arguments: an ONNX file, or a model in a Python file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.cli import show
from graphc.errors import DynamicShapeError, InputError

if TYPE_CHECKING:
    from graphc.ir.graph import Array, Graph

_SCRIPT = re.compile(r"(?P<path>.*\.py)(?::(?P<name>\w+))?")


def is_script(model: str) -> bool:
    return _SCRIPT.fullmatch(model) is not None


def load(model: str, dims: Mapping[str, int] | None = None) -> Graph:
    """The graph of a MODEL argument with `dims` fixed. Raises GraphcError for anything that cannot be loaded."""
    from graphc.types.shape import check_sizes

    if not is_script(model):
        return _onnx().load(Path(model), dims=dict(dims or {}))  # type: ignore[no-any-return]
    graph = _load_script(model)
    return graph.bind(check_sizes(dims or {}, graph.symbols))


def load_with(model: str, dims: Mapping[str, int], values: Mapping[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """The graph, and those of `values` (arrays for inputs) that it still takes: an ONNX model whose shapes depend on the data of some
    inputs gets these as constants."""
    try:
        return load(model, dims), dict(values)
    except DynamicShapeError as error:
        if not error.inputs or not set(error.inputs) <= values.keys():
            raise
        fixed = {name: values[name] for name in error.inputs}
    graph = _onnx().load(Path(model), dims=dict(dims), values=fixed)
    return graph, {name: array for name, array in values.items() if name not in fixed}


def _onnx() -> Any:
    import graphc_onnx

    return graphc_onnx


def _load_script(model: str) -> Graph:
    from graphc.driver import as_graph
    from graphc_dsl import load_script

    found = _SCRIPT.fullmatch(model)
    assert found is not None
    made: Any = load_script(found["path"], found["name"])
    return as_graph(made)


def static(graph: Graph) -> Graph:
    """The graph with every symbolic dim that is left fixed to 1; says so."""
    from graphc.inspect.sizes import assume_one

    sizes = assume_one(graph)
    if not sizes:
        return graph
    show.note(f"{', '.join(f'{name}={size}' for name, size in sizes.items())}; --dims sets other sizes")
    return graph.bind(sizes)


def require_file(model: str) -> None:
    """An InputError where the MODEL argument names no file."""
    found = _SCRIPT.fullmatch(model)
    path = Path(found["path"] if found else model)
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), hint="check the path")
