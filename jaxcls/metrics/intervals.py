"""Confidence intervals of metrics: the bootstrap for any metric, and closed forms for all values of a report at once.

The closed forms take about the time of the report itself. A proportion of examples (an accuracy, the recall of a
label) has Wilson's interval, which also holds for few examples and for proportions of 0 and 1. F1 is 2J / (1 + J) of
the proportion J of correct examples among those that are positive or predicted positive, and has the interval of J.
Any other value has the interval of its standard error: the root of the sum of squared influences of the examples (the
infinitesimal jackknife; for the area under the ROC curve, DeLong's), on the logit scale, or on the log scale if the
value may exceed 1, so that no bound leaves the range of the metric.

An interval tells what other examples of the same population may give, not what another seed may give. Sources: Wilson
(1927), "Probable inference"; Efron (1982), "The jackknife, the bootstrap and other resampling plans", chapter 6; DeLong
et al. (1988), "Comparing the areas under two or more correlated receiver operating characteristic curves"; Efron and
Tibshirani (1993), "An introduction to the bootstrap", chapter 13.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import holds
from jaxcls.metrics.averages import listed, ratio
from jaxcls.metrics.collected import BoolArray, Collected, FloatArray, Options, collect, support, weights_and_mask
from jaxcls.metrics.confusion import predict
from jaxcls.metrics.probabilities import log_losses, squared_errors

Bounds = tuple[float, float]
# With fewer positives or negatives than this, the standard error of a ranking is itself unreliable.
_MIN_RANKED = 10


class Interval(NamedTuple):
    """The bounds of an interval, and the number of resamples left out because the metric was nan on them."""

    low: float
    high: float
    undefined: int


def mean_interval(values: Sequence[float | None], *, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the mean of the scores of several models, and half the width of its interval by Student's t.

    It tells what other seeds or folds may give. Those of folds share training examples, so their interval is somewhat
    too narrow (Bengio and Grandvalet 2004). Both are NaN where a score is missing, the width also of a single one.

    >>> [round(value, 3) for value in mean_interval([0.9, 0.92, 0.91])]
    [0.91, 0.025]
    """
    scores = np.array([np.nan if value is None else value for value in values])
    if len(scores) < 2:
        return float(scores.mean()), float("nan")
    from scipy.special import stdtrit  # takes a third of a second to import

    quantile = stdtrit(len(scores) - 1, (1 + confidence) / 2)
    return float(scores.mean()), float(quantile * scores.std(ddof=1) / np.sqrt(len(scores)))


