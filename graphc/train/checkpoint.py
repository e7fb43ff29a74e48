"""Checkpoints: all that training needs to go on bit for bit, in one safetensors file that is written whole or not at all.

The tensors are the parameters and the other state of the step under their own names, and the totals of metrics as `train.metric/NAME`.
The numbers (position, history, ...) are JSON in the file's metadata under `graphc.train`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.errors import InputError
from graphc.files import differences, read_tensors, write_tensors
from graphc.ir.graph import Array

KEY, FORMAT = "graphc.train", 1
METRIC = "train.metric/"
_COUNTS = ("epoch", "batch", "steps")


@dataclass(frozen=True)
class Snapshot:
    """`arrays`: tensors by name; `meta`: what JSON can hold, with the counts epoch, batch, steps."""

    arrays: Mapping[str, Array]
    meta: Mapping[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file under another name, bring it to the disk, rename. Raises ResourceError; the file that was there stays."""
        try:
            text = json.dumps({**self.meta, "format": FORMAT}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"a state is no JSON: {error}", where=str(path), hint="a Callback.state of numbers and text") from error
        write_tensors(Path(path), self.arrays, {KEY: text})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Snapshot:
        """Read a checkpoint. Raises InputError for a file that is missing, damaged, or no checkpoint of graphc."""
        arrays, texts = read_tensors(path, "a checkpoint")
        return Snapshot(arrays, _meta(texts.get(KEY), path))

    def check(self, wanted: Mapping[str, Array], where: str) -> None:
        """Raises InputError that lists the tensors that are missing, unknown, or of another shape or dtype than wanted."""
        wrong = differences(self.arrays, wanted)
        if wrong:
            hint = "the model, optimizer and metrics that the checkpoint was written with"
            raise InputError(f"does not fit this training: {wrong}", where=where, hint=hint)


def _meta(text: str | None, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        meta = json.loads(text or "")
        good = meta["format"] == FORMAT and all(type(meta[name]) is int and meta[name] >= 0 for name in _COUNTS)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise InputError(f"is no graphc checkpoint of format {FORMAT}", where=str(path), hint="a file that Trainer.save wrote")
    return dict(meta)
