"""@graphc.model: signatures, options, outputs, loading, composition, calling, scripts, and the public names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc
import graphc_dsl
from graphc_reference import ReferenceExecutable


@graphc.model
def tiny(image: graphc.f32["N", 1, 4, 4], mask: graphc.bool_[4], *, hidden: int = 3):
    """A model of two inputs."""
    x = graphc.batch_norm(graphc.where(mask, image, 0.0), name="norm")
    x = graphc.linear(x.flatten(), hidden, activation="tanh", name="hidden")
    return graphc.linear(x, 2, name="logits")


def test_signature() -> None:
    assert {name: str(type) for name, type in tiny.inputs.items()} == {"image": "f32[N,1,4,4]", "mask": "bool[4]"}
    assert tiny.options == {"hidden": 3}
    assert (tiny.name, tiny.__doc__) == ("tiny", "A model of two inputs.")
    assert repr(tiny) == "<graphc.model tiny(image: f32[N,1,4,4], mask: bool[4], hidden=3)>"
    assert graphc.model(name="other")(tiny.function).graph().name == "other"


def test_bad_signatures() -> None:
    with pytest.raises(graphc.ModelError, match=rf"^{__file__}:\d+: argument 'x' .* neither a tensor type nor a default. Try: annotate"):

        @graphc.model
        def unknown(x):
            return x

    with pytest.raises(graphc.ModelError, match="has no input"):
        graphc.model(lambda: 3)
    with pytest.raises(graphc.ModelError, match="the annotations of 'wrong' do not evaluate: name 'nothing' is not defined"):

        @graphc.model
        def wrong(x: nothing):
            return x


def test_annotations_see_the_enclosing_function() -> None:
    size = 5

    @graphc.model
    def local(x: graphc.f32["N", size]):
        return x + 1

    @graphc.model(name="named")
    def other(x: graphc.f32[size, "N // 2"]):
        return x + 1

    assert str(local.inputs["x"]) == "f32[N,5]"
    assert str(local.configure().graph().outputs[0].type) == "f32[N,5]"
    assert (other.name, str(other.inputs["x"])) == ("named", "f32[5,((N)//(2))]")


def test_options() -> None:
    wide = tiny.configure(hidden=7, name="wide")
    assert (wide.name, wide.options, tiny.options) == ("wide", {"hidden": 7}, {"hidden": 3})
    assert wide.graph().parameters["hidden.weight"].type.shape == (7, 16)
    with pytest.raises(graphc.InputError, match=r"model 'tiny' has no option 'hiden'. Try: 'hidden'"):
        tiny.configure(hiden=7)


def test_calling_on_arrays_compiles_and_runs() -> None:
    image = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4)
    mask = np.array([True, False, True, True])
    p = tiny.parameters()
    x = np.where(mask, image, 0).reshape(2, 16) / np.sqrt(1 + 1e-5)
    expected = np.tanh(x @ p["hidden.weight"].T + p["hidden.bias"]) @ p["logits.weight"].T + p["logits.bias"]
    np.testing.assert_allclose(tiny(image, mask=mask), expected, rtol=1e-4, atol=1e-5)
    named = graphc.compile(tiny, threads=1).run({"image": image, "mask": mask})
    np.testing.assert_array_equal(named["logits"], tiny(image, mask))
    with pytest.raises(graphc.InputError, match="input 'mask'"):
        tiny(image)


def test_seeds() -> None:
    one, two, none = tiny.graph(seed=1), tiny.graph(seed=2), tiny.graph(seed=None)
    weight = [graph.parameters["hidden.weight"].data for graph in (one, two, none)]
    assert not np.array_equal(weight[0], weight[1])
    assert np.array_equal(weight[0], tiny.graph(seed=1).parameters["hidden.weight"].data)
    assert not weight[2].any()
    assert weight[2].strides == (0, 0)


def test_load() -> None:
    model = tiny.configure()
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(array.shape, dtype=np.float32) ** 2 for name, array in model.parameters().items()}
    image, mask = rng.standard_normal((1, 1, 4, 4), dtype=np.float32), np.ones(4, bool)
    before = model(image, mask)
    assert model.load(arrays) is model
    assert all(np.array_equal(model.parameters()[name], array) for name, array in arrays.items())
    found = model(image, mask)
    assert not np.allclose(found, before)
    np.testing.assert_allclose(found, ReferenceExecutable(model.graph())(image, mask), rtol=1e-4)
    changed = model.graph(parameters={"logits.bias": np.float32([5, 6])}).parameters
    assert changed["logits.bias"].data.tolist() == [5, 6]
    assert np.array_equal(changed["logits.weight"].data, arrays["logits.weight"])
    assert not np.array_equal(tiny.parameters()["logits.bias"], arrays["logits.bias"])


def test_load_refuses_what_does_not_fit() -> None:
    model, arrays = tiny.configure(), tiny.parameters()
    with pytest.raises(graphc.InputError, match=r"no parameter 'logit.bias' .1 unknown in all.. Try: 'logits.bias'"):
        model.load({**arrays, "logit.bias": arrays["logits.bias"]})
    with pytest.raises(graphc.InputError, match=r"no array for parameter 'logits.bias' .1 missing in all."):
        model.load({name: array for name, array in arrays.items() if name != "logits.bias"})
    with pytest.raises(graphc.ShapeError, match=r"linear 'logits' at .*: parameter 'logits.bias' is f32\[2\], .* is float32\[3\]"):
        model.load({"logits.bias": np.zeros(3, np.float32)}, partial=True)
    with pytest.raises(graphc.ShapeError, match=r"is float64\[2\]"):
        model.load({"logits.bias": np.zeros(2)}, partial=True)
    assert model.load({"logits.bias": np.float32([1, 2])}, partial=True).parameters()["logits.bias"].tolist() == [1, 2]


def test_outputs() -> None:
    def names(build) -> list[str]:
        def function(x: graphc.f32["N", 3]):
            return build(x)

        return graphc.model(function).graph().output_names

    assert names(lambda x: graphc.relu(x, name="r")) == ["r"]
    assert names(lambda x: (x, graphc.relu(x), x)) == ["x", "relu1", "x.2"]
    assert names(lambda x: {"a": x, "b": x * 2}) == ["a", "b"]


def test_a_model_is_a_part_of_another() -> None:
    @graphc.model
    def cell(x: graphc.f32["N", 3], *, out: int = 3):
        return graphc.linear(x, out, name="fc")

    loaded = cell.configure(name="loaded").load({"fc.weight": np.eye(3, dtype=np.float32), "fc.bias": np.float32([1, 2, 3])})

    @graphc.model
    def chain(x: graphc.f32["N", 3]):
        return cell(loaded(cell(x), name="fixed"), out=4)

    graph = chain.graph()
    assert [node.name for node in graph if node.op.name == "matmul"] == ["cell1.fc.matmul", "fixed.fc.matmul", "cell2.fc.matmul"]
    assert graph.parameters["fixed.fc.bias"].data.tolist() == [1, 2, 3]
    assert graph.parameters["cell2.fc.weight"].type.shape == (4, 3)

    def wrong(x: graphc.f32["N", 5]):
        return cell(x)

    with pytest.raises(graphc.ShapeError, match=r"model 'cell', input 'x' takes f32\[N,3\], got f32\[N,5\]"):
        graphc.model(wrong).graph()


def test_summary() -> None:
    summary = tiny.summary()
    assert (summary.parameters, summary.statistics) == (2 + 16 * 3 + 3 + 3 * 2 + 2, 2)
    assert summary.flops >= 2 * (16 * 3 + 3 * 2)
    assert [line.strip() for line in str(summary).splitlines()][:4] == [
        "tiny", "input      image: f32[N,1,4,4]", "input      mask: bool[4]", "output     logits: f32[N,2]",
    ]  # fmt: skip


def test_demo_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert graphc.demo(tiny)["logits"].shape == (1, 2)
    printed = capsys.readouterr().out
    assert "parameters 61 and 2 batch statistics" in printed
    assert "[1, 2], mean" in printed


def test_public_names(root: Path) -> None:
    """What graphc_dsl exports is what the package graphc offers, lazily."""
    assert set(graphc_dsl.__all__) == set(graphc._DSL)
    assert all(getattr(graphc, name) is getattr(graphc_dsl, name) for name in graphc_dsl.__all__)
    undocumented = [name for name in graphc_dsl.__all__ if not getattr(graphc_dsl, name).__doc__]
    assert undocumented == []
    code = "import graphc, sys; sys.exit(any(m.split('.')[0] in ('graphc_dsl', 'llvmlite', 'numpy') for m in sys.modules))"
    path = os.pathsep.join(str(root / folder) for folder in (".", "frontends", "backends"))
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False).returncode == 0


SCRIPT = """
import graphc
import helper

