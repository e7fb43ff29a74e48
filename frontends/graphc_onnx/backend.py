"""graphc as an ONNX backend: the standard `onnx.backend.base.Backend`, for the ONNX backend test suite and other harnesses.

    import graphc_onnx.backend as backend
    rep = backend.prepare(model, device="CPU")
    outputs = rep.run([x])

Inputs that decide shapes (axes, pads, sizes) may be graph inputs: the model is then specialised for the values that `run` sees, and
kept by their bytes. Sequences are lists of arrays, optionals that are absent None: the model is specialised for the number and shapes of
the elements. What graphc does not support raises `unittest.SkipTest`, which the suite's runner reports as skipped (raising
BackendIsNotSupposedToImplementIt would count as passed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Union
from unittest import SkipTest

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from graphc.errors import DynamicShapeError, InputError, ShapeError, UnsupportedError
from graphc.ir.graph import Graph
from graphc_onnx.importer import load
from graphc_onnx.inputs import Declared

Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Shape = Union[tuple[int, ...], list[tuple[int, ...]], None]  # of an array, of each array of a list, or of what is absent
_KEPT = 32  # specialisations per model; the oldest goes first


def compiled(graph: Graph) -> Run:
    """Runs on the compiled CPU back end."""
    import graphc

    run: Run = graphc.compile(graph).run
    return run


def reference(graph: Graph) -> Run:
    """Runs each op's numpy meaning."""
    run: Run = import_module("graphc_reference").ReferenceExecutable(graph).run  # by name: front ends import no back end
    return run


class GraphcRep(BackendRep):
    """A prepared model; `run` takes arrays (or numpy scalars), lists of arrays and None in graph-input order."""

    def __init__(self, model: onnx.ModelProto, make: Callable[[Graph], Run]) -> None:
        self.model = model
        self.make = make
        initialized = {tensor.name for tensor in model.graph.initializer}
        self.declared = {info.name: Declared.of(info) for info in model.graph.input if info.name not in initialized}
        self.names = list(self.declared)
        self.shaped = {name for name, found in self.declared.items() if found.is_open}  # inputs that have the shapes of what is fed
        self.outputs = [info.name for info in model.graph.output]
        self.bound: tuple[str, ...] = ()  # inputs whose data decides shapes
        self.programs: dict[tuple[Any, ...], Run] = {}
        self.fixed = False  # whether the sizes of all inputs must be known
        try:
            self._program({}, {})
        except DynamicShapeError as error:
            if not error.inputs:
                raise
            self.bound = error.inputs if error.wants == "values" else ()
        except ShapeError:
            if all(dim.HasField("dim_value") for found in self.declared.values() for dim in found.tensor.shape.dim):
                raise
            self.fixed = True

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in graph-output order, also by name. Raises SkipTest where the values show that something is not supported."""
        feeds = self._feeds(inputs)
        try:
            found = self._specialised(feeds)
        except UnsupportedError as error:
            raise SkipTest(str(error)) from error
        results: tuple[Any, ...] = namedtupledict("Outputs", self.outputs)(*(found[name] for name in self.outputs))
        return results

    def _feeds(self, inputs: Any) -> dict[str, Any]:
        """By name: arrays, lists of arrays for sequences, None. An optional input that is left out is absent."""
        if not isinstance(inputs, Mapping):
            given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(given) > len(self.names):
                raise InputError(f"{len(given)} inputs given, the model takes {len(self.names)}")
            inputs = dict(zip(self.names, given, strict=False))
        absent = {name: None for name, found in self.declared.items() if found.optional}
        return {**absent, **{name: self._fed(name, value) for name, value in inputs.items()}}

    def _fed(self, name: str, value: Any) -> Any:
        found = self.declared.get(name)
        if value is None:
            if found is None or found.optional:
                return None
            raise InputError(f"input {name!r} is None, and it is not optional", hint="an array, or a list of arrays for a sequence")
        if found is None or not found.sequence:
            return np.asarray(value)
        if not isinstance(value, (list, tuple)):
            raise InputError(f"input {name!r} is a {type(value).__name__}, and the model takes a sequence", hint="a list of arrays")
        return [np.asarray(element) for element in value]

    def _specialised(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Bind inputs until every shape is known; each DynamicShapeError names further ones."""
        while True:
            values = {name: feeds[name] for name in self.bound if name in feeds}
            shapes = {
                name: _shape(fed) for name, fed in feeds.items()
                if name not in values and name in self.declared and (self.fixed or name in self.shaped)
            }  # fmt: skip
            try:
                program = self._program(values, shapes)
                return program({name: fed for name, fed in feeds.items() if name not in values})
            except DynamicShapeError as error:
                further = tuple(name for name in error.inputs if name in feeds and name not in self.bound)
                if not further:
                    raise
                self.bound += further
            except ShapeError:
                if self.fixed:
                    raise
                self.fixed = True

    def _program(self, values: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Run:
        key = (tuple((name, _bytes(value)) for name, value in values.items()), repr(shapes))
        if key not in self.programs:
            if len(self.programs) >= _KEPT:
                del self.programs[next(iter(self.programs))]
            self.programs[key] = self.make(load(self.model, values=values, shapes=shapes))
        return self.programs[key]


def _shape(fed: Any) -> Shape:
    return [array.shape for array in fed] if isinstance(fed, list) else None if fed is None else fed.shape


def _bytes(value: Any) -> Any:
    """Equal for equal values."""
    if isinstance(value, list):
        return tuple(map(_bytes, value))
    return None if value is None else (value.dtype.str, value.shape, value.tobytes())


def _info(name: str, value: Any) -> onnx.ValueInfoProto:
    """The declaration of an input that takes the value."""
    sequence = isinstance(value, (list, tuple)) and all(isinstance(element, np.ndarray) for element in value)
    if value is None or (sequence and not value):
        shown = "None" if value is None else "an empty sequence"
        raise InputError(f"input {name!r} is {shown}: of which type is not known", hint="prepare() a model that declares the types")
    array = np.asarray(value[0] if sequence else value)
    element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    if sequence:
        return onnx.helper.make_tensor_sequence_value_info(name, element, None)
    return onnx.helper.make_tensor_value_info(name, element, array.shape)


class GraphcBackend(Backend):
    """The compiled CPU back end. `ReferenceBackend` is the same on the numpy reference."""

    make: Callable[[Graph], Run] = staticmethod(compiled)

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be prepared."""
        try:
            cls.prepare(model, device, **kwargs)
        except SkipTest:
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> GraphcRep:
        """Import and compile. Raises SkipTest for what is not supported, another GraphcError for a broken model."""
        if not cls.supports_device(device):
            raise SkipTest(f"device {device}")
        try:
            return GraphcRep(model, cls.make)
        except UnsupportedError as error:
            raise SkipTest(str(error)) from error

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """One node as a model of its own; the types come from the inputs (a list of arrays: a sequence). `opset_version` may be given."""
        names = [name for name in node.input if name]
        infos = [_info(name, value) for name, value in zip(names, inputs, strict=True)]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        version = int(kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        graph = onnx.helper.make_graph([node], "run_node", infos, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, version)])
        return cls.prepare(model, device).run(list(inputs))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


class ReferenceBackend(GraphcBackend):
    """The numpy meaning of every op."""

    make = staticmethod(reference)


is_compatible = GraphcBackend.is_compatible
prepare = GraphcBackend.prepare
run_model = GraphcBackend.run_model
run_node = GraphcBackend.run_node
supports_device = GraphcBackend.supports_device
