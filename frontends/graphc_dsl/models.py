"""@graphc.model: a Python function over tensors becomes a model that can be compiled, called, loaded with weights and summarised.

    @graphc.model
    def tiny(image: graphc.f32["N", 1, 28, 28], *, hidden: int = 32):
        x = graphc.linear(image.flatten(), hidden, activation="relu", name="hidden")
        return graphc.linear(x, 10, name="logits")

Arguments annotated with a tensor type are inputs; the others are options with defaults, set by `tiny.configure(hidden=64)`. The function
returns a tensor, a tuple of tensors, or a dict by output name; without a dict an output has the name of the layer that computes it.
Called on tensors, inside another model, a model is a part of it, in a scope of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, overload

import numpy as np

from graphc.driver import compile as compile_model
from graphc.errors import InputError, ModelError, ShapeError, TypeMismatchError
from graphc.executable import Executable
from graphc.ir.graph import Array, Graph, Value
from graphc.source import Source
from graphc.types.tensor import TensorType
from graphc_dsl.arguments import nearest
from graphc_dsl.state import check_states
from graphc_dsl.summary import Summary, summarise
from graphc_dsl.tensor import Tensor
from graphc_dsl.trace import Trace, block, running, tracing, user_frame


class Model:
    """A model function. `name`: of the graph; `inputs`: the annotated types by name; `options`: the other arguments and their values."""

    def __init__(self, function: Callable[..., Any], name: str, inputs: Mapping[str, TensorType], options: Mapping[str, Any]) -> None:
        self.name = name
        self.__name__ = self.name
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.function = function
        self.inputs = dict(inputs)
        self.options = dict(options)
        self._given: dict[str, Array] = {}
        self._executable: Executable | None = None

    def configure(self, *, name: str = "", **options: Any) -> Model:
        """The model with other values of its options, e.g. resnet.configure(depth=18, name="resnet18"). Loaded parameters stay behind."""
        unknown = options.keys() - self.options.keys()
        if unknown:
            option = min(unknown)
            hint = nearest(option, self.options) or "it has none"
            raise InputError(f"model {self.name!r} has no option {option!r}", where=_place(self.function), hint=hint)
        return Model(self.function, name or self.name, self.inputs, {**self.options, **options})

    def graph(self, seed: int | None = 0, parameters: Mapping[str, Array] | None = None) -> Graph:
        """Trace the function: a new graph each time, the same for the same arguments.

        seed: of the initial values, which depend on it and the parameter's name only; None: zeros that take no memory, for looking at
        shapes. parameters: arrays to use instead, by name, before those of `load`. Raises GraphcError with the user's line.
        """
        given = {**self._given, **(parameters or {})}
        trace = Trace(self.name, seed, given)
        with tracing(trace):
            inputs = {name: self._input(trace, name, type) for name, type in self.inputs.items()}
            result = self.function(**inputs, **self.options)
        trace.check_given(_place(self.function))
        check_states(trace, _place(self.function))
        trace.graph.set_outputs(self._outputs(trace, result))
        return trace.graph

    def parameters(self, seed: int = 0) -> dict[str, Array]:
        """All parameters by name, with the statistics of batch normalisation: what `load` takes."""
        return {name: value.data for name, value in self.graph(seed).parameters.items() if value.data is not None}

    def load(self, arrays: Mapping[str, Array], partial: bool = False) -> Model:
        """Use these arrays as parameters from now on; returns the model itself.

        Raises InputError for a name that the model does not have, or, unless `partial`, for one that is missing; ShapeError for a wrong
        shape or dtype.
        """
        given = {name: np.asarray(arrays[name]) for name in arrays}
        known = self.graph(None, given).parameters
        missing = [name for name in known if name not in given]
        if missing and not partial:
            reason = f"no array for parameter {missing[0]!r} ({len(missing)} missing in all)"
            raise InputError(reason, hint="load(..., partial=True) keeps the initial values")
        self._given = {**self._given, **given}
        self._executable = None
        return self

    def summary(self) -> Summary:
        """Inputs, outputs, number of parameters, and floating point operations with every symbolic dim 1."""
        return summarise(self.graph(None))

    def __call__(self, *args: Any, **named: Any) -> Any:
        """On tensors: the function as a part of another model. On arrays: compile once, run, and return what an Executable returns."""
        if running() is not None:
            return self._inline(*args, **named)
        if any(isinstance(x, Tensor) for x in (*args, *named.values())):
            raise ModelError("a tensor of a finished trace", hint="call the model on numpy arrays, or inside another model")
        if self._executable is None:
            self._executable = compile_model(self)
        return self._executable(*args, **named)

    def _inline(self, *args: Any, name: str = "", **named: Any) -> Any:
        def part(*args: Any, **named: Any) -> Any:
            trace = running()
            assert trace is not None
            trace.add_given(self._given)
            bound = inspect.signature(self.function).bind(*args, **{**self.options, **named})
            for argument, type in self.inputs.items():
                self._check(argument, bound.arguments.get(argument), type)
            return self.function(*bound.args, **bound.kwargs)

        part.__name__ = self.name
        return block(part)(*args, name=name, **named)

    def _check(self, argument: str, given: object, type: TensorType) -> None:
        where = f"model {self.name!r}, input {argument!r}"
        if not isinstance(given, Tensor):
            raise TypeMismatchError(f"{where} takes a Tensor here, got {given.__class__.__name__}", hint="graphc.constant(array) makes one")
        sizes = zip(given.shape, type.shape, strict=False)
        fits = given.ndim == type.rank and all(not isinstance(want, int) or have == want for have, want in sizes)
        if given.dtype != type.dtype or not fits:
            raise ShapeError(f"{where} takes {type}, got {given.type}")

    def _input(self, trace: Trace, name: str, type: TensorType) -> Tensor:
        code = self.function.__code__
        trace.claim(name, Source(code.co_filename, code.co_firstlineno, name, "input"))
        return Tensor(trace, trace.builder.input(name, type.dtype, type.shape))

    def _outputs(self, trace: Trace, result: Any) -> dict[str, Value]:
        listed = list(result.values()) if isinstance(result, Mapping) else list(result) if isinstance(result, (tuple, list)) else [result]
        for item in listed:
            if not isinstance(item, Tensor) or item.trace is not trace:
                raise ModelError(
                    f"model {self.name!r} returns {'a tensor of another trace' if isinstance(item, Tensor) else item.__class__.__name__}",
                    where=_place(self.function), hint="return a Tensor, a tuple of them, or a dict of them by name",
                )  # fmt: skip
        if not listed:
            raise ModelError(f"model {self.name!r} returns nothing", where=_place(self.function), hint="return at least one Tensor")
        if isinstance(result, Mapping):
            return {str(name): trace.local(item.value) for name, item in result.items()}
        outputs: dict[str, Value] = {}
        for item in listed:
            name, count = item.name, 1
            while name in outputs:
                count += 1
                name = f"{item.name}.{count}"
            outputs[name] = trace.local(item.value)
        return outputs

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {type}" for name, type in self.inputs.items())
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"<graphc.model {self.name}({inputs}{options})>"


@overload
def model(function: Callable[..., Any]) -> Model: ...
@overload
def model(*, name: str) -> Callable[[Callable[..., Any]], Model]: ...
def model(function: Callable[..., Any] | None = None, *, name: str = "") -> Model | Callable[[Callable[..., Any]], Model]:
    """Decorator: the function as a Model (see the module's docstring); `name`: another name than the function's."""
    frame = user_frame()
    names = dict(frame.f_locals) if frame is not None else {}

    def made(inner: Callable[..., Any]) -> Model:
        return Model(inner, name or inner.__name__, *_signature(inner, names))

    return made if function is None else made(function)


def _signature(function: Callable[..., Any], names: Mapping[str, Any]) -> tuple[dict[str, TensorType], dict[str, Any]]:
    """Inputs with their types, and options with their defaults. Annotations see `names` (of the enclosing function) besides globals."""
    try:
        annotations = inspect.get_annotations(function, locals=names, eval_str=True)
    except Exception as error:
        reason = f"the annotations of {function.__name__!r} do not evaluate: {error}"
        raise ModelError(reason, where=_place(function), hint=_ANNOTATE) from error
    inputs: dict[str, TensorType] = {}
    options: dict[str, Any] = {}
    for name, argument in inspect.signature(function).parameters.items():
        annotation = annotations.get(name)
        if isinstance(annotation, TensorType):
            inputs[name] = annotation
        elif argument.default is not inspect.Parameter.empty:
            options[name] = argument.default
        else:
            reason = f"argument {name!r} of model {function.__name__!r} has neither a tensor type nor a default"
            raise ModelError(reason, where=_place(function), hint=_ANNOTATE)
    if not inputs:
        raise ModelError(f"model {function.__name__!r} has no input", where=_place(function), hint=_ANNOTATE)
    return inputs, options


_ANNOTATE = 'annotate inputs, e.g. image: graphc.f32["N", 3, 224, 224]'


def _place(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return str(Source(code.co_filename, code.co_firstlineno)) if code is not None else repr(function)
