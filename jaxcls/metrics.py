"""Exact metrics of collected scores and labels, on the host, in float64 NumPy.

Every metric is a function `(scores, labels, *, problem, weights=None, mask=None, ...)`. What its arrays mean
is decided by the declared `problem`, never by their shapes:

| problem      | scores                      | labels                       |
|--------------|-----------------------------|------------------------------|
| 'binary'     | (N,), of the positive class | (N,), 0 or 1                 |
| 'multiclass' | (N, K), one a class         | (N,), integers from 0 to K-1 |
| 'multilabel' | (N, L), one a label         | (N, L), 0 or 1               |

- `weights` (N,) are scikit-learn's `sample_weight`; rows whose `mask` (N,) is False are padding and are not
  read. Rows of weight 0 count for nothing, as if they were not there.
- Scores are probabilities. Metrics that only rank (`roc_auc`, `average_precision`, ...) or only take the
  highest score of a row (multiclass predictions) accept any finite score, logits too.
- A binary or multilabel prediction is positive where `score >= threshold`, one threshold or one a label; a
  multiclass prediction is the highest score, the first of equals.
- Vectors come first, averages second. `average` is None (the vector: one value a label, or one a class
  against the rest), 'macro' (the mean), 'weighted' (the mean weighted by the positives of each label),
  'micro' (all decisions in one pool) or, for the one label of a binary problem, 'binary'. 'auto' is 'binary'
  there and 'macro' elsewhere.
- A label for which a metric is 0/0 (an AUC of one class only, a recall without positives) is nan in the
  vector and is left out of the averages; `report` names it. No other value is: precision is 0 where nothing
  was predicted and there was something to find, as in scikit-learn.

Bad arrays raise an `InputError` that names the argument and the row. Definitions and ties are scikit-learn's.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls.errors import InputError, unknown_name

Problem = Literal["binary", "multiclass", "multilabel"]
Average = Literal["auto", "binary", "micro", "macro", "weighted"]
FloatArray = NDArray[np.float64]
Rows = ArrayLike | None  # one value a row, or None for the default of every row


# Decisions: a threshold or an arg-max turns scores into predictions; a confusion matrix holds the rest.


def confusion_matrix(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> FloatArray:
    """The weight of the examples of each true class (row) predicted as each class (column).

    (2, 2) for binary, (K, K) for multiclass, (L, 2, 2) for multilabel.

    >>> confusion_matrix([0.9, 0.5, 0.2], [1, 0, 0], problem="binary")
    array([[1., 1.],
           [0., 1.]])
    """
    matrices = _confusion(_collect(scores, labels, problem, weights, mask), threshold)
    return matrices if problem == "multilabel" else matrices[0]


def accuracy(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float:
    """The share of decisions that are right; for multilabel the mean over the labels (see `subset_accuracy`).

    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1], problem="multiclass")
    0.5
    """
    matrices = _confusion(_collect(scores, labels, problem, weights, mask), threshold)
    return _mean_of_defined(_accuracy(matrices))


def subset_accuracy(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float:
    """The share of multilabel rows whose labels are all right (exact match).

    >>> subset_accuracy([[0.9, 0.1], [0.9, 0.1]], [[1, 0], [1, 1]])
    0.5
    """
    data = _collect(scores, labels, "multilabel", weights, mask)
    right = (_predict(data, threshold) == data.truth).all(axis=1)
    return float(np.average(right, weights=data.weights))


def balanced_accuracy(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float:
    """The mean recall of the classes that occur, nan if only one does; for multilabel the mean over labels.

    >>> balanced_accuracy([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1], problem="binary")
    0.5
    """
    matrices = _confusion(_collect(scores, labels, problem, weights, mask), threshold)
    return _mean_of_defined(_balanced_accuracy(matrices))


def top_k_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, k: int = 5, weights: Rows = None, mask: Rows = None
) -> float:
    """The share of multiclass rows whose true class is among the k highest scores (k below the class count).

    Of equal scores the later class ranks higher, as in scikit-learn.

    >>> top_k_accuracy([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2], k=2)
    0.5
    """
    data = _collect(scores, labels, "multiclass", weights, mask)
    classes = data.scores.shape[1]
    if not 1 <= k < classes:
        raise InputError(f"k must be at least 1 and below the {classes} classes of the scores, got {k}")
    of_truth = np.take_along_axis(data.scores, data.truth, axis=1)
    later = np.arange(classes) > data.truth
    rank = ((data.scores > of_truth) | ((data.scores == of_truth) & later)).sum(axis=1)
    return float(np.average(rank < k, weights=data.weights))


def precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """TP / (TP + FP): the share of the predicted positives that are positive.

    Where nothing was predicted it is 0, or nan if there was nothing to predict.

    >>> precision([0.9, 0.6, 0.2], [1, 0, 0], problem="binary")
    0.5
    """
    return _counted(_precision, _collect(scores, labels, problem, weights, mask), average, threshold)


def recall(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """TP / (TP + FN): the share of the positives that were predicted (sensitivity); nan without positives.

    >>> recall([[0.9, 0.1], [0.2, 0.1]], [[1, 0], [1, 0]], problem="multilabel", average=None)
    array([0.5, nan])
    """
    return _counted(_recall, _collect(scores, labels, problem, weights, mask), average, threshold)


def specificity(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """TN / (TN + FP): the share of the negatives that were not predicted; nan without negatives.

    >>> specificity([0.9, 0.6, 0.2], [1, 0, 0], problem="binary")
    0.5
    """
    return _counted(_specificity, _collect(scores, labels, problem, weights, mask), average, threshold)


def f_beta(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    beta: float = 1.0,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The harmonic mean of precision and recall, with recall `beta` times as important.

    nan for a label that neither occurs nor was predicted. Macro is the mean of the labels' values.

    >>> f_beta([0.9, 0.6, 0.2], [1, 0, 0], problem="binary", beta=2.0)
    0.833...
    """
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta must be a positive number, got {beta}")
    data = _collect(scores, labels, problem, weights, mask)
    return _counted(partial(_f_beta, beta=beta), data, average, threshold)


