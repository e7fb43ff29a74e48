"""graphc run: files to inputs, what is shown, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cli.tools import call, call_json, fed, identity, refused, save

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    """a (2,) + b (2,) -> sum; a -> same."""
    kind = (TensorProto.FLOAT, (2,))
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Identity", ["a"], ["same"])]
    return save(tmp_path / "two.onnx", nodes, {"a": kind, "b": kind}, {"sum": kind, "same": kind})


def _npy(path: Path, data: object, dtype: str = "float32") -> Path:
    np.save(path, np.asarray(data, dtype))
    return path


def test_the_readme_command_reads_all_ten_digits(lenet: Path, digits: Path) -> None:
    pictures = [digits / f"{digit}.png" for digit in range(10)]
    result = call("run", lenet, *pictures, "--labels", digits / "labels.txt")
    lines = [line.split() for line in result.stdout.splitlines()]
    found = {line[0]: (line[1], line[2]) for line in lines if line and line[0].endswith(".png")}
    assert found == {f"{digit}.png": (str(digit), WORDS[digit]) for digit in range(10)}
    assert "ran 10 samples in" in result.stdout
    data = call_json("run", lenet, *pictures)
    best = [entry["top"][0] for entry in data["runs"][0]["classes"]]
    assert [entry["label"] for entry in best] == WORDS  # from the model's metadata
    assert all(entry["probability"] > 0.9 for entry in best)


def test_top(lenet: Path, digits: Path) -> None:
    (run,) = call_json("run", lenet, digits / "3.png")["runs"]
    (sample,) = run["classes"]
    assert sample["top"][0]["label"] == "three"
    assert len(sample["top"]) == 5
    assert len(call_json("run", lenet, digits / "3.png", "--top", 2)["runs"][0]["classes"][0]["top"]) == 2
    assert len(call_json("run", lenet, digits / "3.png", "--top", 99)["runs"][0]["classes"][0]["top"]) == 10


def test_output_equals_another_engine(tmp_path: Path, lenet: Path, digits: Path) -> None:
    x = np.random.default_rng(0).random((3, 1, 32, 32), np.float32)
    out = tmp_path / "out.npz"
    call("run", lenet, _npy(tmp_path / "x.npy", x), "--output", out)
    with np.load(out) as archive:
        got = archive["probabilities"]
    want = onnxruntime.InferenceSession(lenet, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_scores_are_shown_as_probabilities_with_a_note(tmp_path: Path) -> None:
    model = identity(tmp_path / "m.onnx", ("N", 3))
    scores = _npy(tmp_path / "s.npy", [[0.0, 5.0, -1.0], [2.0, 1.0, 0.0]])
    data = call_json("run", model, scores, "--top", 1)
    best = [entry["top"][0] for entry in data["runs"][0]["classes"]]
    assert [entry["index"] for entry in best] == [1, 0]
    assert best[1]["probability"] == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1) + 1))
    assert "softmax" in data["notes"][0]
    assert "classes" not in call_json("run", model, scores)["runs"][0]  # neither labels nor probabilities: no classifier
    (tmp_path / "labels.txt").write_text("n01440764 tench, Tinca tinca\nb\nc\n")
    assert "tench, Tinca tinca" in call("run", model, scores, "--labels", tmp_path / "labels.txt", "--top", 3).stdout


def test_labels_must_fit(tmp_path: Path, lenet: Path, digits: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    message = refused("run", lenet, digits / "1.png", "--labels", tmp_path / "labels.txt")
    assert "2 labels" in message
    assert "10 classes" in message
    assert "nowhere.txt" in refused("run", lenet, digits / "1.png", "--labels", tmp_path / "nowhere.txt")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused("run", lenet, digits / "1.png", "--labels", tmp_path / "labels.txt")


def test_inputs_in_order_by_name_and_from_an_archive(tmp_path: Path, two_inputs: Path) -> None:
    a, b = _npy(tmp_path / "a.npy", [1, 2]), _npy(tmp_path / "b.npy", [10, 20])
    np.savez(tmp_path / "ab.npz", a=np.float32([1, 2]), b=np.float32([10, 20]))
    np.savez(tmp_path / "b.npz", b=np.float32([10, 20]))
    out = tmp_path / "out.npz"
    for files in ((a, b), ("--input", f"b={b}", a), (tmp_path / "ab.npz",), (tmp_path / "b.npz", "--input", f"a={a}")):
        call("run", two_inputs, *files, "--output", out)
        with np.load(out) as archive:
            assert {name: archive[name].tolist() for name in archive.files} == {"sum": [11, 22], "same": [1, 2]}, files
        out.unlink()


def test_wrong_inputs_are_refused(tmp_path: Path, two_inputs: Path) -> None:
    a = _npy(tmp_path / "a.npy", [1, 2])
    assert "2 inputs" in refused("run", two_inputs)
    assert "3 files for 2 inputs" in refused("run", two_inputs, a, a, a)
    assert "no input 'c'" in refused("run", two_inputs, "--input", f"c={a}", a)
    assert "twice" in refused("run", two_inputs, "--input", f"a={a}", "--input", f"a={a}")
    assert "shape (3,)" in refused("run", two_inputs, a, _npy(tmp_path / "long.npy", [1, 2, 3]))
    assert "complex" in refused("run", two_inputs, a, _npy(tmp_path / "c.npy", [1j, 2], "complex64"))
    assert "nowhere.npy" in refused("run", two_inputs, a, tmp_path / "nowhere.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    assert "bad.npy" in refused("run", two_inputs, a, tmp_path / "bad.npy")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    assert "bad.npz" in refused("run", two_inputs, tmp_path / "bad.npz")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "objects.npy" in refused("run", two_inputs, a, tmp_path / "objects.npy")


def test_wider_arrays_and_a_missing_batch_axis_fit(tmp_path: Path) -> None:
    model = identity(tmp_path / "m.onnx", ("N", 2))
    np.testing.assert_array_equal(fed(model, _npy(tmp_path / "x.npy", [[1, 2]], "float64")), [[1, 2]])
    np.testing.assert_array_equal(fed(model, _npy(tmp_path / "x.npy", [3, 4], "int64")), [[3, 4]])
    numbers = identity(tmp_path / "n.onnx", (2,), TensorProto.UINT8)
    assert "do not fit" in refused("run", numbers, _npy(tmp_path / "big.npy", [1, 256], "uint16"))
    assert "float64" in refused("run", numbers, _npy(tmp_path / "f.npy", [1, 2], "float64"))


def test_several_samples_of_one_input_are_several_runs(tmp_path: Path) -> None:
    model = identity(tmp_path / "m.onnx", (2,))
    files = [_npy(tmp_path / f"{i}.npy", [i, i + 1]) for i in range(3)]
    assert fed(model, *files).tolist() == [0, 1, 1, 2, 2, 3]
    assert len(call_json("run", model, *files)["runs"]) == 3


def test_other_outputs_are_described(tmp_path: Path, two_inputs: Path) -> None:
    a, b = _npy(tmp_path / "a.npy", [1, 2]), _npy(tmp_path / "b.npy", [10, np.nan])
    data = call_json("run", two_inputs, a, b)
    assert data["runs"][0]["outputs"]["same"] == {"type": "f32[2]", "min": 1.0, "mean": 1.5, "max": 2.0}
    assert data["runs"][0]["outputs"]["sum"]["max"] == "nan"
    assert "same = [1.0, 2.0]" in call("run", two_inputs, a, b).stdout


def test_dims_and_repeat(tmp_path: Path, lenet: Path) -> None:
    x = _npy(tmp_path / "x.npy", np.zeros((2, 1, 32, 32)))
    assert call_json("run", lenet, x, "--dims", "N=2", "--repeat", "3")["times"]["run_median_seconds"] > 0
    assert "holds shape" in refused("run", lenet, x, "--dims", "N=3")
    assert "'M'" in refused("run", lenet, x, "--dims", "M=3")
    assert "is not NAME=SIZE" in call("run", lenet, x, "--dims", "N", code=2).output


def test_a_single_output_may_be_npy(tmp_path: Path, lenet: Path, digits: Path, two_inputs: Path) -> None:
    call("run", lenet, digits / "7.png", "--output", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").argmax() == 7
    a = _npy(tmp_path / "a.npy", [1, 2])
    assert "2 outputs" in refused("run", two_inputs, a, a, "--output", tmp_path / "z.npy")
    assert not (tmp_path / "z.npy").exists()


def test_no_partial_file_is_left_when_something_fails(tmp_path: Path, lenet: Path, digits: Path) -> None:
    model = identity(tmp_path / "m.onnx", (1, 3, "H", "W"))
    before = set(tmp_path.iterdir())
    assert "cannot be joined" in refused("run", model, digits / "1.png", _photo(tmp_path, before), "--output", tmp_path / "out.npz")
    assert set(tmp_path.iterdir()) == before
    assert "no folder" in refused("run", lenet, digits / "1.png", "--output", tmp_path / "nowhere" / "out.npz")
    assert "ends in .npz" in refused("run", lenet, digits / "1.png", "--output", tmp_path / "out.txt")
    (tmp_path / "taken.npz").mkdir()
    assert "taken.npz" in call("run", lenet, digits / "1.png", "--output", tmp_path / "taken.npz", code=2).output
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


def _photo(folder: Path, before: set[Path]) -> Path:
    from PIL import Image

    Image.new("L", (5, 8)).save(folder / "small.png")
    before.add(folder / "small.png")
    return folder / "small.png"


def test_an_output_may_have_any_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["file"])]
    kind = (TensorProto.FLOAT, (2,))
    model = save(tmp_path / "m.onnx", nodes, {"x": kind}, {"file": kind})
    call("run", model, _npy(tmp_path / "x.npy", [1, 2]), "--output", tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as archive:
        assert archive["file"].tolist() == [1, 2]


def test_escape_sequences_of_a_model_do_not_reach_the_terminal(tmp_path: Path) -> None:
    kind = (TensorProto.FLOAT, (2,))
    model = save(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y\x1b[2J"])], {"x": kind}, {"y\x1b[2J": kind})
    output = call("run", model, _npy(tmp_path / "x.npy", [1, 2])).output
    assert "\x1b" not in output
    assert "y\\x1b[2J" in output


def test_a_shape_that_is_given_as_input(tmp_path: Path) -> None:
    """The importer needs the value of `shape`; --input gives it."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    inputs = {"x": (TensorProto.FLOAT, (4,)), "shape": (TensorProto.INT64, (2,))}
    model = save(tmp_path / "m.onnx", nodes, inputs, {"y": (TensorProto.FLOAT, None)})
    x, shape = _npy(tmp_path / "x.npy", [1, 2, 3, 4]), _npy(tmp_path / "shape.npy", [2, 2], "int64")
    call("run", model, "--input", f"x={x}", "--input", f"shape={shape}", "--output", tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as archive:
        assert archive["y"].tolist() == [[1, 2], [3, 4]]
    assert "shape" in refused("run", model, x, shape)


def test_script_models_run(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import graphc\n\n\n@graphc.model\ndef double(x: graphc.f32['N', 2]):\n    return x * 2.0\n", encoding="utf-8"
    )
    x = _npy(tmp_path / "x.npy", [[1, 2]])
    data = call_json("run", f"{tmp_path / 'net.py'}:double", x)
    assert [facts["max"] for facts in data["runs"][0]["outputs"].values()] == [4.0]
    assert "no model 'triple'" in refused("run", f"{tmp_path / 'net.py'}:triple", x)
    assert "nowhere.py" in refused("run", tmp_path / "nowhere.py", x)


def test_json_is_all_that_is_on_stdout(lenet: Path, digits: Path) -> None:
    json.loads(call("run", lenet, digits / "1.png", "--json").stdout)
