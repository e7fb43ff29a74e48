"""Samples of gather, scatter, one-hot, triangles and top-k. The oracle is ONNX Runtime, PyTorch or numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops.gather import Gather, GatherElements, GatherND, OneHot, Trilu
from graphc.ops.scatter import ScatterElements, ScatterND
from graphc.ops.sort import TopK
from graphc.types.dtype import DType, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from ops.oracles import by_onnx, by_ort
from ops.sample import Array, Data, Sample

DTYPES = (bool_, i8, u8, i32, i64, f16, f64)
NAN, INF = np.nan, np.inf


def _index(shape: tuple[int, ...], size: int, dtype: DType = i64) -> Data:
    """Indices of an axis, negative ones among them."""
    return Data(shape, dtype, -size, size)


def _gathers() -> list[Sample]:
    cases: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = (
        (0, (5, 3), (4,)), (0, (5, 3), ()), (1, (3, 7), (2, 3)), (2, (2, 3, 5), (3,)), (1, (2, 5, 3), ()), (0, (9,), (2, 1, 2)),
        (0, (1,), (1,)),
    )  # fmt: skip
    found = [
        Sample(f"axis {axis} of {shape} at {at}", Gather(axis), (Data(shape), _index(at, shape[axis])), by_ort("Gather", axis=axis))
        for axis, shape, at in cases
    ]
    found += [
        Sample("embedding", Gather(0), (Data((11, 16)), _index((2, 7), 11)), by_ort("Gather"), ("V,16", "N,T")),
        Sample("i32 indices", Gather(0), (Data((5, 3)), _index((4,), 5, i32)), by_ort("Gather")),
        Sample("no index", Gather(0), (Data((5, 3)), np.zeros((0,), np.int64)), lambda x, i: x[i]),
        Sample("no index, empty axis", Gather(0), (Data((0, 3)), np.zeros((0, 2), np.int64)), lambda x, i: np.zeros((0, 2, 3), np.float32)),
        Sample("outside is clamped", Gather(0), (Data((3, 2)), np.array([5, -7, 2**62, 0, -(2**63)])), lambda x, i: x[[2, 0, 2, 0, 0]]),
    ]
    return found + [Sample(str(d), Gather(0), (Data((5,), d), _index((3,), 5)), lambda x, i: x[i]) for d in DTYPES]


def _gather_elements() -> list[Sample]:
    found = [
        Sample(f"axis {axis}", GatherElements(axis), (Data((4, 5, 3)), _index((2, 5, 2), 3)), by_ort("GatherElements", axis=axis))
        for axis in (0, 1, 2)
    ]
    return [
        *found,
        Sample("longer than x", GatherElements(1), (Data((2, 3)), _index((2, 8), 3)), by_ort("GatherElements", axis=1), ("N,3", "N,8")),
        Sample("no index", GatherElements(0), (Data((3, 2)), np.zeros((0, 2), np.int64)), lambda x, i: x[:0]),
        Sample("outside is clamped", GatherElements(0), (Data((3,)), np.array([4, -9, 1])), lambda x, i: x[[2, 0, 1]]),
        *(Sample(str(d), GatherElements(0), (Data((5,), d), _index((3,), 5, i32)), lambda x, i: x[i]) for d in DTYPES),
    ]


def _gather_nd() -> list[Sample]:
    cases: tuple[tuple[int, tuple[int, ...], tuple[int, ...], int], ...] = (
        (0, (4, 5), (3, 2), 4), (0, (4, 5), (3, 1), 4), (0, (4, 4, 3), (2, 3, 2), 4), (1, (2, 5, 3), (2, 4, 1), 5),
        (1, (3, 4, 4), (3, 2, 2), 4), (2, (2, 3, 4), (2, 3, 1), 4), (0, (5,), (1,), 5),
    )  # fmt: skip
    found = [
        Sample(f"batch {batch} of {x} at {at}", GatherND(batch), (Data(x), _index(at, size)), by_ort("GatherND", batch_dims=batch))
        for batch, x, at, size in cases
    ]
    outside = np.array([[7, -9], [-1, 1]])
    return [
        *found,
        Sample("symbolic", GatherND(1), (Data((2, 5, 3)), _index((2, 4, 1), 5)), by_ort("GatherND", batch_dims=1), ("N,5,C", "N,T,1")),
        Sample("whole x", GatherND(), (Data((2, 3)), np.zeros((2, 0), np.int64)), lambda x, i: np.stack([x, x])),
        Sample("outside is clamped", GatherND(), (Data((3, 2)), outside), lambda x, i: x[[2, 2], [0, 1]]),
        *(Sample(str(d), GatherND(), (Data((5,), d), _index((3, 1), 5)), lambda x, i: x[i[:, 0]]) for d in DTYPES),
    ]


def _one_hots() -> list[Sample]:
    values = np.array([-1, 2], np.float32)
    found = [
        Sample(f"axis {axis}", OneHot(5, axis), (_index((2, 3), 5), values), lambda i, v, a=axis: _hot(i, v, a)) for axis in (0, 1, 2)
    ]
    return [
        *found,
        Sample("labels", OneHot(10, 1), (_index((4,), 10), values), lambda i, v: _hot(i, v, 1, 10), ("N", "2")),
        Sample("outside", OneHot(5, 1), (np.array([5, -6, 4, -1]), values), lambda i, v: _hot(i, v, 1)),
        Sample("scalar", OneHot(5, 0), (np.array(3), values), lambda i, v: _hot(i, v, 0)),
        Sample("f32 indices", OneHot(5, 0), (np.array([1.0, 4.0], np.float32), values), lambda i, v: _hot(i, v, 0)),
        Sample("bool values", OneHot(5, 1), (_index((3,), 5, i32), np.array([False, True])), lambda i, v: _hot(i, v, 1)),
        Sample("i64 values", OneHot(5, 1), (_index((3,), 5, i32), np.array([2**60 + 1, 7])), lambda i, v: _hot(i, v, 1)),
        Sample("depth 0", OneHot(0, 1), (_index((3,), 5), values), lambda i, v: np.zeros((3, 0), np.float32)),
    ]


def _hot(indices: Array, values: Array, axis: int, depth: int = 5) -> Array:
    result = np.full((*indices.shape, depth), values[0])
    for at in np.ndindex(*indices.shape):
        if -depth <= indices[at] < depth:
            result[(*at, int(indices[at]))] = values[1]
    return np.moveaxis(result, -1, axis)


def _trilus() -> list[Sample]:
    found = []
    for upper in (True, False):
        for k in (0, 1, -2, 9, -9):
            oracle = by_ort("Trilu", upper=int(upper), extra=(np.array(k),))
            found.append(Sample(f"upper {upper}, k {k}", Trilu(upper, k), (Data((2, 4, 5)),), oracle, ("N,H,5",)))
    found.append(Sample("empty", Trilu(), (Data((0, 3)),), np.triu))
    return found + [Sample(str(d), Trilu(), (Data((3, 3), d),), np.triu) for d in DTYPES]


POSITIONS: tuple[tuple[tuple[int, ...], Array], ...] = (
    ((4, 5), np.array([[1, 2], [3, -1]])), ((4, 2, 3), np.array([[1], [-1]])), ((4, 2, 3), np.array([[[1, 0], [-1, 1]]])),
)  # fmt: skip


def _scatters() -> list[Sample]:
    found = []
    unique = np.array([[2, 0, 4], [1, -2, 0]])
    for reduction in ("none", "add", "mul", "max", "min"):
        for axis, at in ((1, unique), (0, unique % 3 - 3)):
            inputs = (Data((3, 5)), at, Data((2, 3)))
            attributes: dict[str, Any] = {} if reduction == "none" else {"reduction": reduction}
            oracle = by_ort("ScatterElements", axis=axis, opset=18, **attributes)
            found.append(Sample(f"{reduction}, axis {axis}", ScatterElements(axis, reduction), inputs, oracle))
        twice = (Data((4,)), np.array([1, 3, 1, -1, 1]), Data((5,)))
        found.append(Sample(f"{reduction}, repeated", ScatterElements(0, reduction), twice, _scatter(reduction)))
        nothing = (Data((4,)), _index((0,), 1), Data((0,)))
        found.append(Sample(f"{reduction}, nothing", ScatterElements(0, reduction), nothing, lambda x, i, u: x))
        for shape, at in POSITIONS:
            inputs = (Data(shape), at, Data((*at.shape[:-1], *shape[at.shape[-1] :])))
            oracle = by_ort("ScatterND", opset=18, **attributes)
            found.append(Sample(f"{reduction}, {shape} at {at.shape}", ScatterND(reduction), inputs, oracle))
        twice = (Data((4,)), np.array([[1], [3], [1], [-1], [1]]), Data((5,)))
        found.append(Sample(f"{reduction}, repeated", ScatterND(reduction), twice, _scatter(reduction)))
        nothing = (Data((4,)), _index((0, 1), 1), Data((0,)))
        found.append(Sample(f"{reduction}, nothing", ScatterND(reduction), nothing, lambda x, i, u: x))
    for d in DTYPES:
        inputs = (Data((4,), d), np.array([2, 0]), Data((2,), d))
        found.append(Sample(str(d), ScatterElements(0), inputs, _scatter("none")))
        found.append(Sample(str(d), ScatterND(), (inputs[0], np.array([[2], [0]]), inputs[2]), _scatter("none")))
    outside = (Data((3,)), np.array([7, -9]), Data((2,)))
    found.append(Sample("outside is clamped", ScatterElements(0), outside, lambda x, i, u: np.array([u[1], x[1], u[0]])))
    return found


def _scatter(reduction: str) -> Any:
    """On a vector, one update after the other."""
    combine = {"none": lambda a, b: b, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]

    def expected(x: Array, indices: Array, updates: Array) -> Array:
        y = x.copy()
        for at, update in zip(indices.reshape(-1), updates, strict=True):
            y[at] = combine(y[at], update)
        return y

    return expected


def _first(x: Array, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """By Python's stable sort of exact numbers, NaN beyond infinity."""

    def order(row: Array) -> list[int]:
        keys = [(element != element, 0 if element != element else element) for element in row.tolist()]
        return sorted(range(len(keys)), key=keys.__getitem__) if not largest else _backwards(keys)

    rows = np.moveaxis(x, axis, -1)
    places = np.array([order(row)[:k] for row in rows.reshape(-1, x.shape[axis])], np.int64).reshape(*rows.shape[:-1], k)
    places = np.moveaxis(places, -1, axis)
    return np.take_along_axis(x, places, axis), places


