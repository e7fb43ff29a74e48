"""graphc bench machine: the limits of this machine, measured once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.target import Limits, Target


@click.command(name="machine", short_help="Measure the limits of this machine.")
@click.option("--again", is_flag=True, help="Measure also where there is a measurement.")
@options.target_option
@options.json_option
def command(again: bool, target: str, as_json: bool) -> None:
    """Multiply-adds per second, bytes read per second from each cache and from memory, the cost of a barrier and of starting a run; with
    one thread and with one per usable core.

    Measured at the first call and kept in the cache. From then on the forms of kernels (never the order of a sum, so never the bits of a
    result) are chosen from these figures instead of typical ones. Measure on a machine that is idle.

    \b
    Example:
      graphc bench machine --json
    """
    from graphc.backend import find
    from graphc.cli.bench import alone
    from graphc.cli.text import json_text
    from graphc_cpu import machine

    chosen = find("cpu").target(target)
    with alone(), show.working("measuring"):
        limits = machine.limits(chosen, again=again)
    click.echo(json_text(_data(chosen, limits))) if as_json else _show(chosen, limits)


def _show(target: Target, limits: Limits) -> None:
    from graphc.inspect.units import count, nbytes, seconds
    from graphc_cpu import host

    show.line(f"{host.cpu_model()}: {target.name}", "bold")
    caches = {"l1": target.l1, "l2": target.l2, "l3": target.l3}
    rows = [(f"multiply-adds, {name}", *(count(rate, "FLOP/s") for rate in getattr(limits, f"fma_{name}"))) for name in ("f32", "f64")]
    rows += [
        (f"read from {name.upper()} ({nbytes(size)})", *(count(rate, "B/s") for rate in getattr(limits, name)))
        for name, size in caches.items()
    ]
    rows.append(("read from memory", *(count(rate, "B/s") for rate in limits.memory)))
    rows.append(("barrier", *(seconds(time) for time in limits.barrier)))
    rows.append(("start and end of a run", *(seconds(time) for time in limits.fork_join)))
    show.table(["", ">1 thread", f">{limits.threads} threads"], rows)


def _data(target: Target, limits: Limits) -> dict[str, Any]:
    from dataclasses import asdict

    from graphc_cpu import host

    found = {
        name: value if name == "threads" else dict(zip(("one_thread", "all_threads"), value, strict=True))
        for name, value in asdict(limits).items()
    }
    caches = {"l1": target.l1, "l2": target.l2, "l3": target.l3}
    return {"cpu": host.cpu_model(), "target": target.name, "cache_bytes": caches, **found}