def bootstrap_interval(
    metric: Callable[..., float],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1000,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Interval:
    """The percentile bootstrap interval of `metric(scores, labels)` over resampled examples.

    Resamples on which the metric is nan (an AUC without positives) are left out and counted; both bounds are nan if
    all are. The interval is then conditional on the metric being defined: distrust it if many were left out.

    Args:
      metric: what `get` returns, or any function of (scores, labels), and of `sample_weight=` if one is passed.

    >>> from jaxcls.metrics import accuracy
    >>> bootstrap_interval(accuracy, [0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], seed=0)
    Interval(low=1.0, high=1.0, undefined=0)
    """
    score_rows, label_rows = np.asarray(scores), np.asarray(labels)
    if score_rows.shape[:1] != label_rows.shape[:1]:
        raise InputError(f"scores {score_rows.shape} and labels {label_rows.shape} differ in their number of rows")
    row_weights, row_mask = weights_and_mask(len(score_rows), sample_weight, mask)
    known = (~holds(label_rows, math.nan)).any(axis=1) if label_rows.ndim == 2 else True
    counted = np.flatnonzero(row_mask & (row_weights > 0) & known)
    if not counted.size:
        raise InputError("no example is left: every label of the examples that count is unknown")

    def resample(rng: np.random.Generator) -> tuple[float]:
        rows = rng.choice(counted, size=len(counted))
        weighting = {} if sample_weight is None else {"sample_weight": row_weights[rows]}
        return (metric(score_rows[rows], label_rows[rows], **weighting),)

    return percentile_intervals(resample, seed=seed, confidence=confidence, resamples=resamples)[0]


def percentile_intervals(
    resample: Callable[[np.random.Generator], tuple[float, ...]], *, seed: int, confidence: float, resamples: int
) -> list[Interval]:
    """The percentile interval of each value that `resample` returns for one resample."""
    _check_confidence(confidence)
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(seed)
    intervals = []
    for values in np.array([resample(rng) for _ in range(resamples)], np.float64).T:
        defined = values[~np.isnan(values)]
        bounds = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = np.quantile(defined, bounds) if defined.size else (math.nan, math.nan)
        intervals.append(Interval(float(low), float(high), resamples - defined.size))
    return intervals


def proportion_interval(proportion: float, count: float, *, confidence: float = 0.95) -> Bounds:
    """Wilson's interval of a proportion of `count` examples.

    >>> low, high = proportion_interval(1.0, 20)
    >>> round(low, 3), high
    (0.839, 1.0)
    """
    if not (0 <= proportion <= 1 and count > 0):
        raise InputError(f"a proportion lies between 0 and 1, of more than 0 examples, got {proportion} of {count}")
    z = _quantile(confidence)
    middle = proportion + z**2 / (2 * count)
    half = z * math.sqrt(proportion * (1 - proportion) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    # Exactly 0 and 1 at the ends, where rounding would not give them exactly.
    low = 0.0 if proportion == 0 else (middle - half) / scale
    return low, 1.0 if proportion == 1 else (middle + half) / scale


def report_intervals(
    report: Mapping[str, Any],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: ArrayLike = 0.5,
    confidence: float = 0.95,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """The intervals of the values of a report in closed form, as a plain dict that JSON can hold.

    `metrics` is name -> [low, high], and `labels` is label -> name -> [low, high]. Left out are values that are
    undefined or have no standard error, rankings of fewer than 10 positives or negatives, and `mcc`, `kappa`,
    `recall_at_precision` and `ece`. With sample_weight w, a proportion counts as one of (Σ w)² / Σ w² examples.

    Args:
      report: what :func:`jaxcls.metrics.report` returned for the same scores, labels, threshold and options.

    >>> from jaxcls.metrics import report
    >>> scores, labels = [0.9, 0.8, 0.3, 0.1], [1, 0, 0, 0]
    >>> intervals = report_intervals(report(scores, labels), scores, labels)
    >>> [round(bound, 3) for bound in intervals["metrics"]["accuracy"]]
    [0.301, 0.954]
    """
    data = collect(scores, labels, options)
    problem = data.problem
    predicted = predict(data, threshold)
    positives = support(data)
    multiclass = problem == "multiclass"

    labels_of = dict(zip(listed(positives).tolist(), report["labels"], strict=True))
    by_label: dict[str, dict[str, Bounds | None]] = {label: {} for label in report["labels"]}
    # By metric: the influence of each example summed over the labels that have one, and their number.
    summed: dict[str, tuple[FloatArray, int]] = {}
    # A class that neither occurs nor is predicted has no values.
    for column in np.union1d(np.flatnonzero(positives), predicted).tolist() if multiclass else range(len(positives)):
        decision, of_class = (0, column) if multiclass else (column, 1)
        true, chosen = data.truth[:, decision] == of_class, predicted[:, decision] == of_class
        weight, label = data.sample_weight[:, decision], labels_of.get(column)
        label_values = report["labels"].get(label, {})
        influences = _decision_influences(true, chosen, weight) | _rank_influences(data.scores[:, column], true, weight)
        for name, influence in influences.items():
            if not np.isnan(influence).any() and label_values.get(name, 0) is not None:
                total, count = summed.get(name, (np.zeros(len(weight)), 0))
                summed[name] = total + influence, count + 1
        if label is not None:
            by_label[label] = _label_intervals(label_values, true, chosen, weight, influences, confidence)

    by_metric: dict[str, Bounds | None] = {}
    for name, value in report["metrics"].items():
        if value is None:
            continue
        if problem == "binary" and name in next(iter(by_label.values())):
            by_metric[name] = next(iter(by_label.values()))[name]
        elif name in ("subset_accuracy", "top_k_accuracy") or (name == "accuracy" and problem != "multilabel"):
            examples = _effective_count(data.sample_weight.max(axis=1))
            by_metric[name] = proportion_interval(min(value, 1.0), examples, confidence=confidence)
        elif name in ("log_loss", "brier_score"):
            values = log_losses(data) if name == "log_loss" else squared_errors(data)
            by_metric[name] = _log_interval(value, _mean_influence(values, data), confidence)
        elif name == "accuracy":
            correct = (predicted == data.truth).astype(np.float64)
            by_metric[name] = _logit_interval(value, _mean_influence(correct, data), confidence)
        elif name in summed and (problem != "binary" or name == "balanced_accuracy"):
            total, labels_summed = summed[name]
            by_metric[name] = _logit_interval(value, total / labels_summed, confidence)
    if problem == "multiclass" and by_metric.get("recall") and "balanced_accuracy" in report["metrics"]:
        by_metric["balanced_accuracy"] = by_metric["recall"]  # the same by another name
    return {
        "confidence": confidence,
        "metrics": _lists(by_metric),
        "labels": {label: _lists(bounds) for label, bounds in by_label.items()},
    }


def _label_intervals(
    values: Mapping[str, Any],
    true: BoolArray,
    chosen: BoolArray,
    weight: FloatArray,
    influences: Mapping[str, FloatArray],
    confidence: float,
) -> dict[str, Bounds | None]:
    intervals: dict[str, Bounds | None] = {}
    among = {"precision": chosen, "recall": true, "specificity": ~true, "f1": true | chosen}
    for name, counted in among.items():
        value, count = values[name], _effective_count(weight[counted])
        if value is None or not count:
            continue
        if name == "f1":
            low, high = proportion_interval(min(value / (2 - value), 1.0), count, confidence=confidence)
            intervals[name] = (2 * low / (1 + low), 2 * high / (1 + high))
        else:
            intervals[name] = proportion_interval(min(value, 1.0), count, confidence=confidence)
    known = weight > 0
    if min((true & known).sum(), (~true & known).sum()) >= _MIN_RANKED:
        for name in ("roc_auc", "average_precision"):
            intervals[name] = _logit_interval(values[name], influences[name], confidence)
    return intervals


def _decision_influences(true: BoolArray, chosen: BoolArray, weight: FloatArray) -> dict[str, FloatArray]:
    """The influence of each example on the metrics of a label's decisions, (N,); nan where the metric is."""
    y, p = true.astype(np.float64), chosen.astype(np.float64)
    ratios = {
        "precision": (y * p, p),
        "recall": (y * p, y),
        "specificity": ((1 - y) * (1 - p), 1 - y),
        "f1": (2 * y * p, y + p),
    }
    influences = {}
    for name, (over, under) in ratios.items():
        value, total = ratio(weight @ over, weight @ under), weight @ under
        influences[name] = weight * ratio(over - value * under, total)
    if not weight @ chosen and weight @ true:
        influences["precision"] = np.zeros(len(weight))  # precision is 0 there by definition
    influences["balanced_accuracy"] = (influences["recall"] + influences["specificity"]) / 2
    return influences


def _rank_influences(scores: FloatArray, true: BoolArray, weight: FloatArray) -> dict[str, FloatArray]:
    """The influence of each example on the metrics of a label's ranking, (N,): weight times the derivative by it."""
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], (weight * true)[order]
    both = weight[order]
    last = np.flatnonzero(np.append(scores[1:], -np.inf) != scores)
    group = np.repeat(np.arange(len(last)), np.diff(last, prepend=-1))
    true_above, all_above = np.cumsum(positive)[last], np.cumsum(both)[last]
    false_above = all_above - true_above
    positives, negatives = true_above[-1], false_above[-1]

    # For a positive, the share of negatives below it; for a negative, of positives above it; ties count half.
    share_below = 1 - ratio((false_above + np.append(0.0, false_above[:-1])) / 2, negatives)
    share_above = ratio((true_above + np.append(0.0, true_above[:-1])) / 2, positives)
    value = ratio(positive @ share_below[group], positives)
    is_true = true[order]
    roc_auc = np.where(
        is_true,
        ratio(share_below[group] - value, positives) * _unbiased(positive[is_true]),
        ratio(share_above[group] - value, negatives) * _unbiased(both[~is_true]),
    )

    gained = np.diff(true_above, prepend=0.0)
    precision = ratio(true_above, all_above)
    value = ratio(gained @ np.where(gained > 0, precision, 0.0), positives)
    # An example counts at its own score and at all lower ones.
    here_and_below = [
        np.cumsum(np.where(gained > 0, terms, 0.0)[::-1])[::-1][group]
        for terms in (ratio(gained, all_above), gained * ratio(precision, all_above))
    ]
    direct = np.where(is_true, precision[group] - value + here_and_below[0], 0.0)
    average_precision = ratio(direct - here_and_below[1], positives)

    influences = {}
    for name, derivative in (("roc_auc", roc_auc), ("average_precision", average_precision)):
        influences[name] = np.empty(len(order))
        influences[name][order] = np.where(both > 0, both * derivative, 0.0)
    return influences


def _mean_influence(values: FloatArray, data: Collected) -> FloatArray:
    """The influence of each example, (N,), on the mean of the values (N, decisions)."""
    totals = data.sample_weight.sum(axis=0)
    means = ratio((data.sample_weight * values).sum(axis=0), totals)
    defined = totals > 0
    return (data.sample_weight * ratio(values - means, totals))[:, defined].sum(axis=1) / defined.sum()


def _effective_count(sample_weight: FloatArray) -> float:
    total = sample_weight.sum()
    return float(total**2 / (sample_weight @ sample_weight)) if total > 0 else 0.0


def _unbiased(sample_weight: FloatArray) -> float:
    """The factor of a standard deviation for n - 1 in place of n, as in DeLong's variance."""
    count = _effective_count(sample_weight)
    return math.sqrt(count / max(count - 1, 1)) if count else 1.0


def _logit_interval(value: float, influence: FloatArray, confidence: float) -> Bounds | None:
    error = float(np.linalg.norm(influence))
    if not (0 < value < 1 and error > 0):
        return None
    middle, half = math.log(value / (1 - value)), _quantile(confidence) * error / (value * (1 - value))
    return _logistic(middle - half), _logistic(middle + half)


def _log_interval(value: float, influence: FloatArray, confidence: float) -> Bounds | None:
    error = float(np.linalg.norm(influence))
    if not (value > 0 and error > 0):
        return None
    factor = math.exp(min(_quantile(confidence) * error / value, 700.0))
    return value / factor, value * factor


def _logistic(x: float) -> float:
    # exp overflows beyond 700; the value has long been 0 or 1 to the last bit.
    return 1 / (1 + math.exp(min(-x, 700.0)))


def _quantile(confidence: float) -> float:
    _check_confidence(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")


def _lists(intervals: Mapping[str, Bounds | None]) -> dict[str, list[float]]:
    return {name: list(bounds) for name, bounds in intervals.items() if bounds is not None}
