"""What training switches on: batch statistics and their running averages, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from autodiff.differences import run
from graphc.autodiff.training import training_form
from graphc.ir.builder import Builder
from graphc.ir.verify import verify
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import const
from graphc.ops.norm import BatchNorm
from graphc.ops.random import RandomBits, philox
from graphc.train.step import TrainStep
from graphc.types.dtype import f64, u32

torch: Any = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(word: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """The vectors that the authors publish with Random123 (philox4x32, 10 rounds)."""
    a, b, c, d, e, f = (const(w, u32) for w in word)
    assert tuple(int(evaluate(w, {})) for w in philox((a, b, c, d), (e, f))) == expected


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_running_statistics_move_as_in_torch(momentum: float) -> None:
    builder = Builder()
    x = builder.input("x", f64, (4, 3, 2, 2))
    vectors = [builder.parameter(name, np.full(3, number)) for name, number in (("w", 1.5), ("b", 0.5), ("mean", 0.0), ("var", 1.0))]
    graph = builder.finish(y=builder.add(BatchNorm(1e-5, momentum), x, *vectors))
    form = training_form(graph)
    verify(graph)
    assert {value.name for value in form.parameters} == {"w", "b"}
    assert {state.name for state in graph.updates} == {"mean", "var", "train.step"}
    graph.set_outputs({"y": graph.outputs[0], **{state.name: value for state, value in graph.updates.items()}})
    layer: Any = torch.nn.BatchNorm2d(3, momentum=1 - momentum).double()
    torch.nn.init.constant_(layer.weight, 1.5)
    torch.nn.init.constant_(layer.bias, 0.5)
    batch = np.random.default_rng(0).standard_normal((4, 3, 2, 2)) * 3 + 1
    found = run(graph, {"x": batch})
    np.testing.assert_allclose(found["y"], layer(torch.from_numpy(batch)).detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["mean"], layer.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(found["var"], layer.running_var.numpy(), rtol=1e-12)
    assert found["train.step"] == 1


@graphc.model
def dropping(x: graphc.f32["N", 400]) -> Any:
    return graphc.dropout(graphc.dropout(x, 0.25), 0.5)


def _masks(seed: int, threads: int = 1, steps: int = 1) -> list[Any]:
    step = TrainStep(dropping, loss="mse", seed=seed, threads=threads)
    x = np.ones((6, 400), np.float32)
    return [step(x, np.zeros_like(x))["outputs"] for _ in range(steps)]


def test_dropout_depends_on_seed_step_and_position_only() -> None:
    first, second = _masks(1, steps=2)
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75) * 2}
    assert abs((first != 0).mean() - 0.375) < 0.03
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, _masks(2)[0])
    for threads in (2, 3):
        again = _masks(1, threads, 2)
        np.testing.assert_array_equal(again[0], first)
        np.testing.assert_array_equal(again[1], second)
    bits = RandomBits((6, 400), 0).evaluate(np.array(1, np.uint64), np.array(0, np.uint64))[0]
    dropped = bits < 2**30
    assert not first[dropped].any(), "the first layer drops what the bits say"


def test_the_gradient_passes_through_the_same_mask() -> None:
    x = np.random.default_rng(0).standard_normal((6, 400)).astype(np.float32)
    step = TrainStep(dropping, loss="mse", seed=1, threads=2)
    grad = step.gradients(x, np.zeros_like(x))["input_grads"]["x"]
    mask = _masks(1)[0]
    np.testing.assert_allclose(grad, 2 * x * mask * mask / x.size, rtol=1e-5)


def test_inference_drops_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32)
    np.testing.assert_array_equal(graphc.compile(dropping, threads=1)(x), x)
    np.testing.assert_array_equal(graphc.compile(TrainStep(dropping, loss="mse").graph(), threads=1)(x), x)
