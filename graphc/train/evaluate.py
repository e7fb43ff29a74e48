"""The model for inference whose parameters are the memory that a TrainStep updates: compiled once, never behind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from graphc.autodiff.training import training_form
from graphc.executable import Executable
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Graph, Kind
from graphc.ir.state import aligned
from graphc.signature import Signature
from graphc.train.batches import size_of
from graphc.train.build import LOSS, TARGET, WEIGHT, Recipe, prediction, signature
from graphc.train.losses import Custom, scalar
from graphc.train.step import TrainStep, by_name


class Evaluation:
    """Loss and outputs of a step's model in the form of inference: running statistics, no dropout, nothing updated.

    What the step trains is state that both programs share, so no update needs a new compilation. The price against
    `graphc.compile(step.graph())`: scales of batch normalisation are not folded into weights, and weights are packed in each run, as in
    the step itself (ResNet-18 takes 1.3 times as long). The model's own state is another than the step's, carried from batch to batch.
    """

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self._made_for: object = None
        self._carried = {name: aligned(value.data) for name, value in step._model.states.items() if value.data is not None}

    def reset_state(self) -> None:
        """The model's own state has its initial value again."""
        with self._step._lock:
            for name, array in self._carried.items():
                array[...] = self._step._model.states[name].data

    def __call__(self, x: Any, y: Any) -> tuple[float, float, Any]:
        """Of a batch: the sum of the losses, what their mean divides it by, and the outputs (one array, or a tuple of them).

        A loss that is a sum is divided by the examples; of one that is a function, only the mean of the batch is known.
        """
        loss = self._step.recipe.loss
        with self._step._lock:
            self._follow()
            found = self._loss.run(self._step._feeds(by_name(self._step._model, x), y))
        total, weight = float(found[LOSS]), float(found.get(WEIGHT, size_of(x)))
        if isinstance(loss, Custom):
            total, weight = total * size_of(x), float(size_of(x))
        return total, weight, _one_or_tuple({name: array for name, array in found.items() if name not in (LOSS, WEIGHT)})

    def predict(self, x: Any) -> Any:
        """Outputs of a batch: one array, or a tuple of them."""
        with self._step._lock:
            self._follow()
            return _one_or_tuple(self._outputs.run(by_name(self._step._model, x)))

    def _follow(self) -> None:
        """Compile anew where the step does: a constant, such as a frozen parameter, was assigned to."""
        step = self._step
        if self._made_for is step._step:
            return
        self._made_for = step._step
        loss, outputs = (step._compiler(partial(build_evaluation, with_loss=with_loss), self._carried) for with_loss in (True, False))
        self._loss = Executable(signature(step._model, step.recipe, False), loss)
        self._outputs = Executable(inputs_of(step._model), outputs)


def build_evaluation(model: Graph, recipe: Recipe, with_loss: bool) -> Graph:
    """Edit `model` (static shapes): what a step would change becomes state that nothing updates, the model's own state moves; outputs are
    the loss and the model's."""
    form = model.copy()
    training_form(form, recipe.freeze, recipe.seed)
    changed = form.states.keys()
    for name, value in model.parameters.items():
        if name in changed:
            value.kind = Kind.STATE
    names = dict(zip(model.output_names, model.outputs, strict=True))
    if with_loss:
        type = recipe.loss.target_type(prediction(model).type)
        builder = Builder(model)
        target = builder.input(TARGET, type.dtype, type.shape)
        total, weight = recipe.loss.parts(builder, prediction(model), target)
        parts = {LOSS: scalar(total)} | ({WEIGHT: weight} if weight is not None else {})
        names = {**parts, **{name if name not in (LOSS, WEIGHT) else f"{name}.output": value for name, value in names.items()}}
    model.set_outputs(names)
    return model


def inputs_of(model: Graph) -> Graph:
    """The inputs of a model as a graph without nodes."""
    made = Graph(model.name)
    for value in model.inputs:
        made.add_value(value.name, value.type, Kind.INPUT)
    return made


def sizes_of(model: Graph, x: Any) -> dict[str, int]:
    """The sizes that a batch gives to the symbolic dims of the model."""
    return Signature({value.name: value.type for value in model.inputs}).check(by_name(model, x))[1]


def _one_or_tuple(found: Mapping[str, Array]) -> Any:
    outputs = tuple(found.values())
    return outputs[0] if len(outputs) == 1 else outputs
