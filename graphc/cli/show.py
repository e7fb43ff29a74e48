"""What people see: tables and progress, by rich. Machine-readable output goes through click.echo instead.

Tables fit the terminal; where output is not a terminal they are as wide as their content, so that nothing is cut in a file or a pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from graphc.cli.text import printable

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
_WIDE = 10_000  # where the output is no terminal
_BAR = " ▏▎▍▌▋▊▉█"


def console(*, error: bool = False) -> Console:
    """A console on stdout or stderr that prints text as it is: no markup, no highlighting."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    made = Console(file=stream, markup=False, highlight=False, emoji=False, soft_wrap=False)
    return made if made.is_terminal else Console(file=stream, markup=False, highlight=False, emoji=False, width=_WIDE)


def line(text: str = "", style: str = "") -> None:
    """One line on stdout, wrapped at words."""
    console().print(printable(text), style=style or None)


def note(text: str) -> None:
    """A remark on stderr."""
    console(error=True).print(printable(f"note: {text}"), style="dim")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table. A column whose title begins with ">" is aligned right, one with "~" may be folded over lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if title:
        line(title, "bold")
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for column in columns:
        right, folds = column.startswith(">"), column.startswith("~")
        overflow = "fold" if folds else "ellipsis"
        made.add_column(column.lstrip(">~"), justify="right" if right else "left", no_wrap=not folds, overflow=overflow)  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    console().print(made)


def bar(fraction: float, width: int = 20) -> str:
    """A bar of eighths: 0.5 -> half of `width` blocks."""
    if not _shows(_BAR):
        return ("#" * round(max(0.0, min(1.0, fraction)) * width)).ljust(width)
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    return (_BAR[-1] * (eighths // 8) + (_BAR[eighths % 8] if eighths % 8 else "")).ljust(width)


def _shows(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def progress(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """The items, with a progress bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import track

    # Drawn when an item is done, not by a thread: that would disturb what is timed.
    yield from track(items, text, total=total, console=console(error=True), transient=True, auto_refresh=False)


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on stderr while something takes long, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with console(error=True).status(text):
        yield
