"""graphc: a declarative graph compiler for CNN and RNN models.

    exe = graphc.compile("model.onnx")      # or a graphc.Graph, or a @graphc.model of the DSL
    y = exe(x)

Names resolve on first use, so `import graphc` is fast and loads no LLVM and no ONNX.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_DSL = [
    "abs", "acos", "acosh", "adaptive_avg_pool2d", "adaptive_max_pool2d", "all", "any", "arange", "argmax", "argmin", "asin", "asinh",
    "atan", "atanh", "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "block", "bool_", "cast", "ceil", "celu", "channel_shuffle", "clip", "concat", "cond", "constant", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cos", "cosh", "cross_entropy", "cumsum", "demo", "dense", "depth_to_space",
    "depthwise_conv2d", "dropout", "einsum", "elu", "embedding", "erf", "exp", "expand", "expm1", "f16", "f32", "f64", "flatten", "flip",
    "floor", "gather", "gather_elements", "gather_nd", "gaussian", "gelu", "global_avg_pool", "global_lp_pool", "global_max_pool",
    "group_norm", "gru", "hard_sigmoid", "hard_swish", "hard_tanh", "huber_loss", "i16", "i32", "i64", "i8", "init", "instance_norm",
    "isinf", "isnan", "l1_loss", "layer_norm", "leaky_relu", "linear", "load_script", "local_response_norm", "log", "log1p", "log_sigmoid",
    "log_softmax", "log_sum_exp", "lp_pool1d", "lp_pool2d", "lp_pool3d", "lrn", "lstm", "matmul", "max", "max_pool1d", "max_pool2d",
    "max_pool3d", "maximum", "mean", "min", "minimum", "mish", "Model", "model", "mse_loss", "nll_loss", "norm_l1", "norm_l2", "one_hot",
    "ones", "pad", "parameter", "pixel_shuffle", "pow", "prelu", "prod", "reciprocal", "relu", "relu6", "reshape", "resize", "rms_norm",
    "rnn", "round", "sample", "scan", "scatter_elements", "scatter_nd", "scope", "selu", "sequence_mask", "shrink", "sigmoid", "sign",
    "silu", "sin", "sinh", "smooth_l1_loss", "softmax", "softplus", "softsign", "space_to_depth", "split", "sqrt", "squeeze", "stack",
    "state", "step", "sum", "swish", "tan", "tanh", "Tensor", "thresholded_relu", "tile", "topk", "transpose", "tril", "triu", "trunc",
    "u16", "u32", "u64", "u8", "unsqueeze", "upsample", "where", "while_loop", "zeros",
]  # fmt: skip
_ERRORS = [
    "GraphcError", "ModelError", "UnsupportedError", "TypeMismatchError", "ShapeError", "DynamicShapeError", "InputError",
    "AttributeValueError", "NumericalError", "VerifyError", "ResourceError", "BackendError",
]  # fmt: skip
_MODULES = ["callbacks", "data", "decode", "losses", "metrics", "optim", "schedules"]
_NAMES: dict[str, str] = {
    **dict.fromkeys(_DSL, "graphc_dsl"),
    **{name: f"graphc.{name}" for name in _MODULES},
    "compile": "graphc.driver",
    "grad": "graphc.train.grad",
    "TrainStep": "graphc.train.step",
    "Trainer": "graphc.train.trainer",
    "replace_head": "graphc.train.head",
    "backbone": "graphc.train.head",
    "Executable": "graphc.executable",
    "Graph": "graphc.ir.graph",
    "Target": "graphc.target",
    "load_onnx": "graphc_onnx",
    "save_onnx": "graphc_onnx",
    **dict.fromkeys(_ERRORS, "graphc.errors"),
}  # fmt: skip
__version__ = "0.1.0"
__all__ = [*_NAMES, "__version__"]  # noqa: PLE0604  names of a table


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    loaded = import_module(module)
    value = loaded if name in _MODULES else getattr(loaded, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
