"""The other commands: they answer, their JSON parses, and what they say is true."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cli.tools import call, call_json, identity, refused, save
from graphc.cli.app import COMMANDS
from graphc.passes.pipeline import ALL


@pytest.fixture
def unsupported(tmp_path: Path) -> Path:
    kind = (TensorProto.FLOAT, (2, 2))
    return save(tmp_path / "det.onnx", [helper.make_node("NonMaxSuppression", ["x", "x"], ["y"], "odd")], {"x": kind}, {"y": kind})


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    text = call(name, "--help").output
    assert "Example" in text
    assert "graphc " + name in text


def _python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(root / folder) for folder in (".", "frontends", "backends"))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_help_starts_quickly_and_loads_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; from graphc.cli.app import cli\n"
        "try: cli(['--help'], prog_name='graphc')\n"
        "finally: assert not {'numpy', 'onnx', 'llvmlite', 'rich', 'PIL'} & sys.modules.keys()"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = _python(root, "-c", code)
        best = min(best, time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert "summary" in done.stdout
    assert best < 2  # 0.1 s on an idle machine


def test_module_and_exit_code(root: Path) -> None:
    done = _python(root, "-m", "graphc", "summary", "nowhere.onnx")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: nowhere.onnx: there is no such file.")


@pytest.mark.parametrize("command", ["run", "compile", "summary", "explain", "dump", "check", "verify", "bench", "profile"])
def test_missing_file(command: str, tmp_path: Path) -> None:
    assert "no such file" in refused(command, tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("command", ["run", "compile", "summary", "explain", "dump", "verify", "bench", "profile"])
def test_broken_file(command: str, tmp_path: Path, lenet: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(lenet.read_bytes()[:1000])
    assert "truncated" in refused(command, tmp_path / "cut.onnx")


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DEBUG", "1")
    from click.testing import CliRunner

    from graphc.cli.app import cli

    result = CliRunner().invoke(cli, ["summary", str(tmp_path / "nowhere.onnx")])
    assert result.exit_code == 2
    assert "Traceback" in result.output
    assert "error: " in result.output


def test_unknown_option_and_command() -> None:
    assert call("summary", "--what", code=2)
    assert call("fly", code=2)


def test_summary(lenet: Path) -> None:
    data = call_json("summary", lenet)
    weights = onnx.load(lenet).graph.initializer
    assert data["parameters"] == sum(int(np.prod(tensor.dims)) for tensor in weights)
    assert data["parameter_bytes"] == 4 * data["parameters"]
    convolutions = 2 * (28 * 28 * 6 * 25 + 100 * 16 * 150 + 120 * 400)
    assert convolutions < data["flops"] < 1.1 * (convolutions + 2 * (120 * 84 + 840))
    assert data["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 1, 32, 32]}]
    assert call_json("summary", lenet, "--dims", "N=4")["flops"] == 4 * data["flops"]
    text = call("summary", lenet).stdout
    assert "f32[N,6,28,28]" in text
    assert "61,706 parameters" in text


def test_compile_fills_the_cache(lenet: Path, tmp_path: Path) -> None:
    first = call_json("compile", lenet, "--dims", "N=5", "--target", "sse2")
    again = call_json("compile", lenet, "--dims", "N=5", "--target", "sse2", "-o", tmp_path / "plan.txt")
    assert first["kernels"] == again["kernels"] == again["kernels_cached"] > 5
    assert again["kernels_compiled"] == 0
    assert [entry["name"] for entry in again["passes"]] == [step.name for step in ALL]
    assert set(again["seconds"]) >= {"import", "passes", "plan", "codegen"}
    assert (tmp_path / "plan.txt").read_text().startswith("plan lenet5 for sse2")
    assert "memory" in call("compile", lenet, "--dims", "N=5").stdout


def test_compile_for_another_machine(lenet: Path) -> None:
    data = call_json("compile", lenet, "--target", "neon")
    if os.uname().machine == "x86_64":
        assert data["memory"] is None
    assert data["target"] == "neon"
    assert "one of host" in refused("compile", lenet, "--target", "z80")


def test_explain_names_every_node(lenet: Path) -> None:
    names = {node.name for node in onnx.load(lenet).graph.node}
    data = call_json("explain", lenet)
    assert {entry["node"] for entry in data["ledger"]} == names
    assert len(data["ledger"]) == len(names)
    text = call("explain", lenet).stdout
    assert all(name in text for name in names)


def test_dump_stages(lenet: Path) -> None:
    assert call("dump", lenet).stdout.startswith("graph lenet5")
    assert "f32[4,6,28,28]" in call("dump", lenet, "--dims", "N=4").stdout
    assert "kernel" in call("dump", lenet, "--after", "fuse-epilogue").stdout
    assert call("dump", lenet, "--stage", "plan").stdout.startswith("plan lenet5")
    assert "conv" in call("dump", lenet, "--stage", "kernel").stdout
    assert "define void @kernel1(" in call("dump", lenet, "--stage", "ir", "--kernel", "1").stdout
    assert "kernel1:" in call("dump", lenet, "--stage", "asm", "--kernel", "1").stdout


def test_dump_refuses(lenet: Path) -> None:
    assert "no pass is called 'nothing'" in refused("dump", lenet, "--after", "nothing")
    assert "no kernel 99" in refused("dump", lenet, "--stage", "asm", "--kernel", "99")
    assert "--kernel" in refused("dump", lenet, "--kernel", "0")
    assert "--after" in refused("dump", lenet, "--after", "canonicalize", "--stage", "ir")


def test_check(lenet: Path, unsupported: Path, tmp_path: Path) -> None:
    good = call_json("check", lenet)
    assert good["ok"]
    assert good["symbolic_dims"] == ["N"]
    assert good["ops"]["conv"] == 3
    bad = call_json("check", unsupported, code=1)
    assert not bad["ok"]
    assert bad["problems"][0]["kind"] == "UnsupportedError"
    assert "NonMaxSuppression" in bad["problems"][0]["reason"]
    assert "NonMaxSuppression" in call("check", unsupported, code=1).stdout
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x01garbage")
    assert call_json("check", tmp_path / "broken.onnx", code=1)["problems"][0]["kind"] == "ModelError"


def test_verify(lenet: Path, tmp_path: Path) -> None:
    data = call_json("verify", lenet, "--dims", "N=2")
    assert data["ok"]
    assert {entry["against"] for entry in data["comparisons"]} == {"reference", "onnxruntime"}
    assert all(0 < entry["max_abs"] <= entry["limit"] for entry in data["comparisons"])
    np.save(tmp_path / "x.npy", np.ones((3, 1, 32, 32), np.float32))
    assert call_json("verify", lenet, tmp_path / "x.npy", "--against", "reference")["comparisons"][0]["elements"] == 30
    assert "ok" in call("verify", lenet, "--against", "onnxruntime").stdout


def test_verify_fails_where_the_tolerance_is_exceeded(lenet: Path) -> None:
    data = call_json("verify", lenet, "--factor", "0", "--against", "reference", code=1)
    assert not data["ok"]
    assert "FAILED" in call("verify", lenet, "--factor", "0", "--against", "reference", code=1).stdout


def test_verify_refuses(lenet: Path, tmp_path: Path, digits: Path) -> None:
    assert call("verify", lenet, "--against", "oracle", code=2).output.count("is not a list of") == 1
    assert "graphc run" in refused("verify", lenet, digits / "1.png")
    (tmp_path / "net.py").write_text("")
    assert "no ONNX file" in refused("verify", tmp_path / "net.py", "--against", "onnxruntime")


def test_verify_integers(tmp_path: Path) -> None:
    model = identity(tmp_path / "m.onnx", (5,), TensorProto.INT32)
    data = call_json("verify", model)
    assert [entry["limit"] for entry in data["comparisons"]] == [0, 0]
    assert data["ok"]


def test_profile(lenet: Path) -> None:
    data = call_json("profile", lenet, "--runs", "2")
    assert {"c1", "softmax"} <= {step["label"] for step in data["steps"]}
    assert all(step["seconds"] > 0 for step in data["steps"])
    assert "total" in call("profile", lenet, "--runs", "1", "--sort", "time").stdout


def test_ops() -> None:
    rows = {row["operator"]: row for row in call_json("ops")}
    assert rows["Conv"]["native"] == "conv"
    assert rows["Conv"]["opsets"] == "1-"
    assert rows["NonMaxSuppression"]["import"] == "no"
    assert len(rows) > 190
    missing = {row["operator"] for row in call_json("ops", "--missing")}
    assert missing == {name for name, row in rows.items() if row["native"] == "no"}
    own = {row["op"]: row for row in call_json("ops", "--own")}
    assert own["shape"]["gradient"] not in ("yes", "")
    assert own["softmax"]["native"] == "normalise"
    lines = call("ops", "--markdown").stdout.splitlines()
    assert len(lines) == len(rows) + 2
    assert "supported" in call("ops").stdout
    assert "Det" in call("ops", "--missing").stdout
    assert "sigmoid" in call("ops", "--own").stdout


def test_passes() -> None:
    assert [row["name"] for row in call_json("passes")] == [step.name for step in ALL]
    assert all(step.name in call("passes").stdout for step in ALL)


def test_knobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_MB", "123")
    rows = {row["name"]: row for row in call_json("knobs")}
    assert rows["GRAPHC_CACHE_MB"]["value"] == 123
    assert rows["GRAPHC_CACHE_MB"]["set"]
    assert {"GRAPHC_VERIFY", "GRAPHC_COMPILE_THREADS", "GRAPHC_MAX_BYTES", "GRAPHC_DEBUG"} <= rows.keys()
    assert all(row["doc"] for row in rows.values())
    assert "123*" in call("knobs").stdout
    monkeypatch.setenv("GRAPHC_CACHE_MB", "many")
    assert "GRAPHC_CACHE_MB='many'" in refused("knobs")


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    model = identity(tmp_path / "m.onnx", (5,))
    call("compile", model)
    folder = Path(call("cache", "path").stdout.strip())
    assert folder.parent == tmp_path / "cache"
    entries = call_json("cache", "list")
    assert {Path(entry["path"]).parent for entry in entries} == {folder}
    sizes = call_json("cache", "size")
    assert sizes["object"]["files"] + sizes["weights"]["files"] == len(entries) > 0
    assert "object" in call("cache", "size").stdout
    assert entries[0]["key"][:16] in call("cache", "list").stdout
    assert call_json("cache", "clear")["removed"] == len(entries)
    assert call_json("cache", "list") == []
    assert "removed 0 files" in call("cache", "clear").stdout
    monkeypatch.setenv("GRAPHC_CACHE", "0")
    assert "switched off" in refused("cache", "size")
