"""What was measured in each epoch, as rows; written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from graphc.errors import InputError
from graphc.files import write_atomic

Row = dict[str, float]  # epoch (from 1), lr, seconds, loss, metrics, and the same of the validation with `val_` in front


class History:
    """One row for each epoch; `history["val_loss"]` is a column."""

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = rows if rows is not None else []

    def append(self, row: Mapping[str, float]) -> None:
        self.rows.append(dict(row))

    @property
    def names(self) -> list[str]:
        """Columns in the order in which they appeared."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, name: str) -> list[float]:
        """A column; nan in epochs that did not measure it."""
        if self.rows and name not in self.names:
            raise InputError(f"{name!r} was not measured", hint=f"one of {', '.join(self.names)}")
        return [row.get(name, math.nan) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """As CSV where the name ends in .csv, as JSON where it ends in .json: whole or not at all. What is not finite is null in JSON."""
        path = Path(path)
        check_format(path)
        text = self.csv() if path.suffix == ".csv" else self.json()
        write_atomic(path, lambda file: file.write(text.encode()))

    def json(self) -> str:
        return json.dumps(jsonable(self.rows), indent=1) + "\n"

    def csv(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, self.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={value:.4g}" for name, value in self.rows[-1].items()) if self.rows else ""
        return f"<graphc.train.History: {len(self)} epochs{': ' + last if last else ''}>"


def check_format(path: Path) -> None:
    """Raises InputError for a name that ends in neither .csv nor .json."""
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"no history format {path.suffix!r}", where=str(path), hint="a name that ends in .csv or .json")


def jsonable(rows: list[Row]) -> list[dict[str, float | None]]:
    """Rows whose numbers standard JSON knows."""
    return [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in rows]


def from_json(rows: list[dict[str, float | None]]) -> list[Row]:
    """The rows that `jsonable` was given, every number that was not finite as nan."""
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
