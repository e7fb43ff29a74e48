"""Samples of movement ops. The oracle is numpy's function of the same meaning; ONNX Runtime where attributes need interpretation."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops.movement import Concat, Dilate, Expand, Pad, Reshape, ShapeOf, Slice, Tile, Transpose
from graphc.types.dtype import bool_, f16, f32, f64, i8, i32, i64, u8
from graphc.types.shape import symbol
from ops.oracles import by_ort, by_torch
from ops.sample import Data, Sample

N = symbol("N")
DTYPES = (bool_, i8, u8, i32, i64, f16, f64)


def _shapes() -> list[Sample]:
    found = [
        Sample(str(shape), ShapeOf(), (Data(shape),), lambda x: np.array(x.shape, np.int64), (",".join(map(str, shape)),))
        for shape in ((), (0,), (1,), (2, 3, 1, 5, 4))
    ]
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((2, 3, 4), (6, 4)), ((2, 3, 4), (24,)), ((24,), (2, 3, 4)), ((1,), ()), ((), (1, 1)), ((0, 3), (3, 0, 2)),
        ((3, 5, 7), (7, 5, 3)), ((2, 12, 5), (2, 3, 4, 5)),
    )  # fmt: skip
    found += [Sample(f"{a} to {b}", Reshape(b), (Data(a),), lambda x, b=b: x.reshape(b)) for a, b in cases]
    found.append(Sample("symbolic", Reshape((3, 20)), (Data((3, 4, 5)),), lambda x: x.reshape(3, 20), ("N,4,5",), Reshape((N, 20))))
    found += [Sample(str(d), Reshape((6,)), (Data((2, 3), d),), lambda x: x.reshape(6)) for d in DTYPES]
    return found


def _transposes() -> list[Sample]:
    perms: tuple[tuple[int, ...], ...] = (
        (), (0,), (1, 0), (0, 2, 1), (2, 0, 1), (0, 2, 1, 3), (0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3, 4), (5, 3, 1, 0, 2, 4),
    )  # fmt: skip
    found = []
    for perm in perms:
        shape = (3, 5, 2, 4, 1, 2)[: len(perm)]
        text = ",".join(("N", "C", *map(str, shape[2:]))[: len(perm)])
        found.append(Sample(str(perm), Transpose(perm), (Data(shape),), lambda x, perm=perm: np.transpose(x, perm), (text,)))
    found.append(Sample("long", Transpose((1, 0)), (Data((37, 19)),), np.transpose))
    found.append(Sample("empty", Transpose((1, 0)), (Data((0, 4)),), np.transpose))
    found += [Sample(str(d), Transpose((1, 0)), (Data((3, 4), d),), np.transpose) for d in DTYPES]
    return found


def _expands() -> list[Sample]:
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((3, 1), (3, 4)), ((1,), (2, 3, 4)), ((), (2, 3)), ((1, 3, 1), (2, 3, 5)), ((2, 3), (2, 3)), ((1, 4), (0, 4)), ((), ()),
    )  # fmt: skip
    found = [Sample(f"{a} to {b}", Expand(b), (Data(a),), lambda x, b=b: np.broadcast_to(x, b)) for a, b in cases]
    found.append(Sample("symbolic", Expand((3, 4)), (Data((3, 1)),), lambda x: np.broadcast_to(x, (3, 4)), ("N,1",), Expand((N, 4))))
    found += [Sample(str(d), Expand((2, 3)), (Data((1, 3), d),), lambda x: np.broadcast_to(x, (2, 3))) for d in DTYPES]
    return found


def _slices() -> list[Sample]:
    x = Data((4, 7, 5))
    found = [
        Sample("middle", Slice((1, 2, 0), (1, 1, 1), (2, 4, 5)), (x,), lambda x: x[1:3, 2:6]),
        Sample("steps", Slice((0, 1, 4), (2, 3, 1), (2, 2, 1)), (x,), lambda x: x[::2, 1:7:3, 4:]),
        Sample("backwards", Slice((3, 6, 4), (-1, -2, -3), (4, 4, 2)), (x,), lambda x: x[::-1, ::-2, ::-3]),
        Sample("empty", Slice((0, 0, 0), (1, 1, 1), (4, 0, 5)), (x,), lambda x: x[:, :0]),
        Sample("empty axis", Slice((0, 0), (1, 1), (0, 2)), (Data((0, 3)),), lambda x: x[:, :2]),
        Sample("scalar", Slice((), (), ()), (Data(()),), lambda x: x),
        Sample("one element", Slice((36,), (1,), (1,)), (Data((37,)),), lambda x: x[36:]),
    ]
    last = Slice((2, 0), (1, 1), (1, 4))
    found.append(Sample("last row", last, (Data((3, 4)),), lambda x: x[-1:], ("N,4",), Slice((N - 1, 0), (1, 1), (1, 4))))
    found += [Sample(str(d), Slice((4,), (-2,), (3,)), (Data((5,), d),), lambda x: x[::-2]) for d in DTYPES]
    return found


def _concats() -> list[Sample]:
    def joined(axis: int) -> Any:
        return lambda *parts: np.concatenate(parts, axis)

    found = [
        Sample("channels", Concat(1), tuple(Data((2, c, 3, 5)) for c in (3, 1, 4)), joined(1), ("N,3,H,5", "N,1,H,5", "N,4,H,5")),
        Sample("channels in blocks of 16", Concat(1), tuple(Data((1, c, 3, 3)) for c in (16, 32, 16)), joined(1)),
        Sample("last axis", Concat(2), tuple(Data((2, 3, c)) for c in (1, 17)), joined(2), ("N,3,1", "N,3,17")),
        Sample("first axis", Concat(0), (Data((2, 3)), Data((5, 3))), joined(0), ("2,C", "5,C")),
        Sample("one input", Concat(0), (Data((2, 3)),), joined(0)),
        Sample("24 inputs", Concat(1), tuple(Data((3, c % 3)) for c in range(24)), joined(1)),
        Sample("an empty part", Concat(0), (Data((0, 3)), Data((2, 3)), Data((0, 3))), joined(0)),
        Sample("all empty", Concat(1), (Data((0, 3)), Data((0, 2))), joined(1)),
    ]
    found += [Sample(str(d), Concat(0), (Data((3,), d), Data((2,), d)), joined(0)) for d in DTYPES]
    return found


def _pads() -> list[Sample]:
    x = Data((2, 3, 5, 6))
    image = ((0, 0, 1, 2), (0, 0, 3, 0))
    around = ((0, 0), (0, 0), (1, 3), (2, 0))
    later = ((0, 0), (0, 0), (0, 2), (2, 0))
    found = [
        Sample("constant", Pad(*image, value=1.5), (x,), lambda x: np.pad(x, around, constant_values=1.5), ("N,C,H,6",)),
        Sample("infinite", Pad((1,), (1,), value=float("-inf")), (Data((3,)),), lambda x: np.pad(x, 1, constant_values=-np.inf)),
        Sample("crop", Pad((0, 0, -1, -2), (0, -1, -1, 0)), (x,), lambda x: x[:, :-1, 1:-1, 2:]),
        Sample("crop and pad", Pad((0, 0, -1, 2), (0, 0, 2, -1)), (x,), lambda x: np.pad(x, later)[:, :, 1:, :-1]),
        Sample("crop to nothing", Pad((-1, 0), (-1, 0)), (Data((2, 3)),), lambda x: x[:0]),
        Sample("of nothing", Pad((2, 0), (1, 1), value=2.0), (Data((0, 3)),), lambda x: np.full((3, 4), 2, np.float32)),
        Sample("value as input", Pad((1,), (2,)), (Data((3,)), np.float32(7)), lambda x, v: np.pad(x, (1, 2), constant_values=7)),
        Sample("value as i64 input", Pad((1,), (0,)), (Data((3,), i64), np.array([2**60 + 1])), lambda x, v: np.concatenate([v, x])),
    ]
    for mode in ("reflect", "edge", "wrap"):
        pads = ((0, 1, 2, 1), (0, 1, 0, 4))
        widths = tuple(zip(*pads, strict=True))
        found.append(Sample(mode, Pad(*pads, mode), (x,), lambda x, w=widths, m=mode: np.pad(x, w, m), ("N,C,H,6",)))
        in_onnx = by_ort("Pad", extra=(np.array(sum(pads, ())),), mode=mode, opset=19)
        found.append(Sample(f"{mode} in ONNX", Pad(*pads, mode), (x,), in_onnx))
        far = Pad((7,), (9,), mode)
        found.append(Sample(f"{mode} many times", far, (Data((3,)),), lambda x, m=mode: np.pad(x, (7, 9), m)))
        found.append(Sample(f"{mode} of one", far, (Data((1,)),), lambda x: np.full(17, x[0])))
        cropped = Pad((2, -1), (-1, 2), mode)
        expected = lambda x, m=mode: np.pad(x, ((2, 0), (0, 2)), m)[:-1, 1:]  # noqa: E731
        found.append(Sample(f"{mode} and crop", cropped, (Data((4, 5)),), expected))
    found.append(Sample("reflect in PyTorch", Pad((0, 0, 1, 2), (0, 0, 1, 2), "reflect"), (x,), by_torch(_reflect)))
    found += [Sample(str(d), Pad((1,), (2,), value=1), (Data((3,), d),), lambda x: np.pad(x, (1, 2), constant_values=1)) for d in DTYPES]
    return found


def _reflect(torch: Any) -> Any:
    return lambda x: torch.nn.functional.pad(x, (2, 2, 1, 1), mode="reflect")


def _tiles() -> list[Sample]:
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((2, 3), (1, 2)), ((2, 3), (3, 1)), ((2, 3, 1), (2, 2, 4)), ((3,), (0,)), ((0, 2), (2, 2)), ((), ()), ((2, 2), (1, 1)),
    )  # fmt: skip
    found = [Sample(f"{a} by {b}", Tile(b), (Data(a),), lambda x, b=b: np.tile(x, b)) for a, b in cases]
    found.append(Sample("symbolic", Tile((2, 3)), (Data((3, 2)),), lambda x: np.tile(x, (2, 3)), ("N,C",)))
    found += [Sample(str(d), Tile((3,)), (Data((3,), d),), lambda x: np.tile(x, 3)) for d in DTYPES]
    return found


def _dilated(factors: tuple[int, ...]) -> Any:
    def dilate(x: Any) -> Any:
        for axis, factor in enumerate(factors):
            gaps = np.arange(1, x.shape[axis]).repeat(factor - 1)
            x = np.insert(x, gaps, 0, axis=axis)
        return x

    return dilate


def _dilates() -> list[Sample]:
    found = [
        Sample(f"{shape} by {factors}", Dilate(factors), (Data(shape),), _dilated(factors))
        for shape, factors in (((1, 2, 3, 4), (1, 1, 2, 3)), ((5,), (4,)), ((1, 1), (3, 3)), ((0, 2), (2, 2)), ((2, 2), (1, 1)))
    ]
    found.append(Sample("symbolic", Dilate((1, 2)), (Data((3, 4)),), _dilated((1, 2)), ("N,W",)))
    found += [Sample(str(d), Dilate((2,)), (Data((3,), d),), _dilated((2,))) for d in (i32, f32, f64, bool_)]
    return found


SAMPLES = [*_shapes(), *_transposes(), *_expands(), *_slices(), *_concats(), *_pads(), *_tiles(), *_dilates()]
