"""The training loop: it learns, follows PyTorch, and evaluates with the parameters of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.train.batches import ArrayBatches
from graphc.train.trainer import Trainer
from train import small
from train.small import line, points, quiet

Array = np.ndarray[Any, np.dtype[Any]]


class Record(graphc.callbacks.Callback):
    """Losses and rates of all steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        self.losses.append(logs["loss"])
        self.rates.append(logs["lr"])


@graphc.model
def perceptron(x: graphc.f32["N", 64]) -> Any:
    return graphc.linear(graphc.linear(x, 48, activation="relu", name="hidden"), 10, name="out")


def _digits() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    datasets: Any = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target
    order = np.random.default_rng(0).permutation(len(y))
    return (x[order[:1400]], y[order[:1400]]), (x[order[1400:]], y[order[1400:]])


# learning ---------------------------------------------------------------------------------------------------------------------


def test_digits_are_learnt() -> None:
    train, test = _digits()
    made = quiet(perceptron, optimizer=graphc.optim.Adam(lr=5e-3), schedule=graphc.schedules.Cosine(12), metrics=["accuracy", "top3"])
    history = made.fit(train, 12, validation=test, batch_size=50)
    assert history["val_accuracy"][-1] > 0.95
    assert history["val_top3"][-1] > history["val_accuracy"][-1]
    assert history["loss"][-1] < history["loss"][0] / 5
    assert history["lr"][0] == 5e-3
    assert history["lr"][-1] < 2e-4
    assert (made.predict(test[0], batch_size=100).argmax(1) == test[1]).mean() == pytest.approx(history["val_accuracy"][-1])


def test_the_loss_curve_is_that_of_torch() -> None:
    """LeNet-5 on digits, the same initial weights and batches, warm-up and cosine: the largest relative difference was 2e-7 in the first
    ten steps and 1.4e-6 in 70, where this was written."""
    torch: Any = pytest.importorskip("torch")
    from train.nets import LeNet5, lenet5

    (x, y), (xt, yt) = _digits()
    x, xt = (np.pad(np.kron(a.reshape(-1, 1, 8, 8), np.ones((3, 3), np.float32)), ((0, 0), (0, 0), (2, 2), (2, 2))) for a in (x, xt))
    record, epochs = Record(), 3
    schedule = graphc.schedules.Warmup(10, graphc.schedules.Cosine(40, per="step"))
    made = quiet(lenet5, optimizer=graphc.optim.SGD(lr=0.1, momentum=0.9), schedule=schedule, callbacks=[record], seed=3, threads=2)
    net = LeNet5()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in made.step.parameters.items()})
    history = made.fit((x, y), epochs, batch_size=100)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    theirs, batches = [], ArrayBatches(x, y, 100, seed=3)
    for epoch in range(epochs):
        batches.set_position(epoch, 0)
        for inputs, labels in batches:
            optimizer.param_groups[0]["lr"] = record.rates[len(theirs)]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(inputs)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
            theirs.append(loss.item())
    difference = np.abs(np.array(record.losses) / theirs - 1)
    print(f"largest relative difference of the losses: first ten {difference[:10].max():.1e}, all {difference.max():.1e}")
    assert len(theirs) == 42
    assert difference[:10].max() < 2e-5
    assert difference.max() < 1e-3
    assert theirs[-1] < theirs[0] / 3
    assert history["loss"][-1] == pytest.approx(np.mean(theirs[-14:]), rel=1e-3)
    net.eval()
    with torch.no_grad():
        scores = net(torch.from_numpy(xt))
        expected = torch.nn.functional.cross_entropy(scores, torch.from_numpy(yt)).item()
    found = made.evaluate((xt, yt), batch_size=64)
    assert found["loss"] == pytest.approx(expected, rel=1e-3)
    assert found["accuracy"] == pytest.approx((scores.argmax(1).numpy() == yt).mean(), abs=0.005)


def test_regression_with_several_inputs_and_a_function_as_schedule() -> None:
    @graphc.model
    def two(a: graphc.f32["N", 2], b: graphc.f32["N", 1]) -> Any:
        return graphc.linear(graphc.concat([a, b], axis=1), 1, name="out")

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((60, 2)).astype(np.float32), rng.standard_normal((60, 1)).astype(np.float32)
    y = 2 * a[:, :1] - a[:, 1:] + 3 * b
    made = quiet(two, "mse", graphc.optim.SGD(lr=0.2), schedule=lambda epoch: 0.9**epoch, metrics=["mae", "rmse"])
    history = made.fit(({"a": a, "b": b}, y), 30, validation=((a, b), y), batch_size=16)
    assert history["val_rmse"][-1] < 0.05
    assert history["val_loss"][-1] == pytest.approx(history["val_rmse"][-1] ** 2, rel=1e-4)
    assert history["lr"] == pytest.approx([0.2 * 0.9**epoch for epoch in range(30)])
    np.testing.assert_allclose(made.predict((a, b), batch_size=7), made.predict({"a": a, "b": b}), atol=1e-6)
    for x in (a, (a,), [a, b, a]):
        with pytest.raises(graphc.InputError, match=r"inputs given, the model takes 2: a, b"):
            made.step(x, y)


