"""graphc ops: what is supported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.inspect.ops import OpFacts

ONNX_COLUMNS = ("operator", "opsets", "import", "native", "gradient", "remark")
_GRADIENTS = ("yes", "-", "of its ops")
OWN_COLUMNS = ("op", "onnx", "native", "reference", "gradient", "meaning")


@click.command(name="ops", short_help="Which ONNX operators are supported, and how.")
@click.option("--own", is_flag=True, help="The ops of graphc itself in place of ONNX's operators.")
@click.option("--missing", is_flag=True, help="Only what is not supported.")
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@options.json_option
def command(own: bool, missing: bool, markdown: bool, as_json: bool) -> None:
    """List ONNX's operators with the opsets that are supported and how each is imported, compiled and differentiated.

    import: by a handler, by the function body in ONNX's definition, or no. native, gradient: of the op of graphc that stands for the
    operator; "composed" where several ops stand for it.

    \b
    Examples:
      graphc ops --missing
      graphc ops --own --markdown
    """
    from graphc.cli.text import json_text

    columns = OWN_COLUMNS if own else ONNX_COLUMNS
    rows = _own_rows() if own else _onnx_rows()
    if missing:
        rows = [row for row in rows if row["native"] == "no"]
    if as_json:
        click.echo(json_text(rows))
    elif markdown:
        click.echo(_markdown(columns, rows))
    else:
        _show(rows, own, missing)


def _onnx_rows() -> list[dict[str, Any]]:
    from graphc.inspect.ops import op_table
    from graphc_onnx.coverage import coverage

    mine = {facts.onnx: facts for facts in reversed(op_table()) if facts.onnx}
    rows = []
    for entry in coverage():
        native, gradient = _of(entry.how, mine.get(entry.name))
        remark = " ".join(part for part in ("deprecated" if entry.deprecated else "", entry.hint if entry.how == "no" else "") if part)
        name = f"{entry.domain}:{entry.name}" if entry.domain else entry.name
        row = (name, entry.opsets or "-", entry.how, native, gradient, remark)
        rows.append(dict(zip(ONNX_COLUMNS, row, strict=True)))
    return rows


def _of(how: str, facts: OpFacts | None) -> tuple[str, str]:
    if how == "no":
        return "no", "-"
    return (facts.native, facts.gradient) if facts is not None and how == "handler" else ("composed", "of its ops")


def _own_rows() -> list[dict[str, Any]]:
    from graphc.inspect.ops import op_table

    return [
        dict(zip(OWN_COLUMNS, (f.name, f.onnx, f.native, f.reference, f.gradient, f.doc), strict=True)) for f in op_table()
    ]  # fmt: skip


def _show(rows: Sequence[dict[str, Any]], own: bool, missing: bool) -> None:
    """For people: yes or no for gradients; the reasons are in --json and --markdown."""
    columns: tuple[str, ...] = ("operator", "opsets", "import", "native", "gradient")
    if own:
        columns = ("op", "onnx", "native", "gradient", "~meaning")
    elif missing:
        columns = ("operator", "~remark")
    short = [{**row, "gradient": row["gradient"] if row["gradient"] in _GRADIENTS else "no"} for row in rows]
    show.table(columns, [[_cell(row[column.lstrip("~")]) for column in columns] for row in short])
    show.line(f"{len(rows)} not supported" if missing else _count(rows))


def _cell(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _markdown(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(row[c]).replace("|", "\\|") for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _count(rows: Sequence[dict[str, Any]]) -> str:
    return f"{sum(row['native'] != 'no' for row in rows)} of {len(rows)} supported"
