"""From a model and a loss to the graph of one training step, or of its gradients alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.autodiff.optim import Optimizer
from graphc.autodiff.reverse import differentiate
from graphc.autodiff.training import STEP, TrainingForm, training_form
from graphc.errors import AttributeValueError, ModelError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Value
from graphc.ops.express import Arithmetic
from graphc.ops.pointwise import Cast, op
from graphc.train.losses import Loss, scalar
from graphc.types.dtype import f64

TARGET, RATE = "train.target", "train.rate"  # inputs
LOSS, FINITE, NORM = RESULTS = ("loss", "finite", "grad_norm")  # outputs before those of the model
BATCHES, WAITING, WEIGHT = "train.batches", "train.waiting", "train.weight"  # state of accumulation
NONFINITE = ("raise", "skip", "report")
Pairs = list[tuple[Value, Value]]  # (parameter, gradient)


@dataclass(frozen=True)
class Recipe:
    """What a step does. `clip_norm`: the largest norm of all gradients together; `clip_value`: the largest magnitude of one entry.

    `accumulate`: how many batches make an update. `nonfinite`: with "raise" and "skip", a batch whose loss is NaN or infinite changes no
    state at all; with "report" it does. `check_gradients`: the same for a batch whose gradients' norm is; `clip_norm` implies it.
    """

    loss: Loss
    optimizer: Optimizer
    freeze: tuple[str, ...] = ()
    seed: int = 0
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    nonfinite: str = "raise"
    check_gradients: bool = False

    def __post_init__(self) -> None:
        for name in ("clip_norm", "clip_value"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise AttributeValueError(f"{name}={limit}", hint="a number above 0, or None")
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise AttributeValueError(f"accumulate={self.accumulate!r}", hint="how many batches make an update: 1 or more")
        if self.nonfinite not in NONFINITE:
            raise AttributeValueError(f"nonfinite={self.nonfinite!r}", hint=f"one of {', '.join(NONFINITE)}")

    @property
    def needs_norm(self) -> bool:
        return self.check_gradients or self.clip_norm is not None



def signature(model: Graph, recipe: Recipe, with_rate: bool) -> Graph:
    """The inputs of the step's program as a graph without nodes: the model's, the target and the learning rate."""
    made = Graph(model.name)
    for value in model.inputs:
        made.add_value(value.name, value.type, Kind.INPUT)
    target = recipe.loss.target_type(prediction(model).type)
    made.add_value(TARGET, target, Kind.INPUT)
    if with_rate:
        made.add_value(RATE, replace(target, dtype=f64, shape=()), Kind.INPUT)
    return made


def prediction(model: Graph) -> Value:
    """The output that the loss looks at: the first."""
    if not model.outputs:
        raise ModelError("the model has no output", hint="a loss needs one")
    return model.outputs[0]


def build_step(model: Graph, recipe: Recipe) -> Graph:
    """Edit `model` (static shapes) into one step: outputs RESULTS and the model's own; parameters, moments and statistics updated.

    Where the recipe accumulates, the step adds its batch to those that wait, and updates with the mean over all of them.
    """
    if recipe.accumulate > 1:
        return _build_last(model, recipe)
    form, names = _forward(model, recipe)
    loss = scalar(recipe.loss.build(form.builder, form.prediction, form.target))
    pairs = form.pairs(loss)
    _finish(form, recipe, loss, pairs, model.updates[form.step], names)
    return model


def build_accumulation(model: Graph, recipe: Recipe) -> Graph:
    """Edit `model` (static shapes) into a step that adds the gradients of a batch to those that wait for an update; statistics of batch
    normalisation move. Outputs as `build_step`, `grad_norm` of this batch alone."""
    form, names = _forward(model, recipe)
    a = form.a
    total, weight = recipe.loss.parts(form.builder, form.prediction, form.target)
    pairs = form.pairs(scalar(total))
    loss = total if weight is None else a("div", total, weight)
    norm = _norm(a, pairs, total) if recipe.check_gradients else None
    finite = _finite(a, loss, norm)
    for parameter, grad in pairs:
        sums = _sums(form.builder, parameter)
        model.updates[sums] = a("add", sums, grad)
    _count(form, model, weight)
    if recipe.nonfinite != "report":
        _guard(a, model, finite)
    _set_outputs(model, loss, finite, norm if weight is None or norm is None else a("div", norm, weight), names)
    return model


def build_gradients(model: Graph, recipe: Recipe) -> Graph:
    """Edit `model` into a program that leaves all state as it is: outputs loss, `grad:name` of every parameter and float input, and the
    model's own."""
    form, names = _forward(model, recipe)
    loss = scalar(recipe.loss.build(form.builder, form.prediction, form.target))
    inputs = [value for value in model.inputs if value.type.dtype.is_float and value.name != TARGET]
    outputs = {LOSS: loss}
    for value, grad in form.gradients(loss, (*form.parameters, *inputs)).items():
        outputs[f"grad:{value.name}"] = grad if grad is not None else _zero(form.builder, value)
    model.updates.clear()
    model.set_outputs({**outputs, **names})
    return model


# parts of a step --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forward:
    """The training form of a model with the target of its loss."""

    graph: Graph
    parameters: tuple[Value, ...]
    step: Value
    prediction: Value
    target: Value
    builder: Builder

    @property
    def a(self) -> Arithmetic:
        return Arithmetic(self.builder)

    def gradients(self, loss: Value, wrt: Sequence[Value]) -> dict[Value, Value | None]:
        one = self.builder.constant(np.ones((), loss.type.dtype.numpy), name="one")
        return differentiate(self.graph, {loss: one}, wrt)

    def pairs(self, loss: Value) -> Pairs:
        """The parameters that the loss depends on, with their gradients."""
        return [(parameter, grad) for parameter, grad in self.gradients(loss, self.parameters).items() if grad is not None]


