"""Which ONNX operators are supported, in which opsets, and how: derived from the handlers and from ONNX's own schemas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx

from graphc_onnx.functions import has_body
from graphc_onnx.read import is_standard, opsets
from graphc_onnx.registry import find, supported
from graphc_onnx.support import WORKAROUNDS

_MOST_INPUTS = 8  # tried for bodies that depend on the types of the inputs


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
        """ "handler", "function body" or "no", for its newest version that is not a mere deprecation."""
        newest = self.versions[-2] if self.deprecated and len(self.versions) > 1 else self.versions[-1]
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
    body = tuple(version for version in versions if version not in handled and _is_defined(domain, name, version, frozenset()))
    return Coverage(domain, name, versions, handled, body, deprecated, WORKAROUNDS.get(name, ""))


def _is_defined(domain: str, name: str, version: int, active: frozenset[str]) -> bool:
    """Whether a function body defines the operator by operators that are supported. A body that cannot be had without knowing the
    node's attributes counts."""
    if name in active or not has_body(name, domain, version):
        return False
    body = _body(domain, name, version)
    if body is None:
        return True
    known = {"": version, **opsets(body.opset_import)}
    return all(_is_known("" if is_standard(node.domain) else node.domain, node.op_type, known, active | {name}) for node in body.node)


def _is_known(domain: str, name: str, versions: dict[str, int], active: frozenset[str]) -> bool:
    version = versions.get(domain, 1)
    return find(domain, name, version) is not None or _is_defined(domain, name, version, active)


def _body(domain: str, name: str, version: int) -> onnx.FunctionProto | None:
    """The body, for float inputs where it depends on their types."""
    schema: Any = onnx.defs.get_schema(name, version, domain)
    if schema.has_function:
        return _parse(schema.function_body.SerializeToString())
    float_type = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None).SerializeToString()
    for count in range(schema.min_input, min(schema.max_input, _MOST_INPUTS) + 1):
        node = onnx.helper.make_node(name, [f"x{i}" for i in range(count)], ["y"], domain=domain)
        try:
            data = schema.get_context_dependent_function(node.SerializeToString(), [float_type] * count)
        except (RuntimeError, ValueError):
            continue
        if data:
            return _parse(data)
    return None


def _parse(data: bytes) -> onnx.FunctionProto:
    body: onnx.FunctionProto = onnx.FunctionProto.FromString(data)
    return body


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
