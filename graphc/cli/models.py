"""MODEL arguments: an ONNX file, or a model in a Python file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.cli import show
from graphc.errors import DynamicShapeError, InputError

if TYPE_CHECKING:
    from graphc.ir.graph import Array, Graph

_SCRIPT = re.compile(r"(?P<path>.*\.py)(?::(?P<name>\w+))?")


@dataclass(frozen=True)
class Sizes:
    """What the user says of a model's inputs: sizes of symbolic dims, and shapes as `graphc.load_onnx` takes them."""

    dims: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, Any] = field(default_factory=dict)


def is_script(model: str) -> bool:
    return _SCRIPT.fullmatch(model) is not None


def load(model: str, sizes: Sizes, values: Mapping[str, Any] | None = None) -> Graph:
    """The graph of a MODEL argument with `sizes` fixed. Raises GraphcError for anything that cannot be loaded."""
    from graphc.driver import as_graph

    if not is_script(model):
        made: Graph = _onnx().load(Path(model), dims=sizes.dims, shapes=sizes.shapes, values=values)
        return made
    return as_graph(_load_script(model), sizes.dims, sizes.shapes)


def load_with(model: str, sizes: Sizes, values: Mapping[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """The graph, and those of `values` (arrays for tensors) that it still takes.

    The elements of a sequence are tensors of their own: seq[0], seq[1] and so on; an ONNX model takes as many as there are, and takes
    the shapes of what it leaves open. One whose shapes depend on the data of some inputs gets these as constants.
    """
    wholes, shapes, fixed = _wholes(values), dict(sizes.shapes), dict[str, Any]()
    while True:
        try:
            graph = load(model, Sizes(sizes.dims, shapes), fixed)
        except DynamicShapeError as error:
            given = shapes if error.wants == "shapes" else fixed
            further = {name: wholes[name] for name in error.inputs if name in wholes and name not in given}
            if not further or len(further) < len(set(error.inputs) - given.keys()):
                raise
            given |= further if given is fixed else {name: _shape(whole) for name, whole in further.items()}
            shapes = {name: shape for name, shape in shapes.items() if name not in fixed}
            continue
        constant = {f"{name}[{at}]" for name, whole in fixed.items() if isinstance(whole, list) for at in range(len(whole))}
        return graph, {name: array for name, array in values.items() if name not in fixed and name not in constant}


def _shape(whole: Array | list[Array]) -> Any:
    return [array.shape for array in whole] if isinstance(whole, list) else whole.shape


def _wholes(values: Mapping[str, Array]) -> dict[str, Array | list[Array]]:
    """The arrays, and lists of those that are called NAME[0], NAME[1] and so on."""
    found: dict[str, Array | list[Array]] = dict(values)
    for name in values:
        if name.endswith("[0]"):
            whole = name.removesuffix("[0]")
            labels = itertools.takewhile(values.__contains__, (f"{whole}[{at}]" for at in itertools.count()))
            found.setdefault(whole, [values[label] for label in labels])
    return found


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
