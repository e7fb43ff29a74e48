"""Samples of matrix products, Gemm and Einsum. The oracle is numpy, or ONNX Runtime for Gemm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from graphc.ops.einsum import einsum
from graphc.ops.matmul import MatMul, gemm
from graphc.types.dtype import f16, f64, i32, i64, u8
from ops.oracles import by_ort
from ops.sample import Compose, Data, Sample

SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[str, str]], ...] = (
    ((5, 7), (7, 3), ("M,7", "7,3")),
    ((1, 1), (1, 1), ("1,1", "1,1")),
    ((1, 33), (33, 1), ("N,K", "K,1")),
    ((3, 16), (16, 48), ("N,16", "16,48")),
    ((2, 5, 7), (7, 3), ("N,5,7", "7,3")),
    ((2, 3, 5, 7), (2, 3, 7, 4), ("N,3,T,7", "N,3,7,4")),
    ((2, 1, 5, 7), (3, 7, 4), ("N,1,5,7", "3,7,4")),
    ((5, 7), (4, 7, 3), ("5,K", "4,K,3")),
    ((1, 2, 3), (4, 3, 5), ("1,2,3", "N,3,5")),
    ((0, 4), (4, 3), ("0,4", "4,3")),
    ((3, 0), (0, 2), ("3,0", "0,2")),
    ((0, 2, 3), (3, 4), ("0,2,3", "3,4")),
)


def _product(a: Any, b: Any, trans_a: bool = False, trans_b: bool = False) -> Any:
    return np.matmul(a.swapaxes(-1, -2) if trans_a else a, b.swapaxes(-1, -2) if trans_b else b)


MATMULS = [Sample(f"{a} {b}", MatMul(), (Data(a), Data(b)), np.matmul, text) for a, b, text in SHAPES]
for ta, tb in ((True, False), (False, True), (True, True)):
    operands = Data((2, 7, 5) if ta else (2, 5, 7)), Data((3, 7) if tb else (7, 3))
    MATMULS.append(Sample(f"trans {ta} {tb}", MatMul(ta, tb), operands, partial(_product, trans_a=ta, trans_b=tb)))
MATMULS += [
    Sample("f64", MatMul(), (Data((4, 9), f64), Data((9, 5), f64)), np.matmul, ("N,9", "9,5"), rtol=1e-13, atol=1e-14),
    Sample("f16", MatMul(), (Data((4, 9), f16), Data((9, 5), f16)), np.matmul, rtol=2e-2, atol=4e-3),
    *(Sample(str(d), MatMul(), (Data((4, 9), d, -5, 6), Data((9, 5), d, -5, 6)), np.matmul) for d in (i32, i64, u8)),
    Sample("infinite", MatMul(), (Data((3, 9), special=True), Data((9, 2))), np.matmul),
]


def _gemm(**attributes: Any) -> Compose:
    def composed(builder: Any, a: Any, b: Any, c: Any = None) -> Any:
        return gemm(builder, a, b, c, **attributes)

    composed.__name__ = "gemm"
    return composed


def _gemm_sample(
    label: str, shapes: tuple[tuple[int, ...], ...], alpha: float = 1.0, beta: float = 1.0, ta: bool = False, tb: bool = False
) -> Sample:
    oracle = by_ort("Gemm", alpha=alpha, beta=beta, transA=int(ta), transB=int(tb))
    return Sample(label, _gemm(alpha=alpha, beta=beta, trans_a=ta, trans_b=tb), tuple(Data(shape) for shape in shapes), oracle)


GEMMS = [
    _gemm_sample("linear layer", ((3, 20), (10, 20), (10,)), tb=True),
    _gemm_sample("without C", ((3, 20), (10, 20)), tb=True),
    _gemm_sample("all attributes", ((20, 3), (10, 20), (3, 1)), 0.5, 2.0, True, True),
    _gemm_sample("scalar C", ((3, 4), (4, 2), ()), 2.0, 0.25),
    _gemm_sample("beta 0", ((3, 4), (4, 2), (3, 2)), 1.0, 0.0),
]

EQUATIONS: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = (
    ("ij,jk->ik", ((2, 3), (3, 4))), ("ij->ji", ((2, 3),)), ("ii->i", ((3, 3),)), ("ii", ((3, 3),)), ("ijk->", ((2, 3, 4),)),
    ("...ij,...jk->...ik", ((5, 2, 3), (3, 4))), ("bhqd,bhkd->bhqk", ((2, 3, 4, 5), (2, 3, 6, 5))), ("i,j->ij", ((3,), (4,))),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5))), ("iij->ji", ((3, 3, 2),)), ("ij,ij->", ((2, 3), (2, 3))), ("ab,bc", ((2, 3), (3, 4))),
    ("b...,b->b...", ((2, 3, 4), (2,))), ("iii->i", ((3, 3, 3),)), ("bij,bjk->bik", ((1, 2, 3), (4, 3, 5))), ("ij,j->i", ((2, 1), (3,))),
    ("...ii->...i", ((2, 3, 3),)), ("a,ab,abc->abc", ((2,), (2, 3), (2, 3, 4))),
)  # fmt: skip


def _einsum(equation: str) -> Compose:
    def composed(builder: Any, *operands: Any) -> Any:
        return einsum(builder, equation, *operands)

    composed.__name__ = "einsum"
    return composed


EINSUMS = [
    Sample(equation, _einsum(equation), tuple(Data(shape, f64) for shape in shapes), partial(np.einsum, equation), rtol=1e-12, atol=1e-13)
    for equation, shapes in EQUATIONS
]

SAMPLES = [*MATMULS, *GEMMS, *EINSUMS]
