"""graphc bench: contestants take turns, results are validated, missing engines are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.tools import call, call_json, identity, refused
from graphc.cli import peers
from graphc.inspect.contest import Times, contest, latency, percentile

QUICK = ("--runs", "2", "--calls", "2", "--threads", "1")


def test_contest_rotates_and_makes_an_untimed_call_first() -> None:
    calls: list[str] = []
    times = contest({name: lambda name=name: calls.append(name) for name in "abc"}, range(3), 2, gap=0)
    assert "".join(calls) == "aaabbbccc" + "bbbcccaaa" + "cccaaabbb"
    assert all(len(found.rounds) == 3 and all(len(one) == 2 for one in found.rounds) for found in times.values())


def test_times() -> None:
    mine, theirs = Times(((1.0, 3.0), (2.0, 2.0))), Times(((2.0, 2.0), (5.0, 7.0)))
    assert mine.best == 1.0
    assert mine.median == 2.0
    assert mine.ratio(theirs) == 2.0  # the median of 1 and 3


def test_alone_is_validated_against_the_reference(lenet: Path) -> None:
    data = call_json("bench", lenet, *QUICK)
    assert data["ok"]
    assert 0 < data["reference_max_rel_difference"] < 1e-5
    (engine,) = data["engines"]
    assert 0 < engine["best_seconds"] <= engine["median_seconds"]
    assert engine["gflops"] == pytest.approx(data["flops"] / engine["best_seconds"] / 1e9)


def test_against_onnxruntime(lenet: Path) -> None:
    data = call_json("bench", lenet, "--vs", "onnxruntime", "--batch", "3", *QUICK)
    assert [engine["name"] for engine in data["engines"]] == ["graphc", "onnxruntime"]
    assert data["flops"] == 3 * call_json("summary", lenet)["flops"]
    assert data["engines"][1]["max_rel_difference"] < 1e-5
    text = call("bench", lenet, "--vs", "onnxruntime", "--profile", *QUICK).stdout
    assert "onnxruntime" in text
    assert "softmax" in text


def test_against_torch(lenet: Path) -> None:
    pytest.importorskip("torch")
    data = call_json("bench", lenet, "--vs", "torch", *QUICK)
    assert data["engines"][1]["max_rel_difference"] < 1e-5


def test_wrong_results_fail(lenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that gives the first answer again and again is caught: the outputs are compared on an input not seen before."""
    true = peers.Graphc.outputs
    monkeypatch.setattr(peers.Graphc, "outputs", lambda self, feeds: {k: v[:, ::-1] for k, v in true(self, feeds).items()})
    assert not call_json("bench", lenet, *QUICK, code=1)["ok"]
    assert "FAILED" in call("bench", lenet, *QUICK, code=1).stdout


def test_missing_engine_is_named(lenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    message = refused("bench", lenet, "--vs", "openvino")
    assert "openvino" in message
    assert "pip install openvino" in message
    assert call("bench", lenet, "--vs", "abacus", code=2)


def test_what_an_engine_cannot_do_is_said(lenet: Path) -> None:
    feeds: dict[str, Any] = {"image": np.zeros((1, 1, 5, 5), np.float32)}
    with pytest.raises(peers.BackendError, match="onnxruntime cannot run this model"):
        peers.OnnxRuntime(str(lenet), feeds, 1).outputs(feeds)


def test_refused(tmp_path: Path) -> None:
    assert "--batch" in refused("bench", identity(tmp_path / "m.onnx", (2, 2)), "--batch", "4")
    (tmp_path / "net.py").write_text("")
    assert "no ONNX file" in refused("bench", tmp_path / "net.py", "--vs", "onnxruntime")


def test_percentiles() -> None:
    values = [float(i) for i in range(1, 1001)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [500.0, 900.0, 990.0, 1000.0]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


def test_latency_counts_calls_and_sees_an_idle_process() -> None:
    calls: list[int] = []
    found = latency(lambda: calls.append(0), 50, gap=0, rest=0.05)
    assert len(calls) == 51
    assert found.median <= found.p90 <= found.p99 <= found.max
    assert found.idle < 0.9


def test_distribution(lenet: Path) -> None:
    data = call_json("bench", lenet, "--distribution", "20", *QUICK)
    (found,) = data["latencies"].values()
    assert found["runs"] == 20
    assert 0 < found["median"] <= found["p99"] <= found["max"]
    text = call("bench", lenet, "--distribution", "20", *QUICK).stdout
    assert "20 calls" in text
    assert "CPU at rest" in text
    assert call_json("bench", lenet, *QUICK)["latencies"] == {}
