"""Reading and writing at indices, triangles, top-k."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.graph import Node
from graphc_onnx.emitter import Emitter, exports


@exports("gather")
def gather(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Gather", *emitter.inputs(node), axis=op.axis)


@exports("gather_elements")
def gather_elements(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("GatherElements", *emitter.inputs(node), axis=op.axis)


@exports("gather_nd")
def gather_nd(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("GatherND", *emitter.inputs(node), batch_dims=op.batch_dims)


@exports("scatter_elements")
def scatter_elements(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("ScatterElements", *emitter.inputs(node), axis=op.axis, reduction=op.reduction)


@exports("scatter_nd")
def scatter_nd(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("ScatterND", *emitter.inputs(node), reduction=op.reduction)


@exports("one_hot")
def one_hot(emitter: Emitter, node: Node, op: Any) -> None:
    indices, values = emitter.inputs(node)
    emitter.result("OneHot", indices, emitter.constant(np.asarray(op.depth, np.int64)), values, axis=op.axis)


@exports("trilu")
def trilu(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("Trilu", emitter.name(node.inputs[0]), emitter.constant(np.asarray(op.k, np.int64)), upper=int(op.upper))


@exports("top_k")
def top_k(emitter: Emitter, node: Node, op: Any) -> None:
    emitter.result("TopK", emitter.name(node.inputs[0]), emitter.ints([op.k]), axis=op.axis, largest=int(op.largest), sorted=1)
