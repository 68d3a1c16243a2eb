"""How sure the values of a report are, in closed form: all of their intervals in about the time of the report itself.

A share of examples (an accuracy, the recall of a label) has Wilson's interval, which is sound for few examples and for
none that is wrong. F1 is F = 2J / (1 + J) of the share J of right ones among those that are true or predicted, and
has the interval of J. Anything else has that of its standard error, the root of the sum of the squares of what each
example moves it by (the infinitesimal jackknife; for the area under the ROC curve, DeLong's), on the logit scale, or
on the logarithmic one if the value may exceed 1, so that no bound leaves the range of the metric.

An interval says what other examples of the same kind may give; not what another seed may. Sources: Wilson (1927),
"Probable inference"; Efron (1982), "The jackknife, the bootstrap and other resampling plans", chapter 6; DeLong et al.
(1988), "Comparing the areas under two or more correlated receiver operating characteristic curves".
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.averages import ratio
from jaxcls.metrics.collected import Collected, FloatArray, Rows, collect, one_vs_rest
from jaxcls.metrics.confusion import predict
from jaxcls.metrics.probabilities import log_losses, squared_errors

Bounds = tuple[float, float]
# Below so many positives or negatives the standard error of a ranking is itself a guess.
_FEWEST_RANKED = 10


def proportion_interval(share: float, count: float, *, confidence: float = 0.95) -> Bounds:
    """Wilson's interval of a share of so many examples.

    >>> low, high = proportion_interval(1.0, 20)
    >>> round(low, 3), high
    (0.839, 1.0)
    """
    if not (0 <= share <= 1 and count > 0):
        raise InputError(f"a share lies between 0 and 1, of more than 0 examples, got {share} of {count}")
    z = _quantile(confidence)
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    # Exactly 0 and 1 at the ends, where rounding gives not quite that.
    low = 0.0 if share == 0 else (middle - half) / scale
    return low, 1.0 if share == 1 else (middle + half) / scale


def report_intervals(
    report: Mapping[str, Any],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The intervals of the values of a report, as a plain dict that JSON can hold.

    `metrics` is name -> [low, high], and `labels` is label -> name -> [low, high], for those that have one: a value
    that is undefined has none, nor has a ranking of fewer than 10 positives or negatives, nor one without an error,
    nor `mcc`, `kappa`, `recall_at_precision` and `ece`. With sample_weight, a share counts as one of (sum w)^2 / sum w^2
    examples.

    Args:
      report: what :func:`jaxcls.metrics.report` made of the same scores, labels, threshold, sample_weight and mask.

    >>> from jaxcls.metrics import report
    >>> given = {"scores": [0.9, 0.8, 0.3, 0.1], "labels": [1, 0, 0, 0], "problem": "binary"}
    >>> [round(bound, 3) for bound in report_intervals(report(**given), **given)["metrics"]["accuracy"]]
    [0.301, 0.954]
    """
    data = collect(scores, labels, problem, sample_weight, mask)
    predicted = predict(data, threshold)
    positive = one_vs_rest(data)
    chosen = predicted == (np.arange(positive.shape[1]) if problem == "multiclass" else 1)
    label_weights = np.broadcast_to(data.sample_weight, positive.shape)

    of_labels: dict[str, dict[str, Bounds]] = {}
    # By name: the sum over the labels of what each example moves the label's value by, and of how many labels.
    moved: dict[str, tuple[FloatArray, int]] = {}
    for column, (label, values) in enumerate(report["labels"].items()):
        true, found, weight = positive[:, column], chosen[:, column], label_weights[:, column]
        influences = _decision_influences(true, found, weight) | _rank_influences(data.scores[:, column], true, weight)
        for name, influence in influences.items():
            if not np.isnan(influence).any():
                total, count = moved.get(name, (np.zeros(len(weight)), 0))
                moved[name] = total + influence, count + 1
        of_labels[label] = _of_label(values, true, found, weight, influences, confidence)

    of_metrics: dict[str, Bounds] = {}
    for name, value in report["metrics"].items():
        if value is None:
            continue
        if problem == "binary" and name in next(iter(of_labels.values())):
            of_metrics[name] = next(iter(of_labels.values()))[name]
        elif name in ("subset_accuracy", "top_k_accuracy") or (name == "accuracy" and problem != "multilabel"):
            rows = _effective_count(data.sample_weight.max(axis=1))
            of_metrics[name] = proportion_interval(min(value, 1.0), rows, confidence=confidence)
        elif name in ("log_loss", "brier_score", "accuracy"):
            error = _error(_mean_influence(_example_values(name, data, predicted), data))
            scale = _on_logit_scale if name == "accuracy" else _on_log_scale
            of_metrics |= _named(name, scale(value, error, confidence))
        elif name in moved and (problem != "binary" or name == "balanced_accuracy"):
            total, count = moved[name]
            of_metrics |= _named(name, _on_logit_scale(value, _error(total / count), confidence))
    if problem == "multiclass" and "recall" in of_metrics and "balanced_accuracy" in report["metrics"]:
        of_metrics["balanced_accuracy"] = of_metrics["recall"]  # the same by another name
    return {
        "confidence": confidence,
        "metrics": {name: list(bounds) for name, bounds in of_metrics.items()},
        "labels": {label: {name: list(bounds) for name, bounds in named.items()} for label, named in of_labels.items()},
    }


