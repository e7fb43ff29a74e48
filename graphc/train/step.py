"""TrainStep: forward, loss, backward, clipping and update as one compiled program per batch size, parameters updated in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from graphc import backend as backends
from graphc.autodiff.optim import SGD, Optimizer
from graphc.backend import StepTime
from graphc.driver import as_graph, check_options, lower
from graphc.errors import InputError, NumericalError
from graphc.executable import Compiled, Executable, apart_of
from graphc.ir.graph import Array, Graph
from graphc.ir.state import aligned, keep_state, own_state
from graphc.passes.base import Context
from graphc.target import Target
from graphc.train.build import (
    FINITE,
    LOSS,
    NORM,
    RATE,
    RESULTS,
    TARGET,
    WAITING,
    Recipe,
    build_accumulation,
    build_gradients,
    build_step,
    prediction,
    signature,
)
from graphc.train.diagnose import first_nonfinite
from graphc.train.losses import LossLike, find_loss


class TrainStep:
    """One training step of a model: `step(x, y)` -> {"loss": float, "outputs": array or tuple, "finite", "grad_norm", "updated"}.

    model: anything that `graphc.compile` takes; it is not changed. loss: a loss of `graphc.losses`, its name, or a function
    (builder, prediction, target) -> scalar value. freeze: patterns of parameter names that stay as they are (shell wildcards).
    seed: of dropout. clip_norm, clip_value: see `Recipe`. Steps of one TrainStep run one after the other. Its parameters and moments are
    its own, and the result does not depend on `threads`.

    accumulate: every that many batches make one update, with the mean over all their elements, as one big batch would. Batch
    normalisation takes the statistics of each batch by itself and moves the running ones at each, as in PyTorch.

    nonfinite: what happens where the loss is NaN or infinite. "raise": nothing changes, and a NumericalError names the step and the first
    node that made such a number; "skip": nothing changes, and the result says so ("finite", "updated"); "report": the update is made,
    and the result says so. check_gradients: the same where the norm of all gradients is NaN or infinite; costs a pass over all gradients,
    which then are all in memory before the first update (with `clip_norm` they are anyway, and are checked).

    A model with state (`graphc.state`; state: pairs of inputs and outputs as in `graphc.compile`) is trained by truncated backpropagation
    through time (Williams and Peng 1990): each batch starts from the state that the one before left, and no gradient flows back into it.
    `reset_state` goes back to the initial value.
    """

    def __init__(
        self, model: Any, loss: LossLike = "cross_entropy", optimizer: Optimizer | None = None, threads: int | None = None, *,
        freeze: Sequence[str] = (), seed: int = 0, clip_norm: float | None = None, clip_value: float | None = None,
        accumulate: int = 1, nonfinite: str = "raise", check_gradients: bool = False, state: Mapping[str, str] | None = None,
        dims: Mapping[str, int] | None = None, target: str | Target = "host", accuracy: str = "default", backend: str = "cpu",
    ) -> None:  # fmt: skip
        check_options(threads, accuracy)
        self._model = as_graph(model, dims)
        if state is not None:
            keep_state(self._model, state)
        rules = (tuple(freeze), seed, clip_norm, clip_value, accumulate, nonfinite, check_gradients)
        self.recipe = Recipe(find_loss(loss), optimizer or SGD(lr=1e-2), *rules)
        self.threads = threads
        self._backend = backends.find(backend)
        machine = self._backend.target(target)
        self._context = Context(machine, accuracy, self._backend.chooser(machine, False))
        self._state: dict[str, Array] = {}
        self._lock = threading.RLock()
        self.parameters: MutableMapping[str, Array] = _Parameters(self)
        self._forget()

    def __call__(self, x: Any, y: Any, lr: float | None = None, update: bool | None = None) -> dict[str, Any]:
        """One batch. x: an array, a tuple of them, or arrays by input name; y: the target, or a pair of it and what counts of it (see
        `graphc.losses`); lr: instead of the optimizer's for this update.

        update: of a step that accumulates, whether this batch completes an update with those that wait (None: every `accumulate`-th does).
        "grad_norm" is the norm of the gradient before clipping, of the update, or of the batch alone where there is none; None where it
        is not computed, which needs `check_gradients` or `clip_norm`.
        """
        with self._lock:
            last = self._completes(update)
            feeds = self._feeds(x, y)
            rate = np.asarray(self.recipe.optimizer.lr if lr is None else lr, np.float64)
            found = self._step.run({**feeds, RATE: rate}) if last else self._gather.run(feeds)
            finite = bool(found[FINITE])
            if not finite and self.recipe.nonfinite == "raise":
                raise self._nonfinite(feeds, found)
        outputs = tuple(found[name] for name in found if name not in RESULTS)
        moved = finite or self.recipe.nonfinite == "report"
        return {
            "loss": float(found[LOSS]), "outputs": outputs[0] if len(outputs) == 1 else outputs,
            "grad_norm": float(found[NORM]) if NORM in found else None, "finite": finite, "updated": last and moved,
        }  # fmt: skip

    def gradients(self, x: Any, y: Any) -> dict[str, Any]:
        """{"loss", "grads": by parameter, "input_grads": by float input} of a batch; nothing is updated, and nothing clipped."""
        with self._lock:
            found = self._gradients.run(self._feeds(x, y))
        grads = {name[len("grad:") :]: array for name, array in found.items() if name.startswith("grad:")}
        inputs = {name: grads.pop(name) for name in list(grads) if name in self._step.inputs}
        return {"loss": float(found[LOSS]), "grads": grads, "input_grads": inputs}

    def diagnose(self, x: Any, y: Any) -> str:
        """Where the first number that is NaN or infinite comes from, on a batch and the parameters of now: an input, a parameter, or the
        first node, forward or backward, that makes one of numbers that are none; "" where there is none. Compiles a program of its own."""
        with self._lock:
            return first_nonfinite(self._model, self.recipe, self._compiler, self._feeds(x, y), self._state)

    def profile(self, x: Any, y: Any, runs: int = 10) -> list[StepTime]:
        """Seconds of each kernel of a step that updates, best of `runs`, on a batch. Parameters and other state stay as they are."""
        with self._lock:
            rate = np.asarray(self.recipe.optimizer.lr, np.float64)
            return self._step.profile(**self._feeds(x, y), **{RATE: rate}, runs=runs)

    def _completes(self, update: bool | None) -> bool:
        if self.recipe.accumulate == 1:
            if update is False:
                raise InputError("update=False of a step that does not accumulate", hint="TrainStep(..., accumulate=4)")
            return True
        waiting = int(self._state[WAITING]) if WAITING in self._state else 0
        return waiting + 1 >= self.recipe.accumulate if update is None else update

    def _nonfinite(self, feeds: Mapping[str, Any], found: Mapping[str, Array]) -> NumericalError:
        """The state is as it was before the step, so the step can be looked at again."""
        cause = first_nonfinite(self._model, self.recipe, self._compiler, feeds, self._state) or "the norm of the gradients overflows"
        counter = "train.step" if self.recipe.accumulate == 1 else "train.batches"
        norm = f", the norm of the gradients {float(found[NORM])}" if NORM in found else ""
        reason = f"the loss is {float(found[LOSS])}{norm}: {cause}. Nothing was changed"
        hint = 'a smaller learning rate, clip_norm, or nonfinite="skip"'
        return NumericalError(reason, where=f"step {int(self._state[counter]) + 1}", hint=hint)

    @property
    def state(self) -> dict[str, Array]:
        """A copy of all that steps have changed: parameters, moments, running statistics, the model's own state, the number of steps
        (`train.step`)."""
        with self._lock:
            return {name: array.copy() for name, array in self._state.items()}

    @state.setter
    def state(self, arrays: Mapping[str, Array]) -> None:
        """Continue from a saved state. Raises InputError for a parameter of another shape or dtype."""
        known = {**self._model.parameters, **self._model.states}
        for name, array in arrays.items():
            if name in known:
                _check(name, array, known[name].type.static_shape, known[name].type.dtype.numpy)
            elif name in self._state:
                _check(name, array, self._state[name].shape, self._state[name].dtype)
        with self._lock:
            for name, array in arrays.items():
                if name in self._state:
                    self._state[name][...] = array
                else:
                    self._state[name] = aligned(np.asarray(array))

    def reset_state(self) -> None:
        """The model's own state has its initial value again; parameters, moments and statistics stay."""
        with self._lock:
            for name, value in self._model.states.items():
                if name in self._state:
                    self._state[name][...] = value.data

    def graph(self) -> Graph:
        """The model for inference with the parameters and statistics of now: for `graphc.compile` and `graphc.save_onnx`. The model's own
        state starts with its initial value."""
        made = self._model.copy()
        with self._lock:
            for name, value in made.parameters.items():
                if name in self._state:
                    value.data = self._state[name].copy()
        return made

    def compiled(self, sizes: Mapping[str, int] | None = None) -> Compiled:
        """Graph, plan and program of the step for given sizes of the symbolic dims."""
        return self._step.compiled(sizes)

    def _forget(self) -> None:
        """Compile anew at the next call: a constant has changed."""
        self._step = Executable(signature(self._model, self.recipe, True), self._compiler(build_step))
        self._gather = Executable(signature(self._model, self.recipe, False), self._compiler(build_accumulation))
        self._gradients = Executable(signature(self._model, self.recipe, False), self._compiler(build_gradients))

    def _compiler(
        self, build: Callable[[Graph, Recipe], Graph], carried: Mapping[str, Array] | None = None
    ) -> Callable[[Mapping[str, int]], Compiled]:
        """`carried`: memory of the model's own state, where it is not the step's."""

        def compile_for(sizes: Mapping[str, int]) -> Compiled:
            graph = build(self._model.bind(sizes), self.recipe)
            own_state(graph, self._state, carried)
            lowered, plan = lower(graph, self._context)
            program = self._backend.compile(lowered, plan, self.threads)
            return Compiled(plan, program, apart_of(lowered, plan), lambda: lowered)

        return compile_for

    def _feeds(self, x: Any, y: Any) -> dict[str, Any]:
        return {**by_name(self._model, x), TARGET: self.recipe.loss.target(y, prediction(self._model).type)}

    def __repr__(self) -> str:
        return f"<graphc.TrainStep {self._model.name!r}: {self.recipe.loss.name}, {self.recipe.optimizer}>"


