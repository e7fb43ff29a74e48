"""The command line. `main` is the entry point `graphc`; every command has a file of its own, loaded when it is used."""

from __future__ import annotations


def main() -> None:
    """Run the command that sys.argv names and exit: 0, 1 (a check failed) or 2 (bad input)."""
    import sys

    from graphc.cli.app import cli

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # bars and signs on a terminal that has none
    cli(prog_name="graphc")
