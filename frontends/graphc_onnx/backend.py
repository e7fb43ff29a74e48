"""graphc as an ONNX backend: the standard `onnx.backend.base.Backend`, for the ONNX backend test suite and other harnesses.

    import graphc_onnx.backend as backend
    rep = backend.prepare(model, device="CPU")
    outputs = rep.run([x])

Inputs that decide shapes (axes, pads, sizes) may be graph inputs: the model is then specialised for the values that `run` sees, and
kept by their bytes. What graphc does not support raises `unittest.SkipTest`, which the suite's runner reports as skipped (raising
BackendIsNotSupposedToImplementIt would count as passed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any
from unittest import SkipTest

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from graphc.errors import DynamicShapeError, InputError, ShapeError, UnsupportedError
from graphc.ir.graph import Array, Graph
from graphc_onnx.importer import load

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
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
    """A prepared model; `run` takes arrays (or numpy scalars) in graph-input order."""

    def __init__(self, model: onnx.ModelProto, make: Callable[[Graph], Run]) -> None:
        self.model = model
        self.make = make
        initialized = {tensor.name for tensor in model.graph.initializer}
        self.names = [info.name for info in model.graph.input if info.name not in initialized]
        self.outputs = [info.name for info in model.graph.output]
        self.bound: tuple[str, ...] = ()  # inputs whose data decides shapes
        self.programs: dict[tuple[Any, ...], Run] = {}
        self.fixed = False  # whether the sizes of all inputs must be known
        try:
            self._program({}, {})
        except DynamicShapeError as error:
            if not error.inputs:
                raise
            self.bound = error.inputs
        except ShapeError:
            if all(isinstance(dim, int) for shape in self._declared() for dim in shape):
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

    def _feeds(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            return {name: np.asarray(value) for name, value in inputs.items()}
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(given) > len(self.names):
            raise InputError(f"{len(given)} inputs given, the model takes {len(self.names)}")
        return {name: np.asarray(value) for name, value in zip(self.names, given, strict=False)}

    def _specialised(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Bind inputs until every shape is known; each DynamicShapeError names further ones."""
        while True:
            values = {name: feeds[name] for name in self.bound if name in feeds}
            try:
                program = self._program(values, feeds if self.fixed else {})
                return program({name: array for name, array in feeds.items() if name not in values})
            except DynamicShapeError as error:
                further = tuple(name for name in error.inputs if name in feeds and name not in self.bound)
                if not further:
                    raise
                self.bound += further

            except ShapeError:
                if self.fixed:
                    raise
                self.fixed = True

    def _program(self, values: Mapping[str, Array], shapes: Mapping[str, Array]) -> Run:
        key = (
            tuple((name, array.dtype.str, array.shape, array.tobytes()) for name, array in values.items()),
            tuple((name, array.shape) for name, array in shapes.items()),
        )
        if key not in self.programs:
            if len(self.programs) >= _KEPT:
                del self.programs[next(iter(self.programs))]
            self.programs[key] = self.make(load(_with_shapes(self.model, shapes), values=values))
        return self.programs[key]

    def _declared(self) -> list[tuple[int | str, ...]]:
        """Shapes of the inputs, names for what is not a number."""
        shapes = [info.type.tensor_type.shape.dim for info in self.model.graph.input if info.name in self.names]
        return [tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in shape) for shape in shapes]


def _with_shapes(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with the inputs' shapes as they are fed."""
    if not feeds:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for info in made.graph.input:
        if info.name in feeds:
            elem_type = info.type.tensor_type.elem_type
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, elem_type, feeds[info.name].shape))
    return made


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
        """One node as a model of its own; the types come from the inputs. `opset_version` may be given."""
        names = [name for name in node.input if name]
        arrays = [np.asarray(value) for value in inputs]
        infos = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(names, arrays, strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        version = int(kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        graph = onnx.helper.make_graph([node], "run_node", infos, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, version)])
        return cls.prepare(model, device).run(arrays)

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
