"""Sequence to sequence: dates as people write them become dates as machines do.

    python examples/sequences/seq2seq.py

"sunday, the 3rd of march 2019" -> "2019-03-03". A generator writes days of 1950 to 2049 in 14 ways, such as "3 march 2019",
"mar 3, 2019", "3.3.2019", "3.iii.2019" and "3/3/19" (the month first), one in four with a typing error in its words; the days of the test
are none of the training. The encoder, a bidirectional GRU, reads the letters; the decoder, a GRU that starts from the encoder's last
states, writes a letter at a time, and looks at all letters that were read (dot-product attention, Luong, Pham and Manning 2015,
arXiv:1508.04025, behind the recurrent layer). In training it is given the letter that should have come before (teacher forcing): all steps
are one recurrent layer.

Prints, for each epoch, the part of right letters and of dates without an error under teacher forcing; then the part of 1,000 dates that
are translated exactly, greedily and by a beam search, where the decoder is given what it wrote itself; some of the translations, those
that went wrong, and what the beam search finds for "ju", which may be two months. Then encoder and decoder are written as ONNX files, and
the same searches over ONNX Runtime give the same dates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np

import graphc

MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
WAYS = (
    "{day} {month} {year}", "{month} {day}, {year}", "{short} {day}, {year}", "{day} {short} {year}", "the {nth} of {month} {year}",
    "{weekday}, {day} {month} {year}", "{weekday}, the {nth} of {month} {year}", "{month} the {nth}, {year}", "{day}.{number}.{year}",
    "{day}.{roman}.{year}", "{year}/{number}/{day}", "{day}-{short}-{year}", "{number}/{day}/{yy}", "{weekday} {day} {short} {yy}",
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ,./-"
READ = {letter: 1 + number for number, letter in enumerate(LETTERS)}  # 0 is padding
LONGEST = len("wednesday, the 30th of septemmber 2019")
DIGITS = "0123456789-"
UNITS = 128
BEGIN, END, TOKENS, WRITTEN = len(DIGITS), len(DIGITS) + 1, len(DIGITS) + 2, len("2019-03-03") + 1


@graphc.model
def encoder(source: graphc.i64["N", LONGEST], length: graphc.i64["N"]):
    x = graphc.embedding(source, len(LETTERS) + 1, 32, name="letters")
    memory, last = graphc.gru(x, UNITS // 2, bidirectional=True, lengths=length, name="gru")
    return {"memory": memory, "h": last.reshape(-1, 1, UNITS)}


@graphc.model
def decoder(
    token: graphc.i64["N", "T"], memory: graphc.f32["N", LONGEST, UNITS], length: graphc.i64["N"], h: graphc.f32["N", 1, UNITS]
):
    x = graphc.embedding(token, TOKENS, 16, name="tokens")
    x, last = graphc.gru(x, UNITS, h0=h, name="gru")
    scores = graphc.linear(x, UNITS, bias=False, name="query") @ memory.transpose(0, 2, 1)
    inside = graphc.sequence_mask(length, LONGEST).unsqueeze(1)
    context = graphc.softmax(graphc.where(inside, scores, -1e9)) @ memory
    x = graphc.linear(graphc.concat([x, context], axis=-1), UNITS, activation="tanh", name="mix")
    return {"logits": graphc.linear(x, TOKENS, name="output"), "h_next": last}


@graphc.model
def translation(source: graphc.i64["N", LONGEST], length: graphc.i64["N"], before: graphc.i64["N", WRITTEN]):
    """Both, for training: `before` are the tokens that should have been written before each token."""
    memory, h = encoder(source, length, name="encoder").values()
    return decoder(before, memory, length, h, name="decoder")["logits"]


# dates ------------------------------------------------------------------------------------------------------------------------


def written(day: date, way: str) -> str:
    """A date as people write it."""
    ending = "th" if 10 < day.day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    month = MONTHS[day.month - 1]
    return way.format(
        day=day.day, month=month, year=day.year, short=month[:3], nth=f"{day.day}{ending}", weekday=DAYS[day.weekday()], number=day.month,
        roman=ROMAN[day.month - 1], yy=f"{day.year % 100:02}",
    )  # fmt: skip


def mistyped(text: str, rng: np.random.Generator) -> str:
    """With one letter left out, doubled, exchanged with the next one, or another one; digits stay."""
    letters = [place for place, letter in enumerate(text) if letter.isalpha()]
    if not letters:
        return text
    at = int(rng.choice(letters))
    letter, after = text[at], text[at + 1 :]
    errors = (after, 2 * letter + after, after[:1] + letter + after[1:], LETTERS[rng.integers(26)] + after)
    return text[:at] + errors[rng.integers(len(errors))]


def examples(count: int, held_out: int, seed: int = 0) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(train, test): pairs of a text and its date; no day is in both."""
    rng = np.random.default_rng(seed)
    first = date(1950, 1, 1)
    days = rng.permutation((date(2050, 1, 1) - first).days)

    def pairs(chosen: np.ndarray) -> list[tuple[str, str]]:
        dates = [first + timedelta(int(number)) for number in chosen]
        texts = [written(day, WAYS[rng.integers(len(WAYS))]) for day in dates]
        return [(mistyped(text, rng) if rng.random() < 1 / 4 else text, day.isoformat()) for text, day in zip(texts, dates, strict=True)]

    return pairs(rng.choice(days[held_out:], count)), pairs(days[:held_out])


