"""Decoding: against exhaustive search on small random models, beams of one against greedy, drawn sequences against their probabilities."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import decode
from graphc.errors import AttributeValueError, GraphcError, InputError, NumericalError

Array = np.ndarray[Any, np.dtype[Any]]
WORDS, HIDDEN, STEPS, END, SOURCES = 4, 5, 4, 0, 3


class Network:
    """A random recurrent network in double precision, whose state begins with the source: h' = tanh(E[token] + h R), logits h' W."""

    def __init__(self, seed: int, words: int = WORDS) -> None:
        rng = np.random.default_rng(seed)
        self.words = words
        self.embedding, self.recurrent, self.start = (rng.normal(size=(rows, HIDDEN)) for rows in (words, HIDDEN, SOURCES))
        self.out = rng.normal(size=(HIDDEN, words))
        self.calls: list[int] = []

    def __call__(self, tokens: Array, state: Any) -> tuple[Array, dict[str, Array]]:
        self.calls.append(len(tokens))
        h = np.tanh(self.embedding[tokens] + state["h"] @ self.recurrent)
        return 2 * h @ self.out, {"h": h, "source": state["source"]}

    def state(self) -> dict[str, Array]:
        return {"h": self.start, "source": np.arange(SOURCES)}

    def every(self, source: int, end: int | None = END, steps: int = STEPS) -> list[tuple[tuple[int, ...], float]]:
        """All sequences with the logarithms of their probabilities: up to the end token, or of all steps without one."""
        found: dict[tuple[int, ...], float] = {}
        for words in product(range(self.words), repeat=steps):
            cut = words[: words.index(end) + 1] if end in words else words
            if cut not in found:
                found[cut] = self.score(source, cut)
        return list(found.items())

    def score(self, source: int, words: tuple[int, ...]) -> float:
        h, last, total = self.start[source], 1, 0.0
        for word in words:
            h = np.tanh(self.embedding[last] + h @ self.recurrent)
            logits = 2 * h @ self.out
            total += logits[word] - np.log(np.exp(logits).sum())
            last = word
        return float(total)


def _words(found: decode.Decoded, place: Any, end: int | None = END) -> tuple[int, ...]:
    """With the end token, as `every` has it; checks what lies behind it."""
    tokens, length = found.tokens[place], int(found.lengths[place])
    assert (tokens[length:] == (0 if end is None else end)).all()
    assert end not in tokens[:length]
    return tuple(int(word) for word in tokens[: length + 1 if end is not None else length])


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_beams_for_everything_find_the_best_there_is(seed: int, penalty: float) -> None:
    net = Network(seed)
    beams = WORDS**STEPS
    found = decode.beam_search(net, 1, net.state(), end=END, max_length=STEPS, beams=beams, length_penalty=penalty)
    assert found.tokens.shape == (SOURCES, beams, STEPS)
    assert set(net.calls) == {SOURCES * beams}
    for source in range(SOURCES):
        every = sorted(net.every(source), key=lambda item: -item[1] / ((5 + len(item[0])) / 6) ** penalty)
        for place, (words, score) in enumerate(every):
            assert _words(found, (source, place)) == words
            assert found.scores[source, place] == pytest.approx(score, rel=1e-9)
        assert (found.scores[source, len(every) :] == -np.inf).all()
        assert (found.lengths[source, len(every) :] == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_a_few_beams_is_found_by_a_plain_loop(seed: int) -> None:
    """The same search in lists of tuples, without the batch, the early stop and the reordering of states."""
    net, beams, penalty = Network(seed, words=6), 3, 0.8
    found = decode.beam_search(net, [1] * SOURCES, net.state(), end=END, max_length=7, beams=beams, length_penalty=penalty)
    for source in range(SOURCES):
        live: list[tuple[int, ...]] = [()]
        done: list[tuple[int, ...]] = []
        for _ in range(7):
            longer = sorted((words + (word,) for words in live for word in range(6)), key=lambda words: -net.score(source, words))
            done += [words for words in longer[:beams] if words[-1] == END]
            live = [words for words in longer if words[-1] != END][:beams]
        ranked = sorted(done + live, key=lambda words: -net.score(source, words) / ((5 + len(words)) / 6) ** penalty)
        assert [_words(found, (source, place)) for place in range(beams)] == ranked[:beams]


@pytest.mark.parametrize("end", [END, None, 3])
def test_one_beam_is_greedy(end: int | None) -> None:
    for seed in range(10):
        net = Network(seed)
        one = decode.beam_search(net, 1, net.state(), end=end, max_length=6, beams=1)
        most = decode.greedy(net, 1, net.state(), end=end, max_length=6)
        np.testing.assert_array_equal(one.tokens[:, 0], most.tokens)
        np.testing.assert_array_equal(one.lengths[:, 0], most.lengths)
        np.testing.assert_allclose(one.scores[:, 0], most.scores, rtol=1e-12)
        for source in range(SOURCES):
            words = _words(most, source, end)
            assert most.scores[source] == pytest.approx(net.score(source, words[:6]), rel=1e-9)


def test_more_beams_are_never_worse_in_what_they_rank_when_wide_enough() -> None:
    net = Network(1)
    most = decode.greedy(net, 1, net.state(), end=END, max_length=STEPS)
    best = decode.beam_search(net, 1, net.state(), end=END, max_length=STEPS, beams=WORDS**STEPS)
    assert (best.scores[:, 0] >= most.scores - 1e-12).all()


def test_a_search_stops_when_nothing_better_can_come() -> None:
    counted: list[int] = []

    def sure(tokens: Array, state: Any) -> Any:
        counted.append(len(tokens))
        return np.tile([9.0, 0, 0, 0], (len(tokens), 1)), state

    found = decode.beam_search(sure, [1, 1], end=END, max_length=1000, beams=2)
    assert found.lengths.tolist() == [[0, 1]] * 2
    assert len(counted) <= 3


def test_drawn_sequences_have_the_probabilities_of_the_model() -> None:
    net, rows = Network(2, words=3), 6000
    state = {"h": np.repeat(net.start[:1], rows, axis=0), "source": np.zeros(rows, np.int64)}
    found = decode.sample(net, 1, state, end=END, max_length=3, seed=5)
    counts: dict[tuple[int, ...], int] = {}
    for row in range(rows):
        words = _words(found, row)[:3]
        counts[words] = counts.get(words, 0) + 1
        if row < 50:
            assert found.scores[row] == pytest.approx(net.score(0, words), rel=1e-6)
    every = net.every(0, steps=3)
    assert sum(np.exp(score) for _, score in every) == pytest.approx(1)
    chi = sum((counts.get(words, 0) - rows * np.exp(score)) ** 2 / (rows * np.exp(score)) for words, score in every)
    assert chi < 36.12  # the quantile 0.999 with 14 degrees of freedom: Abramowitz and Stegun 1964, table 26.8
    assert len(every) == 15


def test_draws_depend_on_the_seed_alone_and_temperature_0_is_greedy() -> None:
    net = Network(3)
    state = {name: np.repeat(array, 40, axis=0) for name, array in net.state().items()}
    options: dict[str, Any] = {"end": None, "max_length": 8}
    first, again, other = (decode.sample(net, 1, state, seed=seed, top_p=0.9, **options) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (first.tokens != other.tokens).any()
    assert (first.tokens[0] != first.tokens[1]).any()  # rows of one source draw apart
    large = decode.sample(lambda tokens, rows: (np.tile([1e300, -1e300], (len(tokens), 1)), rows), [0, 1], **options)
    assert not large.tokens.any()
    half = decode.sample(lambda tokens, rows: (np.zeros((len(tokens), 9), np.float16), rows), np.zeros(50, int), **options)
    assert set(half.tokens.reshape(-1).tolist()) == set(range(9))
    cold, most = decode.sample(net, 1, state, temperature=0, **options), decode.greedy(net, 1, state, **options)
    np.testing.assert_array_equal(cold.tokens, most.tokens)
    np.testing.assert_array_equal(decode.sample(net, 1, state, top_k=1, seed=9, **options).tokens, most.tokens)


def test_a_compiled_model_as_a_step() -> None:
    """A model of one token, its column form, and by hand; the state that does not change is carried along."""

    @graphc.model
    def cell(token: graphc.i32["N"], h: graphc.f32["N", HIDDEN], bias: graphc.f32["N", WORDS]) -> Any:
        h = graphc.tanh(graphc.embedding(token, WORDS, HIDDEN, name="e") + graphc.linear(h, HIDDEN, name="r"))
        return {"logits": graphc.linear(h, WORDS, name="o") + bias, "next": h}

    @graphc.model
    def column(token: graphc.i64["N", 1], h: graphc.f32["N", HIDDEN], bias: graphc.f32["N", WORDS]) -> Any:
        h = graphc.tanh(graphc.embedding(token.squeeze(1), WORDS, HIDDEN, name="e") + graphc.linear(h, HIDDEN, name="r"))
        return {"logits": (graphc.linear(h, WORDS, name="o") + bias).unsqueeze(1), "next": h}

    @graphc.model
    def pair(token: graphc.i64["N"]) -> Any:
        return {"pair": graphc.stack([token, token], 1).unsqueeze(2).cast(graphc.f32)}

    rng = np.random.default_rng(0)
    state = {"h": rng.normal(size=(SOURCES, HIDDEN)).astype(np.float32), "bias": rng.normal(size=(SOURCES, WORDS)).astype(np.float32)}
    p = cell.parameters()

    def by_hand(tokens: Array, before: Any) -> Any:
        h = np.tanh(p["e.weight"][tokens] + before["h"] @ p["r.weight"].T + p["r.bias"])
        return h @ p["o.weight"].T + p["o.bias"] + before["bias"], {**before, "h": h}

    expected = decode.beam_search(by_hand, 1, state, end=END, max_length=6, beams=3)
    for model in (cell, column):
        step = decode.from_executable(graphc.compile(model, threads=1), "token", "logits", {"h": "next"})
        found = decode.beam_search(step, 1, state, end=END, max_length=6, beams=3)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    exe = graphc.compile(cell, threads=1)
    with pytest.raises(InputError, match=r"the output 'pair' is \[2, 2, 1\]"):
        decode.greedy(decode.from_executable(graphc.compile(pair, threads=1), "token", "pair"), [0, 0], end=0, max_length=2)
    wrong: Any = {
        "no input 'x'": ("x", "logits"), "no output 'y'": ("token", "y"), "the input 'h' is f32": ("h", "logits"),
        "no output 'z'": ("token", "logits", {"h": "z"}),
    }  # fmt: skip
    for message, arguments in wrong.items():
        with pytest.raises(InputError, match=message):
            decode.from_executable(exe, *arguments)


def test_one_token_and_one_step() -> None:
    for search in (decode.greedy, decode.sample, decode.beam_search):
        found = search(lambda tokens, state: (np.zeros((len(tokens), 1)), state), np.array([0, 0]), end=0, max_length=1)
        assert found.lengths.reshape(2, -1)[:, 0].tolist() == [0, 0]
        assert found.scores.reshape(2, -1)[:, 0].tolist() == [0, 0]


def _logits(value: Any) -> Any:
    return lambda tokens, state: (np.broadcast_to(np.asarray(value), (len(tokens), 4)), state)


FINE = _logits([0.0, 1, 2, 3])
BAD: dict[str, tuple[Any, dict[str, Any], type[GraphcError], str]] = {
    "NaN": (_logits([0, np.nan, 1, 2.0]), {}, NumericalError, "row 0: the largest logit is nan"),
    "+inf": (_logits([0, np.inf, 1, 2.0]), {}, NumericalError, "the largest logit is inf"),
    "-inf all": (_logits(-np.inf), {}, NumericalError, "the largest logit is -inf"),
    "integers": (_logits(1), {}, InputError, "the step gives logits int64"),
    "rank": (lambda t, s: (np.zeros(4), s), {}, InputError, r"logits float64\[4\] for \d rows"),
    "rows of the state": (lambda t, s: (np.zeros((len(t), 4)), {"h": np.zeros(1)}), {}, InputError, "state 'h' of shape"),
    "the end is no token": (FINE, {"end": 4}, InputError, "the end token 4"),
    "the end is negative": (FINE, {"end": -1}, AttributeValueError, "end=-1"),
    "no step": (FINE, {"max_length": 0}, AttributeValueError, "max_length=0"),
    "start of floats": (FINE, {"start": np.zeros(2)}, InputError, "start is float64"),
    "rows of the start": (FINE, {"start": np.zeros(3, int)}, InputError, "do not agree: start \\[3\\], h \\[2, 1\\]"),
    "no rows": (FINE, {"start": 0, "state": {}}, InputError, "do not agree"),
    "a number as state": (FINE, {"state": {"h": 1.0}}, InputError, "do not agree"),
}


@pytest.mark.parametrize("search", [decode.greedy, decode.sample, decode.beam_search], ids=lambda search: search.__name__)
@pytest.mark.parametrize("title", list(BAD))
def test_refusals(title: str, search: Any) -> None:
    step, changes, error, message = BAD[title]
    options = {"start": 1, "state": {"h": np.zeros((2, 1))}, "end": 0, "max_length": 3, **changes}
    with pytest.raises(error, match=message):
        search(step, options.pop("start"), options.pop("state"), **options)


def test_options_that_make_no_sense() -> None:
    options: dict[str, Any] = {"end": 0, "max_length": 3}
    for search, changes, message in (
        (decode.beam_search, {"beams": 0}, "beams=0"), (decode.beam_search, {"length_penalty": np.nan}, "length_penalty=nan"),
        (decode.sample, {"seed": -1}, "seed=-1"), (decode.sample, {"temperature": -1}, "temperature -1"),
        (decode.sample, {"top_p": 2}, "top_p"),
    ):  # fmt: skip
        with pytest.raises(AttributeValueError, match=message):
            search(FINE, np.array([1, 1]), **options, **changes)
