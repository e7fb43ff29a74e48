"""graphc cache: compiled kernels and packed weights on disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show
from graphc.errors import ResourceError

if TYPE_CHECKING:
    from graphc_cpu.cache import Cache


@click.group(name="cache", short_help="Compiled kernels on disk: list, size, path, clear.")
def command() -> None:
    """The cache of compiled kernels and packed weights (knobs GRAPHC_CACHE, GRAPHC_CACHE_DIR, GRAPHC_CACHE_MB).

    \b
    Example:
      graphc cache size
    """


@command.command(name="list")
@options.json_option
def list_entries(as_json: bool) -> None:
    """List the entries, those used last first.

    \b
    Example:
      graphc cache list
    """
    from graphc.cli.text import json_text
    from graphc.inspect.units import nbytes

    entries = _cache().entries()[::-1]
    if as_json:
        click.echo(json_text([{"key": e.key, "kind": e.kind, "bytes": e.nbytes, "used": e.used, "path": e.path} for e in entries]))
        return
    rows = [(e.key[:16], e.kind, nbytes(e.nbytes), time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used))) for e in entries]
    show.table(["key", "kind", ">size", "last used"], rows)


@command.command()
@options.json_option
def size(as_json: bool) -> None:
    """Show how many files there are and how large they are.

    \b
    Example:
      graphc cache size --json
    """
    from graphc.cli.text import json_text
    from graphc.inspect.units import nbytes
    from graphc_cpu.cache import KINDS

    kinds: dict[str, list[int]] = {kind: [] for kind in KINDS}
    cache = _cache()
    for entry in cache.entries():
        kinds[entry.kind].append(entry.nbytes)
    if as_json:
        data: dict[str, Any] = {kind: {"files": len(sizes), "bytes": sum(sizes)} for kind, sizes in kinds.items()}
        click.echo(json_text({"path": cache.directory, "limit_bytes": cache.limit, **data}))
        return
    total = [("total", sum(map(len, kinds.values())), nbytes(sum(map(sum, kinds.values()))))]
    show.table(["kind", ">files", ">size"], [*((kind, len(sizes), nbytes(sum(sizes))) for kind, sizes in kinds.items()), *total])
    show.line(f"limit {nbytes(cache.limit)}")


@command.command()
def path() -> None:
    """Print the folder.

    \b
    Example:
      du -sh $(graphc cache path)
    """
    click.echo(str(_cache().directory))


@command.command()
@options.json_option
def clear(as_json: bool) -> None:
    """Remove every entry. Programs that run keep what they have loaded.

    \b
    Example:
      graphc cache clear
    """
    from graphc.cli.text import json_text
    from graphc.inspect.units import plural

    removed = _cache().clear()
    if as_json:
        click.echo(json_text({"removed": removed}))
    else:
        show.line(f"removed {plural(removed, 'file')}")


def _cache() -> Cache:
    from graphc_cpu import cache

    found = cache.default()
    if found is None:
        raise ResourceError("the cache is switched off", hint="unset GRAPHC_CACHE")
    return found
