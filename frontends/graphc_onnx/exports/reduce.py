"""Reductions, extremes' positions, running sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from graphc.ir.graph import Node
from graphc.types.dtype import bool_
from graphc_onnx.emitter import Emitter, exports

_NAMES = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd", "l1": "ReduceL1",
    "l2": "ReduceL2", "sum_square": "ReduceSumSquare", "log_sum": "ReduceLogSum", "log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip
_ALONE = {"l1": "Abs", "l2": "Abs", "log_sum": "Log"}  # of one element; the others leave it as it is


@exports("reduce")
def reduce(emitter: Emitter, node: Node, op: Any) -> None:
    x = emitter.name(node.inputs[0])
    if not op.axes:
        if op.fn == "sum_square":
            emitter.result("Mul", x, x)
        else:
            emitter.result(_ALONE.get(op.fn, "Identity"), x)
    elif node.inputs[0].type.dtype == bool_:
        wide = emitter.temp("Cast", x, to=onnx.TensorProto.INT32)
        made = emitter.temp("ReduceMax" if op.fn in ("any", "max") else "ReduceMin", wide, emitter.ints(op.axes), keepdims=int(op.keepdims))
        emitter.result("Greater", made, emitter.constant(np.asarray(0, np.int32)))  # of nothing: the lowest, or the highest integer
    else:
        emitter.result(_NAMES[op.fn], x, emitter.ints(op.axes), keepdims=int(op.keepdims))


@exports("arg_reduce")
def arg_reduce(emitter: Emitter, node: Node, op: Any) -> None:
    name = "ArgMax" if op.fn == "max" else "ArgMin"
    emitter.result(name, *emitter.inputs(node), axis=op.axis, keepdims=int(op.keepdims), select_last_index=int(op.select_last))


@exports("cumsum")
def cumsum(emitter: Emitter, node: Node, op: Any) -> None:
    axis = emitter.constant(np.asarray(op.axis, np.int64))
    emitter.result("CumSum", emitter.name(node.inputs[0]), axis, exclusive=int(op.exclusive), reverse=int(op.reverse))
