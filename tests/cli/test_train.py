"""graphc train: fine-tuning through the command line, names kept, resuming, and what is refused in one message before any work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import graphc
from cli.tools import call, call_json, refused
from graphc.train.checkpoint import Snapshot
from graphc.train.trainer import Trainer

needs_checkpoints = pytest.mark.skipif(find_spec("safetensors") is None, reason="checkpoints need safetensors: pip install 'graphc[train]'")

CLASSES = ("left", "right", "top")
EXAMPLES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 32x32 with a bright side: three classes."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(EXAMPLES):
            pixels = rng.integers(0, 90, (32, 32), np.uint8)
            part = {"left": np.s_[:, :16], "right": np.s_[:, 16:], "top": np.s_[:16]}[name]
            pixels[part] += 160
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def normed(tmp_path: Path) -> Path:
    """Conv, BatchNormalization, Relu, Dropout, GlobalAveragePool, Flatten, Gemm: a batch of one, colour pictures of 8x8."""
    rng = np.random.default_rng(1)
    weights = {
        "conv.w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bn.scale": np.ones(4, np.float32), "bn.bias": np.zeros(4, np.float32),
        "bn.mean": np.zeros(4, np.float32), "bn.var": np.ones(4, np.float32), "fc.w": rng.standard_normal((5, 4)).astype(np.float32),
        "fc.b": np.zeros(5, np.float32),
    }  # fmt: skip
    chain = [
        ("Conv", "x conv.w", {}), ("BatchNormalization", "{} bn.scale bn.bias bn.mean bn.var", {}), ("Relu", "{}", {}),
        ("Dropout", "{}", {}), ("GlobalAveragePool", "{}", {}), ("Flatten", "{}", {}), ("Gemm", "{} fc.w fc.b", {"transB": 1}),
    ]  # fmt: skip
    nodes, last = [], "x"
    for kind, inputs, attributes in chain:
        name = kind.lower()
        nodes.append(helper.make_node(kind, inputs.format(last).split(), [f"{name}.out"], name, **attributes))
        last = f"{name}.out"
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 3, 8, 8]), (last, [1, 5]))]
    graph = helper.make_graph(nodes, "normed", infos[:1], infos[1:], [numpy_helper.from_array(a, name) for name, a in weights.items()])
    path = tmp_path / "normed.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def parts(path: Path) -> tuple[set[str], dict[str, np.ndarray], onnx.ModelProto]:
    """Node names, float initialisers, the model."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {n.name for n in model.graph.node}, {name: array for name, array in arrays.items() if array.dtype == np.float32}, model


