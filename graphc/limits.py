"""How much memory and work a model may ask for before it is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path

from graphc.errors import ResourceError
from graphc.knobs import knob

MAX_BYTES = knob(
    "GRAPHC_MAX_BYTES", int, 0, "most bytes of a tensor, or of an arena and outputs; more is a ResourceError; 0: half of the memory"
)
MAX_FLOPS = knob("GRAPHC_MAX_FLOPS", int, 10**15, "most operations of one node; more is a ResourceError")
MAX_ITERATIONS = knob(
    "GRAPHC_MAX_ITERATIONS", int, 1_000_000, "most iterations of a loop; more is a ResourceError, at run time where the end depends on data"
)
_ADDRESSES = 1 << 63  # numpy counts bytes in 63 bits, as if sizes of 0 were 1
_UNKNOWN = 1 << 34  # where the system does not tell
_CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")  # v2, v1


def max_bytes() -> int:
    """The limit in force: half of the memory leaves room for the model itself and for what calls it."""
    return MAX_BYTES.get() or memory() // 2


@cache
def memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: of the machine, or of its container."""
    limits = [_physical()]
    for name in _CGROUP_FILES:
        try:
            text = (cgroups / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) > 0:
            limits.append(int(text))
    return min(limits)


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN


def check_bytes(shape: Sequence[int], itemsize: int, what: str) -> int:
    """Bytes of an array. Raises ResourceError where they exceed the limit, or where an index into it would overflow."""
    size = prod(shape) * itemsize
    if size > max_bytes() or prod(max(dim, 1) for dim in shape) * itemsize >= _ADDRESSES:
        text = ",".join(map(str, shape))
        raise too_large(f"{what} of shape [{text}] would take {size} bytes")
    return size


def check_flops(flops: int, where: str) -> None:
    """Raises ResourceError for a node that would run for hours, such as a window of 2^50 elements over padding."""
    if flops > MAX_FLOPS.get():
        reason = f"would take {flops} operations, the limit is {MAX_FLOPS.name}={MAX_FLOPS.get()}"
        raise ResourceError(reason, where=where, hint=f"set {MAX_FLOPS.name} higher if that is meant")


class MemoryFor:
    """A MemoryError inside becomes a ResourceError: there is not enough memory for `what`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MemoryError):
            reason = f"not enough memory {self._what}"
            raise ResourceError(reason, hint="free memory, or use a smaller batch or model") from error


def too_large(reason: str, hint: str = "") -> ResourceError:
    """The error for a size above the memory limit."""
    advice = f"set {MAX_BYTES.name} higher if that is meant"
    return ResourceError(f"{reason}, the limit is {MAX_BYTES.name}={max_bytes()}", hint=f"{hint}, or {advice}" if hint else advice)


def check_iterations(trips: int, where: str) -> None:
    """Raises ResourceError for a loop that would run for hours."""
    if trips > MAX_ITERATIONS.get():
        reason = f"would take {trips} iterations, the limit is {MAX_ITERATIONS.name}={MAX_ITERATIONS.get()}"
        raise ResourceError(reason, where=where, hint=f"set {MAX_ITERATIONS.name} higher if that is meant")


def endless(limit: int, where: str) -> ResourceError:
    """The error of a run in which a loop has not ended after `limit` iterations."""
    hint = f"an end that is reached sooner, or {MAX_ITERATIONS.name} set higher when the model is built"
    return ResourceError(f"has not ended after {limit} iterations", where=where, hint=hint)
