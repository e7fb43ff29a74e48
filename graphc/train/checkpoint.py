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
from typing import Any, BinaryIO

from graphc.errors import InputError, UnsupportedError
from graphc.files import write_atomic
from graphc.ir.graph import Array

KEY, FORMAT = "graphc.train", 1
METRIC = "train.metric/"
_COUNTS = ("epoch", "batch", "steps")
_SHOWN = 5  # differences that an error lists


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
        data = library().numpy.save(dict(self.arrays), {KEY: text})

        def fill(file: BinaryIO) -> None:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

        write_atomic(Path(path), fill)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Snapshot:
        """Read a checkpoint. Raises InputError for a file that is missing, damaged, or no checkpoint of graphc."""
        package = library()
        try:
            with package.safe_open(os.fspath(path), "np") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
                text = (file.metadata() or {}).get(KEY)
        except (OSError, package.SafetensorError, ValueError, TypeError) as error:
            raise InputError(f"cannot be read as a checkpoint: {error}", where=str(path), hint="another checkpoint") from error
        return Snapshot(arrays, _meta(text, path))

    def check(self, wanted: Mapping[str, Array], where: str) -> None:
        """Raises InputError that lists the tensors that are missing, unknown, or of another shape or dtype than wanted."""
        own, here = ({name: _type(array) for name, array in arrays.items()} for arrays in (self.arrays, wanted))
        wrong = [f"{name!r} is {own[name]}, here {here[name]}" for name in here if own.get(name, here[name]) != here[name]]
        wrong += [f"{name!r} is missing" for name in here if name not in own]
        wrong += [f"{name!r} is unknown here" for name in own if name not in here]
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            reason = f"does not fit this training: {', '.join(wrong[:_SHOWN])}{more}"
            raise InputError(reason, where=where, hint="the model, optimizer and metrics that the checkpoint was written with")


def _meta(text: str | None, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        meta = json.loads(text or "")
        good = meta["format"] == FORMAT and all(type(meta[name]) is int and meta[name] >= 0 for name in _COUNTS)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise InputError(f"is no graphc checkpoint of format {FORMAT}", where=str(path), hint="a file that Trainer.save wrote")
    return dict(meta)


def _type(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def library() -> Any:
    """safetensors. Raises UnsupportedError where it is not installed."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise UnsupportedError("checkpoints need the package safetensors", hint="pip install 'graphc[train]'") from error
    return safetensors
