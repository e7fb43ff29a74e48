"""The DSL of graphc: models as Python functions that read like the tables of papers.

    @graphc.model
    def lenet5(image: graphc.f32["N", 1, 28, 28]):
        x = graphc.conv2d(image, 6, kernel=5, padding=2, activation="tanh", name="c1")
        ...

All names are also names of the package graphc.
"""

from __future__ import annotations

from graphc.types.dtype import bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from graphc_dsl import init
from graphc_dsl.control import cond, scan, while_loop
from graphc_dsl.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d, depthwise_conv2d
from graphc_dsl.lookup import gather, gather_elements, gather_nd, one_hot, scatter_elements, scatter_nd
from graphc_dsl.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from graphc_dsl.matrix import einsum, embedding, linear, matmul
from graphc_dsl.models import Model, model
from graphc_dsl.movement import (
    arange,
    channel_shuffle,
    concat,
    constant,
    depth_to_space,
    expand,
    flatten,
    flip,
    ones,
    pad,
    pixel_shuffle,
    reshape,
    resize,
    space_to_depth,
    split,
    squeeze,
    stack,
    tile,
    transpose,
    tril,
    triu,
    unsqueeze,
    upsample,
    zeros,
)
from graphc_dsl.norm import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, prelu, rms_norm
from graphc_dsl.pointwise import (
    abs,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    cast,
    ceil,
    celu,
    clip,
    cos,
    cosh,
    dropout,
    elu,
    erf,
    exp,
    expm1,
    floor,
    gaussian,
    gelu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    isinf,
    isnan,
    leaky_relu,
    log,
    log1p,
    log_sigmoid,
    log_softmax,
    maximum,
    minimum,
    mish,
    pow,
    reciprocal,
    relu,
    relu6,
    round,
    selu,
    shrink,
    sigmoid,
    sign,
    silu,
    sin,
    sinh,
    softmax,
    softplus,
    softsign,
    sqrt,
    step,
    swish,
    tan,
    tanh,
    thresholded_relu,
    trunc,
    where,
)
from graphc_dsl.pool import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    global_avg_pool,
    global_lp_pool,
    global_max_pool,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from graphc_dsl.recurrent import gru, lstm, rnn
from graphc_dsl.reduction import all, any, argmax, argmin, cumsum, log_sum_exp, max, mean, min, norm_l1, norm_l2, prod, sum, topk
from graphc_dsl.script import load_script
from graphc_dsl.sequence import sample, sequence_mask
from graphc_dsl.state import state
from graphc_dsl.summary import demo
from graphc_dsl.tensor import Tensor
from graphc_dsl.trace import block, parameter, scope

dense = linear
lrn = local_response_norm

__all__ = [
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
