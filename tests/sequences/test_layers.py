"""Embedding, one-hot and masks: gradients against PyTorch, symbolic lengths, hostile numbers, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc

WORDS, WIDTH, N, T = 11, 6, 5, 7
LENGTHS = np.array([7, 0, 3, 1, 5])


@graphc.model
def embedded(word: graphc.i64["N", "T"], length: graphc.i64["N"]) -> Any:
    """The mean vector of the words that count."""
    x = graphc.embedding(word, WORDS, WIDTH, name="e")
    mask = graphc.sequence_mask(length, word.shape[1], graphc.f32).unsqueeze(-1)
    return (x * mask).sum(1) / graphc.maximum(mask.sum(1), 1.0)


def _words(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WORDS, (N, T))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_gradient_of_an_embedding_is_that_of_torch(threads: int) -> None:
    torch: Any = pytest.importorskip("torch")
    target = np.random.default_rng(1).standard_normal((N, WIDTH)).astype(np.float32)
    step = graphc.TrainStep(embedded, loss="mse", threads=threads)
    table = torch.tensor(step.parameters["e.weight"], requires_grad=True)
    mask = torch.arange(T)[None] < torch.tensor(LENGTHS)[:, None]
    mean = (torch.nn.functional.embedding(torch.tensor(_words()), table) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    loss = torch.nn.functional.mse_loss(mean, torch.tensor(target))
    loss.backward()
    found = step.gradients((_words(), LENGTHS), target)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-6)
    np.testing.assert_allclose(found["grads"]["e.weight"], table.grad.numpy(), rtol=1e-5, atol=1e-8)
    assert found["input_grads"] == {}


def test_gradient_of_one_hot_values() -> None:
    @graphc.model
    def picked(label: graphc.i64["N"]) -> Any:
        return graphc.one_hot(label, 4) @ graphc.parameter("w", (4, 3), "normal")

    labels, target = np.array([3, 0, 3, -1, 9]), np.zeros((5, 3), np.float32)
    step = graphc.TrainStep(picked, loss="mse", threads=1)
    w = step.parameters["w"]
    hot = np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], np.float32)  # -1 is the last, 9 is nothing
    found = step.gradients(labels, target)
    np.testing.assert_allclose(found["grads"]["w"], hot.T @ (hot @ w) * (2 / 15), rtol=1e-5, atol=1e-8)


def test_a_mask_of_symbolic_length_is_compiled_and_exported(tmp_path: Path) -> None:
    exe = graphc.compile(embedded, threads=1)
    graphc.save_onnx(embedded, tmp_path / "embedded.onnx")
    again = graphc.compile(tmp_path / "embedded.onnx", threads=1)
    table = embedded.parameters()["e.weight"]
    for steps in (T, 3):
        words = _words(steps)[:, :steps]
        counted = np.arange(steps) < LENGTHS[:, None]
        expected = (table[words] * counted[..., None]).sum(1) / np.maximum(counted.sum(1), 1)[:, None]
        for found in (exe(words, LENGTHS), again(words, LENGTHS)):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(tmp_path / "embedded.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"word": words, "length": LENGTHS})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lengths_beyond_the_ends_and_of_other_shapes() -> None:
    @graphc.model
    def mask(length: graphc.i32[2, 3]) -> Any:
        return graphc.sequence_mask(length, 4), graphc.sequence_mask(length, 4, graphc.i8), graphc.sequence_mask(length, 0)

    lengths = np.array([[-1, 0, 1], [4, 5, 2**31 - 1]], np.int32)
    truth, ones, none = graphc.compile(mask, threads=1)(lengths)
    np.testing.assert_array_equal(truth, np.arange(4) < lengths[..., None].astype(np.int64))
    np.testing.assert_array_equal(ones, truth.astype(np.int8))
    assert none.shape == (2, 3, 0)


@pytest.mark.parametrize("given", ["float lengths", "negative steps"])
def test_refusals(given: str) -> None:
    @graphc.model
    def wrong(length: graphc.f32["N"]) -> Any:
        return graphc.sequence_mask(length if given == "float lengths" else length.cast(graphc.i64), 3 if given == "float lengths" else -1)

    with pytest.raises(graphc.GraphcError, match=r"lengths are f32\[N\]" if given == "float lengths" else "steps is -1"):
        wrong.graph()
