"""Small tales by a grammar, as many characters as wanted: a text of our own for language models, the same for the same seed.

What a tale is about (its hero, the hero's name, pronoun, wish) is drawn once and comes back in the sentences behind, out of the reach of
an n-gram.
"""

from __future__ import annotations

import random

HEROES = {
    "fox": ("Runa", "she"), "hare": ("Tobin", "he"), "otter": ("Miro", "he"), "owl": ("Selka", "she"), "badger": ("Bram", "he"),
    "heron": ("Oda", "she"), "marten": ("Ilka", "she"), "hedgehog": ("Pell", "he"),
}  # fmt: skip
PLACES = ("under the old bridge", "at the edge of the moor", "behind the mill", "in a hollow oak", "beside the quiet lake")
WISHES = ("a lantern", "a silver bell", "a map of the stars", "a red kite", "a warm coat", "a wooden flute")
GOALS = ("over the hills", "down to the harbour", "through the birch wood", "along the river", "across the frozen marsh")
HELPERS = ("a tired miller", "an old ferryman", "a travelling tinker", "the keeper of the lighthouse", "a girl with a basket")
TROUBLES = ("the rain came down", "the path was lost in fog", "night fell early", "the wind turned cold", "the ice began to crack")
DEEDS = ("carried the sacks to the mill", "mended the torn net", "counted all the geese", "swept the stairs", "held the rope till noon")
ENDINGS = ("slept until the sun was high", "laughed for the first time that year", "danced in the snow", "sang all the way home")


def tales(length: int, seed: int = 0) -> str:
    """`length` characters of tales, of 30 to 130 words each."""
    rng = random.Random(seed)
    parts: list[str] = []
    count = 0
    while count < length:
        parts.append(_tale(rng))
        count += len(parts[-1])
    return "".join(parts)[:length]


def _tale(rng: random.Random) -> str:
    hero = rng.choice(list(HEROES))
    name, pronoun = HEROES[hero]
    wish = rng.choice(WISHES)
    own = {"he": "his", "she": "her"}[pronoun]
    begin = rng.choice(("Once", "Long ago", "In a hard winter", "When the world was young"))
    lines = [
        f"{begin} a {hero} called {name} lived {rng.choice(PLACES)}.",
        f"More than anything {name} the {hero} wished for {wish}.",
        f"So {pronoun} put on {own} hat and walked {rng.choice(GOALS)}.",
    ]
    for _ in range(rng.randint(0, 3)):
        helper = rng.choice(HELPERS)
        lines += [
            f"There {rng.choice(TROUBLES)}, and {pronoun} met {helper}.",
            f'"Have you seen {wish}?" asked {name}.',
            f'"Help me first," said {helper}, and the {hero} {rng.choice(DEEDS)}.',
        ]
    lines += [
        rng.choice((f"At last {name} found {wish}.", f"But {wish} was nowhere to be found, and {pronoun} turned back.")),
        f"That evening {name} the {hero} {rng.choice(ENDINGS)}.",
    ]
    return " ".join(lines) + "\n\n"