def _backwards(keys: list[Any]) -> list[int]:
    return sorted(range(len(keys) - 1, -1, -1), key=keys.__getitem__)[::-1]


def _sort(label: str, op: TopK, x: Data | Array, symbolic: tuple[str, ...] = ()) -> Sample:
    return Sample(f"{label}, largest {op.largest}", op, (x,), lambda x: _first(x, op.k, op.axis, op.largest), symbolic)


def _sorts() -> list[Sample]:
    found = []
    special = np.array([[1, NAN, -INF, INF, 1, -NAN], [NAN, 0, NAN, -0.0, 2, 0]], np.float32)
    ties = np.array([3, 1, 3, 2, 1, 3], np.int64)
    for largest in (True, False):
        for axis, k in ((0, 2), (1, 3), (2, 1), (2, 7)):
            oracle = by_ort("TopK", axis=axis, largest=int(largest), extra=(np.array([k]),), outputs=2)
            found.append(Sample(f"{k} of axis {axis}, largest {largest}", TopK(k, axis, largest), (Data((3, 5, 7)),), oracle))
        oracle = by_onnx("TopK", axis=0, largest=int(largest), extra=(np.array([5]),), outputs=2)
        found.append(Sample(f"ties, largest {largest}", TopK(5, 0, largest), (ties,), oracle, ("N",)))
        found += [
            *(_sort(f"special, {k}", TopK(k, 1, largest), special, ("N,6",)) for k in (1, 3, 6)),
            *(_sort(f"{k} of many", TopK(k, 1, largest), Data((3, 700), f32, -2e3, 2e3)) for k in (2, 40, 350, 700)),
            *(_sort(f"{k} of many, equals", TopK(k, 1, largest), Data((2, 500), i32, -9, 9)) for k in (30, 500)),
            _sort("one element", TopK(1, 0, largest), Data((1,)), ("N",)),
        ]
        found += [_sort(str(d), TopK(5, 0, largest), Data((9,), d, -9, 9)) for d in (i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64)]
    return [*found, Sample("k 0", TopK(0, 0), (Data((3,)),), lambda x: (x[:0], np.zeros(0, np.int64)))]


SAMPLES = [*_gathers(), *_gather_elements(), *_gather_nd(), *_one_hots(), *_trilus(), *_scatters(), *_sorts()]
