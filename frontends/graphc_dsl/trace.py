"""Tracing: what happens between the first line of a model function and its return.

A `Trace` holds the graph under construction, the names given so far, and where parameters come from. Every function of the DSL works
inside a `Building`: it claims a name, notes the user's line, adds nodes, and names them when it is done. Names: the node that computes a
layer's result has the layer's name; nodes before it are called layer.op, parameters layer.weight and so on. Layers without a name are
numbered per scope by kind: conv1, conv2, max_pool1.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Union

import numpy as np

from graphc.errors import InputError, ModelError, ShapeError, TypeMismatchError
from graphc.ir.body import Body
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Graph, Value
from graphc.ir.op import Op
from graphc.source import UNKNOWN, Source
from graphc.types.dtype import DType, f32
from graphc.types.shape import static
from graphc.types.tensor import TensorType
from graphc_dsl.arguments import DTypeLike, element_type, nearest
from graphc_dsl.init import InitLike, initialise

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

TensorLike = Union["Tensor", float, Array]
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_current: ContextVar[Trace | None] = ContextVar("graphc_dsl_trace", default=None)
Result = TypeVar("Result")


class Trace:
    """One graph under construction. `seed` None: parameters are all zero and take no memory; `given`: arrays for parameters by name.

    `bodies`: the sub-graphs (of loops and choices) that are being traced, the innermost last: what is built then belongs to that one.
    """

    def __init__(self, name: str, seed: int | None, given: Mapping[str, Array]) -> None:
        self.model = Builder(Graph(name))
        self.bodies: list[Body] = []
        self.seed = seed
        self.given = dict(given)
        self._scopes: list[str] = []
        self._taken: dict[str, Source] = {}
        self._counts: dict[str, int] = {}

    @property
    def builder(self) -> Builder:
        return self.bodies[-1].builder if self.bodies else self.model

    @property
    def graph(self) -> Graph:
        return self.builder.graph

    def local(self, value: Value) -> Value:
        """What stands for a value in the graph under construction; a ModelError for one of a sub-graph that is finished."""
        owners = [self.model.graph, *(body.graph for body in self.bodies)]
        at = next((i for i, graph in reversed(list(enumerate(owners))) if graph.values.get(value.name) is value), None)
        if at is None:
            reason = f"{value.name!r} belongs to the function of a loop or branch, and has no value outside of it"
            raise ModelError(reason, where=str(user_line()), hint="return it from that function")
        for body in self.bodies[at:]:
            value = body.capture(value)
        return value

    @contextmanager
    def body(self, name: str) -> Iterator[Body]:
        """What is built inside belongs to a sub-graph, in a scope of that name."""
        body = Body(self.builder, name)
        self.bodies.append(body)
        try:
            with self.scope(name):
                yield body
        finally:
            self.bodies.pop()

    # names ------------------------------------------------------------------------------------------------------------------

    def claim(self, name: str, source: Source) -> str:
        """The name inside the present scopes; a ModelError where it is taken."""
        full = ".".join((*self._scopes, name))
        if full in self._taken:
            raise ModelError(
                f"the name {full!r} is used already, at {self._taken[full]}", where=str(source),
                hint='give every layer a name of its own, or put it in `with graphc.scope("..."):`',
            )  # fmt: skip
        self._taken[full] = source
        return full

    def number(self, kind: str, source: Source) -> str:
        """The next free automatic name of a kind of layer: conv2d -> conv1, conv2, ..."""
        base = ".".join((*self._scopes, re.sub(r"\dd$", "", kind)))
        while True:
            self._counts[base] = self._counts.get(base, 0) + 1
            full = f"{base}{self._counts[base]}"
            if full not in self._taken:
                self._taken[full] = source
                return full

    def free(self, full: str, source: Source) -> str:
        """`full`, or with a number behind it, so that it is unique."""
        name, count = full, 1
        while name in self._taken:
            count += 1
            name = f"{full}.{count}"
        self._taken[name] = source
        return name

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names made inside begin with `name.`."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    # parameters -------------------------------------------------------------------------------------------------------------

    def parameter(self, full: str, shape: Sequence[int], init: InitLike, dtype: DType, fans: tuple[int, int] | None = None) -> Value:
        """A parameter with its given array, or its initial value; both are checked against dtype and shape."""
        if full in self.given:
            array = np.asarray(self.given[full])
            if tuple(array.shape) != tuple(shape) or array.dtype != dtype.numpy:
                wanted, got = TensorType(dtype, tuple(shape)), f"{array.dtype}{list(array.shape)}"
                raise ShapeError(f"parameter {full!r} is {wanted}, the array given for it is {got}", hint="give one that fits")
        elif self.seed is None:
            array = np.broadcast_to(np.zeros((), dtype.numpy), tuple(shape))
        else:
            array = initialise(init, full, self.seed, tuple(shape), dtype, fans)
        return self.local(self.model.parameter(full, array))

    def add_given(self, arrays: Mapping[str, Array]) -> None:
        """Arrays for parameters of the present scope; those given for the whole model come first."""
        for name, array in arrays.items():
            self.given.setdefault(".".join((*self._scopes, name)), array)

    def check_given(self, where: str) -> None:
        """An InputError where an array was given for a parameter that the model does not have."""
        unknown = [name for name in self.given if name not in self.graph.parameters]
        if unknown:
            known = nearest(unknown[0], self.graph.parameters)
            reason = f"the model has no parameter {unknown[0]!r} ({len(unknown)} unknown in all)"
            raise InputError(reason, where=where, hint=known or "it has none")


class Building:
    """What a function of the DSL does its work with: `with Building("conv2d", name, x) as new: ... return new.tensor(value)`.

    Errors raised inside name the layer and the user's line. The first operand must be a Tensor, unless `loose`: then numbers and arrays
    may stand in its place.
    """

    def __init__(self, kind: str, name: str, *operands: object, loose: bool = False) -> None:
        self.kind = kind
        place = user_line()
        here = Source(place.file, place.line, name, kind)
        self.trace = trace_of(operands, here)
        if operands and not loose:
            need_tensor(operands[0], here)
        self.builder = self.trace.builder
        self.name = self.trace.claim(name, here) if name else self.trace.number(kind, here)
        self.source = Source(place.file, place.line, self.name, kind)
        self._results: list[Value] = []
        self._first = 0

    def __enter__(self) -> Building:
        self._first = len(self.trace.graph.nodes)
        self._at = self.builder.at(self.source)
        self._at.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self._name_nodes()
        self._at.__exit__(kind, error, traceback)

    def add(self, op: Op, *values: Value) -> Value:
        """A node with one output."""
        return self.builder.add(op, *values)

    def value(self, x: TensorLike, dtype: DType | None = None) -> Value:
        """The graph value of a Tensor, or a constant: numbers take `dtype`, arrays keep theirs."""
        from graphc_dsl.tensor import Tensor  # late: tensors build with this module

        if isinstance(x, Tensor):
            return self.trace.local(x.value)
        if isinstance(x, np.ndarray):
            return self.builder.constant(x, name=f"{self.name}.const")
        if not isinstance(x, (bool, int, float, np.generic)) or dtype is None:
            raise TypeMismatchError(f"a Tensor was expected, got {type(x).__name__}", hint="graphc.constant(numpy array) makes one")
        number = np.asarray(x)
        if (number.dtype.kind == "f" and not dtype.is_float) or (number.dtype.kind == "b") != (dtype.kind == "b"):
            raise TypeMismatchError(f"the number {x!r} does not fit {dtype}", hint="cast the tensor first: x.cast(graphc.f32)")
        return self.builder.constant(_exactly(number, dtype), name=f"{self.name}.const")

    def parameter(self, part: str, shape: Sequence[Any], init: InitLike, dtype: DType, fans: tuple[int, int] | None = None) -> Value:
        """The layer's parameter `name.part`; its shape must be static."""
        full = self.trace.free(f"{self.name}.{part}", self.source)
        return self.trace.parameter(full, static(tuple(shape)), init, dtype, fans)

    def tensor(self, value: Value) -> Tensor:
        """The layer's result."""
        return self.tensors([value])[0]

    def tensors(self, values: Sequence[Value]) -> list[Tensor]:
        """The layer's results."""
        from graphc_dsl.tensor import Tensor

        self._results = list(values)
        return [Tensor(self.trace, value) for value in values]

    def _name_nodes(self) -> None:
        graph = self.trace.graph
        made = [node for node in graph.nodes[self._first :] if not node.origins]  # a layer inside this one has named its own
        for value in (value for node in made for value in node.outputs):
            del graph.values[value.name]
        for node in made:
            at = [i for i, value in enumerate(self._results) if value.producer is node]
            if not at:
                node.name = self.trace.free(f"{self.name}.{node.op.name}", self.source)
            elif len(self._results) == len(at):  # the only result, or all outputs of one node
                node.name = self.name
            else:
                node.name = self.trace.free(f"{self.name}.{at[0]}", self.source)
            node.origins = (node.name,)
            for i, value in enumerate(node.outputs):
                value.name = graph.fresh_name(node.name if i == 0 else f"{node.name}:{i}")
                graph.values[value.name] = value


