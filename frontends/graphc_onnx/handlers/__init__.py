"""One file per operator family; importing this package fills the table of `graphc_onnx.registry`."""

from graphc_onnx.handlers import (
    activation,
    arithmetic,
    control,
    conv,
    gather,
    loss,
    matmul,
    movement,
    norm,
    pool,
    quantize,
    random,
    recurrent,
    reduce,
    resize,
    sequence,
    shape,
    signal,
)  # fmt: skip

__all__ = [
    "activation", "arithmetic", "control", "conv", "gather", "loss", "matmul", "movement", "norm", "pool", "quantize", "random",
    "recurrent", "reduce", "resize", "sequence", "shape", "signal",
]  # fmt: skip