def f1(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """`f_beta` with beta 1: 2 TP / (2 TP + FP + FN).

    >>> f1([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [0, 1], problem="multiclass", average=None)
    array([0.66666667, 0.        ,        nan])
    """
    return _counted(_f_beta, _collect(scores, labels, problem, weights, mask), average, threshold)


def matthews_correlation(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float:
    """The correlation of truth and prediction, -1 to 1; for multilabel the mean over the labels.

    0 where all predictions are the same, as in scikit-learn; nan where the truth has one class only.
    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".

    >>> matthews_correlation([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], problem="binary")
    1.0
    """
    matrices = _confusion(_collect(scores, labels, problem, weights, mask), threshold)
    return _mean_of_defined(_matthews_correlation(matrices))


def cohen_kappa(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    weighting: Literal["none", "linear", "quadratic"] = "none",
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> float:
    """The agreement of truth and prediction beyond chance; for multilabel the mean over the labels.

    `weighting` says how a disagreement grows with the distance of two ordered classes (scikit-learn's
    `weights`); every class of the scores has its place in the order, whether it occurs or not. nan where
    truth and prediction are all one class. Source: Cohen (1960; 1968 for the weighting).

    >>> cohen_kappa([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.6, 0.3]], [0, 1, 2], problem="multiclass")
    0.5
    """
    matrices = _confusion(_collect(scores, labels, problem, weights, mask), threshold)
    ranks = np.arange(matrices.shape[-1])
    distance = np.abs(ranks[:, None] - ranks)
    costs = {"none": distance > 0, "linear": distance, "quadratic": distance**2}
    if weighting not in costs:
        raise unknown_name("weighting", weighting, costs)
    rows, columns = matrices.sum(axis=2), matrices.sum(axis=1)
    expected = rows[:, :, None] * columns[:, None, :] / rows.sum(axis=1)[:, None, None]
    observed_cost = (costs[weighting] * matrices).sum(axis=(1, 2))
    return _mean_of_defined(1 - _ratio(observed_cost, (costs[weighting] * expected).sum(axis=(1, 2))))


# Rankings: exact curves over every distinct score.


def roc_auc(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    average: Average | None = "auto",
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The area under the ROC curve: the chance that a positive outranks a negative, half of it for ties.

    Multiclass is one class against the rest. nan for a label with one class only.

    >>> roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], problem="binary")
    0.75
    """
    return _ranked(_roc_auc, _collect(scores, labels, problem, weights, mask), average)


def average_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    average: Average | None = "auto",
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The sum of the precision at each distinct score times the recall gained there, without interpolation.

    Multiclass is one class against the rest. nan for a label without positives, where scikit-learn says 0.

    >>> average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], problem="binary")
    0.833...
    """
    return _ranked(_average_precision, _collect(scores, labels, problem, weights, mask), average)


def recall_at_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    at: float = 0.9,
    average: Average | None = "auto",
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The highest recall of any threshold whose precision is at least `at`, 0 if no threshold reaches it.

    nan for a label without positives.

    >>> recall_at_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], problem="binary", at=0.6)
    1.0
    """
    if not 0 < at <= 1:
        raise InputError(f"at must be a precision above 0 and at most 1, got {at}")
    data = _collect(scores, labels, problem, weights, mask)
    return _ranked(partial(_recall_at_precision, at=at), data, average)


class RocCurve(NamedTuple):
    """The false and the true positive rate where a score of at least `thresholds` is positive."""

    fpr: FloatArray
    tpr: FloatArray
    thresholds: FloatArray


def roc_curve(scores: ArrayLike, labels: ArrayLike, *, weights: Rows = None, mask: Rows = None) -> RocCurve:
    """The ROC curve of a binary problem (or one multilabel column), one point a distinct score.

    The thresholds fall from inf, where nothing is positive; this is scikit-learn's with
    `drop_intermediate=False`. A rate without its class is nan.

    >>> roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).tpr
    array([0. , 0.5, 0.5, 1. , 1. ])
    """
    data = _collect(scores, labels, "binary", weights, mask)
    ranking = _rank(data.scores[:, 0], data.truth[:, 0] == 1, data.weights)
    return RocCurve(
        _ratio(np.append(0.0, ranking.false_positives), ranking.negatives),
        _ratio(np.append(0.0, ranking.true_positives), ranking.positives),
        np.append(np.inf, ranking.thresholds),
    )


class PrecisionRecallCurve(NamedTuple):
    """`precision` and `recall` where a score of at least `thresholds` is positive, then the point (1, 0)."""

    precision: FloatArray
    recall: FloatArray
    thresholds: FloatArray


def precision_recall_curve(
    scores: ArrayLike, labels: ArrayLike, *, weights: Rows = None, mask: Rows = None
) -> PrecisionRecallCurve:
    """The precision-recall curve of a binary problem (or one multilabel column), one point a distinct score.

    The thresholds rise, as in scikit-learn; precision and recall have one point more. Recall is nan without
    positives.

    >>> precision_recall_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).recall
    array([1. , 1. , 0.5, 0.5, 0. ])
    """
    data = _collect(scores, labels, "binary", weights, mask)
    ranking = _rank(data.scores[:, 0], data.truth[:, 0] == 1, data.weights)
    return PrecisionRecallCurve(
        np.append(ranking.precision[::-1], 1.0),
        np.append(ranking.recall[::-1], 0.0),
        ranking.thresholds[::-1],
    )


# Probabilities: what the values themselves are worth.


def log_loss(
    scores: ArrayLike, labels: ArrayLike, *, problem: Problem, weights: Rows = None, mask: Rows = None
) -> float:
    """The mean of -log of the probability of the truth, in nats; for multilabel the mean over the labels.

    A probability of 0 counts as 2.2e-16 (36.04 nats), as in scikit-learn.

    >>> log_loss([0.8, 0.4], [1, 0], problem="binary")
    0.366...
    """
    data = _collect(scores, labels, problem, weights, mask)
    _require_probabilities(data)
    if problem == "multiclass":
        of_truth = np.take_along_axis(data.scores, data.truth, axis=1)
    else:
        of_truth = np.where(data.truth == 1, data.scores, 1 - data.scores)
    losses = -np.log(np.maximum(of_truth, np.finfo(np.float64).eps))
    return float(np.average(losses.mean(axis=1), weights=data.weights))


def brier_score(
    scores: ArrayLike, labels: ArrayLike, *, problem: Problem, weights: Rows = None, mask: Rows = None
) -> float:
    """The mean squared error of the probabilities; for multilabel the mean over the labels.

    Multiclass sums the squares over the classes and runs from 0 to 2; the other two run from 0 to 1.
    Source: Brier (1950), "Verification of forecasts expressed in terms of probability".

    >>> brier_score([0.5, 0.0], [1, 0], problem="binary")
    0.125
    """
    data = _collect(scores, labels, problem, weights, mask)
    _require_probabilities(data)
    squares = (data.scores - _one_vs_rest(data)) ** 2
    errors = squares.sum(axis=1) if problem == "multiclass" else squares.mean(axis=1)
    return float(np.average(errors, weights=data.weights))


def expected_calibration_error(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    bins: int = 15,
    weights: Rows = None,
    mask: Rows = None,
) -> float:
    """The mean gap between confidence and accuracy over equal-width bins of top-1 confidence.

    The confidence of a binary decision is max(p, 1 - p); for multilabel it is the mean over the labels. A bin
    holds its upper edge. Source: Guo et al. (2017), "On calibration of modern neural networks", arXiv
    1706.04599.

    >>> round(expected_calibration_error([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0], problem="binary"), 6)
    0.05
    """
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    data = _collect(scores, labels, problem, weights, mask)
    _require_probabilities(data)
    if problem == "multiclass":
        confidence = data.scores.max(axis=1, keepdims=True)
    else:
        confidence = np.maximum(data.scores, 1 - data.scores)
    surplus = data.weights[:, None] * (confidence - (_predict(data, 0.5) == data.truth))
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    cells = np.digitize(confidence, inner_edges, right=True)
    gaps = [np.abs(np.bincount(c, weights=s)).sum() for c, s in zip(cells.T, surplus.T, strict=True)]
    return float(np.mean(gaps) / data.weights.sum())


# Choosing a threshold, and saying how sure a value is.


def tune_threshold(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    metric: Literal["f1", "accuracy", "balanced_accuracy", "mcc"] = "f1",
    weights: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The threshold that maximises `metric`: one for binary, (L,) for multilabel, each label for itself.

    Exact: every way to cut the sorted probabilities is tried, in O(n log n). A threshold lies midway between
    the two distinct scores that it parts (0 and 1 at the ends; just above 1 if even a score of 1 is better
    taken as negative); of equally good cuts the highest is taken. A label with one class only keeps 0.5. Tune
    on validation data, never on the data of the final score.

    >>> tune_threshold([0.1, 0.25, 0.5, 0.75], [0, 0, 1, 1], problem="binary")
    0.375
    """
    if metric not in _TUNABLE:
        raise unknown_name("metric to tune a threshold for", metric, _TUNABLE)
    data = _collect(scores, labels, problem, weights, mask)
    if problem == "multiclass":
        raise InputError("a multiclass prediction is the highest score of its row: it takes no threshold")
    _require_probabilities(data)
    columns = zip(data.scores.T, data.truth.T == 1, strict=True)
    best = np.array([_best_threshold(_rank(s, p, data.weights), _TUNABLE[metric]) for s, p in columns])
    return float(best[0]) if problem == "binary" else best