def _exactly(number: Array, dtype: DType) -> Array:
    """The number in a dtype; a TypeMismatchError where an integer does not fit."""
    if dtype.is_int and not np.iinfo(dtype.numpy).min <= int(number) <= np.iinfo(dtype.numpy).max:
        raise TypeMismatchError(f"the number {number} does not fit {dtype}", hint="cast the tensor first: x.cast(graphc.i64)")
    with np.errstate(over="ignore"):
        return number.astype(dtype.numpy)


def need_tensor(x: object, where: Source) -> None:
    """A TypeMismatchError unless x is a Tensor."""
    from graphc_dsl.tensor import Tensor

    if not isinstance(x, Tensor):
        hint = "graphc.constant(array) makes one" if isinstance(x, (np.ndarray, float)) else "an input of the model, or a result of a layer"
        raise TypeMismatchError(f"a Tensor was expected, got {type(x).__name__}", where=str(where), hint=hint)


def trace_of(operands: Sequence[object], here: Source) -> Trace:
    """The trace that all tensors among the operands belong to, or the running one."""
    from graphc_dsl.tensor import Tensor

    trace = _current.get()
    if trace is None:
        raise ModelError("there is no model under construction", where=str(here), hint="call this inside a function with @graphc.model")
    if any(isinstance(x, Tensor) and x.trace is not trace for x in operands):
        raise ModelError("a tensor of another model, or of an earlier trace, is used here", where=str(here), hint="pass it as an argument")
    return trace


