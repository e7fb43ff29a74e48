"""One file per operator family; importing this package fills the table of `graphc_onnx.registry`."""

from graphc_onnx.handlers import activation, arithmetic, conv, gather, loss, matmul, movement, norm, pool, reduce, resize, shape

__all__ = [
    "activation", "arithmetic", "conv", "gather", "loss", "matmul", "movement", "norm", "pool", "reduce", "resize", "shape",
]  # fmt: skip
