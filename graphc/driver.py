"""compile(): model -> graph -> passes -> plan -> program. The file to read first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc import backend as backends
from graphc.backend import Backend, KeptPrograms
from graphc.errors import AttributeValueError, InputError, UnsupportedError
from graphc.executable import Compiled, Executable, apart_of
from graphc.ir.graph import Graph
from graphc.ir.state import keep_state
from graphc.limits import check_bytes, check_flops
from graphc.schedule.plan import Plan
from graphc.target import Target
from graphc.types.shape import check_sizes

if TYPE_CHECKING:
    from graphc.passes.base import Context
    from graphc.passes.pipeline import Observer

ACCURACIES = ("default", "exact")
MAX_THREADS = 4096


def compile(
    model: Any, target: str | Target = "host", threads: int | None = None, dims: Mapping[str, int] | None = None,
    accuracy: str = "default", backend: str = "cpu", weights: str = "float32", tune: bool = False, state: Mapping[str, str] | None = None,
    shapes: Mapping[str, Any] | None = None,
) -> Executable:  # fmt: skip
    """Compile a model: an ONNX model as the path to its file, its bytes or an onnx.ModelProto, a Graph, or a DSL model.

    target: "host", a machine level ("avx512", "avx2", "sse2", "neon") or a Target. threads: None means one per usable core.
    dims: sizes of symbolic dims; dims left symbolic are compiled for at the first call that brings them. accuracy: "default", or "exact"
    for algorithms that sum in the order of the definition only. tune: choose how convolutions are computed by timing candidates on this
    machine, once (the times are kept in the cache), instead of by a model; the choice, and so the last bits, may differ from the untuned.
    weights: "bf16" or "int8" (one scale per output channel): dense layers keep large constant matrices so in memory, because at batch 1 a
    dense layer takes the time of reading its weights. Typical relative rms error of a layer's output: 0.2 % (bf16), 1 % (int8).
    state: inputs that the executable keeps, each with the output that is its value for the next run: {"h_in": "h_out"}. Both leave the
    signature; a state is 0 at first (`Executable.state`). Raises InputError, ShapeError or TypeMismatchError for a pair that does not fit.
    shapes: of inputs of an ONNX file that are sequences, optional or of unknown rank, as in `graphc.load_onnx`: {"seq": 3, "opt": None}.
    """
    check_options(threads, accuracy)
    _check_weights(weights)
    dims = check_sizes(dims or {})
    chosen = backends.find(backend)
    machine = chosen.target(target)
    options = repr((accuracy, weights, tune, sorted(map(repr, dims.items())), shapes or {}))
    kept = _kept(chosen, model, machine, options) if state is None else None
    source = _Source(model, dims, kept, state, shapes)

    def compile_for(sizes: Mapping[str, int]) -> Compiled:
        def make() -> tuple[Graph, Plan]:
            from graphc.passes.base import Context

            context = Context(machine, accuracy, chosen.chooser(machine, tune), weights=weights)
            return lower(source.graph.bind(sizes), context)

        found = kept.load(sizes, threads) if kept is not None else None
        if found is not None:
            return Compiled(*found, lambda: make()[0])
        graph, plan = make()
        program, apart = chosen.compile(graph, plan, threads), apart_of(graph, plan)
        if kept is not None:
            kept.keep(sizes, plan, program, apart)
        return Compiled(plan, program, apart, lambda: graph)

    executable = Executable(source.signature, compile_for)
    if not source.signature.symbols:
        executable.compiled()
    return executable


class _Source:
    """The model: `signature` has at least its inputs and outputs, `graph` all of it, read when something needs it."""

    def __init__(
        self, model: Any, dims: Mapping[str, int] | None, kept: KeptPrograms | None, state: Mapping[str, str] | None,
        shapes: Mapping[str, Any] | None,
    ) -> None:  # fmt: skip
        self._model, self._dims, self._kept, self._state, self._shapes = model, dims, kept, state, shapes
        found = kept.signature() if kept is not None else None
        self.signature = self.graph if found is None else found
        if kept is not None and found is None:
            kept.keep_signature(self.graph)

    @cached_property
    def graph(self) -> Graph:
        graph = as_graph(self._model, self._dims, self._shapes)
        if self._kept is not None:
            self._kept.check_unchanged()
        if self._state is not None:
            keep_state(graph, self._state)
        return graph


def _kept(chosen: Backend, model: Any, machine: Target, options: str) -> KeptPrograms | None:
    """Programs of earlier processes, for a model file and a back end that keeps them."""
    find = getattr(chosen, "kept", None)
    if find is None or not isinstance(model, (str, os.PathLike)):
        return None
    found: KeptPrograms | None = find(Path(model), machine, options)
    return found


def lower(graph: Graph, context: Context, observe: Observer | None = None) -> tuple[Graph, Plan]:
    """The machine form (edits `graph` in place) and the plan of a graph with static shapes."""
    from graphc.passes.pipeline import MACHINE, PORTABLE, run_passes  # late: to start a kept program none of it is needed
    from graphc.schedule.planner import make_plan

    run_passes(graph, PORTABLE, context, observe)
    _check_sizes(graph)
    run_passes(graph, MACHINE, context, observe)
    assert context.target is not None
    return graph, make_plan(graph, context.target, context.choose)


def as_graph(model: Any, dims: Mapping[str, int] | None = None, shapes: Mapping[str, Any] | None = None) -> Graph:
    """The graph of anything that `compile` takes, with `dims` fixed: a copy, or made for this call.

    Raises InputError for a name in `dims` that is no symbolic dim of the model, or for `shapes` of what is no file, UnsupportedError for
    what is no model.
    """
    if _is_onnx(model):
        given = Path(model) if isinstance(model, str) else model
        loaded: Graph = import_module("graphc_onnx").load_onnx(given, dims=dims, shapes=shapes)  # by name: imports only go down
        return loaded
    if shapes:
        raise InputError("shapes are given when an ONNX model is read, and this model is none", hint="graphc.load_onnx(..., shapes=...)")
    graph = model if isinstance(model, Graph) else getattr(model, "graph", None)
    if callable(graph) and not isinstance(model, type):
        graph = graph()
    if isinstance(graph, Graph):
        return graph.bind(check_sizes(dims or {}, graph.symbols))
    raise UnsupportedError(f"cannot compile a {type(model).__name__}", hint="an ONNX model, a graphc.Graph, or a @graphc.model")


def _is_onnx(model: Any) -> bool:
    """A path, the bytes of a file, or an onnx.ModelProto."""
    return isinstance(model, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(model, "SerializeToString")


def check_options(threads: object, accuracy: object) -> None:
    """Raises AttributeValueError for what is no number of threads, or no accuracy."""
    if accuracy not in ACCURACIES:
        raise AttributeValueError(f"accuracy {accuracy!r}", hint=f"one of {', '.join(ACCURACIES)}")
    whole = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= MAX_THREADS
    if not whole and threads is not None:
        raise AttributeValueError(f"threads={threads!r}", hint=f"1 to {MAX_THREADS}, or None for one per usable core")


def _check_weights(weights: object) -> None:
    if weights == "float32":
        return
    from graphc.passes.compress_weights import STORAGES

    if weights not in STORAGES:
        raise AttributeValueError(f"weights {weights!r}", hint=f"one of {', '.join(STORAGES)}")


def _check_sizes(graph: Graph) -> None:
    """Raises ShapeError for a symbolic dim that is left, ResourceError for a value or a node above the limits; in sub-graphs too."""
    for node in graph.nodes:
        for value in node.outputs:
            check_bytes(value.type.static_shape, value.type.dtype.itemsize, f"the value {value.name!r}")
        cost = node.op.cost([value.type for value in node.inputs], [value.type for value in node.outputs])
        check_flops(cost.flops, node.where)
        for body in node.op.bodies():
            _check_sizes(body)
