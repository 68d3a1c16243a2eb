"""Metrics agree with scikit-learn, or with their definition in plain NumPy, with ties, sample weights and padding."""

import json
import math
import tracemalloc
import warnings
from functools import partial
from unittest.mock import patch

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import coo_array
from sklearn.exceptions import UndefinedMetricWarning

from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.metrics import METRICS, averages, confusion

PROBLEMS = ("binary", "multiclass", "multilabel")
FITTING = [(name, problem) for name, entry in METRICS.items() for problem in entry.problems]
close = partial(assert_allclose, rtol=1e-9, atol=1e-12, equal_nan=True)
several = settings(max_examples=40, deadline=None)


def quietly(function, *args, **kwargs):
    """scikit-learn's value, without its warnings that a value is undefined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", message=".*single class|.*single label|.*not in y_true")
        return function(*args, **kwargs)


def draw_data(seed, problem, rows=24, columns=4):
    """Coarse probabilities full of ties, rare, missing and never predicted labels, sample_weight, a mask."""
    rng = np.random.default_rng(seed)
    sample_weight, mask = rng.integers(0, 4, rows) / 2, rng.random(rows) < 0.8
    sample_weight[0], mask[0] = 1, True
    if problem == "multiclass":
        scores = rng.integers(1, 5, (rows, columns)) * rng.choice([0.125, 1], columns)
        return (
            scores / scores.sum(axis=1, keepdims=True),
            rng.integers(0, rng.integers(1, columns + 1), rows),
            sample_weight,
            mask,
        )
    shape = (rows,) if problem == "binary" else (rows, columns)
    scores = rng.integers(0, 9, shape) / 8 * rng.choice([0.25, 1], shape[1:])
    return scores, rng.random(shape) < rng.choice([0, 0.1, 0.5], shape[1:]), sample_weight, mask


data_of = {p: st.builds(draw_data, st.integers(0, 2**32 - 1), st.just(p)) for p in PROBLEMS}
# Matrices are made, or only sums of their cells.
many_classes = st.sampled_from([1, 1_000])
any_data = st.sampled_from(PROBLEMS).flatmap(lambda p: st.tuples(st.just(p), data_of[p]))


def counted(scores, labels, sample_weight, mask):
    """The rows that count, as scikit-learn takes them."""
    rows = mask & (sample_weight > 0)
    return scores[rows], labels[rows].astype(int), sample_weight[rows]


def one_vs_rest(problem, scores, labels):
    """Each label as (scores, truth, predicted), with the class predictions of multiclass."""
    if problem == "multiclass":
        chosen = scores.argmax(axis=1)
        return [(scores[:, k], labels == k, chosen == k) for k in range(scores.shape[1])]
    columns = zip(np.atleast_2d(scores.T), np.atleast_2d(labels.T), strict=True)
    return [(s, t == 1, s >= 0.5) for s, t in columns]


def oracle_precision(truth, predicted, sample_weight):
    if not (truth.any() or predicted.any()):
        return math.nan
    return sk.precision_score(truth, predicted, sample_weight=sample_weight, zero_division=0)


def oracle_recall(truth, predicted, sample_weight):
    return sk.recall_score(truth, predicted, sample_weight=sample_weight, zero_division=np.nan)


def oracle_specificity(truth, predicted, sample_weight):
    return oracle_recall(~truth, ~predicted, sample_weight)


def oracle_f(truth, predicted, sample_weight, beta=1.0):
    return sk.fbeta_score(truth, predicted, beta=beta, sample_weight=sample_weight, zero_division=np.nan)


DECIDING = [
    (metrics.precision, oracle_precision),
    (metrics.recall, oracle_recall),
    (metrics.specificity, oracle_specificity),
    (metrics.f1, oracle_f),
    (partial(metrics.f_beta, beta=0.5), partial(oracle_f, beta=0.5)),
]


def oracle_recall_at_precision(truth, scores, sample_weight):
    precision, recall, _ = sk.precision_recall_curve(truth, scores, sample_weight=sample_weight)
    return recall[precision >= 0.6].max()


def oracle_auc(truth, scores, sample_weight):
    return sk.roc_auc_score(truth, scores, sample_weight=sample_weight) if not truth.all() else math.nan


RANKING = [
    (metrics.roc_auc, oracle_auc),
    (metrics.average_precision, lambda t, s, w: sk.average_precision_score(t, s, sample_weight=w)),
    (partial(metrics.recall_at_precision, at=0.6), oracle_recall_at_precision),
]


@several
@given(any_data, many_classes)
def test_counts_and_rankings_per_label_agree_with_scikit_learn(problem_and_data, most):
    problem, (scores, labels, sample_weight, mask) = problem_and_data
    s, t, w = counted(scores, labels, sample_weight, mask)
    columns = one_vs_rest(problem, s, t)
    support = np.array([w[truth].sum() for _, truth, _ in columns])
    expected = [(ours, [oracle(truth, chosen, w) for _, truth, chosen in columns]) for ours, oracle in DECIDING]
    for ours, oracle in RANKING:
        expected.append((ours, [oracle(tr, sc, w) if tr.any() else math.nan for sc, tr, _ in columns]))
    if problem == "multiclass":  # a class that is nowhere has a specificity of 1 in scikit-learn
        nowhere = [not (truth | chosen).any() for _, truth, chosen in columns]
        expected = [(ours, np.where(nowhere, math.nan, vector)) for ours, vector in expected]
    for ours, vector in expected:
        metric = partial(ours, scores, labels, problem=problem, sample_weight=sample_weight, mask=mask)
        vector, defined = np.array(vector), ~np.isnan(vector)
        with patch.object(confusion, "_MOST_CLASSES", most):
            close(metric(average=None), vector)
        mean = vector[defined].mean() if defined.any() else math.nan
        close(metric(), mean)
        if problem != "binary":
            close(metric(average="macro"), mean)
            total = support[defined].sum()
            close(metric(average="weighted"), vector[defined] @ support[defined] / total if total else math.nan)


@several
@given(st.sampled_from(["multiclass", "multilabel"]).flatmap(lambda p: st.tuples(st.just(p), data_of[p])))
def test_micro_average_is_the_metric_of_all_decisions_pooled(problem_and_data):
    problem, (scores, labels, sample_weight, mask) = problem_and_data
    s, t, w = counted(scores, labels, sample_weight, mask)
    pool = (np.concatenate(parts) for parts in zip(*one_vs_rest(problem, s, t), strict=True))
    pooled_scores, truth, chosen = pool
    pooled_weights = np.tile(w, scores.shape[1])
    for ours, oracle in DECIDING:
        value = ours(scores, labels, problem=problem, average="micro", sample_weight=sample_weight, mask=mask)
        close(value, oracle(truth, chosen, pooled_weights))
    for ours, oracle in RANKING:
        value = ours(scores, labels, problem=problem, average="micro", sample_weight=sample_weight, mask=mask)
        close(value, oracle(truth, pooled_scores, pooled_weights) if truth.any() else math.nan)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_averages_agree_with_scikit_learn_where_every_label_is_defined(average):
    rng = np.random.default_rng(3)
    scores, sample_weight = rng.dirichlet(np.ones(3), 60), rng.random(60)
    labels = np.arange(60) % 3
    for ours, theirs in [(metrics.precision, sk.precision_score), (metrics.f1, sk.f1_score)]:
        value = ours(scores, labels, problem="multiclass", average=average, sample_weight=sample_weight)
        close(value, theirs(labels, scores.argmax(1), average=average, sample_weight=sample_weight))
    auc = metrics.roc_auc(scores, labels, problem="multiclass", average=average, sample_weight=sample_weight)
    close(auc, sk.roc_auc_score(labels, scores, multi_class="ovr", average=average, sample_weight=sample_weight))
    many = np.eye(3)[labels].astype(int)
    ap = metrics.average_precision(scores, many, problem="multilabel", average=average, sample_weight=sample_weight)
    close(ap, sk.average_precision_score(many, scores, average=average, sample_weight=sample_weight))


@several
@given(any_data, many_classes)
def test_confusion_matrices_and_their_metrics_agree_with_scikit_learn(problem_and_data, most):
    with patch.object(confusion, "_MOST_CLASSES", most):
        check_confusions(*problem_and_data)


def check_confusions(problem, data):
    scores, labels, sample_weight, mask = data
    s, t, w = counted(scores, labels, sample_weight, mask)
    if problem == "multiclass":
        tables = [(t, s.argmax(axis=1), np.arange(scores.shape[1]))]
    else:
        tables = [(truth, chosen, [False, True]) for _, truth, chosen in one_vs_rest(problem, s, t)]
    options = {"problem": problem, "sample_weight": sample_weight, "mask": mask}
    expected = [sk.confusion_matrix(a, b, labels=known, sample_weight=w) for a, b, known in tables]
    close(
        metrics.confusion_matrix(scores, labels, **options),
        expected if problem == "multilabel" else expected[0],
    )
    if problem == "multiclass":
        true, predicted, weight = metrics.confusion_cells(scores, labels, **options)
        close(coo_array((weight, (true, predicted)), (scores.shape[1],) * 2).toarray(), expected[0])
    close(
        metrics.accuracy(scores, labels, **options),
        np.mean([sk.accuracy_score(a, b, sample_weight=w) for a, b, _ in tables]),
    )
    for weighting, theirs in [("none", None), ("linear", "linear"), ("quadratic", "quadratic")]:
        kappas = [
            # scikit-learn warns, and calls it 0 or nan by its version, where all is one class.
            sk.cohen_kappa_score(a, b, labels=known, weights=theirs, sample_weight=w)
            for a, b, known in tables
            if len(np.union1d(a, b)) > 1
        ]
        ours = metrics.cohen_kappa(scores, labels, weighting=weighting, **options)
        close(ours, np.mean(kappas) if kappas else math.nan)
    mixed = [(a, b) for a, b, _ in tables if len(np.unique(a)) > 1]
    for ours, theirs in [
        (metrics.balanced_accuracy, partial(quietly, sk.balanced_accuracy_score)),
        (metrics.matthews_correlation, sk.matthews_corrcoef),
    ]:
        values = [theirs(a, b, sample_weight=w) for a, b in mixed]
        assert_allclose(ours(scores, labels, **options), np.mean(values) if values else math.nan, atol=1e-7)


@several
@given(data_of["multilabel"])
def test_subset_accuracy_agrees_with_scikit_learn(data):
    s, t, w = counted(*data)
    scores, labels, sample_weight, mask = data
    value = metrics.subset_accuracy(scores, labels, sample_weight=sample_weight, mask=mask)
    close(value, sk.accuracy_score(t, (s >= 0.5).astype(int), sample_weight=w))


@several
@given(data_of["multiclass"], st.integers(1, 3))
def test_top_k_accuracy_agrees_with_scikit_learn_on_ties(data, k):
    s, t, w = counted(*data)
    scores, labels, sample_weight, mask = data
    value = metrics.top_k_accuracy(scores, labels, k=k, sample_weight=sample_weight, mask=mask)
    close(value, sk.top_k_accuracy_score(t, s, k=k, labels=np.arange(scores.shape[1]), sample_weight=w))


@several
@given(data_of["binary"])
def test_curves_agree_with_scikit_learn(data):
    s, t, w = counted(*data)
    scores, labels, sample_weight, mask = data
    roc = metrics.roc_curve(scores, labels, sample_weight=sample_weight, mask=mask)
    for ours, theirs in zip(roc, quietly(sk.roc_curve, t, s, sample_weight=w, drop_intermediate=False), strict=True):
        close(ours, theirs)
    if t.any():
        curve = metrics.precision_recall_curve(scores, labels, sample_weight=sample_weight, mask=mask)
        for ours, theirs in zip(curve, sk.precision_recall_curve(t, s, sample_weight=w), strict=True):
            close(ours, theirs)


@several
@given(any_data)
def test_log_loss_and_brier_score_agree_with_their_definitions(problem_and_data):
    problem, (scores, labels, sample_weight, mask) = problem_and_data
    s, t, w = counted(scores, labels, sample_weight, mask)
    options = {"problem": problem, "sample_weight": sample_weight, "mask": mask}
    if problem == "multiclass":
        losses = [sk.log_loss(t, s, labels=np.arange(scores.shape[1]), sample_weight=w)]
        briers = [np.average(((s - np.eye(scores.shape[1])[t]) ** 2).sum(axis=1), weights=w)]
    else:
        columns = [(c, truth) for c, truth, _ in one_vs_rest(problem, s, t)]
        losses = [sk.log_loss(truth, c, labels=[False, True], sample_weight=w) for c, truth in columns]
        briers = [np.average((c - truth) ** 2, weights=w) for c, truth in columns]
    close(metrics.log_loss(scores, labels, **options), np.mean(losses))
    close(metrics.brier_score(scores, labels, **options), np.mean(briers))


def calibration_error_by_hand(confidence, right, sample_weight, bins):
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = np.average(confidence[inside], weights=sample_weight[inside]) - np.average(
                right[inside], weights=sample_weight[inside]
            )
            total += sample_weight[inside].sum() / sample_weight.sum() * abs(gap)
    return total


@several
@given(any_data, st.integers(1, 15))
def test_calibration_error_agrees_with_its_definition(problem_and_data, bins):
    problem, (scores, labels, sample_weight, mask) = problem_and_data
    # Off the bins' edges, where the two computations of an edge could differ in the last bit.
    scores = scores * (1 - 1e-4) + 3e-5
    s, t, w = counted(scores, labels, sample_weight, mask)
    if problem == "multiclass":
        decisions = [(s.max(axis=1), s.argmax(axis=1) == t)]
    else:
        decisions = [(np.maximum(c, 1 - c), truth == chosen) for c, truth, chosen in one_vs_rest(problem, s, t)]
    expected = np.mean([calibration_error_by_hand(c, right, w, bins) for c, right in decisions])
    options = {"problem": problem, "bins": bins, "sample_weight": sample_weight, "mask": mask}
    close(metrics.expected_calibration_error(scores, labels, **options), expected)


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
def test_reliability_bins_give_the_calibration_error(problem):
    scores, labels, sample_weight, mask = draw_data(3, problem, rows=200)
    bins = metrics.reliability(scores, labels, problem=problem, sample_weight=sample_weight, mask=mask, bins=10)
    gaps = np.nansum(bins.weight * np.abs(bins.confidence - bins.accuracy)) / bins.weight.sum()
    expected = metrics.expected_calibration_error(
        scores, labels, problem=problem, sample_weight=sample_weight, mask=mask, bins=10
    )
    close(gaps, expected)
    filled = bins.weight > 0
    assert filled.any()
    upper = np.arange(1, 11)[filled] / 10
    assert (bins.confidence[filled] <= upper + 1e-9).all()
    assert (bins.confidence[filled] > upper - 0.1 - 1e-9).all()


def test_a_calibration_bin_includes_its_upper_edge():
    # 0.75 falls with 0.625 into (0.5, 0.75]: the gap is |0.6875 - 0.5|, not the mean of 0.25 and 0.625.
    value = metrics.expected_calibration_error([0.75, 0.625], [1, 0], problem="binary", bins=4)
    assert value == pytest.approx(0.1875)


@pytest.mark.parametrize(("name", "problem"), FITTING)
def test_padding_counts_for_nothing_and_integer_weights_are_repetitions(name, problem):
    metric = partial(metrics.get(name, problem), **({"k": 2} if name == "top_k_accuracy" else {}))
    scores, labels, _, _ = draw_data(7, problem, rows=40)
    labels = np.where(np.arange(40).reshape(-1, *[1] * (labels.ndim - 1)) < 3, labels | 1, labels)
    repeats = np.arange(40) % 3
    mask = np.arange(40) % 5 > 0
    expected = metric(*(np.repeat(x[mask], repeats[mask], axis=0) for x in (scores, labels)))
    assert not math.isnan(expected)
    poisoned = scores.copy()
    poisoned[~mask] = np.nan
    bad_labels = np.where(mask.reshape(-1, *[1] * (labels.ndim - 1)), labels, -1)
    close(metric(poisoned, bad_labels, sample_weight=repeats, mask=mask), expected)
    close(
        metric(jnp.asarray(poisoned), jnp.asarray(bad_labels), sample_weight=jnp.asarray(repeats), mask=mask),
        expected,
        rtol=1e-6,
    )


def test_auc_of_rare_positives_is_exact_where_200_bins_are_not():
    rng = np.random.default_rng(0)
    labels = (np.arange(20_000) < 40).astype(int)
    # Rare positives: every probability is small, and nearly all fall into the first of 200 bins.
    scores = 1e-3 / (1 + np.exp(-rng.normal(size=labels.size) - 1.7 * labels))
    exact = metrics.roc_auc(scores, labels, problem="binary")
    binned = metrics.roc_auc(np.round(scores * 200) / 200, labels, problem="binary")
    close(exact, sk.roc_auc_score(labels, scores))
    assert exact > 0.8
    assert binned == 0.5


def test_a_label_of_one_class_is_nan_excluded_and_reported():
    scores = np.array([[0.9, 0.2, 0.8], [0.1, 0.3, 0.7], [0.8, 0.1, 0.9]])
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert_array_equal(metrics.roc_auc(scores, labels, problem="multilabel", average=None), [1, math.nan, math.nan])
    assert metrics.roc_auc(scores, labels, problem="multilabel") == 1
    summary = metrics.report(scores, labels, problem="multilabel", class_names=["cat", "dog", "fish"])
    assert summary["undefined_labels"] == {
        "precision": ["dog"],
        "recall": ["dog"],
        "specificity": ["fish"],
        "f1": ["dog"],
        "roc_auc": ["dog", "fish"],
        "average_precision": ["dog"],
        "recall_at_precision": ["dog"],
    }


@st.composite
def partly_known(draw):
    """Multilabel data in which labels are partly or never known; the first is known at least once."""
    scores, labels, sample_weight, mask = draw(data_of["multilabel"])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    unknown = rng.random(labels.shape) < rng.choice([0, 0.4, 1], labels.shape[1])
    unknown[0, 0] = False
    return scores, np.where(unknown, math.nan, labels), sample_weight, mask


def known_columns(scores, labels, sample_weight, mask):
    """The scores, labels and sample_weight of each label, of the rows that count and where it is known."""
    rows = (mask & (sample_weight > 0))[:, None] & ~np.isnan(labels)
    return [(scores[r, i], labels[r, i] == 1, sample_weight[r]) for i, r in enumerate(rows.T)]


def mean_of_defined(values):
    return np.nanmean(values) if not np.isnan(values).all() else math.nan


@several
@given(partly_known())
def test_a_label_is_evaluated_on_the_rows_where_it_is_known(data):
    scores, labels, sample_weight, mask = data
    columns = known_columns(*data)
    pool = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    expected = [(ours, lambda s, t, w, oracle=oracle: oracle(t, s >= 0.5, w)) for ours, oracle in DECIDING]
    expected += [
        (ours, lambda s, t, w, oracle=oracle: oracle(t, s, w) if t.any() else np.nan) for ours, oracle in RANKING
    ]
    for ours, oracle in expected:
        metric = partial(ours, scores, labels, problem="multilabel", sample_weight=sample_weight, mask=mask)
        vector = [oracle(*column) if len(column[0]) else math.nan for column in columns]
        close(metric(average=None), vector)
        close(metric(), mean_of_defined(vector))
        close(metric(average="micro"), oracle(*pool))


@several
@given(partly_known())
def test_metrics_without_per_label_values_are_means_over_the_known_rows(data):
    scores, labels, sample_weight, mask = data
    columns = known_columns(*data)
    options = {"sample_weight": sample_weight, "mask": mask}
    for name in ("accuracy", "balanced_accuracy", "mcc", "kappa", "log_loss", "brier_score", "ece"):
        binary = metrics.get(name, "binary")
        values = [binary(s, t, sample_weight=w) if len(s) else math.nan for s, t, w in columns]
        close(metrics.get(name, "multilabel")(scores, labels, **options), mean_of_defined(values))
    matrices = [
        sk.confusion_matrix(t, s >= 0.5, labels=[0, 1], sample_weight=w) if len(s) else np.zeros((2, 2))
        for s, t, w in columns
    ]
    close(metrics.confusion_matrix(scores, labels, problem="multilabel", **options), matrices)
    tuned = [metrics.tune_threshold(s, t, problem="binary", sample_weight=w) if len(s) else 0.5 for s, t, w in columns]
    assert_array_equal(metrics.tune_threshold(scores, labels, problem="multilabel", **options), tuned)
    right = [
        w * all(t[k] == p[k])
        for t, p, k, w in zip(labels, scores >= 0.5, ~np.isnan(labels), sample_weight, strict=True)
    ]
    read = mask & ~np.isnan(labels).all(axis=1)
    close(metrics.subset_accuracy(scores, labels, **options), np.sum(right, where=read) / sample_weight[read].sum())


def test_a_label_that_is_never_known_is_reported():
    scores = np.array([[0.9, 0.2], [0.1, 0.3], [0.8, 0.7]])
    labels = np.array([[1, math.nan], [0, math.nan], [math.nan, math.nan]])
    summary = metrics.report(scores, labels, problem="multilabel", class_names=["cat", "dog"])
    assert summary["examples"] == 2, "no label of the third row is known"
    assert summary["labels"]["cat"]["support"] == 1
    assert summary["labels"]["dog"] == {"support": 0.0} | dict.fromkeys(list(summary["labels"]["dog"])[1:])
    assert all("dog" in names for names in summary["undefined_labels"].values())
    assert summary["undefined_labels"].keys() == summary["labels"]["dog"].keys() - {"support"}


def test_the_bootstrap_skips_rows_without_a_known_label():
    scores, labels, *_ = draw_data(5, "multilabel", rows=30)
    labels = np.where(np.arange(30)[:, None] % 3 == np.arange(4), math.nan, labels)
    interval = partial(metrics.bootstrap_interval, metrics.get("f1", "multilabel"), seed=0, resamples=20)
    more = interval(np.vstack([scores, scores]), np.vstack([labels, np.full_like(labels, math.nan)]))
    assert more == interval(scores, labels)


def test_undefined_stays_undefined_with_weights_whose_sums_round():
    rng = np.random.default_rng(0)
    scores, sample_weight = rng.dirichlet(np.ones(30), 200), rng.random(200)
    labels = np.full(200, 4)
    options = {"problem": "multiclass", "sample_weight": sample_weight}
    assert_array_equal(np.isnan(metrics.specificity(scores, labels, average=None, **options)), np.arange(30) == 4)
    assert math.isnan(metrics.matthews_correlation(scores, labels, **options))
    constant = np.eye(30)[np.zeros(200, int)]
    assert metrics.matthews_correlation(constant, np.arange(200) % 30, **options) == 0


@several
@given(
    st.sampled_from(["binary", "multilabel"]).flatmap(lambda p: st.tuples(st.just(p), data_of[p])),
    st.sampled_from(["f1", "accuracy", "balanced_accuracy", "mcc"]),
)
def test_a_tuned_threshold_is_not_beaten_by_any_other(problem_and_data, name):
    problem, (scores, labels, sample_weight, mask) = problem_and_data
    options = {"problem": problem, "sample_weight": sample_weight, "mask": mask}
    tuned = metrics.tune_threshold(scores, labels, metric=name, **options)
    metric = partial(metrics.get(name, "binary"), sample_weight=sample_weight, mask=mask)
    columns = zip(np.atleast_2d(scores.T), np.atleast_2d(labels.T), np.atleast_1d(tuned), strict=True)
    for column, truth, threshold in columns:
        if len(np.unique(truth[mask & (sample_weight > 0)])) == 1:
            assert threshold == 0.5
            continue
        others = [metric(column, truth, threshold=c) for c in [*np.unique(column), 1.1]]
        assert metric(column, truth, threshold=threshold) >= max(others) - 1e-12


def test_a_tuned_threshold_lies_midway_and_decides_the_same_in_float32():
    tune = partial(metrics.tune_threshold, problem="binary")
    assert tune([0.25, 0.75], [0, 1]) == 0.5
    assert tune([0.25, 0.75], [1, 0]) == 0.125, "all positive is best, so it lies midway to 0"
    assert tune([0.25, 0.75], [1, 0], metric="mcc") == 0.875, "nothing positive is best, midway to 1"
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    assert np.float32(tune([low, high], [0, 1])) == high
    above_one = tune([1.0, 1.0, 1.0, 0.2], [1, 0, 0, 0], metric="accuracy")
    assert np.float32(above_one) > 1


def test_the_bootstrap_is_repeatable_and_close_to_the_normal_interval():
    rng = np.random.default_rng(1)
    right = rng.random(400) < 0.8
    scores, labels = np.full(400, 0.9), right.astype(int)
    interval = partial(metrics.bootstrap_interval, metrics.get("accuracy", "binary"), scores, labels, resamples=400)
    low, high, undefined = interval(seed=0)
    assert interval(seed=0) == (low, high, undefined)
    # The standard error of a share: the percentile interval is close to the normal one.
    spread = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert_allclose([low, high], [right.mean() - spread, right.mean() + spread], atol=0.01)
    assert undefined == 0
    narrow = interval(seed=0, confidence=0.5)
    assert low < narrow.low < narrow.high < high


def test_the_bootstrap_excludes_undefined_resamples_and_masked_rows():
    scores, labels = np.array([0.9, 0.2, 0.3, np.nan]), np.array([1, 0, 0, 1])
    mask, sample_weight = np.array([True, True, True, False]), np.array([1.0, 2.0, 1.0, 1.0])
    auc = metrics.get("auc", "binary")
    result = metrics.bootstrap_interval(
        auc, scores, labels, seed=0, resamples=200, mask=mask, sample_weight=sample_weight
    )
    assert result[:2] == (1, 1)
    # A resample of three rows is undefined without the one positive, (2/3)^3, or with nothing else, (1/3)^3.
    assert result.undefined / 200 == pytest.approx(1 / 3, abs=0.1)
    one_class = metrics.bootstrap_interval(auc, [0.1, 0.2], [0, 0], seed=0, resamples=5)
    assert math.isnan(one_class.low)
    assert one_class.undefined == 5


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_report_contains_every_metric_of_its_problem_and_is_json(problem):
    scores, labels, sample_weight, mask = draw_data(11, problem, columns=7)
    summary = metrics.report(scores, labels, problem=problem, sample_weight=sample_weight, mask=mask)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary["metrics"]) == [name for name, p in FITTING if p == problem]
    for name, value in summary["metrics"].items():
        direct = metrics.get(name, problem)(scores, labels, sample_weight=sample_weight, mask=mask)
        close(math.nan if value is None else value, direct)
    assert list(summary["labels"]) == (["1"] if problem == "binary" else [str(i) for i in range(7)])
    assert summary["examples"] == len(counted(scores, labels, sample_weight, mask)[0])


def test_a_report_of_many_classes_takes_little_more_memory_than_their_scores():
    classes, rows, rng = 1_200, 100, np.random.default_rng(0)
    labels, scores = rng.integers(0, classes, rows), rng.random((rows, classes)) ** 40
    scores[np.arange(rows), labels] += rng.random(rows)
    scores /= scores.sum(axis=1, keepdims=True)
    tracemalloc.start()
    report = metrics.report(scores, labels)
    intervals = metrics.report_intervals(report, scores, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * scores.nbytes  # a confusion matrix takes twelve times as much
    with patch.object(confusion, "_MOST_CLASSES", classes), patch.object(averages, "MOST_LABELS", classes):
        complete = metrics.report(scores, labels)
        complete_intervals = metrics.report_intervals(complete, scores, labels)
    for name, value in complete["metrics"].items():
        close(report["metrics"][name], value)
    assert [*report["labels"]] == [*intervals["labels"]] == [str(label) for label in np.unique(labels)]
    assert report["labels_left_out"] == classes - len(report["labels"])
    assert report["labels"] == {label: complete["labels"][label] for label in report["labels"]}
    assert intervals["metrics"] == complete_intervals["metrics"]
    with pytest.raises(InputError, match="74 GiB; confusion_cells"):
        metrics.confusion_matrix(np.broadcast_to(0.0, (1, 100_000)), [0])


def test_a_report_applies_tuned_thresholds():
    scores, labels = [[0.1, 0.6], [0.2, 0.7]], [[0, 0], [1, 1]]
    tuned = metrics.tune_threshold(scores, labels, problem="multilabel")
    assert metrics.report(scores, labels, problem="multilabel")["metrics"]["f1"] < 1
    assert metrics.report(scores, labels, problem="multilabel", threshold=tuned)["metrics"]["f1"] == 1


def test_a_score_at_the_threshold_is_positive():
    assert metrics.recall([0.5], [1], problem="binary") == 1
    assert metrics.recall([[0.3, 0.3]], [[1, 1]], problem="multilabel", threshold=[0.3, 0.31]) == 0.5


def test_a_declared_problem_decides_what_the_arrays_mean():
    scores = np.array([[0.9, 0.8], [0.3, 0.1]])
    labels = np.array([[1, 0], [0, 0]])
    assert metrics.accuracy(scores, labels, problem="multilabel") == 0.75
    with pytest.raises(InputError, match=r"labels must have shape \(2,\)"):
        metrics.accuracy(scores, labels, problem="multiclass")


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc", "log_loss", "ece", "mcc", "kappa"])
def test_the_problem_is_inferred_from_shapes_that_decide_it(name, problem):
    scores, labels, sample_weight, mask = draw_data(7, problem)
    options = {"sample_weight": sample_weight, "mask": mask}
    close(metrics.get(name)(scores, labels, **options), metrics.get(name, problem)(scores, labels, **options))
    assert metrics.report(scores, labels, **options) == metrics.report(scores, labels, problem=problem, **options)


@pytest.mark.parametrize("name", metrics.names("multilabel"))
def test_two_dimensional_labels_need_a_problem_and_the_error_shows_the_call(name):
    scores, one_hot = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), np.array([[1, 0], [0, 1], [0, 1]])
    if name == "subset_accuracy":  # fits no other problem
        assert metrics.get(name)(scores, one_hot) == metrics.get(name, "multilabel")(scores, one_hot)
        return
    with pytest.raises(InputError, match=r"problem='multilabel'\).*labels\.argmax\(axis=1\)"):
        metrics.get(name)(scores, one_hot)
    assert math.isfinite(metrics.get(name)(scores, one_hot, problem="multilabel"))
    assert math.isfinite(metrics.get(name)(scores, one_hot.argmax(axis=1)))


@pytest.mark.parametrize(("name", "problem"), FITTING)
def test_every_metric_is_better_in_its_direction(name, problem):
    perfect, wrong = {"binary": ([1.0, 0.0], [0.0, 1.0]), "multilabel": (np.eye(2), 1 - np.eye(2))}.get(problem) or (
        np.eye(6),
        np.roll(np.eye(6), 1, axis=1),
    )
    if name == "top_k_accuracy":
        wrong = 1 - np.eye(6)
    labels = np.arange(6) if problem == "multiclass" else np.asarray(perfect).astype(int)
    best, worst = (metrics.get(name, problem)(scores, labels) for scores in (perfect, wrong))
    assert best > worst if metrics.direction(name) == "max" else best < worst


def test_unknown_names_and_problems_that_do_not_fit_are_rejected():
    assert metrics.get("auc", "binary").func is metrics.get("roc_auc", "binary").func
    with pytest.raises(InputError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        metrics.direction("acuracy")
    with pytest.raises(InputError, match=r"does not fit a binary problem\. Those that do: accuracy"):
        metrics.get("top_k_accuracy", "binary")
    with pytest.raises(InputError, match=r"unknown problem 'multi-label'\. Did you mean 'multilabel'"):
        metrics.get("accuracy", "multi-label")


binary = partial(metrics.accuracy, problem="binary")
multiclass = partial(metrics.accuracy, problem="multiclass")
multilabel = partial(metrics.f1, problem="multilabel")
HALVES = [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binary([0.1, math.nan], [0, 1]), "scores must be finite; row 1 holds nan"),
        (lambda: binary([0.1, math.nan, -3], [0, 1, 1], mask=[True, False, True]), r"row 2 holds \[-3"),
        (lambda: binary([0.1, 2.5], [0, 1]), "Apply sigmoid to logits first"),
        (lambda: metrics.log_loss([[1.0, 3.0]], [0], problem="multiclass"), "Apply softmax to logits"),
        (
            lambda: metrics.brier_score([[9, 9], [0.9, 0.9]], [0, 0], problem="multiclass", mask=[False, True]),
            "sum to 1; row 1 sums to 1.8",
        ),
        (
            lambda: binary([[0.1], [0.2]], [0, 1]),
            r"binary scores must have shape \(N,\), got \(2, 1\). Squeeze the scores",
        ),
        (lambda: binary([0.1, 0.2], [[0], [1]]), r"labels must have shape \(2,\).* Squeeze the labels"),
        (lambda: multiclass([[0.1]], [0]), "two classes or more"),
        (lambda: multiclass(HALVES, [0, 2]), "labels must be from 0 to 1, .*row 1 holds 2"),
        (lambda: multiclass(HALVES, [0, -1]), "row 1 holds -1"),
        (lambda: multiclass(HALVES, [0.0, 1.0]), "must be integer class indices, got float64"),
        (lambda: multiclass(HALVES, [0, 1], threshold=0.3), "takes no threshold"),
        (lambda: multilabel(HALVES, [[0, 1], [0, 2]]), "labels must be 0 or 1; row 1 holds 2"),
        (lambda: multilabel(HALVES, [[0, 1], [0, 1]], threshold=[0.5] * 3), r"shape \(\) or \(2,\)"),
        (lambda: multilabel(HALVES, [[0, 1], [0, 1]], average="binary"), "is for a binary problem"),
        (lambda: multilabel(HALVES, [[0, 1], [0, 1]], average="mean"), "unknown average 'mean'"),
        (lambda: metrics.f1([0.5], [1], problem="binary", average="macro"), "a binary problem has one"),
        (lambda: metrics.f_beta([0.5], [1], problem="binary", beta=0), "beta must be a positive number"),
        (lambda: binary([], []), "scores are empty"),
        (
            lambda: binary([0.5], [1], weights=[1]),
            "unknown option of this metric 'weights'.*Known: mask, problem, sample_",
        ),
        (lambda: binary([0.5], [1], sample_weights=[1]), "Did you mean 'sample_weight'"),
        (lambda: metrics.f1([0.5], [1], treshold=0.4), "Did you mean 'threshold'"),
        (lambda: metrics.roc_curve(HALVES, [0, 1], problem="multiclass"), "fits binary problems only"),
        (lambda: metrics.top_k_accuracy([0.5], [1], problem="binary"), "fits multiclass problems only"),
        (lambda: binary([0.5], [1], mask=[False]), "no example is left"),
        (lambda: binary([0.5, 0.5], [1, math.nan]), "labels must be 0 or 1; row 1 holds nan"),
        (lambda: multiclass(HALVES, [0, math.nan]), "must be integer class indices, got float64"),
        (lambda: multilabel(HALVES, [[math.nan] * 2] * 2), "no example is left: every label"),
        (lambda: metrics.bootstrap_interval(multilabel, HALVES, [[math.nan] * 2] * 2, seed=0), "every label"),
        (lambda: metrics.bootstrap_interval(binary, [0.5], [math.nan], seed=0), "row 0 holds nan"),
        (lambda: binary([0.5], [1], sample_weight=[0]), "no example is left"),
        (lambda: binary([0.5], [1], mask=[1]), "mask must be 1 booleans, got int64"),
        (lambda: binary([0.5], [1], sample_weight=[[1]]), r"sample_weight must have shape \(1,\)"),
        (lambda: binary([0.5, 0.5], [1, 1], sample_weight=[1, -1]), "sample_weight must be finite.*row 1 holds -1"),
        (lambda: binary(["high"], [1]), "scores must be an array of numbers"),
        (lambda: binary([0.5], ["cat"]), "labels must be 0 or 1; row 0 holds cat"),
        (lambda: metrics.top_k_accuracy(HALVES, [0, 1], k=2), "k must be at least 1 and below the 2 classes"),
        (lambda: metrics.cohen_kappa([0.5], [1], problem="binary", weighting="cubic"), "unknown weighting"),
        (lambda: metrics.recall_at_precision([0.5], [1], problem="binary", at=90), "at must be a precision"),
        (lambda: metrics.expected_calibration_error([0.5], [1], problem="binary", bins=0), "bins must be"),
        (lambda: metrics.tune_threshold([0.5], [1], problem="binary", metric="f2"), "unknown metric to tune"),
        (lambda: metrics.tune_threshold(HALVES, [0, 1], problem="multiclass"), "takes no threshold"),
        (lambda: metrics.bootstrap_interval(binary, [0.5], [1], seed=0, confidence=95), "between 0 and 1"),
        (lambda: metrics.bootstrap_interval(binary, [0.5], [1], seed=0, resamples=0), "at least 1"),
        (lambda: metrics.bootstrap_interval(binary, [0.5], [1, 0], seed=0), "differ in their number of rows"),
        (
            lambda: metrics.report([0.5], [1], problem="binary", class_names=["a"]),
            "must be 2 different names",
        ),
        (lambda: metrics.report(HALVES, [0, 1], problem="multiclass", class_names=["a", "a"]), "different"),
    ],
)
def test_invalid_input_is_rejected(call, message):
    with pytest.raises(InputError, match=message):
        call()
