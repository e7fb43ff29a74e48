"""State: tensors that a model keeps from one run to the next.

    @graphc.model
    def step(x: graphc.f32[1, "T", 8]):
        h = graphc.state((1, 1, 32), name="h")
        y, last = graphc.rnn(x, 32, h0=h, name="cell")
        h.assign(last)
        return graphc.linear(y, 4, name="out")
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ModelError, ShapeError, TypeMismatchError
from graphc.source import Source
from graphc.types.dtype import f32
from graphc.types.shape import symbols_of
from graphc_dsl.arguments import DTypeLike, element_type, whole
from graphc_dsl.init import InitLike, initialise
from graphc_dsl.tensor import Tensor
from graphc_dsl.trace import Trace, need_tensor, trace_of, user_line


class State(Tensor):
    """A tensor whose value is what the run before left, and in the first run the initial value."""

    __slots__ = ()

    def assign(self, new: Tensor) -> None:
        """`new` is the state after each run. Within a run the state keeps its old value, wherever this is called.

        Raises ModelError where the state is assigned already, TypeMismatchError and ShapeError for another dtype or shape.
        """
        place, updates = user_line(), self.trace.graph.updates
        here = Source(place.file, place.line, self.name, "state")
        trace = trace_of((new, self), here)
        need_tensor(new, here)
        if trace.bodies:
            raise ModelError("a state assigned in the function of a loop or a choice", where=str(here), hint="return it from there")
        if self.value in updates:
            raise ModelError("the state is assigned already", where=str(here), hint="one assign; graphc.where chooses between values")
        if new.dtype != self.dtype:
            raise TypeMismatchError(f"the state is {self.type}, its new value {new.type}", where=str(here), hint=f"x.cast({self.dtype})")
        if new.shape != self.shape:
            raise ShapeError(f"the state is {self.type}, its new value {new.type}", where=str(here), hint="a state keeps its shape")
        trace.graph.updates[self.value] = new.value


def state(shape: Sequence[int], init: InitLike = "zeros", dtype: DTypeLike = f32, name: str = "") -> State:
    """State of the model, with an initial value: a number, an array, an initialiser of `graphc.init` or its name.

    `h.assign(new)` says what it is after a run. An Executable keeps it (`exe.state`, `exe.reset_state()`), so compile the model where it
    shall start anew; a training step carries it from batch to batch, and no gradient flows into the run before. Raises ShapeError for a
    symbolic dim: the memory is there before the first run. A state is not trained: that is `graphc.parameter`.
    """
    place = user_line()
    here = Source(place.file, place.line, name, "state")
    trace = trace_of((), here)
    if trace.bodies:
        raise ModelError("a state in the function of a loop or a choice", where=str(here), hint="make it, and assign it, outside")
    full = trace.claim(name, here) if name else trace.number("state", here)
    with trace.builder.at(Source(place.file, place.line, full, "state")):
        if symbols_of(shape) or any(isinstance(dim, str) for dim in shape):
            listed = ", ".join(map(str, shape))
            raise ShapeError(f"a state of shape [{listed}] needs memory of a known size", hint="numbers, e.g. the batch size in place of N")
        sizes = tuple(whole(size, "a size") for size in shape)
        value = trace.builder.state(full, initialise(init, full, trace.seed or 0, sizes, element_type(dtype)))
    return State(trace, value)


def check_states(trace: Trace, where: str) -> None:
    """A ModelError for a state that nothing assigns to: it would be a constant."""
    forgotten = [value for value in trace.graph.states.values() if value not in trace.graph.updates]
    if forgotten:
        raise ModelError(f"the state {forgotten[0].name!r} is never assigned", where=where, hint="state.assign(new), or graphc.constant")
