"""Between a trainer and its checkpoint: all of its state as tensors and numbers, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import GraphcError, InputError, NumericalError
from graphc.ir.graph import Array
from graphc.train.callbacks import Callback
from graphc.train.checkpoint import METRIC, Snapshot
from graphc.train.history import from_json, jsonable

if TYPE_CHECKING:
    from graphc.train.trainer import Trainer

_NONSENSE = (KeyError, TypeError, ValueError, AttributeError)  # what numbers of the wrong kind lead to


def capture(trainer: Trainer) -> Snapshot:
    """The state of now. Raises NumericalError where a parameter or other state is nan or infinite, so that no checkpoint holds it."""
    arrays = {**trainer.step.parameters, **trainer.step.state}
    check_finite(arrays, trainer.steps)
    meta = {
        "model": trainer.step._model.name, "seed": trainer.seed, "sizes": trainer.sizes, "length": trainer.epoch_length,
        "epoch": trainer.epoch, "batch": trainer.batch, "steps": trainer.steps, "totals": trainer.totals.numbers, "rate": trainer.last_rate,
        "schedule": trainer.schedule_state,
        "history": jsonable(trainer.history.rows),
        "callbacks": {key: state for key, callback in _keyed(trainer) if (state := callback.state)},
    }  # fmt: skip
    return Snapshot({**arrays, **trainer.totals.arrays}, meta)


def check_finite(arrays: Mapping[str, Array], steps: int) -> None:
    """Raises NumericalError that names the first parameter or other state with a nan or an infinity."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            reason = f"{name!r} is not finite: a gradient was not while the loss was"
            hint = "Trainer(..., check_gradients=True) to find the step, and the last checkpoint with a smaller learning rate"
            raise NumericalError(reason, where=f"after step {steps}", hint=hint)


def restore(trainer: Trainer, snapshot: Snapshot, where: str) -> None:
    """Go on from a state. Raises InputError, before anything is changed, for one that does not fit or holds nonsense.

    A callback takes back the state of the callback of its class in the same place among those of its class; one that is new starts afresh.
    """
    meta = snapshot.meta
    try:
        totals, rate = {name: float(meta["totals"][name]) for name in trainer.totals.numbers}, float(meta["rate"])
        history = from_json([_numbers(row) for row in meta["history"]])
        schedule, callbacks = _numbers(meta["schedule"]), dict(meta["callbacks"])
        seed, length, sizes = meta["seed"], meta["length"], None if meta["sizes"] is None else dict(meta["sizes"])
    except _NONSENSE as error:
        raise _damaged(error, where) from error
    if seed != trainer.seed:
        raise InputError(f"was written with seed {seed}, this Trainer has {trainer.seed}", where=where, hint=f"Trainer(..., seed={seed})")
    if schedule.keys() != trainer.schedule.start().keys():
        raise InputError(f"was written with another schedule than {trainer.schedule}", where=where, hint="the schedule it was written with")
    _check_arrays(trainer, snapshot, sizes, where)
    _restore_callbacks(trainer, callbacks, where)
    _restore_arrays(trainer, snapshot)
    trainer.totals.restore(totals, snapshot.arrays)
    trainer.epoch, trainer.batch, trainer.steps = meta["epoch"], meta["batch"], meta["steps"]
    trainer.sizes, trainer.epoch_length, trainer.last_rate, trainer.schedule_state = sizes, length, rate, schedule
    trainer.history.rows[:] = history


def _check_arrays(trainer: Trainer, snapshot: Snapshot, sizes: dict[str, Any] | None, where: str) -> None:
    """The step is compiled, where the checkpoint knows for which sizes: that tells which moments it has, and of which shapes."""
    step = trainer.step
    try:
        if sizes is not None:
            step.compiled(sizes)
    except GraphcError as error:
        raise InputError(f"was written for other inputs, or is damaged: {error}", where=where, hint="another checkpoint") from error
    snapshot.check({**step.parameters, **step.state, **trainer.totals.arrays}, where)


def _restore_arrays(trainer: Trainer, snapshot: Snapshot) -> None:
    """Frozen parameters are constants of the program, which is compiled anew where they differ."""
    step = trainer.step
    own = {name: array for name, array in snapshot.arrays.items() if not name.startswith(METRIC)}
    for name in step.parameters.keys() - step.state.keys():
        frozen = own.pop(name)
        if not np.array_equal(frozen, step.parameters[name], equal_nan=True):
            step.parameters[name] = frozen
    step.state = own


def _restore_callbacks(trainer: Trainer, states: dict[str, Any], where: str) -> None:
    """All of them, or none where one does not take its state."""
    before = [(callback, callback.state) for key, callback in _keyed(trainer) if key in states]
    try:
        for key, callback in _keyed(trainer):
            if key in states:
                callback.state = states[key]
    except _NONSENSE as error:
        for callback, state in before:
            callback.state = state
        raise _damaged(error, where) from error


def _numbers(row: Any) -> dict[str, float | None]:
    """A mapping of names to numbers or None. Raises TypeError for anything else."""
    if not isinstance(row, dict) or not all(value is None or type(value) in (int, float) for value in row.values()):
        raise TypeError(f"not numbers: {row!r}")
    return row


def _damaged(error: Exception, where: str) -> InputError:
    return InputError(f"is damaged: {error!r}", where=where, hint="another checkpoint")


def _keyed(trainer: Trainer) -> Iterator[tuple[str, Callback]]:
    """Callbacks by class and number among those of the class."""
    seen: Counter[str] = Counter()
    for callback in trainer.callbacks:
        name = type(callback).__name__
        yield f"{name}.{seen[name]}", callback
        seen[name] += 1
