"""Intervals in closed form: SciPy's where it has them, else from the derivative by each weight, and the bootstrap."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from jaxcls import metrics
from jaxcls._utils.errors import InputError

Z = scipy.stats.norm.ppf(0.975)


def draw_data(problem, *, rows=60, columns=3, seed=0):
    """Scores with ties that are right more often than not, labels, and sample_weight."""
    rng = np.random.default_rng(seed)
    if problem == "multiclass":
        labels = rng.integers(0, columns, rows)
        scores = rng.integers(1, 6, (rows, columns)) + 3.0 * (labels[:, None] == np.arange(columns))
        return scores / scores.sum(axis=1, keepdims=True), labels, rng.integers(1, 4, rows) / 2
    labels = rng.random((rows, columns)) < 0.4
    scores = (rng.integers(0, 8, (rows, columns)) + 3 * labels) / 10
    labels = labels.astype(float)
    if problem == "binary":
        return scores[:, 0], labels[:, 0].astype(int), rng.integers(1, 4, rows) / 2
    labels[rng.random((rows, columns)) < 0.1] = np.nan
    return scores, labels, rng.integers(1, 4, rows) / 2


def intervals(problem, **changes):
    scores, labels, sample_weight = draw_data(problem)
    options = {"problem": problem, "sample_weight": sample_weight} | changes
    report = metrics.report(scores, labels, **options)
    return report, metrics.report_intervals(report, scores, labels, **options)


def standard_error(metric, scores, labels, sample_weight):
    """The infinitesimal jackknife by finite differences."""
    step, influences = 1e-5, []
    for row in range(len(sample_weight)):
        change = np.zeros(len(sample_weight))
        change[row] = step * sample_weight[row]
        ends = [metric(scores, labels, sample_weight=sample_weight + sign * change) for sign in (1, -1)]
        influences.append((ends[0] - ends[1]) / (2 * step))
    return float(np.sqrt(np.sum(np.square(influences))))


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 5), (5, 5), (17, 400), (399, 400)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_proportion_has_the_wilson_interval(right, count, confidence):
    oracle = scipy.stats.binomtest(right, count).proportion_ci(confidence, method="wilson")
    assert_allclose(metrics.proportion_interval(right / count, count, confidence=confidence), tuple(oracle), atol=1e-12)


LOGIT = ["roc_auc", "average_precision", "precision", "recall", "f1", "specificity", "balanced_accuracy", "accuracy"]


@pytest.mark.parametrize(
    ("problem", "name"),
    [("binary", name) for name in ("average_precision", "balanced_accuracy", "log_loss", "brier_score")]
    + [("multiclass", name) for name in [*LOGIT[1:-1], "log_loss", "brier_score"]]
    + [("multilabel", name) for name in [*LOGIT[1:], "log_loss", "brier_score"]],
)
def test_standard_errors_agree_with_the_finite_difference_jackknife(problem, name):
    report, actual = intervals(problem)
    value, (low, high) = report["metrics"][name], actual["metrics"][name]
    error = standard_error(metrics.get(name, problem), *draw_data(problem))
    if name in LOGIT:
        expected = logit_interval(value, error)
    else:
        expected = [value * math.exp(-Z * error / value), value * math.exp(Z * error / value)]
    assert_allclose([low, high], expected, rtol=1e-5)


def logit_interval(value, error):
    middle, half = math.log(value / (1 - value)), Z * error / (value * (1 - value))
    return [1 / (1 + math.exp(-middle + half)), 1 / (1 + math.exp(-middle - half))]


def delong_error(scores, true):
    """The root of S10 / m + S01 / n, with m - 1 and n - 1 in the two variances (DeLong et al. 1988)."""
    above = np.sign(scores[true][:, None] - scores[~true]) / 2 + 0.5
    positives, negatives = above.mean(axis=1), above.mean(axis=0)
    variance = np.var(positives, ddof=1) / len(positives) + np.var(negatives, ddof=1) / len(negatives)
    return above.mean(), math.sqrt(variance)


def test_the_interval_of_an_auc_is_delongs():
    scores, labels, _ = draw_data("binary", rows=30)
    assert (labels == 1).sum() < 15
    _, actual = report_of("binary", scores, labels)
    assert_allclose(actual["metrics"]["roc_auc"], logit_interval(*delong_error(scores, labels == 1)))
    scores, labels, _ = draw_data("multiclass")
    _, actual = report_of("multiclass", scores, labels)
    for label in range(3):
        expected = logit_interval(*delong_error(scores[:, label], labels == label))
        assert_allclose(actual["labels"][str(label)]["roc_auc"], expected)


def test_a_class_that_neither_occurs_nor_is_predicted_is_in_no_average():
    scores, labels, _ = draw_data("multiclass")
    report, expected = report_of("multiclass", scores, labels)
    more, actual = report_of("multiclass", np.column_stack([scores, np.zeros(len(scores))]), labels)
    assert more["labels"]["3"]["specificity"] is None
    for name in ("precision", "recall", "specificity", "f1"):
        assert more["metrics"][name] == pytest.approx(report["metrics"][name])
        assert_allclose(actual["metrics"][name], expected["metrics"][name])


def report_of(problem, scores, labels):
    report = metrics.report(scores, labels, problem=problem)
    return report, metrics.report_intervals(report, scores, labels, problem=problem)


def test_multiclass_accuracy_has_the_interval_of_a_proportion():
    report, actual = intervals("multiclass", sample_weight=None)
    right = round(report["metrics"]["accuracy"] * 60)
    oracle = scipy.stats.binomtest(right, 60).proportion_ci(0.95, method="wilson")
    assert_allclose(actual["metrics"]["accuracy"], tuple(oracle))


def test_per_label_counts_have_intervals_of_proportions():
    scores, labels, _ = draw_data("binary")
    report, actual = intervals("binary", sample_weight=None, threshold=0.6)
    predicted, true = scores >= 0.6, labels == 1
    right = int((predicted & true).sum())

    def wilson(among):
        return tuple(scipy.stats.binomtest(right, int(among.sum())).proportion_ci(0.95, method="wilson"))

    label = actual["labels"]["1"]
    assert_allclose(label["precision"], wilson(predicted))
    assert_allclose(label["recall"], wilson(true))
    shares = np.array(wilson(predicted | true))
    assert_allclose(label["f1"], 2 * shares / (1 + shares))
    assert actual["metrics"]["f1"] == label["f1"]
    assert label["f1"][0] < report["metrics"]["f1"] < label["f1"][1]


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "f1", "accuracy", "log_loss"])
def test_closed_form_intervals_are_close_to_the_bootstrap(name):
    scores, labels, _ = draw_data("multiclass", rows=400)
    report = metrics.report(scores, labels, problem="multiclass")
    low, high = metrics.report_intervals(report, scores, labels, problem="multiclass")["metrics"][name]
    bootstrap_low, bootstrap_high, _ = metrics.bootstrap_interval(
        metrics.get(name, "multiclass"), scores, labels, seed=0, resamples=300
    )
    width = bootstrap_high - bootstrap_low
    assert abs(low - bootstrap_low) < 0.2 * width
    assert abs(high - bootstrap_high) < 0.2 * width


def test_a_value_without_a_standard_error_has_no_interval():
    scores, labels = np.array([0.9, 0.8, 0.2, 0.1]), np.array([1, 1, 0, 0])
    report = metrics.report(scores, labels, problem="binary")
    actual = metrics.report_intervals(report, scores, labels, problem="binary")
    # None of four is wrong: the proportion may still be one half. A perfect ranking of four says nothing.
    assert actual["metrics"]["accuracy"] == pytest.approx([0.51, 1.0], abs=0.01)
    assert not {"roc_auc", "mcc", "ece"} & actual["metrics"].keys()
    assert json.loads(json.dumps(actual)) == actual


def test_a_label_that_is_never_predicted_has_zero_precision_and_no_error():
    scores, labels, sample_weight = draw_data("multilabel")
    scores[:, 0] = 0.1
    report = metrics.report(scores, labels, problem="multilabel", sample_weight=sample_weight)
    actual = metrics.report_intervals(report, scores, labels, problem="multilabel", sample_weight=sample_weight)
    assert report["labels"]["0"]["precision"] == 0
    error = standard_error(metrics.get("precision", "multilabel"), scores, labels, sample_weight)
    value = report["metrics"]["precision"]
    low, high = (math.log(bound / (1 - bound)) for bound in actual["metrics"]["precision"])
    assert high - low == pytest.approx(2 * Z * error / (value * (1 - value)), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.proportion_interval(1.1, 5), "between 0 and 1"),
        (lambda: metrics.proportion_interval(0.5, 0), "more than 0 examples"),
        (lambda: metrics.proportion_interval(0.5, 5, confidence=1.0), "confidence"),
    ],
    ids=["share", "count", "confidence"],
)
def test_invalid_input_is_rejected(call, message):
    with pytest.raises(InputError, match=message):
        call()