class _Parameters(MutableMapping[str, Array]):
    """The parameters by their original names: reading gives a copy, assigning checks shape and dtype and writes in place."""

    def __init__(self, step: TrainStep) -> None:
        self._owner = step

    def __getitem__(self, name: str) -> Array:
        owner = self._owner
        if name not in owner._model.parameters:
            raise KeyError(name)
        with owner._lock:
            return np.array(owner._state.get(name, owner._model.parameters[name].data))

    def __setitem__(self, name: str, array: Array) -> None:
        owner = self._owner
        value = owner._model.parameters.get(name)
        if value is None:
            raise InputError(f"the model has no parameter {name!r}", hint=f"one of {', '.join(list(owner._model.parameters)[:8])}, ...")
        given = np.asarray(array)
        _check(name, given, value.type.static_shape, value.type.dtype.numpy)
        with owner._lock:
            if name in owner._state:
                owner._state[name][...] = given
            else:
                value.data = given.copy()
                owner._forget()

    def __delitem__(self, name: str) -> None:
        raise InputError(f"parameter {name!r} cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner._model.parameters)

    def __len__(self) -> int:
        return len(self._owner._model.parameters)

    def __repr__(self) -> str:
        return f"<{len(self)} parameters: {', '.join(list(self)[:5])}, ...>"


def by_name(model: Graph, x: Any) -> dict[str, Any]:
    """The inputs of a batch by name: from an array, several (a tuple or a list) in the model's order, or a mapping. Raises InputError."""
    names = [value.name for value in model.inputs]
    if isinstance(x, Mapping):
        return dict(x)
    several = isinstance(x, tuple) or (isinstance(x, list) and len(names) != 1)
    given = list(x) if several else [x]
    if len(given) != len(names):
        raise InputError(f"{len(given)} inputs given, the model takes {len(names)}: {', '.join(names)}")
    return dict(zip(names, given, strict=True))


def _check(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"{name!r} is {dtype}{list(shape)}, got {array.dtype}{list(array.shape)}")
