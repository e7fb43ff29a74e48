"""Learning curves as a picture: the loss, each metric and the learning rate over the epochs. Draws without a display."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphc.errors import InputError, UnsupportedError
from graphc.files import write_atomic
from graphc.train.history import History

_NOT_DRAWN = ("epoch", "seconds", "skipped")
_DECADES = 20.0  # a loss or rate that falls by more than this factor is drawn on a logarithmic axis
_COLOURS = {"train": "#1f77b4", "validation": "#d95f02"}


def draw(history: History, path: str | os.PathLike[str], title: str = "") -> None:
    """Write the curves as PNG (or SVG, PDF: by the name's ending). Raises InputError for an empty history."""
    if not history.rows:
        raise InputError("an empty history has no curves", where=str(path), hint="train for at least one epoch")
    make = check_format(Path(path))
    panels = [name for name in history.names if not name.startswith("val_") and name not in _NOT_DRAWN]
    panels.sort(key=lambda name: (name != "loss", name == "lr"))
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = make(figsize=(4.6 * columns, 3.6 * lines), layout="constrained")
    if title:
        figure.suptitle(title)
    for number, name in enumerate(panels):
        _panel(figure.add_subplot(lines, columns, number + 1), history, name)
    _write(figure, Path(path))


def _panel(axes: Any, history: History, name: str) -> None:
    """Training and validation of one quantity, the best epoch of the validation loss marked."""
    epochs = history["epoch"]
    found = {"train": history[name]}
    if f"val_{name}" in history.names:
        found["validation"] = history[f"val_{name}"]
    style = "." if len(epochs) <= 60 else ""
    for label, values in found.items():
        axes.plot(epochs, values, color=_COLOURS[label], marker=style, linewidth=1.6, label=label)
    if name in ("loss", "lr") and _falls_far([value for values in found.values() for value in values]):
        axes.set_yscale("log")
    if name == "loss" and len(epochs) > 1 and "validation" in found:
        known = [pair for pair in zip(found["validation"], epochs, strict=True) if math.isfinite(pair[0])]
        value, epoch = min(known, default=(math.nan, 0))
        axes.plot([epoch], [value], "o", mfc="none", mec=_COLOURS["validation"], ms=9, label=f"best {value:.4g} (epoch {int(epoch)})")
    axes.set_title({"lr": "learning rate"}.get(name, name), fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if len(found) > 1:
        axes.legend(fontsize=9, frameon=False)


def _falls_far(values: Sequence[float]) -> bool:
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) / min(known) > _DECADES


def _write(figure: Any, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix[1:] or "png", dpi=110)
    write_atomic(path, lambda file: file.write(data.getvalue()))


def check_format(path: Path) -> Any:
    """The function of `library`. Raises InputError for a name that ends like no picture that matplotlib writes."""
    make = library()
    known = make().canvas.get_supported_filetypes()
    if (path.suffix[1:] or "png") not in known:
        raise InputError(f"no picture format {path.suffix!r}", where=str(path), hint="a name that ends in .png, .svg or .pdf")
    return make


def library() -> Any:
    """A function that makes a figure. Raises UnsupportedError where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError("learning curves need the package matplotlib", hint="pip install 'graphc[train]'") from error

    def make(**options: Any) -> Any:
        figure = Figure(**options)
        FigureCanvasAgg(figure)
        return figure

    return make
