"""Programs kept between starts: the same results, ledger and plan; found again only where nothing that matters has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphc
from graphc.errors import ModelError, UnsupportedError
from graphc.executable import Executable
from graphc_cpu import cache, host, program_cache

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(host.host_target().name == "neon", reason="code is linked ahead for x86-64 alone")
COMPILED: list[Any] = []


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own for each test; COMPILED gets an entry for each program that is compiled."""
    from graphc_cpu.backend import CpuBackend

    original = CpuBackend.compile

    def spy(self: CpuBackend, *args: Any) -> Any:
        COMPILED.append(args)
        return original(self, *args)

    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(CpuBackend, "compile", spy)
    COMPILED.clear()


def model(batch: int | str = 2, scale: float = 1.0, external: str = "") -> onnx.ModelProto:
    """conv, Relu, a reshape that shares memory, dropout that vanishes, a matrix product."""
    rng = np.random.default_rng(0)
    weights = {"w": scale * rng.standard_normal((8, 3, 3, 3)), "m": rng.standard_normal((8 * 36, 5))}
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([0, 8 * 36], np.int64), "shape"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Dropout", ["r"], ["d"], "drop"), helper.make_node("Reshape", ["d", "shape"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "dense"),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])]
    graph = helper.make_graph(nodes, "kept", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path: Path, **options: Any) -> Path:
    onnx.save(model(**options), path)
    return path


def image(batch: int = 2) -> np.ndarray[Any, Any]:
    return np.random.default_rng(batch).standard_normal((batch, 3, 8, 8)).astype(np.float32)


def result(executable: Executable, batch: int = 2) -> np.ndarray[Any, Any]:
    return executable.run({"x": image(batch)})["y"]


def compile_counted(path: Path, compiled: int, **options: Any) -> Executable:
    """Compile, and check how many programs had to be made."""
    before = len(COMPILED)
    executable: Executable = graphc.compile(path, threads=1, **options)
    assert len(COMPILED) - before == compiled
    return executable


