"""What is measured: a model file and its inputs, by name, for any batch size.

Names are those of `bench.models`, of `bench.more_models`, and of the pretrained models in the folder of real data that take one float
tensor ($GRAPHC_SHARED_DATA, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from bench import models, more_models

Array = NDArray[Any]
PRETRAINED = ("squeezenet1.1_fp32", "mnist-8", "cifar10_smallcnn", "super_resolution-10", "ultraface_rfb320", "yunet_n_320")
NAMES = (*models.NAMES, *more_models.NAMES, *PRETRAINED)


@dataclass(frozen=True)
class Subject:
    """A model file with fixed shapes, its input, and what makes the input from a seed."""

    name: str
    path: Path
    input: str
    feed: Callable[[int], Array]


def subject(name: str, batch: int, folder: Path) -> Subject:
    """The subject of that name; a file that must be made for the batch size goes into `folder`.

    Raises ValueError for an unknown name and FileNotFoundError where there is no real data.
    """
    path, sample = _source(name)
    model = onnx.load(path, load_external_data=False)
    weights = {t.name for t in model.graph.initializer}
    (given,) = (i for i in model.graph.input if i.name not in weights)
    first = given.type.tensor_type.shape.dim[0]
    if batch != 1 or first.dim_value != 1:
        path = folder / f"{name}-batch{batch}.onnx"
        onnx.save(batched(model, batch), path)
    return Subject(name, path, given.name, lambda seed: np.concatenate([sample(1000 * seed + i) for i in range(batch)]))


def _source(name: str) -> tuple[Path, Callable[[int], Array]]:
    if name in models.NAMES:
        return models.light_path(name), models.light_input
    if name in more_models.NAMES:
        side = more_models.MODELS[name][1]
        return more_models.model_path(name), lambda seed: more_models.image(seed, side)
    if name not in PRETRAINED:
        raise ValueError(f"unknown model {name!r}; one of {', '.join(NAMES)}")
    root = Path(os.environ.get("GRAPHC_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    path = root / "onnx-models" / f"{name}.onnx"
    (dims,) = (_dims(i) for i in onnx.load(path).graph.input[:1])
    return path, lambda seed: np.random.default_rng(seed).standard_normal((1, *dims[1:]), dtype=np.float32)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def batched(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model for another batch size: in its inputs, outputs, and the shapes given to Reshape (whose leading 1 is the batch).

    Holds for models whose every Reshape of an activation keeps the batch first, which is for the caller to check by running it.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {t.name: t for t in graph.initializer}
    weights = constants.keys()
    for value in (*graph.input, *graph.output):
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    for name in {node.input[1] for node in graph.node if node.op_type == "Reshape" and node.input[0] not in weights}:
        if name in constants:
            _set_leading(constants[name], batch)
    return made


def _set_leading(shape: onnx.TensorProto, batch: int) -> None:
    target = numpy_helper.to_array(shape).copy()
    if target.size and target[0] == 1:
        target[0] = batch
        shape.CopyFrom(numpy_helper.from_array(target, shape.name))
