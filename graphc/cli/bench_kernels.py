"""graphc bench kernels: every candidate of every convolution of a model, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.kernel.choose import Candidate, ConvShape
    from graphc.kernel.spec import ConvSpec
    from graphc.schedule.plan import Plan
    from graphc.target import Limits, Target
    from graphc_cpu.layer import Timing


@dataclass(frozen=True)
class Layer:
    """Convolutions that are the same kernel: labels of the steps, FLOPs of one, candidates with their times, and the one that is used."""

    labels: tuple[str, ...]
    conv: ConvSpec
    flops: int
    times: Mapping[Candidate, Timing]
    pick: Candidate


@click.command(name="kernels", short_help="Time every candidate of every convolution of a model.")
@options.model_argument
@click.option(
    "--forms", type=click.IntRange(0), metavar="N", default=3, show_default=True,
    help="Forms of each algorithm to time, those predicted to be fastest (and the pick); 0: all.",
)  # fmt: skip
@options.sizes_options
@options.threads_option
@options.target_option
@options.accuracy_option
@options.tune_option
@options.json_option
def command(model: str, forms: int, **given: Any) -> None:
    """Each distinct convolution of MODEL alone: predicted and measured time of each way to compute it, cold (other weights at each call,
    as in a large network) and hot (the same weights). `*` marks what is used.

    Algorithms: the direct sum, winograd2 and winograd4; forms of Winograd: fused (tiles at a time / blocks of output channels at a time)
    or in 3 steps. GFLOP/s are the FLOPs of the direct sum over the cold time, so Winograd may exceed the peak.

    \b
    Example:
      graphc bench kernels resnet50.onnx --threads 1
    """
    from graphc.backend import find
    from graphc.cli import models
    from graphc.cli.bench import alone
    from graphc.cli.text import json_text
    from graphc_cpu import host, machine

    target = find("cpu").target(given["target"])
    host.check_runs(target)
    graph = models.static(models.load(model, given["sizes"]))
    threads = given["threads"] or host.usable_cpus()
    with alone():
        with show.working("measuring the machine"):
            limits = machine.limits(target)
        plan = _direct_plan(graph, target, given["accuracy"])
        layers = [_layer(key, labels, target, limits, threads, forms, given) for key, labels in show.progress(_convs(plan), "timing")]
    cycle, peak = seconds_per_cycle(target, limits), _peak(limits, threads)
    if given["as_json"]:
        click.echo(json_text({"model": graph.name, "target": target.name, "threads": threads, "layers": _data(layers, cycle, peak)}))
    else:
        _show(graph.name, layers, cycle, peak, threads)


class _Direct:
    """A chooser of the direct sum, whose plan has the plain convolutions that all candidates compute."""

    def algorithm(self, shape: ConvShape, accuracy: str) -> str:
        return "direct"

    def form(self, shape: ConvShape, algorithm: str) -> Candidate:
        raise NotImplementedError


def _direct_plan(graph: Any, target: Target, accuracy: str) -> Plan:
    from graphc.driver import lower
    from graphc.passes.base import Context

    return lower(graph, Context(target, accuracy, _Direct()))[1]


def _convs(plan: Plan) -> list[tuple[tuple[ConvSpec, bool], tuple[str, ...]]]:
    """(Spec, whether its weights are constant) of each distinct convolution, and the labels of the steps that are such."""
    from graphc.kernel.spec import ConvSpec

    found: dict[tuple[ConvSpec, bool], list[str]] = {}
    for step in plan.steps:
        spec = plan.specs[step.kernel]
        if isinstance(spec, ConvSpec):
            found.setdefault((spec, step.args[1].space == "weight"), []).append(step.label)
    return [(key, tuple(labels)) for key, labels in found.items()]


def _layer(
    key: tuple[ConvSpec, bool], labels: tuple[str, ...], target: Target, limits: Limits, threads: int, forms: int, given: dict[str, Any]
) -> Layer:  # fmt: skip
    from graphc.backend import find
    from graphc.kernel.choose import DIRECT, TRAINING, Candidate, allowed, candidates
    from graphc.schedule.winograd import shape_of
    from graphc_cpu import layer
    from graphc_cpu.kernels.conv import flops
    from graphc_cpu.runtime.pool import Pool

    conv, constant = key
    pick = Candidate(DIRECT)
    ways = [pick]
    if layer.has_choice(conv):
        accuracy = given["accuracy"] if constant or given["accuracy"] == "exact" else TRAINING
        shape, chooser = shape_of(conv), find("cpu").chooser(target, given["tune"])
        here = replace(target, cores=threads)
        ranked = [sorted(candidates(shape, name, here, limits), key=lambda c: c.cycles) for name in allowed(accuracy)]
        found = chooser.form(shape, chooser.algorithm(shape, accuracy))
        pick = next(c for some in ranked for c in some if (c.algorithm, c.tiles, c.chunk) == (found.algorithm, found.tiles, found.chunk))
        ways = list(dict.fromkeys([*(c for some in ranked for c in some[: forms or None]), pick]))
    with Pool(threads) as pool:
        return Layer(labels, conv, flops(conv), layer.time_candidates(conv, ways, target, pool), pick)


def seconds_per_cycle(target: Target, limits: Limits) -> float:
    """Of the cycles in which the cost model counts."""
    from graphc.kernel.choose import machine_of
    from graphc.types.dtype import f32

    return 2 * target.lanes(f32) * machine_of(target, limits).fma / limits.fma_f32[0]


def _peak(limits: Limits, threads: int) -> float:
    return limits.fma_f32[1] if threads == limits.threads else limits.fma_f32[0] * threads


def _shape(conv: ConvSpec) -> str:
    def sizes(shape: tuple[int, ...]) -> str:
        return "x".join(map(str, shape))

    parts = [f"{sizes(conv.x.shape)} -> {sizes(conv.output.shape[1:])}, {sizes(conv.weight_shape[2:])}"]
    parts += [f"/{sizes(conv.stride)}"] if set(conv.stride) != {1} else []
    parts += [f" dilation {sizes(conv.dilation)}"] if set(conv.dilation) != {1} else []
    return "".join(parts) + (f" groups {conv.groups}" if conv.groups > 1 else "")


def form_text(candidate: Candidate) -> str:
    """`winograd4 fused 28/2`: 28 tiles, 2 blocks; `winograd4 steps /4`; `direct`."""
    if not candidate.m:
        return candidate.algorithm
    return f"{candidate.algorithm} {f'fused {candidate.tiles}' if candidate.tiles else 'steps '}/{candidate.chunk}"


def _show(name: str, layers: list[Layer], cycle: float, peak: float, threads: int) -> None:
    from graphc.inspect.units import count, plural, seconds, three

    show.line(f"{name}: {plural(threads, 'thread')}, peak {count(peak, 'FLOP/s')}", "bold")
    rows: list[tuple[str, ...]] = []
    for one in layers:
        for number, (way, time) in enumerate(sorted(one.times.items(), key=lambda item: item[1].cold)):
            label = f"{one.labels[0]}{f' ({len(one.labels)} times)' if len(one.labels) > 1 else ''}" if not number else ""
            rate = one.flops / time.cold
            predicted = seconds(way.cycles * cycle) if way.cycles else "-"
            rows.append((
                label, _shape(one.conv) if not number else "", form_text(way), "*" if way == one.pick else "",
                predicted, seconds(time.cold), seconds(time.hot), three(rate / 1e9), f"{rate / peak:.0%}",
            ))  # fmt: skip
    show.table(["layer", "shape", "candidate", "", ">predicted", ">cold", ">hot", ">GFLOP/s", ">of peak"], rows)
    best = sum(min(time.cold for time in one.times.values()) * len(one.labels) for one in layers)
    used = sum(one.times[one.pick].cold * len(one.labels) for one in layers)
    show.line(f"convolutions together, cold: {seconds(used)} as chosen, {seconds(best)} with the fastest of each")


def _data(layers: list[Layer], cycle: float, peak: float) -> list[dict[str, Any]]:
    return [
        {
            "labels": one.labels, "shape": _shape(one.conv), "flops": one.flops,
            "candidates": [
                {
                    "algorithm": way.algorithm, "tiles": way.tiles, "chunk": way.chunk, "picked": way == one.pick,
                    "predicted_seconds": way.cycles * cycle if way.cycles else None, "cold_seconds": time.cold, "hot_seconds": time.hot,
                    "gflops": one.flops / time.cold / 1e9, "of_peak": one.flops / time.cold / peak,
                }
                for way, time in one.times.items()
            ],
        }
        for one in layers
    ]  # fmt: skip