def numbers(pairs: list[tuple[str, str]]) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """((source (N, LONGEST), length (N), before (N, WRITTEN)), target (N, WRITTEN)), all i64."""
    source = np.zeros((len(pairs), LONGEST), np.int64)
    length = np.array([len(text) for text, _ in pairs])
    for row, (text, _) in enumerate(pairs):
        source[row, : len(text)] = [READ[letter] for letter in text]
    target = np.array([[*map(DIGITS.index, found), END] for _, found in pairs])
    before = np.concatenate([np.full((len(pairs), 1), BEGIN), target[:, :-1]], axis=1)
    return (source, length, before), target


# translation ------------------------------------------------------------------------------------------------------------------


def translations(read: Callable[..., Any], step: Any, source: np.ndarray, length: np.ndarray, beams: int) -> tuple[list[str], list[str]]:
    """What the greedy search and the beam search write. read: of the encoder; step: of the decoder."""
    memory, h = read(source, length)
    state, options = {"memory": memory, "length": length, "h": h}, {"end": END, "max_length": WRITTEN}
    most = graphc.decode.greedy(step, BEGIN, state, **options)
    best = graphc.decode.beam_search(step, BEGIN, state, beams=beams, length_penalty=0.6, **options)
    return texts(most.tokens, most.lengths), texts(best.tokens[:, 0], best.lengths[:, 0])


def readings(text: str, read: Callable[..., Any], step: Any, beams: int) -> list[str]:
    """What the beam search finds for one text, the best first, with probabilities."""
    (source, length, _), _ = numbers([(text, date.min.isoformat())])
    memory, h = read(source, length)
    state = {"memory": memory, "length": length, "h": h}
    found = graphc.decode.beam_search(step, BEGIN, state, end=END, max_length=WRITTEN, beams=beams)
    rows = zip(texts(found.tokens[0], found.lengths[0]), np.exp(found.scores[0]), strict=True)
    return [f"{written} ({chance:.2%})" for written, chance in rows]


def texts(tokens: np.ndarray, lengths: np.ndarray) -> list[str]:
    letters = DIGITS + "?" * (TOKENS - len(DIGITS))
    return ["".join(letters[token] for token in row[:length]) for row, length in zip(tokens, lengths, strict=True)]


@click.command(help="Translate dates into ISO form: prints the part of dates translated exactly, greedily and by a beam search.")
@click.option("--epochs", type=click.IntRange(1), default=12, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True)
@click.option("--lr", default=4e-3, show_default=True, help="Learning rate of Adam; falls to 0 by a cosine.")
@click.option("--beams", type=click.IntRange(1), default=4, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="All cores unless given.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Write encoder.onnx and decoder.onnx into this folder.")
@click.option("--small", is_flag=True, help="2,500 dates, 6 epochs.")
def main(epochs: int, batch: int, lr: float, beams: int, threads: int | None, output: Path | None, small: bool) -> None:
    epochs, count, held_out = (6, 2500, 300) if small else (epochs, 20_000, 1000)
    train, test = examples(count, held_out)
    (source, length, before), target = numbers(test)
    trainer = graphc.Trainer(
        translation, graphc.losses.CrossEntropy(axis=-1), graphc.optim.Adam(lr), clip_norm=1.0, threads=threads,
        schedule=graphc.schedules.Cosine(epochs * count // batch, per="step"), metrics=["accuracy", "exact_match"],
    )  # fmt: skip
    trainer.fit(numbers(train), epochs, validation=((source, length, before), target), batch_size=batch)
    reader, writer = (part(model, trainer) for model in (encoder, decoder))
    step = graphc.decode.from_executable(graphc.compile(writer, threads=threads), "token", "logits", {"h": "h_next"})
    read = graphc.compile(reader, threads=threads)
    greedy, best = translations(read, step, source, length, beams)
    wanted = [found for _, found in test]
    for name, found in (("greedy", greedy), (f"{beams} beams", best)):
        print(f"exact match, {name}: {np.mean([a == b for a, b in zip(found, wanted, strict=True)]):.1%} of {len(test)} dates")
    print()
    for (text, right), found in list(zip(test, best, strict=True))[: len(WAYS)]:
        print(f"{text:40}{found}{'' if found == right else f'  (is {right})'}")
    print("\nwrong:")
    for (text, right), found in zip(test, best, strict=True):
        if found != right:
            print(f"{text:40}{found}  (is {right})")
    print(f"\n12 ju 2019 may be {', '.join(readings('12 ju 2019', read, step, beams))}\n")
    with tempfile.TemporaryDirectory() as folder:
        place = output or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for model in (reader, writer):
            graphc.save_onnx(model, place / f"{model.name}.onnx")
        compare(place, (source, length), beams, (greedy, best))


def part(model: Any, trainer: graphc.Trainer) -> Any:
    """The encoder or decoder with its trained parameters, which have its name before theirs in the whole."""
    scope = f"{model.name}."
    return model.load({name.removeprefix(scope): p for name, p in trainer.step.parameters.items() if name.startswith(scope)})


def compare(folder: Path, given: tuple[np.ndarray, np.ndarray], beams: int, expected: tuple[list[str], list[str]]) -> None:
    """Print whether the same searches over ONNX Runtime write the same."""
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: the written files were not compared")
        return
    paths = (folder / "encoder.onnx", folder / "decoder.onnx")
    reader, writer = (onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths)

    def step(tokens: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        logits, h = writer.run(["logits", "h_next"], {"token": tokens[:, None], **state})
        return logits[:, 0], {**state, "h": h}

    found = translations(lambda source, length: reader.run(["memory", "h"], {"source": source, "length": length}), step, *given, beams)
    for name, ours, theirs in zip(("greedy", f"{beams} beams"), expected, found, strict=True):
        print(f"onnxruntime, {name}: {sum(a == b for a, b in zip(ours, theirs, strict=True))} of {len(ours)} translations equal")


if __name__ == "__main__":
    main()
