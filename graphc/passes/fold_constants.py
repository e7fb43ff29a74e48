"""fold-constants: a node whose inputs are all known becomes a constant; shape arithmetic disappears."""

from __future__ import annotations

import numpy as np

from graphc.ir.graph import Array, Graph
from graphc.ir.patch import Patch
from graphc.knobs import knob
from graphc.passes.base import Context
from graphc.types.shape import is_static

LIMIT = knob("GRAPHC_FOLD_LIMIT", int, 64 << 20, "largest constant in bytes that folding makes, unless its inputs are as large")


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "fold-constants")
    limit = LIMIT.get()
    for node in list(graph.nodes):
        if not all(is_static(value.type.shape) for value in node.outputs) or node.op.bodies():
            continue
        results: tuple[Array, ...]
        if node.op.name == "shape" and is_static(node.inputs[0].type.shape):
            results = (np.asarray(node.inputs[0].type.static_shape, np.int64),)
        elif all(value.is_constant for value in node.inputs):
            size = sum(value.type.nbytes for value in node.outputs)
            if size > max(limit, sum(value.type.nbytes for value in node.inputs)):
                continue
            results = node.op.evaluate(*(value.data for value in node.inputs if value.data is not None))
        else:
            continue
        for value, result in zip(node.outputs, results, strict=True):
            patch.replace(value, patch.constant(result.astype(value.type.dtype.numpy, copy=False), value))
    return patch.commit()
