"""Metrics against scikit-learn and plain numpy, in any division into batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import AttributeValueError, InputError
from graphc.train import metrics as m

Array = np.ndarray[Any, np.dtype[Any]]
CLASSES, EXAMPLES = 6, 57


def _scores() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, EXAMPLES)
    scores = rng.standard_normal((EXAMPLES, CLASSES)).astype(np.float32)
    scores[np.arange(EXAMPLES), y] += 1.5
    return scores, y


def _numbers() -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((EXAMPLES, 3)).astype(np.float32), rng.standard_normal((EXAMPLES, 3)).astype(np.float32)


def _ours(metric: m.Metric, outputs: Array, y: Array, cuts: list[int]) -> float:
    metric.reset()
    for rows in np.split(np.arange(len(y)), cuts):
        metric.update(outputs[rows], y[rows])
    return metric.result()


_CUTS = st.lists(st.integers(0, EXAMPLES), max_size=4).map(sorted)


@given(_CUTS)
def test_class_metrics_are_those_of_sklearn(cuts: list[int]) -> None:
    sk: Any = pytest.importorskip("sklearn.metrics")
    scores, y = _scores()
    found = scores.argmax(1)
    everything = list(range(CLASSES))
    assert _ours(m.Accuracy(), scores, y, cuts) == pytest.approx(sk.accuracy_score(y, found))
    assert _ours(m.TopK(3), scores, y, cuts) == pytest.approx(sk.top_k_accuracy_score(y, scores, k=3, labels=everything))
    assert _ours(m.MacroF1(CLASSES), scores, y, cuts) == pytest.approx(sk.f1_score(y, found, average="macro"))
    confusion = m.Confusion(CLASSES)
    assert _ours(confusion, scores, y, cuts) == pytest.approx(sk.balanced_accuracy_score(y, found))
    np.testing.assert_array_equal(confusion.total, sk.confusion_matrix(y, found, labels=everything))
    np.testing.assert_allclose(confusion.precision(), sk.precision_score(y, found, average=None))
    np.testing.assert_allclose(confusion.recall(), sk.recall_score(y, found, average=None))


@given(_CUTS)
def test_number_metrics(cuts: list[int]) -> None:
    outputs, y = _numbers()
    difference = outputs.astype(np.float64) - y
    assert _ours(m.MeanAbsoluteError(), outputs, y, cuts) == pytest.approx(np.abs(difference).mean(), rel=1e-12)
    assert _ours(m.MeanSquaredError(), outputs, y, cuts) == pytest.approx((difference**2).mean(), rel=1e-12)
    assert _ours(m.RootMeanSquaredError(), outputs, y, cuts) == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-12)
    assert _ours(m.BinaryAccuracy(), outputs, (y > 0).astype(np.float32), cuts) == ((outputs > 0) == (y > 0)).mean()


def test_pixels_rows_of_probabilities_and_several_outputs() -> None:
    rng = np.random.default_rng(2)
    scores, y = rng.standard_normal((4, CLASSES, 3, 5)), rng.integers(0, CLASSES, (4, 3, 5))
    right = (scores.argmax(1) == y).mean()
    for target in (y, np.moveaxis(np.eye(CLASSES, dtype=np.float32)[y], -1, 1)):
        metric = m.Accuracy()
        metric.update((scores, "another output"), target)
        assert metric.result() == right
    whole = m.TopK(CLASSES)
    whole.update(scores, y)
    assert whole.result() == 1


def test_labels_that_do_not_count() -> None:
    scores, y = _scores()
    y = np.where(np.arange(EXAMPLES) % 3 == 0, -100, y)
    kept = y != -100
    for make in (m.Accuracy, m.TopK, lambda: m.Confusion(CLASSES), lambda: m.MacroF1(CLASSES)):
        assert _ours(make(), scores, y, []) == _ours(make(), scores[kept], y[kept], [])
    with pytest.raises(InputError, match="the label -100"):
        m.Accuracy(ignore=None).update(scores, y)


def test_nan_scores_are_wrong() -> None:
    for scores, k in ((np.array([[np.nan, 1.0]]), 1), (np.array([[np.nan, np.nan]]), 2), (np.array([[1.0, np.nan]]), 1)):
        metric = m.TopK(k)
        metric.update(scores, np.array([0]))
        assert metric.result() == 0


def test_nothing_measured_is_nan() -> None:
    for metric in (m.Accuracy(), m.TopK(), m.Confusion(3), m.MacroF1(3), m.MeanAbsoluteError(), m.RootMeanSquaredError()):
        assert np.isnan(metric.result())


@pytest.mark.parametrize(
    ("metric", "outputs", "y"),
    [
        (m.Accuracy, np.zeros((2, 3)), np.array([0, 3])), (m.Accuracy, np.zeros((2, 3)), np.array([0, -1])),
        (m.Accuracy, np.zeros((2, 3)), np.array([0.0, 1.0])), (m.Accuracy, np.zeros(3), np.array([0, 1, 2])),
        (m.Accuracy, np.zeros((2, 3)), np.array([0, 1, 2])), (m.TopK, np.zeros((2, 5)), np.array([0, 9])),
        (lambda: m.Confusion(4), np.zeros((2, 3)), np.array([0, 1])), (m.MeanAbsoluteError, np.zeros((2, 3)), np.zeros(2)),
        (m.BinaryAccuracy, np.zeros((2, 3)), np.zeros(2)),
    ],
)  # fmt: skip
def test_what_does_not_fit(metric: Callable[[], m.Metric], outputs: Array, y: Array) -> None:
    with pytest.raises(InputError):
        metric().update(outputs, y)


def test_names() -> None:
    found = m.find_metrics(["accuracy", "top5", "mae", m.Accuracy("mine")])
    assert [metric.name for metric in found] == ["accuracy", "top5", "mae", "mine"]
    assert m.find_metrics("rmse")[0].mode == "min"
    for wrong in (["acc"], ["top0"], ["accuracy", "accuracy"], [m.Accuracy("loss")], [m.Accuracy("val_x")], [7]):
        with pytest.raises(AttributeValueError):
            m.find_metrics(wrong)
    with pytest.raises(AttributeValueError, match="top 9 of 3"):
        m.TopK(9).update(np.zeros((1, 3)), np.array([0]))
    for k in (0, 1.5, True):
        with pytest.raises(AttributeValueError):
            m.TopK(k)
