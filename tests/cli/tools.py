"""Calling the command line in this process, and small ONNX models that show what it feeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from graphc.cli.app import cli


def call(*arguments: object, code: int = 0) -> Result:
    """Run `graphc ARGUMENTS`; the exit code must be `code`, and nothing but an exit may have been raised."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def call_json(*arguments: object, code: int = 0) -> Any:
    """What `graphc ARGUMENTS --json` prints: strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(call(*arguments, "--json", code=code).stdout, parse_constant=refuse)


def refused(*arguments: object) -> str:
    """The message of a command that must end with exit code 2 and one line `error: ...`."""
    output = call(*arguments, code=2).output
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    return lines[0]


def identity(path: Path, shape: Sequence[int | str], elem_type: int = TensorProto.FLOAT, metadata: dict[str, str] | None = None) -> Path:
    """A model that returns its input `x` as `y`."""
    return save(path, [helper.make_node("Identity", ["x"], ["y"], "same")], {"x": (elem_type, shape)}, {"y": (elem_type, shape)}, metadata)


def save(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any],
    metadata: dict[str, str] | None = None, weights: dict[str, np.ndarray] | None = None,
) -> Path:  # fmt: skip
    """Write a model; inputs and outputs: name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info(name, *entry) for name, entry in inputs.items()],
        [helper.make_tensor_value_info(name, *entry) for name, entry in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def fed(model: Path, *arguments: object) -> np.ndarray:
    """What an identity model was fed by `graphc run MODEL ARGUMENTS`."""
    out = model.with_suffix(".out.npz")
    call("run", model, *arguments, "--output", out)
    with np.load(out) as archive:
        return np.asarray(archive["y"])
