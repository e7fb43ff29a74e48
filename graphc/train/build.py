"""From a model and a loss to the graph of one training step, or of its gradients alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.autodiff.optim import Optimizer
from graphc.autodiff.reverse import differentiate
from graphc.autodiff.training import TrainingForm, training_form
from graphc.errors import AttributeValueError, ModelError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Value
from graphc.ops.express import Arithmetic
from graphc.ops.pointwise import Cast, op
from graphc.train.losses import Loss, scalar
from graphc.types.dtype import f64

TARGET, RATE, LOSS = "train.target", "train.rate", "loss"


@dataclass(frozen=True)
class Recipe:
    """What a step does. `clip_norm`: the largest norm of all gradients together; `clip_value`: the largest magnitude of one entry."""

    loss: Loss
    optimizer: Optimizer
    freeze: tuple[str, ...] = ()
    seed: int = 0
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        for name in ("clip_norm", "clip_value"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise AttributeValueError(f"{name}={limit}", hint="a number above 0, or None")


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
    """Edit `model` (static shapes) into one step: outputs loss and the model's own; parameters, moments and statistics updated."""
    form, loss, names = _forward(model, recipe)
    grads = _gradients(form, loss, form.parameters)
    builder = Builder(model)
    rate = builder.input(RATE, f64, ())
    count = builder.add(Cast(f64), model.updates[form.step])
    pairs = [(parameter, grad) for parameter, grad in grads.items() if grad is not None]
    recipe.optimizer.apply(builder, rate, count, _clipped(builder, recipe, pairs))
    model.set_outputs({LOSS: loss, **names})
    return model


def build_gradients(model: Graph, recipe: Recipe) -> Graph:
    """Edit `model` into a program that leaves all state as it is: outputs loss, `grad:name` of every parameter and float input, and the
    model's own."""
    form, loss, names = _forward(model, recipe)
    inputs = [value for value in model.inputs if value.type.dtype.is_float and value.name != TARGET]
    builder = Builder(model)
    outputs = {LOSS: loss}
    for value, grad in _gradients(form, loss, (*form.parameters, *inputs)).items():
        outputs[f"grad:{value.name}"] = grad if grad is not None else _zero(builder, value)
    model.updates.clear()
    model.set_outputs({**outputs, **names})
    return model


def _forward(model: Graph, recipe: Recipe) -> tuple[TrainingForm, Value, Mapping[str, Value]]:
    builder = Builder(model)
    target_type = recipe.loss.target_type(prediction(model).type)
    form = training_form(model, recipe.freeze, recipe.seed)
    target = builder.input(TARGET, target_type.dtype, target_type.shape)
    loss = scalar(recipe.loss.build(builder, prediction(model), target))
    names = {name if name != LOSS else f"{LOSS}.output": value for name, value in zip(model.output_names, model.outputs, strict=True)}
    return form, loss, names


def _gradients(form: TrainingForm, loss: Value, wrt: Sequence[Value]) -> dict[Value, Value | None]:
    one = Builder(form.graph).constant(np.ones((), loss.type.dtype.numpy), name="one")
    return differentiate(form.graph, {loss: one}, wrt)


def _clipped(builder: Builder, recipe: Recipe, pairs: list[tuple[Value, Value]]) -> list[tuple[Value, Value]]:
    """By value, then by the norm of all together: g * min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_."""
    a = Arithmetic(builder)
    if recipe.clip_value is not None:
        limits = {"lo": -recipe.clip_value, "hi": recipe.clip_value}
        pairs = [(parameter, builder.add(op("clip", **limits), grad)) for parameter, grad in pairs]
    if recipe.clip_norm is not None and pairs:
        squares = [a.reduce("sum_square", grad, tuple(range(grad.type.rank)), keepdims=False) for _, grad in pairs]
        total = squares[0]
        for square in squares[1:]:
            total = a("add", total, square)
        factor = a("min", a("div", recipe.clip_norm, a("add", a("sqrt", total), 1e-6)), 1.0)
        pairs = [(parameter, a("mul", grad, factor)) for parameter, grad in pairs]
    return pairs


def _zero(builder: Builder, like: Value) -> Value:
    return builder.constant(np.zeros(like.type.static_shape, like.type.dtype.numpy), name=f"grad:{like.name}")