def user_frame() -> FrameType | None:
    """The innermost frame outside of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_HERE):
        frame = frame.f_back
    return frame


def user_line() -> Source:
    """The line of `user_frame`."""
    frame = user_frame()
    return UNKNOWN if frame is None else Source(frame.f_code.co_filename, frame.f_lineno)


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Make `trace` the running one."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def running() -> Trace | None:
    """The trace under construction, if any."""
    return _current.get()


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Names of layers and parameters made inside begin with `name.`; scopes nest."""
    with trace_of((), Source(node=name, op="scope")).scope(name):
        yield


def block(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorator for a part of a model: each call is a scope, named by `name=` or after the function (bottleneck1, bottleneck2, ...)."""

    @wraps(function)
    def scoped(*args: Any, name: str = "", **kwargs: Any) -> Result:
        place = user_line()
        here = Source(place.file, place.line, name, function.__name__)
        trace = trace_of(args, here)
        full = trace.claim(name, here) if name else trace.number(function.__name__, here)
        with trace.scope(name or full.rpartition(".")[2]):
            return function(*args, **kwargs)

    return scoped


def parameter(name: str, shape: Sequence[int], init: InitLike = "he_normal", dtype: DTypeLike = f32) -> Tensor:
    """A trainable tensor of your own. `init`: an initialiser of `graphc.init`, its name, a number, or an array."""
    from graphc_dsl.tensor import Tensor

    place = user_line()
    here = Source(place.file, place.line, name, "parameter")
    trace = trace_of((), here)
    with trace.builder.at(here):
        return Tensor(trace, trace.parameter(trace.claim(name, here), static(tuple(shape)), init, element_type(dtype)))