# evaluation -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [(), ("c.*",), ("n.*",)])
def test_evaluation_has_the_parameters_of_now(freeze: tuple[str, ...]) -> None:
    """The inference graph, by another compilation and by the reference, after each epoch; with means over examples, not batches."""
    made = small.trainer(None, freeze=freeze)
    x, y = small.data(50, seed=8)
    for epoch in range(3):
        found = made.evaluate((x, y), batch_size=16)
        outputs = graphc.compile(made.graph(), backend="reference", threads=1)(x)
        np.testing.assert_allclose(made.predict(x, batch_size=16), outputs, rtol=1e-4, atol=1e-5)
        shifted = outputs - outputs.max(1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(50), y]
        assert found["loss"] == pytest.approx(losses.mean(), rel=1e-4)
        assert found["accuracy"] == (outputs.argmax(1) == y).mean()
        small.fit(made, epoch + 1)


def test_evaluation_compiles_once_and_changes_nothing() -> None:
    made = small.trainer(None)
    small.fit(made, 1)
    before, program = made.step.state, made._evaluation._loss.compiled({"N": 8})
    small.fit(made, 2)
    assert made._evaluation._loss.compiled({"N": 8}) is program
    after = made.step.state
    made.evaluate(small.data(24))
    made.predict(small.data(24)[0])
    assert after.keys() == before.keys() == made.step.state.keys()
    assert all(np.array_equal(array, after[name]) for name, array in made.step.state.items())


def test_evaluation_follows_an_assigned_frozen_parameter() -> None:
    made = quiet(line, freeze=["out.bias"])
    x, _ = points()
    before = made.predict(x)
    made.step.parameters["out.bias"] = made.step.parameters["out.bias"] + np.float32(1)
    np.testing.assert_allclose(made.predict(x), before + 1, rtol=1e-6)


def test_weighted_losses_are_averaged_as_one_batch() -> None:
    loss = graphc.losses.CrossEntropy(weight=(1.0, 5.0))
    x, y = points()
    y = np.where(np.arange(20) % 4 == 0, -100, y)
    made = quiet(line, loss)
    assert made.evaluate((x, y), batch_size=7) == pytest.approx(made.evaluate((x, y), batch_size=20), rel=1e-6)
    total = quiet(line, graphc.losses.CrossEntropy(reduction="sum"))
    assert total.evaluate((x, y), 7)["loss"] == pytest.approx(quiet(line).step.gradients(x, y)["loss"] * 15 / 20, rel=1e-5)


# parts of training ------------------------------------------------------------------------------------------------------------


def test_training_loss_is_a_mean_over_examples() -> None:
    x, y = points(20)
    made = quiet(line, optimizer=graphc.optim.SGD(lr=0.0))
    history = made.fit((x, y), 1, validation=(x, y), batch_size=16)
    assert history["loss"][0] == pytest.approx(history["val_loss"][0], rel=1e-6)
    assert history["accuracy"] == history["val_accuracy"]


def test_accumulation_counts_updates_and_ends_with_the_epoch() -> None:
    record = Record()
    schedule = graphc.schedules.Step(1, gamma=0.5, per="step")
    made = quiet(line, optimizer=graphc.optim.SGD(lr=1.0), accumulate=3, schedule=schedule, callbacks=[record])
    made.fit(points(40), 2, batch_size=8)
    assert made.steps == 4
    assert record.rates == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    whole = quiet(line, optimizer=graphc.optim.SGD(lr=1.0))
    whole.fit([(np.concatenate(xs), np.concatenate(ys)) for xs, ys in _joined()], 1)
    part = quiet(line, optimizer=graphc.optim.SGD(lr=1.0), accumulate=3)
    part.fit(points(40), 1, batch_size=8)
    for name, array in whole.step.parameters.items():
        np.testing.assert_allclose(part.step.parameters[name], array, rtol=1e-5, atol=1e-6)


def _joined() -> list[Any]:
    batches = list(ArrayBatches(*points(40), 8, seed=0))
    return [zip(*batches[:3], strict=True), zip(*batches[3:], strict=True)]


def test_early_stopping() -> None:
    early = graphc.callbacks.EarlyStopping(patience=2)
    made = quiet(line, optimizer=graphc.optim.SGD(lr=0.0), callbacks=[early])
    assert len(made.fit(points(), 50)) == 3
    assert made.stop


def test_the_order_of_the_examples_depends_on_the_seed() -> None:
    losses = []
    for seed in (0, 0, 1):
        record = Record()
        quiet(line, callbacks=[record], seed=seed).fit(points(), 2, batch_size=4)
        losses.append(record.losses)
    assert losses[0] == losses[1] != losses[2]


def test_the_epoch_is_trained_and_the_model_is_left_alone() -> None:
    graph = line.graph()
    before = {name: np.array(value.data) for name, value in graph.parameters.items()}
    made = quiet(graph)
    made.fit(points(), 1)
    assert all(np.array_equal(value.data, before[name]) for name, value in graph.parameters.items())
    assert not np.array_equal(made.graph().parameters["out.weight"].data, before["out.weight"])
    made.fit(points(), 1)
    assert made.epoch == 1, "epochs are those in all"
