"""The op set. Importing this package fills the registry of `graphc.ir.op`: one module per family, one class per op."""

from graphc.ops import (
    activations,
    control,
    conv,
    conv_weight,
    gather,
    grid_sample,
    interleave,
    loss,
    matmul,
    movement,
    norm,
    norm_training,
    pointwise,
    pool,
    pool_spread,
    random,
    recurrent,
    recurrent_grad,
    recurrent_mask,
    reduce,
    resize,
    sampling,
    scatter,
    sort,
)

__all__ = [
    "activations", "control", "conv", "conv_weight", "gather", "grid_sample", "interleave", "loss", "matmul", "movement", "norm",
    "norm_training", "pointwise", "pool", "pool_spread", "random", "recurrent", "recurrent_grad", "recurrent_mask", "reduce", "resize",
    "sampling",
    "scatter", "sort",
]  # fmt: skip
