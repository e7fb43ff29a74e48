"""Sequences: masks for different lengths in one batch, and drawing the next class from logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import TypeMismatchError
from graphc.ir.graph import Value
from graphc.ops import compose
from graphc.ops.pointwise import Cast, op
from graphc.ops.reduce import CumSum
from graphc.ops.sampling import Sample
from graphc.types.dtype import bool_, i64, u64
from graphc.types.shape import Dim, DimLike
from graphc_dsl.arguments import DTypeLike, element_type, number, whole
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, odd: multiplying by it loses no seed


def sequence_mask(lengths: Tensor, steps: DimLike, dtype: DTypeLike = bool_, name: str = "") -> Tensor:
    """Which positions lie within each sequence: lengths (N) integers -> (N, steps), true (1) where the position is below the length.

    Any shape of lengths: (...) -> (..., steps). `steps`: a number, or a dim such as x.shape[1]. dtype: bool, or a number type for 1 and 0.
    Raises TypeMismatchError for lengths that are no integers.
    """
    with Building("sequence_mask", name, lengths) as new:
        if not lengths.dtype.is_int:
            raise TypeMismatchError(f"lengths are {lengths.type}", hint="integers: numbers of steps")
        column = compose.unsqueeze(new.builder, new.add(Cast(i64), new.value(lengths)), [lengths.ndim])
        inside = new.add(op("less"), _positions(new, steps), column)
        to = element_type(dtype)
        return new.tensor(inside if to == bool_ else new.add(Cast(to), inside))


def sample(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, *, seed: Tensor | int = 0, step: Tensor | int = 0,
    name: str = "",
) -> Tensor:  # fmt: skip
    """Class numbers (...) i64 drawn from softmax(logits / temperature), logits (..., C); temperature 0: the largest, of equals the first.

    top_k: among that many largest logits only (0: all), and top_p: of those among the fewest most probable whose probabilities sum to at
    least top_p (Holtzman et al. 2020). A logit of -inf is never drawn; a row whose largest logit is no finite number gives -1.

    What is drawn is a function of seed, step, the place in the batch, and the number of `sample` layers before this one: the same in each
    run, for any number of threads. Give `step` a new number in each run, as an input of the model, a scalar of graphc.u64, or as state:
    runs = graphc.state((), dtype=graphc.u64); runs.assign(runs + 1). `seed` is such a scalar, or a number. In the function of a loop each
    iteration draws anew.
    """
    with Building("sample", name, logits, seed, step) as new:
        earlier = sum(isinstance(node.op, Sample) for node in new.builder.graph.nodes)
        op_ = Sample(number(temperature, "temperature"), whole(top_k, "top_k"), number(top_p, "top_p"), earlier)
        return new.tensor(new.add(op_, new.value(logits), *_in_loops(new, new.value(seed, u64), new.value(step, u64))))


def _in_loops(new: Building, seed: Value, step: Value) -> tuple[Value, Value]:
    """In the function of a loop the step is the iteration, and the seed a mixture of seed and step outside: other ones in each."""
    for body in new.trace.bodies:
        if body.iteration is not None:
            mixed = new.add(op("mul"), seed, new.builder.constant(_GOLDEN, u64))
            seed = new.add(op("add"), mixed, new.add(op("add"), step, new.builder.constant(1, u64)))
            step = new.add(Cast(u64), new.trace.local(body.iteration))
    return seed, step


def _positions(new: Building, steps: DimLike) -> Value:
    """0, 1, ... steps - 1; of a symbolic size a running sum, which is a constant once the size is known."""
    if not isinstance(steps, Dim):
        return new.builder.constant(np.arange(whole(steps, "steps")), i64, name=f"{new.name}.positions")
    ones = compose.expand(new.builder, new.builder.constant([1], i64, name=f"{new.name}.one"), (steps,))
    return new.add(CumSum(0, exclusive=True), ones)