def predictions(path: Path, x: np.ndarray) -> np.ndarray:
    """By onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def test_new_head_alone(lenet: Path, folder: Path, tmp_path: Path) -> None:
    """Only the head changes; every name stays; onnxruntime and `graphc run` say the same."""
    tuned = tmp_path / "tuned.onnx"
    options = ["--validation", "0.25", "--freeze-backbone", "--epochs", "6", "--lr", "0.02", "--seed", "3"]
    report = call_json("train", lenet, "--data", folder, *options, "-o", tuned)
    assert report["new_head"].startswith("new head for 3 classes: output.weight, output.bias")
    assert report["trained"] == 84 * 3 + 3
    assert report["final"]["loss"] < report["before"]["loss"]
    assert report["final"]["accuracy"] >= 0.8
    (names, before, _), (new_names, after, model) = parts(lenet), parts(tuned)
    assert names <= new_names
    assert before.keys() == after.keys()
    assert {name for name in before if before[name].shape != after[name].shape} == {"output.weight", "output.bias"}
    assert all(np.array_equal(before[name], after[name]) for name in before if not name.startswith("output."))
    assert [i.name for i in model.graph.input] + [o.name for o in model.graph.output] == ["image", "probabilities"]
    assert (tmp_path / "tuned.labels.txt").read_text().split() == list(CLASSES)
    found = call_json("run", tuned, *sorted((folder / "top").glob("*.png")))
    shown = json.dumps(found)
    assert shown.count('"label": "top"') >= EXAMPLES - 2


@needs_checkpoints
def test_deep_tuning_of_batch_normalisation(normed: Path, folder: Path, tmp_path: Path) -> None:
    """All layers move, running statistics too; the file has the form of inference, the batch that came in, and trainer's predictions."""
    tuned, out = tmp_path / "tuned.onnx", tmp_path / "out.npz"
    options: list[Any] = ["--epochs", "3", "--batch", "8", "--lr", "0.01", "--optimizer", "sgd", "--momentum", "0.9"]
    options += ["--mean", "0.5", "--std", "0.25", "--checkpoint-dir", tmp_path / "c"]
    report = call_json("train", normed, "--data", folder, *options, "-o", tuned)
    assert report["opened"] == 1
    (names, before, _), (new_names, after, model) = parts(normed), parts(tuned)
    assert names <= new_names
    assert before.keys() == after.keys()
    assert not [name for name in before if np.array_equal(before[name], after[name]) and name != "conv.w"]
    (norm,) = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert not [a for a in norm.attribute if a.name == "training_mode" and a.i]
    assert len(norm.output) == 1
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    state = Snapshot.load(tmp_path / "c" / "last.safetensors").arrays
    assert all(np.array_equal(after[name], state[name]) for name in after)
    picture = folder / "top" / "0.png"
    call("run", tuned, picture, "--output", out)
    pixels = Image.open(picture).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
    x = ((np.asarray(pixels, np.float32) / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None]
    with np.load(out) as arrays:
        np.testing.assert_allclose(predictions(tuned, x), arrays["gemm.out"], atol=1e-5)


def test_written_model_predicts_as_the_trainer(normed: Path, tmp_path: Path) -> None:
    trainer = graphc.Trainer(graphc.replace_head(normed, 3), progress=False, threads=1)
    x, y = np.random.default_rng(0).random((1, 3, 8, 8), np.float32), np.array([2])
    trainer.fit((x, y), 2)
    for number, source in enumerate((trainer, trainer.step, trainer.graph())):
        path = tmp_path / f"{number}.onnx"
        graphc.save_onnx(source, path)
        np.testing.assert_allclose(predictions(path, x), trainer.predict(x), atol=1e-5)


@pytest.mark.parametrize("resize", ["8x8", "12x10", "9"])
def test_a_resize_is_kept_in_the_file(normed: Path, tmp_path: Path, resize: str) -> None:
    """Wide pictures: what `graphc run` feeds to the written model is what the training saw."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "wide" / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (20, 40, 3), np.uint8)).save(tmp_path / "wide" / name / "0.png")
    tuned, first, second = tmp_path / "tuned.onnx", tmp_path / "1.npz", tmp_path / "2.npz"
    call("train", normed, "--data", tmp_path / "wide", "--resize", resize, "--epochs", "1", "-o", tuned)
    call("run", tuned, tmp_path / "wide" / "a" / "0.png", "--output", first)
    call("run", tuned, tmp_path / "wide" / "a" / "0.png", "--resize", resize, "--output", second)
    with np.load(first) as one, np.load(second) as other:
        np.testing.assert_array_equal(one["gemm.out"], other["gemm.out"])


@needs_checkpoints
def test_resume_continues_bit_for_bit(lenet: Path, folder: Path, tmp_path: Path) -> None:
    options = ["--data", folder, "--augment", "shift:2,flip", "--schedule", "plateau:0", "--validation", "0.25", "--batch", "8"]
    whole, pieces = tmp_path / "whole.onnx", tmp_path / "pieces.onnx"
    call("train", lenet, *options, "--epochs", "3", "-o", whole)
    kept = ["--checkpoint-dir", tmp_path / "runs"]
    call("train", lenet, *options, *kept, "--epochs", "2", "-o", pieces)
    again = ("train", lenet, *options, *kept, "--epochs", "3", "-o", pieces)
    assert "there is a checkpoint already" in refused(*again)
    last = tmp_path / "runs" / "last.safetensors"
    last.rename(tmp_path / "last")
    assert "best.safetensors" in refused(*again), "the best model of another run would be taken for one of this run"
    (tmp_path / "last").rename(last)
    files = ["--history", tmp_path / "history.csv", "-o", pieces]
    report = call_json("train", lenet, *options, *kept, "--epochs", "3", "--resume", *files)
    assert [row["epoch"] for row in report["history"]] == [1, 2, 3]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4
    first, second = parts(whole)[1], parts(pieces)[1]
    assert all(np.array_equal(first[name], second[name]) for name in first)


@needs_checkpoints
def test_resumed_behind_the_last_step(lenet: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the validation of the last epoch: what is left to do when it is resumed has no steps."""
    options = ["--data", folder, "--validation", "0.25", "--epochs", "1", "--checkpoint-dir", tmp_path / "c", "-o", tmp_path / "y.onnx"]
    validate = Trainer._evaluate

    def interrupt(trainer: Trainer, batches: Any) -> dict[str, float]:
        if trainer.steps:
            raise KeyboardInterrupt
        return validate(trainer, batches)

    monkeypatch.setattr(Trainer, "_evaluate", interrupt)
    assert "interrupted in epoch 1 after 1 batches" in call("train", lenet, *options, code=1).output
    monkeypatch.undo()
    report = call_json("train", lenet, *options, "--resume")
    assert (len(report["history"]), report["steps"], report["speed"]) == (1, 1, None)
    assert (tmp_path / "y.onnx").exists()


@needs_checkpoints
def test_best_epoch_is_written(lenet: Path, folder: Path, tmp_path: Path) -> None:
    """A rate that ruins the model from epoch to epoch: the file holds what best.safetensors holds."""
    options = ["--data", folder, "--validation", "0.25", "--epochs", "4", "--optimizer", "sgd", "--lr", "3"]
    options += ["--checkpoint-dir", tmp_path / "c"]
    report = call_json("train", lenet, *options, "--best", "-o", tmp_path / "y.onnx")
    losses = [row["val_loss"] for row in report["history"]]
    assert report["best"] == 1 + losses.index(min(losses))
    assert report["final"]["loss"] == min(losses)
    state = Snapshot.load(tmp_path / "c" / "best.safetensors").arrays
    assert all(np.array_equal(array, state[name]) for name, array in parts(tmp_path / "y.onnx")[1].items())
    assert "--best needs" in refused("train", lenet, "--data", folder, "--best", "-o", tmp_path / "z.onnx")


@needs_checkpoints
def test_interrupt_keeps_a_checkpoint(lenet: Path, folder: Path, tmp_path: Path) -> None:
    options = ["--data", str(folder), "--epochs", "100000", "--batch", "4", "--checkpoint-dir", str(tmp_path / "runs"), "--threads", "1"]
    command = [sys.executable, "-m", "graphc", "train", str(lenet), *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert first.startswith("epoch 1/100000"), errors
    assert process.returncode == 1, errors
    assert "interrupted in epoch" in errors
    assert "--resume goes on from" in errors
    assert "Traceback" not in errors
    assert Snapshot.load(tmp_path / "runs" / "last.safetensors").meta["epoch"] >= 1


@pytest.mark.parametrize("kind", ["idx", "npz", "cifar10"])
def test_other_kinds_of_data(kind: str, root: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10
    if kind == "idx":
        for name, array in (("x", x), ("y", y)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / name).write_bytes(head + array.tobytes())
        data = f"idx:{tmp_path / 'x'},{tmp_path / 'y'}"
    elif kind == "npz":
        np.savez(tmp_path / "d.npz", x=(x[:, None] / 255).astype(np.float32), y=y)
        data = str(tmp_path / "d.npz")
    else:
        records = np.concatenate([y[:, None], rng.integers(0, 256, (20, 3072), np.uint8)], 1)
        for number in range(1, 6):
            (tmp_path / f"data_batch_{number}.bin").write_bytes(records.tobytes())
        data = f"cifar10:{tmp_path}"
    report = call_json("train", root / "examples" / "lenet5.py", "--data", data, "--epochs", "1", "-o", tmp_path / "y.onnx")
    assert report["new_head"] == ""
    assert report["steps"] == (4 if kind == "cifar10" else 1)
    assert np.isfinite(report["final"]["loss"])
    assert onnx.load(tmp_path / "y.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_refused_before_any_work(lenet: Path, folder: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "y.onnx")
    data = ("--data", folder)

    def said(*arguments: Any) -> str:
        text = refused("train", lenet, *arguments)
        assert not (tmp_path / "y.onnx").exists()
        return text

    (tmp_path / "one" / "only").mkdir(parents=True)
    Image.new("L", (32, 32)).save(tmp_path / "one" / "only" / "0.png")
    (tmp_path / "broken").mkdir()
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir()
        Image.new("L", (32, 32)).save(tmp_path / "broken" / name / "0.png")
    (tmp_path / "broken" / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    np.savez(tmp_path / "z.npz", a=np.zeros(3))
    assert "cannot be read: No such file" in said("--data", tmp_path / "nowhere", *out)
    assert "holds no folders" in said("--data", folder / "top", *out)
    assert "one class only, 'only'" in said("--data", tmp_path / "one", *out)
    assert "1.png" in said("--data", tmp_path / "broken", *out)
    assert "holds a" in said("--data", tmp_path / "z.npz", *out)
    assert "idx:IMAGES,LABELS" in said("--data", "idx:one", *out)
    assert "is a file" in said("--data", lenet, *out)
    assert "nothing would be kept" in said(*data)
    assert "No such file" in said(*data, "-o", tmp_path / "none" / "y.onnx")
    assert "must end in .onnx" in said(*data, "-o", tmp_path / "y.txt")
    assert "must end in .json or .csv" in said(*data, *out, "--history", tmp_path / "h.txt")
    assert "adam has no momentum" in said(*data, *out, "--momentum", "0.9")
    assert "unknown loss 'hinge'" in said(*data, *out, "--loss", "hinge")
    assert "class numbers" in said(*data, *out, "--loss", "mse")
    assert "--schedule linear" in said(*data, *out, "--schedule", "linear")
    assert "has 20 steps" in said(*data, *out, "--schedule", "warmup:50+cosine")
    assert "--augment mirror" in said(*data, *out, "--augment", "mirror")
    assert "unknown metric 'speed'" in said(*data, *out, "--metrics", "speed")
    assert "--resume without" in said(*data, *out, "--resume")
    assert "--classes 2, the data has 3" in said(*data, *out, "--classes", "2")
    assert "between 0 and 1" in said(*data, *out, "--validation", "1.5")
    assert "no parameter matches" in said(*data, *out, "--freeze", "nothing*")
    assert "every parameter is frozen" in said(*data, *out, "--freeze", "*")
    assert "no value or node 'q'" in said(*data, *out, "--head-at", "q")
    assert "scaled by 0" in said(*data, *out, "--range", "1..1")
    assert "--std 0" in said(*data, *out, "--std", "0")
    (tmp_path / "other").mkdir()
    for name in ("left", "right"):
        (tmp_path / "other" / name).mkdir()
        Image.new("L", (32, 32)).save(tmp_path / "other" / name / "0.png")
    assert "it lacks top" in said(*data, *out, "--validation", tmp_path / "other")


def test_no_head_found(folder: Path, tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "c")]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", c, 8, 8]) for name, c in (("x", 3), ("y", 2))]
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight]), ir_version=8,
                                opset_imports=[helper.make_opsetid("", 17)]), path)  # fmt: skip
    assert "no classifier found" in refused("train", path, "--data", folder, "-o", tmp_path / "y.onnx")
    report = call_json("train", path, "--data", folder, "--head-at", "c", "--epochs", "1", "-o", tmp_path / "y.onnx")
    assert report["trained"] == 6 + 3 * 2 + 3


def test_help_names_an_example_that_works(root: Path, digits: Path, tmp_path: Path) -> None:
    """The first example of the help, with the ten pictures that the repository carries."""
    text = call("train", "--help").output
    assert "graphc train examples/digits/lenet5.onnx --data digits --freeze-backbone -o tuned.onnx" in text
    for name in "012":
        (tmp_path / "digits" / name).mkdir(parents=True)
        (tmp_path / "digits" / name / "0.png").write_bytes((digits / f"{name}.png").read_bytes())
    output = call("train", digits / "lenet5.onnx", "--data", tmp_path / "digits", "--freeze-backbone", "-o", tmp_path / "tuned.onnx").output
    assert "epoch 10/10" in output
    assert "on training" in output
    assert "tuned.labels.txt" in output