@graphc.model
def net(x: graphc.f32["N", helper.SIZE]):
    return graphc.linear(x, 2, activation=helper.NAME)

graph = net.graph()
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_scripts(tmp_path: Path, future: str) -> None:
    (tmp_path / "helper.py").write_text("SIZE, NAME = 3, 'relu'")
    file = tmp_path / "net.py"
    file.write_text(future + SCRIPT)
    loaded = graphc.load_script(file, "net")
    assert [str(type) for type in loaded.inputs.values()] == ["f32[N,3]"]
    assert loaded.graph().nodes[0].source.file == str(file)
    assert isinstance(graphc.load_script(file, "graph"), graphc.Graph)
    assert str(tmp_path) not in sys.path
    sys.modules.pop("helper")
    with pytest.raises(graphc.ModelError, match=r"defines 2 models. Try: net.py:graph, net.py:net"):
        graphc.load_script(file)
    with pytest.raises(graphc.ModelError, match=r"defines no model 'nett'. Try: 'net'"):
        graphc.load_script(str(file), "nett")
    sys.modules.pop("helper", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "bad.py:2: the script fails with ZeroDivisionError: division by zero. Try: python"),
        ("def f(:\n", "bad.py:1: the script fails with SyntaxError"),
        ("import graphc\nraise SystemExit(3)\n", "bad.py:2: the script fails with SystemExit: 3"),
        ("x = 1\n", "defines no model. Try: a function with @graphc.model"),
        ("import graphc\ngraphc.relu(3)\n", "bad.py:2: there is no model under construction"),
    ],
)
def test_bad_scripts(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(graphc.ModelError) as caught:
        graphc.load_script(tmp_path / "bad.py")
    assert message in str(caught.value)


def test_missing_script(tmp_path: Path) -> None:
    with pytest.raises(graphc.ModelError, match="there is no file"):
        graphc.load_script(tmp_path / "none.py")
