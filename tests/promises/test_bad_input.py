"""Whatever is passed to the public functions, a GraphcError comes out that says what was wrong; nothing is left on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import AttributeValueError, BackendError, GraphcError, InputError, ModelError, ResourceError, ShapeError, UnsupportedError
from graphc.ir.graph import Graph
from graphc_reference import ReferenceExecutable


@graphc.model
def pair(a: graphc.f32["N", 3], b: graphc.f32["N", "M"]):
    return graphc.concat([a, b * 2.0], axis=1)


A, B = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)


class Broken:
    def __array__(self, *args: object, **options: object) -> np.ndarray:
        raise ZeroDivisionError("broken")


EXECUTABLES: dict[str, Any] = {"cpu": graphc.compile(pair, threads=1), "reference": ReferenceExecutable(pair.graph())}


@pytest.mark.parametrize("name", EXECUTABLES)
@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        (lambda exe: exe(), InputError, "input 'a' .* is missing"),
        (lambda exe: exe(A), InputError, "input 'b' .* is missing"),
        (lambda exe: exe(A, B, A), InputError, "3 inputs given, the model takes 2"),
        (lambda exe: exe(A, B, a=A), InputError, "'a' is given twice"),
        (lambda exe: exe(A, B, c=A), InputError, "no input 'c'"),
        (lambda exe: exe.run({1: A}), InputError, "no input 1"),
        (lambda exe: exe.run(None), InputError, "a mapping, not a NoneType"),
        (lambda exe: exe.run([A, B]), InputError, "a mapping, not a list"),
        (lambda exe: exe([[1, 2], [3]], B), InputError, "'a' is no array"),
        (lambda exe: exe(Broken(), B), InputError, "'a' is no array: broken"),
        (lambda exe: exe(None, B), InputError, "'a' is None"),
        (lambda exe: exe("text", B), InputError, "dtype <U4"),
        (lambda exe: exe(A.astype(">f4"), B), InputError, "dtype >f4"),
        (lambda exe: exe(A.astype(np.float64), B), InputError, "dtype float64"),
        (lambda exe: exe(A[0], B), InputError, "shape"),
        (lambda exe: exe(A[:, :2], B), InputError, "axis 1 is 2, not 3"),
        (lambda exe: exe(A, B[:1]), InputError, "N=1 .* but N=2"),
    ],
)  # fmt: skip
def test_calls(name: str, call: Callable[[Any], object], error: type[GraphcError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        call(EXECUTABLES[name])


def test_what_is_allowed() -> None:
    """Any memory order, read-only arrays, views, empty batches; NaN and infinity are data."""
    wide = np.ones((4, 6), np.float32)
    a, b = np.broadcast_to(np.float32(3), (2, 3)), wide[::2, 1:5]
    for exe in EXECUTABLES.values():
        np.testing.assert_array_equal(exe(a, b), np.concatenate([a, 2 * b], axis=1))
        np.testing.assert_array_equal(exe(np.asfortranarray(A), B), np.concatenate([A, 2 * B], axis=1))
        assert exe(A[:0], B[:0]).shape == (0, 7)
        odd = np.array([[np.nan, np.inf, -np.inf, 1e38]] * 2, np.float32)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(exe(A, odd)[:, 3:], [[np.nan, np.inf, -np.inf, np.float32(1e38) * 2]] * 2)


def test_an_axis_may_be_an_expression() -> None:
    @graphc.model
    def twice(a: graphc.f32["N"], b: graphc.f32["2*N"]):
        return graphc.concat([a, b], axis=0)

    for exe in (graphc.compile(twice, threads=1), ReferenceExecutable(twice.graph())):
        assert exe(A[:, 0], B[0]).shape == (6,)
        with pytest.raises(InputError, match="axis 0 is 3, not 4"):
            exe(A[:, 0], A[0])

    @graphc.model
    def alone(b: graphc.f32["2*N"]):
        return b + 1.0

    with pytest.raises(ShapeError, match="no input gives"):
        graphc.compile(alone, threads=1)(B[0])
    assert graphc.compile(alone, threads=1, dims={"N": 2})(B[0]).shape == (4,)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        *(({"dims": {"N": size}}, InputError, "not a size") for size in (-1, 1.5, "8", None, True, 1 << 63)),
        ({"dims": {"Q": 1}}, InputError, "no symbolic dim 'Q'"),
        ({"dims": {3: 4}}, InputError, "no symbolic dim 3"),
        *(({"dims": dims}, InputError, "not a mapping") for dims in ([("N", 2)], "N", 5)),
        ({"dims": {"N": 1 << 50, "M": 1}}, ResourceError, "bytes"),
        *(({"threads": threads}, AttributeValueError, "threads=") for threads in (0, -1, True, 1.5, "2", 10**9)),
        *(({"target": target}, BackendError, "unknown target") for target in ("", "x", None, 5)),
        *(({"accuracy": accuracy}, AttributeValueError, "accuracy") for accuracy in ("", None, 5, [])),
        *(({"backend": backend}, BackendError, "back end") for backend in ("", "x", None, 5, [])),
    ],
)  # fmt: skip
def test_options(options: dict[str, Any], error: type[GraphcError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        graphc.compile(pair, **options)


@pytest.mark.parametrize("model", [None, 5, [], {}, object(), int, len, graphc, Graph])
def test_what_is_no_model(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="cannot compile a"):
        graphc.compile(model)
    with pytest.raises(UnsupportedError):
        graphc.save_onnx(model, tmp_path / "x.onnx")
    with pytest.raises((InputError, ModelError)):
        graphc.load_onnx(model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "/", "/nowhere/x.onnx", "a\0b", "/dev/null"])
def test_paths_that_hold_no_model(path: str) -> None:
    for load in (graphc.load_onnx, graphc.compile):
        with pytest.raises(ModelError, match=r"cannot be read|no such file|is empty"):
            load(path)


@pytest.mark.parametrize("external", [False, True])
def test_paths_that_cannot_be_written(external: bool, tmp_path: Path) -> None:
    from graphc_onnx import save

    (tmp_path / "taken").mkdir()
    before = {*tmp_path.rglob("*")}
    for path in (tmp_path, tmp_path / "taken", tmp_path / "nowhere" / "x.onnx", str(tmp_path / "a\0b")):
        with pytest.raises(ResourceError, match="cannot be written"):
            save(pair, path, external=external)
    for path in (None, 5):
        with pytest.raises(InputError, match="cannot write to"):
            save(pair, path, external=external)
    assert {*tmp_path.rglob("*")} == before


def test_profiles_and_sizes() -> None:
    exe = graphc.compile(pair, threads=1)
    for runs in (0, -1):
        with pytest.raises(AttributeValueError, match="runs"):
            exe.profile(A, B, runs=runs)
    with pytest.raises(InputError, match="3 inputs"):
        exe.profile(A, B, B)
    for sizes in ({"N": -1, "M": 1}, {"N": "2", "M": 1}, {"N": 1, "M": 1, "Q": 3}):
        with pytest.raises(InputError, match="dim"):
            exe.compiled(sizes)
    with pytest.raises(ShapeError, match="M, N is not known"):
        _ = exe.memory


@pytest.mark.parametrize("dim", [-1, 1.5, None, True, "N N", "", [], 1 << 64])
def test_types(dim: Any) -> None:
    with pytest.raises(ShapeError, match="not a dimension"):
        graphc.f32["N", dim]


def test_dims_decide_shapes_of_a_model_given_by_its_path(tmp_path: Path) -> None:
    """A resize by 1.5 of a symbolic size has no size of its own; with the size fixed it has."""
    from onnx import TensorProto, helper, numpy_helper, save

    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], "grow", mode="nearest")
    made = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["side length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(np.array([1.5], np.float32), "scales")],
    )  # fmt: skip
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ShapeError, match="fix it"):
        graphc.compile(tmp_path / "m.onnx")
    for name in ("side length", "side_length"):
        exe = graphc.compile(tmp_path / "m.onnx", dims={name: 4}, threads=1)
        assert exe(np.arange(4, dtype=np.float32)).shape == (6,)


def test_half_of_the_memory_is_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from graphc import limits

    assert limits.max_bytes() == limits.memory() // 2
    assert limits.memory() >= 1 << 28
    (tmp_path / "memory.max").write_text("max\n")
    assert limits.memory.__wrapped__(tmp_path) == limits._physical()
    (tmp_path / "memory.max").write_text("123456789\n")
    assert limits.memory.__wrapped__(tmp_path) == 123456789
    monkeypatch.setenv("GRAPHC_MAX_BYTES", "1000")

    @graphc.model
    def outer(a: graphc.f32["N", 1], b: graphc.f32[1, "N"]):
        return a * b

    assert graphc.compile(outer)(A[:, :1], A[:1, :2]).shape == (2, 2)
    with pytest.raises(ResourceError, match="GRAPHC_MAX_BYTES=1000"):
        graphc.compile(outer)(np.ones((20, 1), np.float32), np.ones((1, 20), np.float32))


def test_a_window_larger_than_what_it_slides_over() -> None:
    @graphc.model
    def normalised(x: graphc.f32["N", 3, 4]):
        return graphc.local_response_norm(x, (1 << 31) - 1, alpha=1e6)

    x = np.random.default_rng(0).standard_normal((2, 3, 4), np.float32)
    np.testing.assert_allclose(graphc.compile(normalised)(x), ReferenceExecutable(normalised.graph())(x), rtol=1e-6)


def test_work_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @graphc.model
    def padded(x: graphc.f32["N", 3, 4, 4]):
        return graphc.max_pool2d(x, ((1 << 50) + 1, 1), stride=1, padding=(1 << 49, 0))

    x = np.ones((1, 3, 4, 4), np.float32)
    with pytest.raises(ResourceError, match=r"max_pool .*operations, the limit is GRAPHC_MAX_FLOPS"):
        graphc.compile(padded)(x)
    monkeypatch.setenv("GRAPHC_MAX_FLOPS", "7")
    with pytest.raises(ResourceError, match="GRAPHC_MAX_FLOPS=7"):
        graphc.compile(pair)(A, B)


def test_sizes_that_become_negative() -> None:
    @graphc.model
    def pooled(x: graphc.f32[1, 1, "N"]):
        return graphc.avg_pool1d(x, 4, stride=1)

    exe = graphc.compile(pooled)
    assert exe(np.ones((1, 1, 5), np.float32)).shape == (1, 1, 2)
    with pytest.raises(ShapeError, match=r"f32\[1,1,-2\] where N=1: a negative size"):
        exe(np.ones((1, 1, 1), np.float32))

    @graphc.model
    def wide(x: graphc.f32[1]):
        return graphc.expand(x, (-5,))

    with pytest.raises(ShapeError):
        wide.graph()


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an allocation fails all the same."""

    def fail(*args: object, **options: object) -> object:
        raise MemoryError

    exe = graphc.compile(pair, threads=1)
    exe(A, B)
    program = exe.compiled({"N": 2, "M": 4}).program
    monkeypatch.setattr(type(program), "run", fail)
    with pytest.raises(ResourceError, match="not enough memory to run"):
        exe(A, B)
    monkeypatch.setattr("graphc.driver.lower", fail)
    with pytest.raises(ResourceError, match="not enough memory to compile"):
        exe(A[:1], B[:1])
    monkeypatch.setattr("graphc_onnx.importer.fold_known", fail)
    with pytest.raises(ResourceError, match="not enough memory to import"):
        graphc.load_onnx(Path(__file__).parents[2] / "examples" / "digits" / "lenet5.onnx")