def test_second_start_is_the_same_program(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx")
    first, second = compile_counted(path, 1), compile_counted(path, 0)
    x = image()
    np.testing.assert_array_equal(first(x), second(x))
    np.testing.assert_array_equal(first.run({"x": x})["y"], second.run({"x": x})["y"])
    assert first.ledger == second.ledger
    assert {entry.node for entry in second.ledger} == {"conv", "relu", "drop", "flat", "dense"}
    assert str(first.plan) == str(second.plan)
    assert first.memory == second.memory
    assert (first.inputs, first.outputs, repr(first)) == (second.inputs, second.outputs, repr(second))
    labels = [[(time.label, time.family, time.flops, time.origins) for time in exe.profile(x, runs=1)] for exe in (first, second)]
    assert labels[0] == labels[1]


def test_rarely_asked_for_is_made_again_or_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx")
    first, second = compile_counted(path, 1), compile_counted(path, 0)
    assert [node.name for node in second.compiled().graph] == [node.name for node in first.compiled().graph]
    assert len(first.plan.specs) == len(first.plan.kernels)
    with pytest.raises(UnsupportedError, match="cache"):
        second.plan.specs


def test_other_models_and_options_are_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.onnx")
    y = result(compile_counted(path, 1))
    saved(path, scale=2.0)
    assert np.abs(result(compile_counted(path, 1)) - y).max() > 0.1
    saved(path)
    np.testing.assert_array_equal(result(compile_counted(path, 0)), y)
    compile_counted(path, 1, accuracy="exact")
    compile_counted(path, 1, target="sse2")
    compile_counted(path, 0, target="sse2")
    monkeypatch.setenv("GRAPHC_SAMPLE_KNOB", "1")
    compile_counted(path, 1)
    monkeypatch.delenv("GRAPHC_SAMPLE_KNOB")
    monkeypatch.setattr(program_cache, "stamp", lambda: "another version")
    compile_counted(path, 1)


def test_sizes_of_symbolic_dims_are_programs_of_their_own(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", batch="N")
    first = compile_counted(path, 0)
    expected = {n: first(image(n)) for n in (1, 3)}
    assert len(COMPILED) == 2
    second = compile_counted(path, 0)
    assert str(second.inputs["x"]) == str(first.inputs["x"]) == "f32[N,3,8,8]"
    for n, y in expected.items():
        np.testing.assert_array_equal(second(image(n)), y)
    assert len(COMPILED) == 2
    second(image(4))
    assert len(COMPILED) == 3
    compile_counted(path, 1, dims={"N": 3})
    compile_counted(path, 0, dims={"N": 3})


def test_a_file_that_changed_since_is_not_mixed_with_the_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", batch="N")
    compile_counted(path, 0)(image(1))
    kept = compile_counted(path, 0)
    saved(path, batch="N", scale=3.0)
    kept(image(1))
    with pytest.raises(ModelError, match="changed"):
        kept(image(2))


def test_external_data_belongs_to_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(model(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    y = result(compile_counted(path, 1))
    np.testing.assert_array_equal(result(compile_counted(path, 0)), y)
    data = np.fromfile(tmp_path / "m.data", np.float32)
    data[: 8 * 27] *= 2  # the convolution's weights
    data.tofile(tmp_path / "m.data")
    assert np.abs(result(compile_counted(path, 1)) - y).max() > 0.1
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match="missing"):
        graphc.compile(path, threads=1)


@pytest.mark.parametrize("kind", ["program", "weights"])
@pytest.mark.parametrize("damage", ["remove", "cut", "flip", "empty"])
def test_damaged_files_are_made_again(tmp_path: Path, kind: str, damage: str) -> None:
    path = saved(tmp_path / "m.onnx")
    y = result(compile_counted(path, 1))
    store = cache.default()
    assert store is not None
    found = [entry.path for entry in store.entries() if entry.kind == kind]
    assert found
    for file in found:
        data = file.read_bytes()
        middle = len(data) // 2 if kind == "program" else 20  # the header
        flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes({"cut": data[: len(data) // 2], "flip": flipped, "empty": b""}[damage])
    np.testing.assert_array_equal(result(compile_counted(path, 1)), y)
    np.testing.assert_array_equal(result(compile_counted(path, 0)), y)


def test_plausible_but_wrong_contents_count_as_absent(tmp_path: Path) -> None:
    """With a right checksum: numbers that point outside the plan."""
    path = saved(tmp_path / "m.onnx")
    y = result(compile_counted(path, 1))
    store = cache.default()
    assert store is not None
    for entry in store.entries():
        payload = store.program(entry.key) if entry.kind == "program" else None
        if payload is None or b'"steps"' not in payload:
            continue
        end = 8 + int.from_bytes(payload[:8], "little")
        data = json.loads(payload[8:end])
        data["plan"]["steps"][0][1][0] = [0, 0, 1 << 40]
        text = json.dumps(data).encode()
        assert store.put_program(entry.key, len(text).to_bytes(8, "little") + text + payload[end:])
    np.testing.assert_array_equal(result(compile_counted(path, 1)), y)


def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    path = saved(tmp_path / "m.onnx")
    for _ in range(2):
        result(compile_counted(path, 1))
    assert not (tmp_path / "cache").exists()


PROCESS = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
import graphc
exe = graphc.compile({model!r}, threads=2)
x = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
print(exe(x).tobytes().hex(), *(name for name in ("onnx", "llvmlite", "graphc.passes") if name in sys.modules))
"""


def test_processes_at_once_and_what_a_warm_one_imports(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx")
    script = PROCESS.format(paths=[str(ROOT), str(ROOT / "frontends"), str(ROOT / "backends")], model=str(path))
    command = [sys.executable, "-W", "error", "-c", script]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in together]
    assert [error for _, error in results] == [""] * 3
    warm = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert len(warm) == 1, "a warm start loads neither onnx nor LLVM nor the passes"
    assert {out.split()[0] for out, _ in results} == set(warm)