def _forward(model: Graph, recipe: Recipe) -> tuple[Forward, Mapping[str, Value]]:
    """With the model's own outputs by names that no result has."""
    target_type = recipe.loss.target_type(prediction(model).type)
    form: TrainingForm = training_form(model, recipe.freeze, recipe.seed, STEP if recipe.accumulate == 1 else BATCHES)
    builder = Builder(model)
    target = builder.input(TARGET, target_type.dtype, target_type.shape)
    outputs = zip(model.output_names, model.outputs, strict=True)
    names = {name if name not in RESULTS else f"{name}.output": value for name, value in outputs}
    return Forward(model, form.parameters, form.step, prediction(model), target, builder), names


def _build_last(model: Graph, recipe: Recipe) -> Graph:
    """The batch that completes an accumulation."""
    form, names = _forward(model, recipe)
    a = form.a
    total, weight = recipe.loss.parts(form.builder, form.prediction, form.target)
    pairs = form.pairs(scalar(total))
    loss = total if weight is None else a("div", total, weight)
    waiting = {parameter: _sums(form.builder, parameter) for parameter, _ in pairs}
    pairs = [(parameter, a("add", waiting[parameter], grad)) for parameter, grad in pairs]
    _count(form, model, weight)
    if weight is not None:
        pairs = [(parameter, a("div", grad, model.updates[model.values[WEIGHT]])) for parameter, grad in pairs]
    for state in (*waiting.values(), *(model.values[name] for name in (WAITING, WEIGHT) if name in model.values)):
        model.updates[state] = form.builder.constant(np.zeros(state.type.static_shape, state.type.dtype.numpy), name="none")
    step = form.builder.state(STEP, np.zeros((), np.int64))
    model.updates[step] = a("add", step, 1)
    _finish(form, recipe, loss, pairs, model.updates[step], names)
    return model


def _finish(form: Forward, recipe: Recipe, loss: Value, pairs: Pairs, count: Value, names: Mapping[str, Value]) -> None:
    """Clipping, check, update, outputs. `count`: the number of this update from 1, i64."""
    a, graph = form.a, form.graph
    norm = _norm(a, pairs, loss) if recipe.needs_norm else None
    finite = _finite(a, loss, norm)
    go = None if recipe.nonfinite == "report" else finite
    if go is not None:
        _guard(a, graph, go)
    rate = form.builder.input(RATE, f64, ())
    recipe.optimizer.apply(form.builder, rate, form.builder.add(Cast(f64), count), _clipped(a, recipe, pairs, norm), go)
    _set_outputs(graph, loss, finite, norm, names)


def _set_outputs(graph: Graph, loss: Value, finite: Value, norm: Value | None, names: Mapping[str, Value]) -> None:
    graph.set_outputs({LOSS: loss, FINITE: finite, **({NORM: norm} if norm is not None else {}), **names})


def _sums(builder: Builder, parameter: Value) -> Value:
    return builder.state(f"{parameter.name}.grad_sum", np.zeros(parameter.type.static_shape, parameter.type.dtype.numpy))


def _count(form: Forward, graph: Graph, weight: Value | None) -> None:
    """The batches that wait, this one included, and what their losses weigh."""
    waiting = form.builder.state(WAITING, np.zeros((), np.int64))
    graph.updates[waiting] = form.a("add", waiting, 1)
    if weight is not None:
        weights = form.builder.state(WEIGHT, np.zeros((), weight.type.dtype.numpy))
        graph.updates[weights] = form.a("add", weights, weight)


def _norm(a: Arithmetic, pairs: Pairs, loss: Value) -> Value:
    """Of all gradients together, in the dtype of the loss."""
    total = None
    for _, grad in pairs:
        square = a.reduce("sum_square", grad, tuple(range(grad.type.rank)), keepdims=False)
        square = square if square.type.dtype == loss.type.dtype else a.builder.add(Cast(loss.type.dtype), square)
        total = square if total is None else a("add", total, square)
    return a("sqrt", total) if total is not None else a.value(0.0, loss.type.dtype)


def _finite(a: Arithmetic, loss: Value, norm: Value | None) -> Value:
    """Whether loss and norm are numbers: the norm is none where one entry of one gradient is none."""
    found = a("less", a("abs", loss), np.inf)
    return found if norm is None else a("and", found, a("less", a("abs", norm), np.inf))


def _guard(a: Arithmetic, graph: Graph, go: Value) -> None:
    """No state moves but where `go` is true."""
    for state, value in graph.updates.items():
        graph.updates[state] = a("where", go, value, state)


def _clipped(a: Arithmetic, recipe: Recipe, pairs: Pairs, norm: Value | None) -> Pairs:
    """By value, then by the norm of all together: g * min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_."""
    if recipe.clip_value is not None:
        limits = {"lo": -recipe.clip_value, "hi": recipe.clip_value}
        pairs = [(parameter, a.builder.add(op("clip", **limits), grad)) for parameter, grad in pairs]
        norm = _norm(a, pairs, norm) if norm is not None else None
    if recipe.clip_norm is not None and norm is not None:
        factor = a("min", a("div", recipe.clip_norm, a("add", norm, 1e-6)), 1.0)
        pairs = [(parameter, a("mul", grad, _like(a, factor, grad))) for parameter, grad in pairs]
    return pairs


def _like(a: Arithmetic, scalar: Value, value: Value) -> Value:
    return scalar if scalar.type.dtype == value.type.dtype else a.builder.add(Cast(value.type.dtype), scalar)


def _zero(builder: Builder, like: Value) -> Value:
    return builder.constant(np.zeros(like.type.static_shape, like.type.dtype.numpy), name=f"grad:{like.name}")
