"""Losses with their options: value and gradient against torch.nn, in float64; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, InputError, ShapeError
from graphc.train import losses
from graphc.train.step import TrainStep

torch: Any = pytest.importorskip("torch")
nn = torch.nn

WEIGHT = [0.5, 2.0, 0.0, 1.25]
RNG = np.random.default_rng(5)
LABELS = np.array([[0, 1, 2], [3, 3, -100], [1, 0, 3], [2, 2, -100], [1, 3, 0]])
FEW = np.where(LABELS < 0, 2, LABELS)
SHARES = RNG.dirichlet(np.ones(4), (5, 3)).transpose(0, 2, 1)
REAL = RNG.standard_normal((5, 4, 3))
UNIT = RNG.random((5, 4, 3))


@graphc.model
def scores(x: graphc.f64["N", 4, 3]) -> Any:
    return x * 1.5


@graphc.model
def chances(x: graphc.f64["N", 4, 3]) -> Any:
    return graphc.sigmoid(x * 1.5)


@graphc.model
def logs(x: graphc.f64["N", 4, 3]) -> Any:
    return graphc.log_softmax(x * 1.5, axis=1)


def _weight() -> Any:
    return torch.tensor(WEIGHT, dtype=torch.float64)


CASES: list[tuple[Any, losses.Loss, Any, Any]] = [
    (scores, losses.CrossEntropy(), LABELS, lambda: nn.CrossEntropyLoss()),
    (scores, losses.CrossEntropy(reduction="sum"), LABELS, lambda: nn.CrossEntropyLoss(reduction="sum")),
    (scores, losses.CrossEntropy(weight=WEIGHT), LABELS, lambda: nn.CrossEntropyLoss(_weight())),
    (scores, losses.CrossEntropy(label_smoothing=0.1), LABELS, lambda: nn.CrossEntropyLoss(label_smoothing=0.1)),
    (scores, losses.CrossEntropy(WEIGHT, 2, 0.3), FEW, lambda: nn.CrossEntropyLoss(_weight(), ignore_index=2, label_smoothing=0.3)),
    (scores, losses.CrossEntropy(WEIGHT, label_smoothing=1.0, reduction="sum"), LABELS,
     lambda: nn.CrossEntropyLoss(_weight(), label_smoothing=1.0, reduction="sum")),
    (scores, losses.CrossEntropy(probabilities=True), SHARES, lambda: nn.CrossEntropyLoss()),
    (scores, losses.CrossEntropy(WEIGHT, label_smoothing=0.2, probabilities=True), SHARES,
     lambda: nn.CrossEntropyLoss(_weight(), label_smoothing=0.2)),
    (logs, losses.NLL(WEIGHT), LABELS, lambda: nn.NLLLoss(_weight())),
    (logs, losses.NLL(ignore_index=1, reduction="sum"), FEW, lambda: nn.NLLLoss(ignore_index=1, reduction="sum")),
    (scores, losses.MSE(reduction="sum"), REAL, lambda: nn.MSELoss(reduction="sum")),
    (scores, losses.L1(), REAL, lambda: nn.L1Loss()),
    (scores, losses.Huber(0.4), REAL, lambda: nn.HuberLoss(delta=0.4)),
    (scores, losses.SmoothL1(0.3), REAL, lambda: nn.SmoothL1Loss(beta=0.3)),
    (scores, losses.SmoothL1(0.0), REAL, lambda: nn.SmoothL1Loss(beta=0.0)),
    (chances, losses.BCE(), UNIT, lambda: nn.BCELoss()),
    (scores, losses.BCEWithLogits(3.0), UNIT, lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))),
    (scores, losses.BCEWithLogits([1, 2, 3], reduction="sum"), UNIT,
     lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0]), reduction="sum")),
]  # fmt: skip
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "scores": lambda x: x * 1.5, "chances": lambda x: (x * 1.5).sigmoid(), "logs": lambda x: (x * 1.5).log_softmax(1),
}  # fmt: skip


@pytest.mark.parametrize(("model", "loss", "target", "make"), CASES, ids=[str(case[1]) for case in CASES])
def test_equal_to_torch(model: Any, loss: losses.Loss, target: Any, make: Any) -> None:
    x = RNG.standard_normal((5, 4, 3))
    leaf = torch.tensor(x, requires_grad=True)
    expected = make()(FUNCTIONS[model.name](leaf), torch.from_numpy(target))
    expected.backward()
    found = TrainStep(model, loss=loss, threads=1).gradients(x, target)
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(found["input_grads"]["x"], leaf.grad.numpy(), rtol=1e-10, atol=1e-13)


def test_names() -> None:
    for name in ("cross_entropy", "nll", "mse", "l1", "mae", "huber", "smooth_l1", "bce", "bce_with_logits"):
        assert losses.find_loss(name) == losses.LOSSES[name]
    assert losses.find_loss("mae") == losses.L1()


def test_labels_are_checked() -> None:
    step = TrainStep(scores, loss=losses.CrossEntropy(ignore_index=9), threads=1)
    assert np.isfinite(step.gradients(REAL, np.where(LABELS < 0, 9, LABELS))["loss"])
    with pytest.raises(InputError, match="labels from -100 to 3"):
        step.gradients(REAL, LABELS)
    with pytest.raises(InputError, match="labels from 0 to 9"):
        TrainStep(scores, loss=losses.CrossEntropy(ignore_index=None), threads=1).gradients(REAL, np.where(LABELS < 0, 9, LABELS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.CrossEntropy(label_smoothing=1.5), "label_smoothing"),
        (lambda: losses.CrossEntropy(weight=[1, -1]), "at least 0"),
        (lambda: losses.CrossEntropy(weight=[[1.0]]), "in one row"),
        (lambda: losses.MSE(reduction="none"), "reduction 'none'"),
        (lambda: losses.BCEWithLogits(float("nan")), "pos_weight"),
        (lambda: TrainStep(scores, loss=losses.Huber(0.0)).gradients(REAL, REAL), "delta"),
        (lambda: TrainStep(scores, loss=losses.SmoothL1(-1.0)).gradients(REAL, REAL), "beta"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(AttributeValueError, match=message):
        make()


def test_class_weights_must_fit() -> None:
    with pytest.raises(ShapeError, match="one weight per class"):
        TrainStep(scores, loss=losses.CrossEntropy(weight=[1.0, 2.0])).gradients(REAL, FEW)
