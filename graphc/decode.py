"""Decoding, as `graphc.decode`: sequences from a model that gives the logits of the next token.

    step = graphc.decode.from_executable(decoder, token="token", logits="logits", state={"h": "h_next"})
    found = graphc.decode.beam_search(step, BEGIN, {"h": encoder(source)}, end=END, max_length=20, beams=4)
    found.tokens[0, 0, : found.lengths[0, 0]]

The model is a function step(tokens (B,), state) -> (logits (B, V), state). The state is a mapping of arrays whose first axis are the rows
of the batch; it may hold what never changes, such as the encoder's states. All rows of a search are one call per token, of the same size
each time, so that a model is compiled once. Raises InputError for what does not fit, AttributeValueError for options that make no sense,
NumericalError where the logits of a row that is not finished are NaN or +inf, or -inf all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.driver import compile as compile_graph
from graphc.errors import AttributeValueError, InputError, NumericalError
from graphc.executable import Executable
from graphc.ir.builder import Builder
from graphc.ir.graph import Array
from graphc.ops.sampling import Sample
from graphc.types.dtype import DType, dtype, u64
from graphc.types.shape import symbol

__all__ = ["Decoded", "beam_search", "from_executable", "greedy", "sample"]

State = Mapping[str, Array]
Step = Callable[[Array, State], tuple[Any, Mapping[str, Any]]]


@dataclass(frozen=True)
class Decoded:
    """`tokens` (B, max_length) i64; `lengths` (B): how many of them lie before the end token; `scores` (B): the logarithm of their
    probability under the model, that of the end token included. Behind the end `tokens` holds the end token.

    Of a beam search (B, beams, max_length), (B, beams) and (B, beams), the best first; where a source has fewer sequences than that, length
    0 and score -inf.
    """

    tokens: Array
    lengths: Array
    scores: Array


def greedy(step: Step, start: Any, state: Mapping[str, Any] | None = None, *, end: int | None, max_length: int) -> Decoded:
    """The most probable token in each step, of equals the first.

    start: the token before the first one, a number or (B,). state: before the first step. end: the token that ends a sequence (None: only
    max_length does). max_length: tokens of a sequence at most, the end token included.
    """
    return _one_by_one(step, start, state, end, max_length, lambda logits, number: logits.argmax(1))


def sample(
    step: Step, start: Any, state: Mapping[str, Any] | None = None, *, end: int | None, max_length: int, temperature: float = 1.0,
    top_k: int = 0, top_p: float = 1.0, seed: int = 0,
) -> Decoded:  # fmt: skip
    """Tokens drawn as `graphc.sample` draws; the rest as for `greedy`. What is drawn is a function of seed, row and number of the token."""
    rule = Sample(float(temperature), top_k, float(top_p))
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise AttributeValueError(f"seed={seed!r}", hint="a whole number, at least 0 and below 2^64")

    def draw(logits: Array, number: int) -> Array:
        drawn = _sampler(rule, logits.shape[1], dtype(logits.dtype))(logits, np.uint64(seed), np.uint64(number))
        return np.asarray(drawn)

    return _one_by_one(step, start, state, end, max_length, draw)


@lru_cache(maxsize=16)
def _sampler(rule: Sample, classes: int, number: DType) -> Executable:
    builder = Builder()
    logits = builder.input("logits", number, (symbol("N"), classes))
    counters = (builder.input(name, u64, ()) for name in ("seed", "step"))
    return compile_graph(builder.finish(token=builder.add(rule, logits, *counters)), threads=1)


def beam_search(
    step: Step, start: Any, state: Mapping[str, Any] | None = None, *, end: int | None, max_length: int, beams: int = 4,
    length_penalty: float = 0.0,
) -> Decoded:  # fmt: skip
    """The best of the sequences that stay among the `beams` most probable of their source at every step.

    Sequences are ranked by log P / ((5 + length) / 6)^length_penalty, the end token counted (Wu et al. 2016, arXiv:1609.08144, section 7);
    0 ranks by probability, more favours long ones. A sequence that reaches max_length counts as it is. The search of a source ends when no
    sequence can enter the best any more. One beam is `greedy`; beams for everything find the best there is. start, state, end, max_length
    as for `greedy`, with the rows of the sources; the step gets beams * B rows.
    """
    if not -10 <= length_penalty <= 10:
        raise AttributeValueError(f"length_penalty={length_penalty}", hint="a number such as 0.6, from -10 to 10")
    rows = _Rows(step, start, state, end, max_length, copies=_whole("beams", beams, 1))
    search = _Beams(rows.sources, beams, max_length, rows.end, float(length_penalty))
    last = rows.first
    for number in range(max_length):
        log_prob = _log_softmax(rows(last, (search.live > -np.inf).reshape(-1)))
        parent, token = search.advance(number, log_prob.reshape(rows.sources, beams, -1))
        if not (search.live > -np.inf).any():
            break
        rows.keep((np.arange(rows.sources)[:, None] * beams + parent).reshape(-1))
        last = token.reshape(-1)
    return search.result()


def from_executable(
    executable: Executable, token: str, logits: str, state: Mapping[str, str] | None = None
) -> Callable[[Array, State], tuple[Array, dict[str, Array]]]:
    """The step of a compiled model. token: its input, (B) or (B, 1) integers; logits: its output, (B, V) or (B, 1, V); state: the output
    that each input of the state becomes in the next step. Other inputs are part of the state too, and stay as they are.
    """
    following = dict(state or {})
    _check_names(executable, {token, *following}, {logits, *following.values()})
    taken = executable.inputs[token]
    if taken.rank not in (1, 2) or not taken.dtype.is_int:
        raise InputError(f"the input {token!r} is {taken}", hint="integers (B) or (B, 1)")

    def step(tokens: Array, before: State) -> tuple[Array, dict[str, Array]]:
        column = tokens.astype(taken.dtype.numpy).reshape((-1, 1)[: taken.rank])
        found = executable.run({**before, token: column})
        scores = found[logits]
        if scores.shape[:-1] not in ((len(tokens),), (len(tokens), 1)):
            raise InputError(f"the output {logits!r} is {list(scores.shape)} for {len(tokens)} rows", hint="(B, V) or (B, 1, V)")
        return scores.reshape(len(tokens), -1), {**before, **{name: found[output] for name, output in following.items()}}

    return step


def _check_names(executable: Executable, inputs: set[str], outputs: set[str]) -> None:
    for kind, names, known in (("input", inputs, executable.inputs), ("output", outputs, executable.outputs)):
        unknown = sorted(names - known.keys())
        if unknown:
            raise InputError(f"the model has no {kind} {unknown[0]!r}", hint=f"one of {', '.join(known)}")


# parts of a search --------------------------------------------------------------------------------------------------------------


class _Rows:
    """The rows of a search, `copies` for each source: calls the step, checks what it gives, and keeps the state."""

    def __init__(self, step: Step, start: Any, state: Mapping[str, Any] | None, end: int | None, max_length: int, copies: int = 1) -> None:
        _whole("max_length", max_length, 1)
        self._step, self._copies, self.end = step, copies, -1 if end is None else _whole("end", end, 0)
        arrays = {name: np.asarray(array) for name, array in (state or {}).items()}
        first = np.asarray(start)
        if first.dtype.kind not in "iu" or first.ndim > 1:
            raise InputError(f"start is {first.dtype}{list(first.shape)}", hint="a token, or one for each row (B,)")
        sizes = {len(array) if array.ndim else 0 for array in (*arrays.values(), *([first] if first.ndim else []))}
        if len(sizes) != 1 or not min(sizes):
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in {"start": first, **arrays}.items())
            raise InputError(f"the rows of the batch do not agree: {shapes}", hint="start (B,), and (B, ...) for each array of the state")
        (self.sources,) = sizes
        self.first = np.repeat(np.broadcast_to(first.astype(np.int64), self.sources), copies)
        self._state = {name: np.repeat(array, copies, axis=0) for name, array in arrays.items()}

    def __call__(self, tokens: Array, live: Array) -> Array:
        """The logits (rows, V) behind these tokens, 0 in rows that are not live."""
        given, state = self._step(tokens, self._state)
        logits = np.asarray(given)
        self._state = {name: np.asarray(array) for name, array in state.items()}
        if logits.ndim != 2 or len(logits) != len(tokens) or not logits.shape[1] or logits.dtype.kind != "f":
            raise InputError(f"the step gives logits {logits.dtype}{list(logits.shape)} for {len(tokens)} rows", hint="floats (B, V)")
        for name, array in self._state.items():
            if not array.ndim or len(array) != len(tokens):
                raise InputError(f"the step gives the state {name!r} of shape {list(array.shape)} for {len(tokens)} rows")
        if self.end >= logits.shape[1]:
            raise InputError(f"the end token {self.end}, the logits are of the tokens 0 to {logits.shape[1] - 1}")
        wrong = live & ~np.isfinite(logits.max(1))
        if wrong.any():
            row = int(wrong.argmax())
            place = f"row {row // self._copies}"
            raise NumericalError(f"the largest logit is {logits[row].max()}", where=place, hint="look at the model's parameters")
        return np.where(live[:, None], logits, 0)

    def keep(self, rows: Array) -> None:
        """The state of these rows, in this order."""
        self._state = {name: array[rows] for name, array in self._state.items()}


def _one_by_one(
    step: Step, start: Any, state: Mapping[str, Any] | None, end: int | None, max_length: int, choose: Callable[[Array, int], Array]
) -> Decoded:
    """`choose` of the logits of a step and its number gives the tokens."""
    rows = _Rows(step, start, state, end, max_length)
    every = np.arange(rows.sources)
    tokens = np.full((rows.sources, max_length), max(rows.end, 0))
    lengths, scores = np.full(rows.sources, max_length), np.zeros(rows.sources)
    live, last = np.ones(rows.sources, np.bool_), rows.first
    for number in range(max_length):
        logits = rows(last, live)
        last = choose(logits, number)
        tokens[live, number] = last[live]
        scores[live] += _log_softmax(logits)[every, last][live]
        lengths[live & (last == rows.end)] = number
        live &= last != rows.end
        if not live.any():
            break
    return Decoded(tokens, lengths, scores)


@dataclass(order=True)
class _Sequence:
    """A finished one. `rank`: by what the best are chosen, least first."""

    rank: float
    score: float = field(compare=False)
    length: int = field(compare=False)
    tokens: Array = field(compare=False)


class _Beams:
    """`live` (B, K): the logarithm of the probability of each unfinished sequence, -inf where there is none; `made` its tokens."""

    def __init__(self, sources: int, beams: int, max_length: int, end: int, penalty: float) -> None:
        self.beams, self.max_length, self.end, self._penalty, self._pad = beams, max_length, end, penalty, max(end, 0)
        self.live = np.full((sources, beams), -np.inf)
        self.live[:, 0] = 0
        self.made = np.full((sources, beams, max_length), self._pad)
        self._done: list[list[_Sequence]] = [[] for _ in range(sources)]

    def advance(self, number: int, log_prob: Array) -> tuple[Array, Array]:
        """One token more, by the logarithms of its probabilities (B, K, V): for each sequence that goes on, which one it continues, and its
        last token, both (B, K).

        A sequence ends where its end is among the K best of all continuations; the K best of the others go on.
        """
        total = (self.live[:, :, None] + log_prob).reshape(len(self.live), -1)
        order = np.argsort(-total, axis=1, kind="stable")[:, : 2 * self.beams]  # of which each sequence has one that ends
        score = np.take_along_axis(total, order, 1)
        parent, token = np.divmod(order, log_prob.shape[2])
        ends = token == self.end
        for source, place in np.argwhere(ends[:, : self.beams] & (score[:, : self.beams] > -np.inf)):
            self._finish(source, self.made[source, parent[source, place]], score[source, place], number + 1, number)
        others = np.argsort(ends, axis=1, kind="stable")[:, : self.beams]
        parent, token, score, ends = (np.take_along_axis(array, others, 1) for array in (parent, token, score, ends))
        self.made = np.take_along_axis(self.made, parent[:, :, None], 1)
        self.made[:, :, number] = token
        self.live = np.where(ends, -np.inf, score)
        for source, best in enumerate(self.live.max(1)):
            if best > -np.inf and self._settled(source, best, number + 1):
                self.live[source] = -np.inf
        return parent, token

    def _finish(self, source: int, tokens: Array, score: float, made: int, length: int) -> None:
        """`made`: tokens with the end, `length`: without it."""
        done = self._done[source]
        done.append(_Sequence(-self._ranked(score, made), score, length, tokens.copy()))
        done.sort()
        del done[self.beams :]

    def _ranked(self, score: float, made: int) -> float:
        """What the best are chosen by. Wu et al. 2016, equation 14."""
        return float(score / ((5 + made) / 6) ** self._penalty)

    def _settled(self, source: int, best: float, made: int) -> bool:
        """Whether no continuation of what is live can enter the best: scores only fall, and the penalty is monotonic in the length."""
        done = self._done[source]
        bound = max(self._ranked(best, min(made + 1, self.max_length)), self._ranked(best, self.max_length))
        return len(done) == self.beams and bound <= -done[-1].rank

    def result(self) -> Decoded:
        """With what is live as it is."""
        for source, beam in np.argwhere(self.live > -np.inf):
            self._finish(source, self.made[source, beam], self.live[source, beam], self.max_length, self.max_length)
        tokens, lengths, scores = np.full_like(self.made, self._pad), np.zeros(self.live.shape, np.int64), np.full(self.live.shape, -np.inf)
        for source, done in enumerate(self._done):
            for place, one in enumerate(done):
                tokens[source, place], lengths[source, place], scores[source, place] = one.tokens, one.length, one.score
        return Decoded(tokens, lengths, scores)


def _log_softmax(logits: Array) -> Array:
    """Along the last axis, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise AttributeValueError(f"{name}={value!r}", hint=f"a whole number, at least {least}")
    return int(value)