class Interval(NamedTuple):
    """The bounds of an interval, and how many resamples were left out because the metric was nan on them."""

    low: float
    high: float
    undefined: int


def bootstrap_interval(
    metric: Callable[..., float],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1000,
    weights: Rows = None,
    mask: Rows = None,
) -> Interval:
    """The percentile bootstrap interval of `metric(scores, labels)` over resampled rows.

    `metric` is what `get` returns, or any function of (scores, labels) and, if weights are given, `weights=`.
    Resamples on which it is nan (an AUC without positives) are left out and counted; both bounds are nan if
    all are. The interval is then conditional on the metric being defined: distrust it when many were left
    out. Source: Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13.

    >>> bootstrap_interval(get("accuracy", "binary"), [0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], seed=0)
    Interval(low=1.0, high=1.0, undefined=0)
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    score_rows, label_rows = np.asarray(scores), np.asarray(labels)
    if score_rows.shape[:1] != label_rows.shape[:1]:
        raise InputError(f"scores {score_rows.shape} and labels {label_rows.shape} differ in their rows")
    row_weights, row_mask = _weights_and_mask(len(score_rows), weights, mask)
    kept = np.flatnonzero(row_mask & (row_weights > 0))
    rng = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        rows = rng.choice(kept, size=len(kept))
        weighting = {} if weights is None else {"weights": row_weights[rows]}
        values[i] = metric(score_rows[rows], label_rows[rows], **weighting)
    defined = values[~np.isnan(values)]
    if not defined.size:
        return Interval(math.nan, math.nan, resamples)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), resamples - defined.size)


# Names, as a command line gives them.


class Metric(NamedTuple):
    """What a name stands for: the function, the problems that it fits, and which direction is better."""

    function: Callable[..., Any]
    problems: tuple[Problem, ...] = get_args(Problem)
    direction: Literal["max", "min"] = "max"


METRICS = {
    "accuracy": Metric(accuracy),
    "subset_accuracy": Metric(subset_accuracy, ("multilabel",)),
    "balanced_accuracy": Metric(balanced_accuracy),
    "top_k_accuracy": Metric(top_k_accuracy, ("multiclass",)),
    "precision": Metric(precision),
    "recall": Metric(recall),
    "specificity": Metric(specificity),
    "f1": Metric(f1),
    "mcc": Metric(matthews_correlation),
    "kappa": Metric(cohen_kappa),
    "roc_auc": Metric(roc_auc),
    "average_precision": Metric(average_precision),
    "recall_at_precision": Metric(recall_at_precision),
    "log_loss": Metric(log_loss, direction="min"),
    "brier_score": Metric(brier_score, direction="min"),
    "ece": Metric(expected_calibration_error, direction="min"),
}
ALIASES = {"auc": "roc_auc"}


def get(name: str, problem: Problem) -> Callable[..., float]:
    """The metric of that name as `function(scores, labels, *, weights=None, mask=None) -> float`.

    Its other options (`threshold`, `k`, ...) stay open to the caller. Raises `InputError` for an unknown name
    and for a metric that does not fit the problem.

    >>> get("auc", "binary")([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    metric = _named(name)
    _check_problem(problem)
    if problem not in metric.problems:
        fitting = ", ".join(known for known, other in METRICS.items() if problem in other.problems)
        raise InputError(f"the metric {name!r} does not fit a {problem} problem. Those that do: {fitting}.")
    return partial(metric.function, problem=problem) if _takes(metric, "problem") else metric.function


def direction(name: str) -> Literal["max", "min"]:
    """Whether greater ('max') or less ('min') of the metric of that name is better.

    >>> direction("log_loss")
    'min'
    """
    return _named(name).direction


def report(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: Problem,
    class_names: Sequence[str] | None = None,
    threshold: ArrayLike = 0.5,
    weights: Rows = None,
    mask: Rows = None,
) -> dict[str, Any]:
    """Every metric that fits the problem, as a plain dict that JSON can hold (nan becomes None).

    - `metrics`: name -> value, averaged as by `get`, at default options (k=5, precision 0.9, 15 bins).
      `top_k_accuracy` is there from 6 classes on.
    - `labels`: label -> its support (the weight of its positives) and its value of every metric that takes
      `average`. A binary problem has one label, the positive class.
    - `undefined_labels`: metric -> the labels that were left out of its average, where there were any. The
      metrics without a value for each label leave out no more than `roc_auc` does.

    `class_names` are the K classes, the L labels, or the negative and the positive class; numbers if not
    given. `scores` are probabilities; `threshold` is one value or one a label, 0.5 for multiclass.

    >>> scores, labels = [[0.9, 0.1], [0.2, 0.3]], [[1, 0], [0, 0]]
    >>> summary = report(scores, labels, problem="multilabel", class_names=["cat", "dog"])
    >>> summary["metrics"]["roc_auc"], summary["labels"]["dog"]["roc_auc"]
    (1.0, None)
    >>> summary["undefined_labels"]["roc_auc"]
    ['dog']
    """
    data = _collect(scores, labels, problem, weights, mask)
    names = _label_names(class_names, problem, data.scores.shape[1])
    values: dict[str, float] = {}
    vectors: dict[str, FloatArray] = {}
    for name, metric in METRICS.items():
        if problem not in metric.problems or (name == "top_k_accuracy" and len(names) <= 5):
            continue
        function = partial(get(name, problem), scores, labels, weights=weights, mask=mask)
        if _takes(metric, "threshold"):
            function = partial(function, threshold=threshold)
        if _takes(metric, "average"):
            vectors[name] = np.asarray(function(average=None))
            values[name] = _mean_of_defined(vectors[name])
        else:
            values[name] = function()
    support = data.weights @ _one_vs_rest(data)
    table = {"support": support, **vectors}
    return {
        "problem": problem,
        "examples": len(data.weights),
        "metrics": {name: _json(value) for name, value in values.items()},
        "labels": {label: {name: _json(column[i]) for name, column in table.items()} for i, label in enumerate(names)},
        "undefined_labels": {
            name: [names[i] for i in np.flatnonzero(np.isnan(vector))]
            for name, vector in vectors.items()
            if np.isnan(vector).any()
        },
    }


def _named(name: str) -> Metric:
    canonical = ALIASES.get(name, name)
    if canonical not in METRICS:
        raise unknown_name("metric", name, [*METRICS, *ALIASES])
    return METRICS[canonical]


def _takes(metric: Metric, option: str) -> bool:
    return option in inspect.signature(metric.function).parameters


def _label_names(class_names: Sequence[str] | None, problem: Problem, columns: int) -> list[str]:
    count = 2 if problem == "binary" else columns
    names = [str(i) for i in range(count)] if class_names is None else list(class_names)
    if len(names) != count or len(set(names)) != count:
        raise InputError(f"class_names must be {count} different names for a {problem} problem, got {names}")
    return names[1:] if problem == "binary" else names


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


# What was collected, checked once, in one form for the three problems.


class _Collected(NamedTuple):
    """The rows that count. A row of a multiclass problem is one decision, any other row is one a column.

    scores (N, C); truth (N, decisions), the class of each decision; weights (N,), all above 0; rows (N,),
    where each row stood, for messages.
    """

    scores: FloatArray
    truth: NDArray[np.int64]
    weights: FloatArray
    rows: NDArray[np.intp]
    problem: Problem


def _collect(scores: ArrayLike, labels: ArrayLike, problem: Problem, weights: Rows, mask: Rows) -> _Collected:
    _check_problem(problem)
    values, truth = _numbers(scores, "scores"), np.asarray(labels)
    _check_shapes(values.shape, truth.shape, problem)
    row_weights, row_mask = _weights_and_mask(len(values), weights, mask)
    values, truth = values.reshape(len(values), -1), truth.reshape(len(truth), -1)
    _check_rows(np.isfinite(values), row_mask, values, "scores", "must be finite")
    if problem == "multiclass":
        if truth.dtype.kind not in "iu":
            raise InputError(f"multiclass labels must be integer class indices, got {truth.dtype}")
        last = values.shape[1] - 1
        rule = f"must be from 0 to {last}, one for each column of scores"
        _check_rows((truth >= 0) & (truth <= last), row_mask, truth, "labels", rule)
    else:
        _check_rows((truth == 0) | (truth == 1), row_mask, truth, "labels", "must be 0 or 1")
    kept = np.flatnonzero(row_mask & (row_weights > 0))
    return _Collected(values[kept], truth[kept].astype(np.int64), row_weights[kept], kept, problem)


def _numbers(values: ArrayLike, argument: str) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument} must be an array of numbers: {error}") from error


def _check_problem(problem: str) -> None:
    if problem not in get_args(Problem):
        raise unknown_name("problem", problem, get_args(Problem))


def _check_shapes(scores: tuple[int, ...], labels: tuple[int, ...], problem: Problem) -> None:
    columns = {"binary": "", "multiclass": "classes", "multilabel": "labels"}[problem]
    form = f"(examples, {columns})" if columns else "(examples,)"
    if len(scores) != (2 if columns else 1) or (problem == "multiclass" and scores[1] < 2):
        least = ", at least two classes" if problem == "multiclass" else ""
        raise InputError(f"scores of a {problem} problem must have shape {form}{least}, got {scores}")
    if 0 in scores:
        raise InputError(f"scores are empty: their shape is {scores}")
    expected = scores if problem == "multilabel" else scores[:1]
    if labels != expected:
        raise InputError(f"labels must have shape {expected} for {problem} scores {scores}, got {labels}")


def _weights_and_mask(rows: int, weights: Rows, mask: Rows) -> tuple[FloatArray, NDArray[np.bool_]]:
    row_mask = np.ones(rows, dtype=bool) if mask is None else np.asarray(mask)
    if row_mask.shape != (rows,) or row_mask.dtype != bool:
        raise InputError(f"mask must be {rows} booleans, got {row_mask.dtype} of shape {row_mask.shape}")
    row_weights = np.ones(rows) if weights is None else _numbers(weights, "weights")
    if row_weights.shape != (rows,):
        raise InputError(f"weights must have shape ({rows},), got {row_weights.shape}")
    valid = np.isfinite(row_weights) & (row_weights >= 0)
    _check_rows(valid[:, None], row_mask, row_weights[:, None], "weights", "must be finite and not negative")
    if not (row_weights[row_mask] > 0).any():
        raise InputError("no example is left: every row is masked or has weight 0")
    return row_weights, row_mask


def _check_rows(
    valid: NDArray[np.bool_], mask: NDArray[np.bool_], values: NDArray[Any], argument: str, rule: str
) -> None:
    bad = ~valid & mask[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"{argument} {rule}; row {row} holds {values[row, column]}")


def _require_probabilities(data: _Collected) -> None:
    remedy = f"Apply {'softmax' if data.problem == 'multiclass' else 'sigmoid'} to logits first."
    outside = ((data.scores < 0) | (data.scores > 1)).any(axis=1)
    if outside.any():
        i = outside.argmax()
        where = f"row {data.rows[i]} holds {data.scores[i]}"
        raise InputError(f"scores must be probabilities in [0, 1]; {where}. {remedy}")
    # A softmax in bfloat16 sums to 1 only to about 0.4%.
    excess = np.abs(data.scores.sum(axis=1) - 1)
    if data.problem == "multiclass" and (excess > 0.01).any():
        i = excess.argmax()
        where = f"row {data.rows[i]} sums to {data.scores[i].sum()}"
        raise InputError(f"multiclass scores must be probabilities that sum to 1; {where}. {remedy}")


def _one_vs_rest(data: _Collected) -> NDArray[np.bool_]:
    """Which example is a positive of which column, (N, C)."""
    return data.truth == (np.arange(data.scores.shape[1]) if data.problem == "multiclass" else 1)


# Averages.


def _mean_of_defined(vector: FloatArray, weights: FloatArray | None = None) -> float:
    weights = np.ones_like(vector) if weights is None else weights
    defined = ~np.isnan(vector)
    total = weights[defined].sum()
    return float(weights[defined] @ vector[defined] / total) if total > 0 else math.nan


def _check_average(average: Average | None, problem: Problem) -> None:
    if average is not None and average not in get_args(Average):
        raise unknown_name("average", average, get_args(Average))
    if problem == "binary" and average in ("micro", "macro", "weighted"):
        raise InputError(
            f"average={average!r} needs several labels and a binary problem has one: use 'binary', or "
            "problem='multiclass' with two columns of scores to average over both classes"
        )
    if problem != "binary" and average == "binary":
        raise InputError("average='binary' is for a binary problem: use 'micro', 'macro', 'weighted' or None")


def _averaged(vector: FloatArray, support: FloatArray, average: Average | None) -> float | FloatArray:
    if average is None:
        return vector
    return _mean_of_defined(vector, support if average == "weighted" else None)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """numerator / denominator, nan where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


# Confusion matrices (..., K, K), and the counts and metrics that they hold.


class _Counts(NamedTuple):
    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray


def _predict(data: _Collected, threshold: ArrayLike) -> NDArray[np.int64]:
    """The predicted class of each decision, in the shape of `data.truth`."""
    cut = _numbers(threshold, "threshold")
    if data.problem == "multiclass":
        if not np.array_equal(cut, 0.5):
            raise InputError("a multiclass prediction is the highest score of its row: it takes no threshold")
        return data.scores.argmax(axis=1)[:, None]
    _require_probabilities(data)
    shapes = [(), data.scores.shape[1:]] if data.problem == "multilabel" else [()]
    if cut.shape not in shapes or not np.isfinite(cut).all():
        raise InputError(f"threshold must be finite and of shape {' or '.join(map(str, shapes))}, got {threshold!r}")
    return (data.scores >= cut).astype(np.int64)


def _confusion(data: _Collected, threshold: ArrayLike) -> FloatArray:
    """One confusion matrix for each decision of a row: (1, 2, 2), (1, K, K) or (L, 2, 2)."""
    predicted = _predict(data, threshold)
    decisions = data.truth.shape[1]
    classes = data.scores.shape[1] if data.problem == "multiclass" else 2
    cells = (np.arange(decisions) * classes + data.truth) * classes + predicted
    weights = np.repeat(data.weights, decisions)
    totals = np.bincount(cells.ravel(), weights=weights, minlength=decisions * classes**2)
    return totals.reshape(decisions, classes, classes).astype(np.float64, copy=False)


def _counts(matrices: FloatArray) -> _Counts:
    """The counts of each class against the rest, (..., K)."""
    tp = np.diagonal(matrices, axis1=-2, axis2=-1)
    rows, columns = matrices.sum(axis=-1), matrices.sum(axis=-2)
    fp = columns - tp
    # The total is that of `rows`, so that a class that is alone has exactly 0 negatives, and no rounding.
    tn = np.maximum(rows.sum(axis=-1, keepdims=True) - rows - fp, 0)
    return _Counts(tp, fp, rows - tp, tn)


def _counts_of_positives(matrices: FloatArray) -> _Counts:
    """The counts of class 1 in (..., 2, 2), which are (...)."""
    return _Counts(*(count[..., 1] for count in _counts(matrices)))


def _counted(
    statistic: Callable[[_Counts], FloatArray],
    data: _Collected,
    average: Average | None,
    threshold: ArrayLike,
) -> float | FloatArray:
    """The statistic of the counts of each label, averaged."""
    _check_average(average, data.problem)
    matrices = _confusion(data, threshold)
    counts = _counts(matrices[0]) if data.problem == "multiclass" else _counts_of_positives(matrices)
    if average == "micro":
        return float(statistic(_Counts(*(count.sum() for count in counts))))
    return _averaged(statistic(counts), counts.tp + counts.fn, average)


def _precision(counts: _Counts) -> FloatArray:
    nothing_found = (counts.tp + counts.fp == 0) & (counts.fn > 0)
    return np.where(nothing_found, 0.0, _ratio(counts.tp, counts.tp + counts.fp))


def _recall(counts: _Counts) -> FloatArray:
    return _ratio(counts.tp, counts.tp + counts.fn)


def _specificity(counts: _Counts) -> FloatArray:
    return _ratio(counts.tn, counts.tn + counts.fp)


def _f_beta(counts: _Counts, beta: float = 1.0) -> FloatArray:
    found = (1 + beta**2) * counts.tp
    return _ratio(found, found + beta**2 * counts.fn + counts.fp)


def _accuracy(matrices: FloatArray) -> FloatArray:
    return _ratio(np.trace(matrices, axis1=-2, axis2=-1), matrices.sum(axis=(-2, -1)))


def _balanced_accuracy(matrices: FloatArray) -> FloatArray:
    recalls = _recall(_counts(matrices))
    occurring = (~np.isnan(recalls)).sum(axis=-1)
    return np.where(occurring > 1, _ratio(np.nansum(recalls, axis=-1), occurring), np.nan)


def _matthews_correlation(matrices: FloatArray) -> FloatArray:
    rows, columns = matrices.sum(axis=-1), matrices.sum(axis=-2)
    total = rows.sum(axis=-1)
    covariance = np.trace(matrices, axis1=-2, axis2=-1) * total - (rows * columns).sum(axis=-1)
    # As a sum of products, and each with its own total, a variance of one class only is exactly 0.
    variance_of_truth = (rows * (total[..., None] - rows)).sum(axis=-1)
    variance_of_prediction = (columns * (columns.sum(axis=-1, keepdims=True) - columns)).sum(axis=-1)
    correlation = _ratio(covariance, np.sqrt(variance_of_truth * variance_of_prediction))
    return np.where((variance_of_truth > 0) & (variance_of_prediction == 0), 0.0, correlation)


# Rankings.


class _Ranking(NamedTuple):
    """What is found at each distinct score of one label, from the highest down."""

    thresholds: FloatArray
    true_positives: FloatArray
    false_positives: FloatArray

    @property
    def positives(self) -> float:
        return self.true_positives[-1]

    @property
    def negatives(self) -> float:
        return self.false_positives[-1]

    @property
    def precision(self) -> FloatArray:
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def recall(self) -> FloatArray:
        return _ratio(self.true_positives, self.positives)


def _rank(scores: FloatArray, positive: NDArray[np.bool_], weights: FloatArray) -> _Ranking:
    # Stable, so that the rounding of summed weights does not depend on the sorting code of the machine.
    order = np.argsort(-scores, kind="stable")
    scores, positive, weights = scores[order], positive[order], weights[order]
    last_of_ties = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    true_positives = np.cumsum(np.where(positive, weights, 0.0))[last_of_ties]
    false_positives = np.cumsum(np.where(positive, 0.0, weights))[last_of_ties]
    return _Ranking(scores[last_of_ties], true_positives, false_positives)


def _ranked(statistic: Callable[[_Ranking], float], data: _Collected, average: Average | None) -> float | FloatArray:
    """The statistic of the ranking of each label, averaged."""
    _check_average(average, data.problem)
    positive = _one_vs_rest(data)
    if average == "micro":
        pooled_weights = np.repeat(data.weights, positive.shape[1])
        return statistic(_rank(data.scores.ravel(), positive.ravel(), pooled_weights))
    rankings = (_rank(s, p, data.weights) for s, p in zip(data.scores.T, positive.T, strict=True))
    return _averaged(np.array([statistic(r) for r in rankings]), data.weights @ positive, average)


def _roc_auc(ranking: _Ranking) -> float:
    if not (ranking.positives > 0 and ranking.negatives > 0):
        return math.nan
    heights = np.append(0.0, ranking.true_positives)
    area = np.diff(ranking.false_positives, prepend=0.0) @ (heights[1:] + heights[:-1]) / 2
    return float(area / ranking.positives / ranking.negatives)


def _average_precision(ranking: _Ranking) -> float:
    if not ranking.positives > 0:
        return math.nan
    return float(np.diff(ranking.true_positives, prepend=0.0) @ ranking.precision / ranking.positives)


def _recall_at_precision(ranking: _Ranking, at: float) -> float:
    if not ranking.positives > 0:
        return math.nan
    return float(ranking.recall[ranking.precision >= at].max(initial=0.0))


_TUNABLE: dict[str, Callable[[FloatArray], FloatArray]] = {
    "f1": lambda matrices: _f_beta(_counts_of_positives(matrices)),
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "mcc": _matthews_correlation,
}


def _best_threshold(ranking: _Ranking, metric: Callable[[FloatArray], FloatArray]) -> float:
    if not (ranking.positives > 0 and ranking.negatives > 0):
        return 0.5
    tp, fp = np.append(0.0, ranking.true_positives), np.append(0.0, ranking.false_positives)
    matrices = np.stack([ranking.negatives - fp, fp, ranking.positives - tp, tp], axis=-1).reshape(-1, 2, 2)
    # Cut i takes the i highest distinct scores as positive.
    cut = int(metric(matrices).argmax())
    highest = ranking.thresholds[0]
    just_above_one = float(np.nextafter(np.float32(1), np.float32(2)))
    lowest_positive = ranking.thresholds[cut - 1] if cut else (1.0 if highest < 1 else just_above_one)
    highest_negative = ranking.thresholds[cut] if cut < len(ranking.thresholds) else 0.0
    # Rounded to float32, so that a model that compares in float32 decides the same; where that rounds
    # onto the score below, the score above is the threshold.
    middle = float(np.float32((highest_negative + lowest_positive) / 2))
    return middle if highest_negative < middle <= lowest_positive else float(lowest_positive)
