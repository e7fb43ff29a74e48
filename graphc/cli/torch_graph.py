"""A graph in PyTorch's eager mode, node by node, for `graphc bench --vs torch`: the ops of inference graphs of CNNs, in float32.

Each op's function gets torch, the op and its input tensors. Batch normalisation, pooling and the like are torch's own fused functions,
so that PyTorch is timed at what it does best without a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphc.errors import UnsupportedError

if TYPE_CHECKING:
    from graphc.ir.graph import Array, Graph, Node, Value

Function = Callable[..., Any]  # (torch, op, *tensors) -> tensor


class TorchGraph:
    """Runs a graph with static shapes. Raises UnsupportedError that lists the ops that have no function here."""

    def __init__(self, graph: Graph) -> None:
        torch: Any = import_module("torch")  # by name: an optional extra, unknown to the type checker where it is not installed
        missing = sorted({node.op.name for node in graph.nodes} - _FUNCTIONS.keys())
        if missing:
            raise UnsupportedError(f"--vs torch has no function for {', '.join(missing)}", hint="leave torch out")
        self._torch = torch
        self._graph = graph
        leaves = [value for value in graph.values.values() if value.producer is None and value.data is not None]
        self._constants = {value: torch.tensor(value.data) for value in leaves}
        self._last_use = _last_uses(graph)

    def tensors(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """The inputs as tensors."""
        return {name: self._torch.from_numpy(array) for name, array in feeds.items()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        with self._torch.inference_mode():
            values = dict(self._constants)
            values.update({value: inputs[value.name] for value in self._graph.inputs})
            for node in self._graph.nodes:
                function = _FUNCTIONS[node.op.name]
                values[node.outputs[0]] = function(self._torch, node.op, *(values[value] for value in node.inputs))
                for value in self._last_use[node]:
                    del values[value]
            return {name: values[value] for name, value in zip(self._graph.output_names, self._graph.outputs, strict=True)}


def _last_uses(graph: Graph) -> dict[Node, list[Value]]:
    """For each node the results that nothing after it reads: their memory is given back there."""
    last: dict[Value, Node] = {}
    for node in graph.nodes:
        last.update({value: node for value in node.inputs if value.producer is not None})
    found: dict[Node, list[Value]] = {node: [] for node in graph.nodes}
    for value, node in last.items():
        if value not in graph.outputs:
            found[node].append(value)
    return found


def _padded(torch: Any, op: Any, x: Any, value: float) -> tuple[Any, tuple[int, ...]]:
    """x and the padding that torch's function shall do itself; uneven padding is done here."""
    if op.pad_before == op.pad_after:
        return x, op.pad_before
    sides = [side for pair in zip(reversed(op.pad_before), reversed(op.pad_after), strict=True) for side in pair]
    return torch.nn.functional.pad(x, sides, value=value), (0,) * len(op.pad_before)


def _conv(torch: Any, op: Any, x: Any, w: Any, bias: Any = None) -> Any:
    functions = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
    x, pad = _padded(torch, op, x, 0.0)
    return functions[len(op.stride) - 1](x, w, bias, op.stride, pad, op.dilation, op.groups)


def _max_pool(torch: Any, op: Any, x: Any) -> Any:
    functions = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)
    x, pad = _padded(torch, op, x, float("-inf"))
    return functions[len(op.kernel) - 1](x, op.kernel, op.stride, pad, op.dilation, op.ceil)


def _avg_pool(torch: Any, op: Any, x: Any) -> Any:
    if op.pad_before != op.pad_after or any(step != 1 for step in op.dilation):
        raise UnsupportedError("--vs torch has no average pooling with uneven padding or dilation", hint="leave torch out")
    functions = (torch.nn.functional.avg_pool1d, torch.nn.functional.avg_pool2d, torch.nn.functional.avg_pool3d)
    return functions[len(op.kernel) - 1](x, op.kernel, op.stride, op.pad_before, op.ceil, op.count_include_pad)


