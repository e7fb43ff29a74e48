"""Losses over sequences of different lengths: values and gradients against PyTorch, accumulation, metrics, what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError, InputError, NumericalError, ShapeError
from graphc.train import losses, metrics
from graphc.train.batches import ArrayBatches

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

N, T, C = 5, 7, 4
WEIGHT = [0.5, 2.0, 1.0, 1.25]
LENGTHS = np.array([7, 0, 3, 1, 5])
MASK = np.arange(T) < LENGTHS[:, None]
RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, C, (N, T))
IGNORED = np.where(MASK, LABELS, -100)
REAL = RNG.standard_normal((N, T, C))


@graphc.model
def scores(x: graphc.f64["N", "T", C]) -> Any:
    return x * 1.5


@graphc.model
def shares(x: graphc.f64["N", "T", C]) -> Any:
    return graphc.softmax(x * 1.5)


@graphc.model
def logs(x: graphc.f64["N", "T", C]) -> Any:
    return graphc.log_softmax(x * 1.5)


def _torch(x: Any, **options: Any) -> tuple[float, Any]:
    leaf = torch.tensor(x, requires_grad=True)
    weight = torch.tensor(options.pop("weight"), dtype=torch.float64) if "weight" in options else None
    loss = F.cross_entropy((leaf * 1.5).transpose(1, 2), torch.tensor(IGNORED), weight, **options)
    loss.backward()
    return loss.item(), leaf.grad.numpy()


TARGETS = {"ignore_index": IGNORED, "lengths": (LABELS, LENGTHS), "mask": (LABELS.astype(np.uint8), MASK)}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {}, "sum": {"reduction": "sum"}, "weights, smoothing": {"weight": WEIGHT, "label_smoothing": 0.2}
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
@pytest.mark.parametrize("model", [scores, shares, logs], ids=lambda model: model.name)
def test_cross_entropy_is_that_of_torch(model: Any, target: Any, options: Any) -> None:
    x = RNG.standard_normal((N, T, C))
    step = graphc.TrainStep(model, losses.CrossEntropy(axis=-1, **options), threads=1)
    loss, gradient = _torch(x, **options)
    found = step.gradients(x, target)
    assert found["loss"] == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(found["input_grads"]["x"], gradient, rtol=1e-9, atol=1e-14)


def test_a_class_axis_in_the_middle_and_probabilities() -> None:
    @graphc.model
    def net(x: graphc.f64[2, 3, C, 5]) -> Any:
        return x * 1.0

    x = RNG.standard_normal((2, 3, C, 5))
    rows = RNG.dirichlet(np.ones(C), (2, 3, 5)).transpose(0, 1, 3, 2)
    labels = RNG.integers(0, C, (2, 3, 5))
    for target, loss in ((labels, losses.CrossEntropy(axis=2)), (rows, losses.CrossEntropy(axis=2, probabilities=True))):
        theirs = torch.tensor(target)
        wanted = F.cross_entropy(torch.tensor(x).transpose(1, 2), theirs if theirs.ndim == 3 else theirs.transpose(1, 2))
        assert graphc.TrainStep(net, loss, threads=1).gradients(x, target)["loss"] == pytest.approx(wanted.item(), rel=1e-12)
    nll = graphc.TrainStep(logs, losses.NLL(axis=2), threads=1).gradients(REAL, IGNORED)["loss"]
    assert nll == pytest.approx(_torch(REAL)[0], rel=1e-12)


NUMBERS: list[tuple[losses.Loss, Any]] = [
    (losses.MSE(masked=True), F.mse_loss), (losses.L1(masked=True, reduction="sum"), lambda p, t: F.l1_loss(p, t, reduction="sum")),
    (losses.Huber(0.4, masked=True), lambda p, t: F.huber_loss(p, t, delta=0.4)), (losses.SmoothL1(0.3, masked=True),
     lambda p, t: F.smooth_l1_loss(p, t, beta=0.3)), (losses.BCEWithLogits(3.0, masked=True),
     lambda p, t: F.binary_cross_entropy_with_logits(p, t, pos_weight=torch.tensor(3.0))),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "function"), NUMBERS, ids=[str(case[0].name) for case in NUMBERS])
@pytest.mark.parametrize("counted", ["lengths", "mask", "every element"])
def test_losses_of_numbers_with_a_mask(loss: losses.Loss, function: Any, counted: str) -> None:
    """Those of the positions that count alone, whatever the model says at the others."""
    mask = RNG.random((N, T, C)) < 0.5 if counted == "every element" else np.repeat(MASK[..., None], C, 2)
    x, y = RNG.standard_normal((N, T, C)), RNG.random((N, T, C))
    leaf = torch.tensor(x, requires_grad=True)
    wanted = function((leaf * 1.5)[torch.tensor(mask)], torch.tensor(y[mask]))
    wanted.backward()
    x[~mask], y[~mask] = np.inf, np.nan
    step = graphc.TrainStep(scores, loss, threads=1)
    targets = [y, (y, {"lengths": LENGTHS, "mask": MASK, "every element": mask}[counted])]
    for target in targets:
        found = step.gradients(x, target)
        assert found["loss"] == pytest.approx(wanted.item(), rel=1e-12)
        np.testing.assert_allclose(found["input_grads"]["x"], leaf.grad.numpy(), rtol=1e-9, atol=1e-14)


@graphc.model
def tagger(x: graphc.f64["N", "T", 3]) -> Any:
    return graphc.linear(x, C, name="out")


@pytest.mark.parametrize("loss", [losses.CrossEntropy(axis=-1), losses.MSE(masked=True)], ids=["cross_entropy", "mse"])
def test_batches_with_different_numbers_of_positions_accumulate_to_one(loss: losses.Loss) -> None:
    """Also with a batch of which nothing counts, where a non-finite loss is reported."""
    x = RNG.standard_normal((N, T, 3))
    y = LABELS if loss.labels else RNG.standard_normal((N, T, C))
    whole = graphc.TrainStep(tagger, loss, graphc.optim.SGD(lr=0.3), threads=1)
    parts = graphc.TrainStep(tagger, loss, graphc.optim.SGD(lr=0.3), threads=1, accumulate=3, nonfinite="report")
    whole(x, (y, LENGTHS))
    losses_of = [parts(x[rows], (y[rows], LENGTHS[rows]))["loss"] for rows in (slice(0, 1), slice(1, 2), slice(2, 5))]
    assert [math.isnan(value) for value in losses_of] == [False, True, False]
    for name, array in whole.parameters.items():
        np.testing.assert_allclose(parts.parameters[name], array, rtol=1e-10, err_msg=name)
    assert parts.state["train.weight"] == 0


def test_nothing_counts() -> None:
    """The mean is NaN as in PyTorch, the sum 0; a step refuses to move."""
    none = np.zeros(N, np.int64)
    assert math.isnan(F.cross_entropy(torch.zeros(2, C), torch.tensor([-100, -100])).item())
    for loss, y in ((losses.CrossEntropy(axis=-1), LABELS), (losses.MSE(masked=True), REAL)):
        step = graphc.TrainStep(scores, loss, threads=1)
        assert math.isnan(step.gradients(REAL, (y, none))["loss"])
        with pytest.raises(NumericalError, match="the loss is nan"):
            step(REAL, (y, none))
    assert graphc.TrainStep(scores, losses.CrossEntropy(axis=-1, reduction="sum")).gradients(REAL, (LABELS, none))["loss"] == 0


def test_a_trainer_learns_from_pairs() -> None:
    """Padding is noise; loss and metrics of the held-out data look at what counts."""
    rng = np.random.default_rng(0)
    count = 96
    labels, lengths = rng.integers(0, C, (count, T)), rng.integers(1, T + 1, count)
    x = np.zeros((count, T, 3))
    x[..., 0], x[..., 1], x[..., 2] = labels == 0, labels == 1, labels == 2
    noise = np.arange(T) >= lengths[:, None]
    x[noise], labels[noise] = rng.standard_normal((int(noise.sum()), 3)), 9  # 9 is no class: it must not be looked at
    trainer = graphc.Trainer(tagger, losses.CrossEntropy(axis=-1), graphc.optim.Adam(lr=0.1), metrics=["accuracy", "exact_match", "top2"],
                             threads=1, progress=False)  # fmt: skip
    history = trainer.fit((x, (labels, lengths)), 12, validation=(x, (labels, lengths)), batch_size=16)
    assert history["val_accuracy"][-1] == history["val_exact_match"][-1] == history["val_top2"][-1] == 1
    assert history["val_exact_match"][0] < history["val_accuracy"][0]
    assert trainer.steps == 12 * count // 16
    with pytest.raises(InputError, match="labels from 0 to 9"):
        trainer.evaluate((x, labels))
    assert graphc.Trainer(tagger, losses.CrossEntropy(axis=-1), progress=False).metrics[0].axis == -1  # the default metric


def test_batches_of_pairs_hold_every_example_once() -> None:
    x, y = np.arange(7), np.arange(14).reshape(7, 2)
    for counted in (np.arange(7), y > 3):
        batches = ArrayBatches(x, (y, counted), 3, seed=4)
        parts = list(batches)
        assert [len(part) for part, _ in parts] == [3, 3, 1]
        assert len(batches) == 3
        order = np.concatenate([part for part, _ in parts])
        assert sorted(order) == list(range(7))
        for place, whole in ((0, y), (1, counted)):
            np.testing.assert_array_equal(np.concatenate([pair[place] for _, pair in parts]), whole[order])
    with pytest.raises(InputError, match="different numbers of examples: 7, 7, 6"):
        ArrayBatches(x, (y, np.arange(6)))
    labels = ArrayBatches(np.arange(2), (3, 1), 2, shuffle=False)  # a tuple of numbers is a target, no pair
    np.testing.assert_array_equal(next(iter(labels))[1], [3, 1])


def test_metrics_look_at_what_counts() -> None:
    found = REAL.argmax(-1)
    right = (found == LABELS) & MASK
    expected = {
        "accuracy": right.sum() / MASK.sum(),
        "exact_match": sum(right[i].sum() == LENGTHS[i] for i in range(N) if LENGTHS[i]) / (LENGTHS > 0).sum(),
    }
    for name, value in expected.items():
        (metric,) = metrics.find_metrics(name, axis=-1)
        for target in TARGETS.values():
            metric.reset()
            metric.update(REAL, target)
            assert metric.result() == pytest.approx(value)
    exact = metrics.ExactMatch(axis=-1)
    exact.update(REAL, (found, LENGTHS))
    assert exact.result() == 1
    exact.update(REAL, np.full((N, T), -100))
    exact.update(REAL[:0], LABELS[:0])
    assert exact.total[1] == (LENGTHS > 0).sum()
    plain = metrics.ExactMatch()
    plain.update(REAL[:, 0], LABELS[:, 0])
    assert plain.result() == (found[:, 0] == LABELS[:, 0]).mean()
    other, y = RNG.standard_normal((N, T, C)), (REAL, MASK)
    for metric, number in ((metrics.MeanSquaredError(), lambda d: (d**2).mean()), (metrics.MeanAbsoluteError(), lambda d: abs(d).mean())):
        metric.update(other, y)
        assert metric.result() == pytest.approx(number(other[MASK] - REAL[MASK]))
    confusion = metrics.Confusion(C, axis=-1)
    confusion.update(REAL, (LABELS, LENGTHS))
    assert confusion.total.sum() == MASK.sum()
    assert confusion.total.diagonal().sum() == right.sum()
    hot = np.eye(C)[LABELS]
    probabilities = metrics.Accuracy(axis=-1)
    probabilities.update(REAL, hot)
    assert probabilities.result() == (found == LABELS).mean()


DSL: dict[str, tuple[Any, Any]] = {
    "cross_entropy": (lambda x, y, m: graphc.cross_entropy(x, graphc.constant(LABELS), axis=-1, mask=m),
                      lambda x, y, m: F.cross_entropy(x[m], torch.tensor(LABELS)[m])),
    "cross_entropy, sum, weight": (
        lambda x, y, m: graphc.cross_entropy(x, graphc.constant(LABELS), 1, "sum", axis=2, mask=m, weight=WEIGHT),
        lambda x, y, m: F.cross_entropy(x[m], torch.tensor(LABELS)[m], torch.tensor(WEIGHT).double(), ignore_index=1, reduction="sum")),
    "nll_loss": (lambda x, y, m: graphc.nll_loss(graphc.log_softmax(x), graphc.constant(LABELS), axis=-1, mask=m),
                 lambda x, y, m: F.cross_entropy(x[m], torch.tensor(LABELS)[m])),
    "mse_loss": (lambda x, y, m: graphc.mse_loss(x, y, mask=m), lambda x, y, m: F.mse_loss(x[m], y[m])),
    "l1_loss": (lambda x, y, m: graphc.l1_loss(x, y, "sum", mask=m), lambda x, y, m: F.l1_loss(x[m], y[m], reduction="sum")),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DSL))
def test_functions_of_the_dsl_take_a_mask(name: str) -> None:
    build, function = DSL[name]

    @graphc.model
    def net(x: graphc.f64[N, T, C], y: graphc.f64[N, T, C]) -> Any:
        return build(x * 1.5, y, graphc.sequence_mask(graphc.constant(LENGTHS), T))

    leaf, y = torch.tensor(REAL, requires_grad=True), RNG.standard_normal((N, T, C))
    wanted = function(leaf * 1.5, torch.tensor(y), torch.tensor(MASK))
    wanted.backward()
    x = REAL.copy()
    if name in ("mse_loss", "l1_loss"):
        x[~MASK] = np.nan
    found = graphc.compile(graphc.grad(net, wrt=["x"]), threads=1).run({"x": x, "y": y})
    assert next(iter(found.values())) == pytest.approx(wanted.item(), rel=1e-12)
    np.testing.assert_allclose(found["grad(x)"], leaf.grad.numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (losses.CrossEntropy(axis=-1), (LABELS, np.full(N, T + 1)), "lengths from 8 to 8, the target has 7 positions"),
        (losses.CrossEntropy(axis=-1), (LABELS, np.full(N, -1)), "lengths from -1 to -1"),
        (losses.CrossEntropy(axis=-1), (LABELS, LENGTHS[:2]), r"lengths \[2\] of a target"),
        (losses.CrossEntropy(axis=-1), (LABELS, MASK[:, :3]), r"bool\[5, 3\] does not say"),
        (losses.CrossEntropy(axis=-1), (LABELS, MASK.astype(float)), r"float64\[5, 7\] does not say"),
        (losses.CrossEntropy(axis=-1, ignore_index=None), (LABELS, LENGTHS), "no ignore_index"),
        (losses.CrossEntropy(axis=-1), (REAL[..., 0], LENGTHS), "labels of dtype float64"),
        (losses.CrossEntropy(axis=-1), (np.where(MASK, C, 0), LENGTHS), "labels from 4 to 4"),
        (losses.CrossEntropy(axis=-1, probabilities=True), (REAL, LENGTHS), "takes no pair"),
        (losses.MSE(), (REAL, LENGTHS), "masked=True"),
        (losses.MSE(masked=True), (np.where(MASK[..., None], np.nan, REAL), LENGTHS), "NaN at a position that counts"),
    ],
)  # fmt: skip
def test_refusals(loss: losses.Loss, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        graphc.TrainStep(scores, loss, threads=1).gradients(REAL, y)


def test_axes_that_are_not_there() -> None:
    for axis in (0, 3, -3):
        with pytest.raises(ShapeError, match="classes along axis"):
            graphc.TrainStep(scores, losses.CrossEntropy(axis=axis), threads=1).gradients(REAL, LABELS)
        with pytest.raises(InputError, match=f"along axis {axis}"):
            metrics.Accuracy(axis=axis).update(REAL, LABELS)

    @graphc.model
    def wrong(x: graphc.f64[N, T, C], mask: graphc.f64[N, T]) -> Any:
        return graphc.mse_loss(x, 0.0, mask=mask)

    with pytest.raises(GraphcError, match="does not fit losses"):
        wrong.graph()
