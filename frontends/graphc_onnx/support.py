"""What a model needs and graphc lacks, found before anything is built and reported at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx

from graphc.errors import UnsupportedError
from graphc_onnx import functions
from graphc_onnx.read import is_standard, opsets, subgraphs
from graphc_onnx.registry import find

# The nearest way round an operator that is not supported.
WORKAROUNDS = {
    "NonZero": "replace the mask by Where, or cut the model before it",
    "NonMaxSuppression": "cut the model before it and run it on the host",
}


def check_supported(model: onnx.ModelProto, versions: Mapping[str, int]) -> None:
    """One UnsupportedError with the count of every operator that has neither a handler nor a function body."""
    table = functions.table(model)
    functions.check_not_recursive(table)
    missing: Counter[str] = Counter()
    _scan(model.graph.node, versions, table, missing)
    for function in functions.reachable(model, table):
        _scan(function.node, {**versions, **opsets(function.opset_import)}, table, missing)
    if not missing:
        return
    text = ", ".join(f"{name} ({count})" for name, count in sorted(missing.items(), key=lambda item: (-item[1], item[0])))
    hints = [f"{name}: {WORKAROUNDS[name]}" for name in missing if name in WORKAROUNDS]
    raise UnsupportedError(
        f"{sum(missing.values())} nodes use operators that are not supported: {text}",
        hint="; ".join(hints) or "cut the model around them, or rewrite them with the operators that `graphc ops` lists",
    )


def _scan(nodes: Iterable[onnx.NodeProto], versions: Mapping[str, int], table: functions.Table, missing: Counter[str]) -> None:
    for node in nodes:
        domain = "" if is_standard(node.domain) else node.domain
        key = (domain, node.op_type, node.overload)
        if key not in table and find(domain, node.op_type, versions.get(domain, 1)) is None:
            if not functions.has_body(node.op_type, domain, versions.get(domain, 1)):
                missing[f"{domain}:{node.op_type}" if domain else node.op_type] += 1
        for graph in subgraphs(node):
            _scan(graph.node, versions, table, missing)
