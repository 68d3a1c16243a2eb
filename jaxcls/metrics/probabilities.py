"""Metrics of the probabilities themselves: proper scores and calibration."""

from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls.metrics.averages import mean_of_decisions, mean_of_defined, ratio
from jaxcls.metrics.collected import Collected, FloatArray, Options, collect, one_vs_rest
from jaxcls.metrics.confusion import predict


def log_loss(scores: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> float:
    """The mean of -log p of the true class, in nats; if multilabel, the mean over the labels.

    A probability of 0 counts as 2.2e-16 (36.04 nats), as in scikit-learn; Kaggle's scorer takes 1e-15 (34.54 nats).
    Multiclass probabilities are first divided by their sum, as by Kaggle's scorer: a softmax in bfloat16 is off by
    up to 0.4%.

    >>> log_loss([0.8, 0.4], [1, 0])
    0.366...
    """
    data = collect(scores, labels, options, probabilities=True)
    return mean_of_decisions(log_losses(data), data)


def brier_score(scores: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> float:
    """The mean squared error of the probabilities; if multilabel, the mean over the labels.

    Multiclass sums the squares over the classes and ranges from 0 to 2; the others range from 0 to 1.
    Source: Brier (1950), "Verification of forecasts expressed in terms of probability".

    >>> brier_score([0.5, 0.0], [1, 0])
    0.125
    """
    data = collect(scores, labels, options, probabilities=True)
    return mean_of_decisions(squared_errors(data), data)


# Numbers that are computed at a time.
_CHUNK = 1 << 20


class Reliability(NamedTuple):
    """A reliability diagram: decisions in bins of equal width by their confidence.

    Attributes:
      weight: (bins,), the total weight of the decisions in each bin.
      confidence, accuracy: (bins,), their mean confidence and the share of correct ones; nan in an empty bin.
    """

    weight: FloatArray
    confidence: FloatArray
    accuracy: FloatArray


def reliability(scores: ArrayLike, labels: ArrayLike, *, bins: int = 15, **options: Unpack[Options]) -> Reliability:
    """The bins of `expected_calibration_error`, with the decisions of all labels of a multilabel problem in one.

    >>> reliability([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0], bins=2).accuracy
    array([ nan, 0.75])
    """
    data, confidence, cells = _binned(scores, labels, bins, options)
    correct = predict(data, 0.5) == data.truth
    weight, confidence_sum, correct_sum = (
        np.bincount(cells.ravel(), weights=(data.sample_weight * values).ravel(), minlength=bins).astype(np.float64)
        for values in (np.ones_like(confidence), confidence, correct)
    )
    return Reliability(weight, ratio(confidence_sum, weight), ratio(correct_sum, weight))


def expected_calibration_error(
    scores: ArrayLike, labels: ArrayLike, *, bins: int = 15, **options: Unpack[Options]
) -> float:
    """The mean gap between confidence and accuracy over bins of equal width of the confidence of the prediction.

    The confidence of a binary decision is max(p, 1 - p); multilabel is the mean over the labels. A bin includes its
    upper edge. Source: Guo et al. (2017), "On calibration of modern neural networks", arXiv 1706.04599.

    >>> round(expected_calibration_error([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0]), 6)
    0.05
    """
    data, confidence, cells = _binned(scores, labels, bins, options)
    surplus = data.sample_weight * (confidence - (predict(data, 0.5) == data.truth))
    gaps = [np.abs(np.bincount(c, weights=s)).sum() for c, s in zip(cells.T, surplus.T, strict=True)]
    return mean_of_defined(ratio(gaps, data.sample_weight.sum(axis=0)))


def log_losses(data: Collected) -> FloatArray:
    """The log loss of each decision, (N, decisions)."""
    if data.problem == "multiclass":
        true_probability = np.take_along_axis(data.scores, data.truth, axis=1) / data.scores.sum(axis=1, keepdims=True)
    else:
        true_probability = np.where(data.truth == 1, data.scores, 1 - data.scores)
    return -np.log(np.maximum(true_probability, np.finfo(np.float64).eps))


def squared_errors(data: Collected) -> FloatArray:
    """The squared error of each decision, (N, decisions)."""
    if data.problem != "multiclass":
        return (data.scores - one_vs_rest(data)) ** 2
    # Some rows at a time: the errors of very many classes take as much memory as their scores.
    rows = range(0, len(data.scores), max(1, _CHUNK // data.scores.shape[1]))
    parts = [data._replace(scores=data.scores[i : i + rows.step], truth=data.truth[i : i + rows.step]) for i in rows]
    return np.concatenate([((part.scores - one_vs_rest(part)) ** 2).sum(axis=1, keepdims=True) for part in parts])


def _binned(
    scores: ArrayLike, labels: ArrayLike, bins: int, options: Options
) -> tuple[Collected, FloatArray, NDArray[np.intp]]:
    """The examples that count, and the confidence of each decision and its bin, (N, decisions)."""
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    data = collect(scores, labels, options, probabilities=True)
    if data.problem == "multiclass":
        confidence = data.scores.max(axis=1, keepdims=True)
    else:
        confidence = np.maximum(data.scores, 1 - data.scores)
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    return data, confidence, np.digitize(confidence, inner_edges, right=True)
