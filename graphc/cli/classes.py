"""Outputs of classifiers: which output that is, probabilities, labels, the best classes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.ir.graph import Array

_WORDNET = re.compile(r"n\d{8} ")
_SUM_ERROR = 1e-2  # float16 outputs of 1,000 classes


@dataclass(frozen=True)
class Ranked:
    """The best classes of one sample, best first: (index, label or "", probability)."""

    sample: str
    classes: tuple[tuple[int, str, float], ...]


def read_labels(path: Path) -> list[str]:
    """One label a line; empty lines at the end do not count, WordNet numbers (n01440764) before a label are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint="check the path of --labels") from error
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8", where=str(path), hint="one label a line") from error
    return [_WORDNET.sub("", label.strip(), count=1) for label in lines]


def stored_labels(metadata: Mapping[str, str]) -> list[str]:
    """The model's own labels: the metadata entry "labels", a JSON list of strings; none where there is no such list."""
    try:
        found = json.loads(metadata.get("labels", "[]"))
    except ValueError:
        return []
    return found if isinstance(found, list) and all(isinstance(label, str) for label in found) else []


def rows(output: Array, samples: int) -> Array | None:
    """The output as (samples, classes) in float64, or None where it is no vector per sample: (N, C), (N, C, 1, 1) or (C,)."""
    import numpy as np

    if output.dtype.kind != "f" or output.size < 2 or not np.isfinite(output).all():
        return None
    if output.ndim == 1 and samples == 1:
        return output[None].astype(np.float64)
    if output.ndim < 2 or output.shape[1] < 2 or any(size != 1 for size in output.shape[2:]):
        return None
    return output.reshape(output.shape[0], output.shape[1]).astype(np.float64)


def are_probabilities(scores: Array) -> bool:
    """Whether every row sums to one and nothing is negative."""
    return bool((scores >= 0).all() and (abs(scores.sum(axis=1) - 1) < _SUM_ERROR).all())


def softmax(scores: Array) -> Array:
    import numpy as np

    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def rank(probabilities: Array, labels: Sequence[str], samples: Sequence[str], top: int) -> list[Ranked]:
    """The `top` best classes of each row; equal ones in the order of their index. Raises InputError where labels do not fit."""
    import numpy as np

    classes = probabilities.shape[1]
    if labels and len(labels) != classes:
        raise InputError(f"{len(labels)} labels for {classes} classes", hint="a file with one label a line for each class")
    made = []
    for number, row in enumerate(probabilities):
        best = np.argsort(-row, kind="stable")[:top]
        entries = tuple((int(i), labels[int(i)] if labels else "", float(row[i])) for i in best)
        made.append(Ranked(_sample(samples, number, len(probabilities)), entries))
    return made


def _sample(samples: Sequence[str], number: int, count: int) -> str:
    return samples[number] if len(samples) == count else f"{samples[0]}[{number}]"