def _batch_norm(torch: Any, op: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    return torch.nn.functional.batch_norm(x, mean, var, scale, bias, False, 0.0, op.epsilon)


def _matmul(torch: Any, op: Any, a: Any, b: Any) -> Any:
    return torch.matmul(a.mT if op.trans_a else a, b.mT if op.trans_b else b)


def _slice(torch: Any, op: Any, x: Any) -> Any:
    if any(step < 1 for step in op.steps):
        raise UnsupportedError("--vs torch has no slice with negative steps", hint="leave torch out")
    ends = [start + (count - 1) * step + 1 for start, step, count in zip(op.starts, op.steps, op.shape, strict=True)]
    return x[tuple(slice(start, end, step) for start, end, step in zip(op.starts, ends, op.steps, strict=True))]


def _pad(torch: Any, op: Any, x: Any) -> Any:
    if op.mode != "constant":
        raise UnsupportedError(f"--vs torch has no padding of mode {op.mode}", hint="leave torch out")
    sides = [side for pair in zip(reversed(op.before), reversed(op.after), strict=True) for side in pair]
    return torch.nn.functional.pad(x, sides, value=op.value)


def _reduce(torch: Any, op: Any, x: Any) -> Any:
    functions = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin, "log_sum_exp": torch.logsumexp}
    if op.fn not in functions:
        raise UnsupportedError(f"--vs torch has no reduction {op.fn}", hint="leave torch out")
    return functions[op.fn](x, op.axes, op.keepdims) if op.axes else x


def _layer_norm(torch: Any, op: Any, x: Any, *affine: Any) -> Any:
    return torch.nn.functional.layer_norm(x, x.shape[op.axis :], *affine, eps=op.epsilon)


def _lrn(torch: Any, op: Any, x: Any) -> Any:
    return torch.nn.functional.local_response_norm(x, op.size, op.alpha, op.beta, op.bias)


def _clip(torch: Any, op: Any, x: Any) -> Any:
    return torch.clamp(x, op.lo, op.hi)


def _call(*path: str) -> Function:
    """torch's function of that path on the tensors alone."""

    def function(torch: Any, op: Any, *tensors: Any) -> Any:
        found = torch
        for name in path:
            found = getattr(found, name)
        return found(*tensors)

    return function


def _method(name: str, attribute: str) -> Function:
    """The tensor's method with one attribute of the op."""
    return lambda torch, op, x: getattr(x, name)(getattr(op, attribute))


def _named(names: Sequence[str], *prefix: str) -> dict[str, Function]:
    return {name: _call(*prefix, name) for name in names}


_FUNCTIONS: dict[str, Function] = {
    **_named(("add", "sub", "mul", "div", "exp", "log", "sqrt", "tanh", "sigmoid", "erf", "abs", "neg", "floor", "ceil", "relu")),
    **_named(("mish", "softsign"), "nn", "functional"),
    "hard_swish": _call("nn", "functional", "hardswish"),
    "max": _call("maximum"),
    "min": _call("minimum"),
    "where": _call("where"),
    "prelu": lambda torch, op, x, slope: torch.where(x < 0, slope * x, x),
    "leaky_relu": lambda torch, op, x: torch.nn.functional.leaky_relu(x, op.alpha),
    "elu": lambda torch, op, x: torch.nn.functional.elu(x, op.alpha),
    "gelu": lambda torch, op, x: torch.nn.functional.gelu(x),
    "gelu_tanh": lambda torch, op, x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda torch, op, x: torch.nn.functional.silu(x) if op.alpha == 1 else x * torch.sigmoid(op.alpha * x),
    "identity": lambda torch, op, x: x,
    "clip": _clip,
    "conv": _conv,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "lrn": _lrn,
    "matmul": _matmul,
    "reshape": _method("reshape", "shape"),
    "transpose": _method("permute", "perm"),
    "expand": lambda torch, op, x: torch.broadcast_to(x, torch.broadcast_shapes(x.shape, op.shape)),
    "concat": lambda torch, op, *parts: torch.cat(parts, op.axis),
    "slice": _slice,
    "pad": _pad,
    "reduce": _reduce,
    "softmax": lambda torch, op, x: torch.softmax(x, op.axis),
    "log_softmax": lambda torch, op, x: torch.log_softmax(x, op.axis),
}
