"""Which ONNX operators are supported, in which opsets, and how: derived from the handlers and from ONNX's own schemas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from graphc_onnx.functions import has_body
from graphc_onnx.read import is_standard
from graphc_onnx.registry import find, supported
from graphc_onnx.support import WORKAROUNDS


@dataclass(frozen=True)
class Coverage:
    """One operator. `versions`: the opsets in which its meaning changed. `handled`: those of them that a handler takes, `by_body`: those
    that are imported by ONNX's definition of the operator as a function. `hint`: what to do where it is not supported."""

    domain: str
    name: str
    versions: tuple[int, ...]
    handled: tuple[int, ...]
    by_body: tuple[int, ...]
    deprecated: bool
    hint: str

    @property
    def how(self) -> str:
        """ "handler", "function body" or "no", for its newest version."""
        newest = self.versions[-1]
        return "handler" if newest in self.handled else "function body" if newest in self.by_body else "no"

    @property
    def opsets(self) -> str:
        """The opsets that are supported, e.g. "1-12, 14-": a version holds until the next one."""
        return ", ".join(_ranges(self.versions, {*self.handled, *self.by_body}))


def coverage() -> list[Coverage]:
    """Every operator of the standard domain, and those of other domains that have a handler; by domain and name."""
    versions: dict[tuple[str, str], list[int]] = defaultdict(list)
    deprecated: dict[tuple[str, str], bool] = {}
    mine = set(supported())
    for schema in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda schema: schema.since_version):
        key = ("" if is_standard(schema.domain) else schema.domain, schema.name)
        if key[0] == "" or key in mine:
            versions[key].append(schema.since_version)
            deprecated[key] = schema.deprecated
    for key in mine - versions.keys():  # operators that no schema describes
        versions[key], deprecated[key] = [1], False
    return [_entry(*key, tuple(versions[key]), deprecated[key]) for key in sorted(versions)]


def _entry(domain: str, name: str, versions: tuple[int, ...], deprecated: bool) -> Coverage:
    handled = tuple(version for version in versions if find(domain, name, version) is not None)
    body = tuple(version for version in versions if version not in handled and has_body(name, domain, version))
    return Coverage(domain, name, versions, handled, body, deprecated, WORKAROUNDS.get(name, ""))


def _ranges(versions: Iterable[int], supported: set[int]) -> Iterator[str]:
    """Neighbouring versions joined; the last one is open."""
    start: int | None = None
    for version in versions:
        if version in supported and start is None:
            start = version
        elif version not in supported and start is not None:
            yield f"{start}-{version - 1}" if version - 1 > start else f"{start}"
            start = None
    if start is not None:
        yield f"{start}-"