def _of_label(
    values: Mapping[str, float | None],
    true: NDArray[np.bool_],
    found: NDArray[np.bool_],
    weight: FloatArray,
    influences: Mapping[str, FloatArray],
    confidence: float,
) -> dict[str, Bounds]:
    bounds: dict[str, Bounds] = {}
    among = {"precision": found, "recall": true, "specificity": ~true, "f1": true | found}
    for name, counted in among.items():
        value, count = values[name], _effective_count(weight[counted])
        if value is None or not count:
            continue
        if name == "f1":
            share = proportion_interval(min(value / (2 - value), 1.0), count, confidence=confidence)
            bounds[name] = (2 * share[0] / (1 + share[0]), 2 * share[1] / (1 + share[1]))
        else:
            bounds[name] = proportion_interval(min(value, 1.0), count, confidence=confidence)
    known = weight > 0
    if min((true & known).sum(), (~true & known).sum()) >= _FEWEST_RANKED:
        for name in ("roc_auc", "average_precision"):
            value = values[name]
            if value is not None:
                bounds |= _named(name, _on_logit_scale(value, _error(influences[name]), confidence))
    return bounds


def _decision_influences(
    true: NDArray[np.bool_], found: NDArray[np.bool_], weight: FloatArray
) -> dict[str, FloatArray]:
    """What each example moves the values of a label by, (N,), nan where the value is."""
    y, p = true.astype(np.float64), found.astype(np.float64)
    shares = {
        "precision": (y * p, p),
        "recall": (y * p, y),
        "specificity": ((1 - y) * (1 - p), 1 - y),
        "f1": (2 * y * p, y + p),
    }
    moved = {}
    for name, (over, under) in shares.items():
        value, total = ratio(weight @ over, weight @ under), weight @ under
        moved[name] = weight * ratio(over - value * under, total)
    if not weight @ found and weight @ true:
        moved["precision"] = np.zeros(len(weight))  # its value is 0 there by definition, see `metrics`
    # The mean of the two, where the label has both.
    moved["balanced_accuracy"] = (moved["recall"] + moved["specificity"]) / 2
    return moved


def _rank_influences(scores: FloatArray, true: NDArray[np.bool_], weight: FloatArray) -> dict[str, FloatArray]:
    """The same of the area under the ROC curve and of the average precision: each its derivative by the weight."""
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], (weight * true)[order]
    both = weight[order]
    last = np.flatnonzero(np.append(scores[1:], -np.inf) != scores)
    group = np.repeat(np.arange(len(last)), np.diff(last, prepend=-1))
    true_above, all_above = np.cumsum(positive)[last], np.cumsum(both)[last]
    false_above = all_above - true_above
    positives, negatives = true_above[-1], false_above[-1]

    # Of a positive, the share of negatives below it; of a negative, that of positives above it; half of equals.
    share_below = 1 - ratio((false_above + np.append(0.0, false_above[:-1])) / 2, negatives)
    share_above = ratio((true_above + np.append(0.0, true_above[:-1])) / 2, positives)
    value = ratio(positive @ share_below[group], positives)
    is_true = true[order]
    roc_auc = np.where(
        is_true, ratio(share_below[group] - value, positives), ratio(share_above[group] - value, negatives)
    )

    gained = np.diff(true_above, prepend=0.0)
    precision = ratio(true_above, all_above)
    value = ratio(gained @ np.where(gained > 0, precision, 0.0), positives)
    # An example is counted at its own score and below it.
    here_and_below = [
        np.cumsum(np.where(gained > 0, terms, 0.0)[::-1])[::-1][group]
        for terms in (ratio(gained, all_above), gained * ratio(precision, all_above))
    ]
    own = np.where(is_true, precision[group] - value + here_and_below[0], 0.0)
    average_precision = ratio(own - here_and_below[1], positives)

    moved = {}
    for name, derivative in (("roc_auc", roc_auc), ("average_precision", average_precision)):
        moved[name] = np.empty(len(order))
        moved[name][order] = np.where(both > 0, both * derivative, 0.0)
    return moved


def _example_values(name: str, data: Collected, predicted: NDArray[np.int64]) -> FloatArray:
    """What a mean over decisions is the mean of, (N, decisions)."""
    match name:
        case "log_loss":
            return log_losses(data)
        case "brier_score":
            return squared_errors(data)
        case _:
            return (predicted == data.truth).astype(np.float64)


def _mean_influence(values: FloatArray, data: Collected) -> FloatArray:
    totals = data.sample_weight.sum(axis=0)
    means = ratio((data.sample_weight * values).sum(axis=0), totals)
    defined = totals > 0
    return (data.sample_weight * ratio(values - means, totals))[:, defined].sum(axis=1) / defined.sum()


def _error(influence: FloatArray) -> float:
    return float(np.sqrt(influence @ influence))


def _effective_count(sample_weight: FloatArray) -> float:
    total = sample_weight.sum()
    return float(total**2 / (sample_weight @ sample_weight)) if total > 0 else 0.0


def _on_logit_scale(value: float, error: float, confidence: float) -> Bounds | None:
    if not (0 < value < 1 and error > 0):
        return None
    middle, half = math.log(value / (1 - value)), _quantile(confidence) * error / (value * (1 - value))
    return _logistic(middle - half), _logistic(middle + half)


def _on_log_scale(value: float, error: float, confidence: float) -> Bounds | None:
    if not (value > 0 and error > 0):
        return None
    factor = math.exp(min(_quantile(confidence) * error / value, 700.0))
    return value / factor, value * factor


def _logistic(x: float) -> float:
    # Past 700, exp overflows; the value is 0 or 1 to the last bit long before.
    return 1 / (1 + math.exp(min(-x, 700.0)))


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _named(name: str, bounds: Bounds | None) -> dict[str, Bounds]:
    return {} if bounds is None else {name: bounds}
