"""The op set. Importing this package fills the registry of `graphc.ir.op`: one module per family, one class per op."""

from graphc.ops import conv, gather, matmul, movement, pool, scatter, sort

__all__ = ["conv", "gather", "matmul", "movement", "pool", "scatter", "sort"]
