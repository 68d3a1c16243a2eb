"""Metrics of probabilities: what the values themselves are worth."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.averages import mean_of_decisions, mean_of_defined, ratio
from jaxcls.metrics.collected import Collected, FloatArray, Rows, collect, one_vs_rest, require_probabilities
from jaxcls.metrics.confusion import predict


def log_loss(
    scores: ArrayLike, labels: ArrayLike, *, problem: ProblemName, sample_weight: Rows = None, mask: Rows = None
) -> float:
    """The mean of -log of the probability of the truth, in nats; for multilabel the mean over the labels.

    A probability of 0 counts as 2.2e-16 (36.04 nats), as in scikit-learn; Kaggle's scorer says 1e-15 (34.54 nats).
    Each row of a multiclass problem is divided by its sum first, as Kaggle's scorer does: a softmax in bfloat16 is
    off by up to 0.4%.

    >>> log_loss([0.8, 0.4], [1, 0], problem="binary")
    0.366...
    """
    data = collect(scores, labels, problem, sample_weight, mask)
    require_probabilities(data)
    return mean_of_decisions(log_losses(data), data)


def brier_score(
    scores: ArrayLike, labels: ArrayLike, *, problem: ProblemName, sample_weight: Rows = None, mask: Rows = None
) -> float:
    """The mean squared error of the probabilities; for multilabel the mean over the labels.

    Multiclass sums the squares over the classes and runs from 0 to 2; the other two run from 0 to 1.
    Source: Brier (1950), "Verification of forecasts expressed in terms of probability".

    >>> brier_score([0.5, 0.0], [1, 0], problem="binary")
    0.125
    """
    data = collect(scores, labels, problem, sample_weight, mask)
    require_probabilities(data)
    return mean_of_decisions(squared_errors(data), data)


class Reliability(NamedTuple):
    """Decisions in bins of equal width of their confidence: their weight, and the means of what was said and was right.

    Each is (bins,); the means of a bin without a decision are nan.
    """

    weight: FloatArray
    confidence: FloatArray
    accuracy: FloatArray


def reliability(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    bins: int = 15,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> Reliability:
    """What :func:`expected_calibration_error` is of, with the decisions of all labels of a multilabel problem in one.

    >>> reliability([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0], problem="binary", bins=2).accuracy
    array([ nan, 0.75])
    """
    data, confidence, cells = _binned(scores, labels, problem, bins, sample_weight, mask)
    right = predict(data, 0.5) == data.truth
    weight, said, was = (
        np.bincount(cells.ravel(), weights=(data.sample_weight * values).ravel(), minlength=bins).astype(np.float64)
        for values in (np.ones_like(confidence), confidence, right)
    )
    return Reliability(weight, ratio(said, weight), ratio(was, weight))


def expected_calibration_error(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    bins: int = 15,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float:
    """The mean gap between confidence and accuracy over equal-width bins of top-1 confidence.

    The confidence of a binary decision is max(p, 1 - p); for multilabel it is the mean over the labels. A bin
    holds its upper edge. Source: Guo et al. (2017), "On calibration of modern neural networks", arXiv
    1706.04599.

    >>> round(expected_calibration_error([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0], problem="binary"), 6)
    0.05
    """
    data, confidence, cells = _binned(scores, labels, problem, bins, sample_weight, mask)
    surplus = data.sample_weight * (confidence - (predict(data, 0.5) == data.truth))
    gaps = [np.abs(np.bincount(c, weights=s)).sum() for c, s in zip(cells.T, surplus.T, strict=True)]
    return mean_of_defined(ratio(gaps, data.sample_weight.sum(axis=0)))


def log_losses(data: Collected) -> FloatArray:
    """The log loss of each decision, (N, decisions)."""
    if data.problem == "multiclass":
        of_truth = np.take_along_axis(data.scores, data.truth, axis=1) / data.scores.sum(axis=1, keepdims=True)
    else:
        of_truth = np.where(data.truth == 1, data.scores, 1 - data.scores)
    return -np.log(np.maximum(of_truth, np.finfo(np.float64).eps))


def squared_errors(data: Collected) -> FloatArray:
    """The squared error of each decision, (N, decisions)."""
    squares = (data.scores - one_vs_rest(data)) ** 2
    return squares.sum(axis=1, keepdims=True) if data.problem == "multiclass" else squares


def _binned(
    scores: ArrayLike, labels: ArrayLike, problem: ProblemName, bins: int, sample_weight: Rows, mask: Rows
) -> tuple[Collected, FloatArray, NDArray[np.intp]]:
    """What counts, and of each decision its confidence and the bin of that."""
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    data = collect(scores, labels, problem, sample_weight, mask)
    require_probabilities(data)
    if problem == "multiclass":
        confidence = data.scores.max(axis=1, keepdims=True)
    else:
        confidence = np.maximum(data.scores, 1 - data.scores)
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    return data, confidence, np.digitize(confidence, inner_edges, right=True)
