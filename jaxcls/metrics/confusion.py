"""Confusion matrices (..., K, K) or their sums, and the counts and metrics that follow from these."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls.metrics.averages import ratio
from jaxcls.metrics.collected import Collected, FloatArray, numbers, require_probabilities

# Of more classes than this, the sums are computed without a matrix: that of 100,000 classes would take 75 GiB.
_MOST_CLASSES = 1_000


class Sums(NamedTuple):
    """What the metrics take of confusion matrices (..., K, K).

    Attributes:
      diagonal, rows, columns: (..., K), the weight of each class where it is both, the truth, or the prediction.
      total: (...).
    """

    diagonal: FloatArray
    rows: FloatArray
    columns: FloatArray
    total: FloatArray


class Counts(NamedTuple):
    """The total weight of the true and false positives and negatives of each label."""

    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray


def predict(data: Collected, threshold: ArrayLike) -> NDArray[np.int64]:
    """The predicted class of each decision, in the shape of `data.truth`."""
    cut = numbers(threshold, "threshold")
    if data.problem == "multiclass":
        if not np.array_equal(cut, 0.5):
            raise InputError("a multiclass prediction is the class of the highest score: it takes no threshold")
        return data.scores.argmax(axis=1)[:, None]
    require_probabilities(data)
    shapes = [(), data.scores.shape[1:]] if data.problem == "multilabel" else [()]
    if cut.shape not in shapes or not np.isfinite(cut).all():
        raise InputError(f"threshold must be finite and of shape {' or '.join(map(str, shapes))}, got {threshold!r}")
    return (data.scores >= cut).astype(np.int64)


def confusion_matrices(data: Collected, threshold: ArrayLike) -> FloatArray:
    """One matrix per decision of an example: (1, 2, 2), (1, K, K) or (L, 2, 2)."""
    predicted = predict(data, threshold)
    decisions = data.truth.shape[1]
    classes = data.scores.shape[1] if data.problem == "multiclass" else 2
    cells = (np.arange(decisions) * classes + data.truth) * classes + predicted
    totals = np.bincount(cells.ravel(), weights=data.sample_weight.ravel(), minlength=decisions * classes**2)
    return totals.reshape(decisions, classes, classes).astype(np.float64, copy=False)


def cells(data: Collected, threshold: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """The true class, the predicted class and the weight of each cell of a multiclass matrix that has an example."""
    classes = data.scores.shape[1]
    present, cell = np.unique((data.truth * classes + predict(data, threshold))[:, 0], return_inverse=True)
    weight = np.bincount(cell, weights=data.sample_weight[:, 0]).astype(np.float64, copy=False)
    return present // classes, present % classes, weight


def is_large(data: Collected) -> bool:
    """Whether a multiclass problem has too many classes for a matrix."""
    return data.problem == "multiclass" and data.scores.shape[1] > _MOST_CLASSES


def sums(data: Collected, threshold: ArrayLike) -> Sums:
    """The sums of the matrix of each decision of an example."""
    if not is_large(data):
        return sums_of(confusion_matrices(data, threshold))
    true, predicted, weight = cells(data, threshold)
    diagonal, rows, columns = (
        np.bincount(of, weights=by, minlength=data.scores.shape[1])[None].astype(np.float64, copy=False)
        for of, by in ((true, np.where(true == predicted, weight, 0.0)), (true, weight), (predicted, weight))
    )
    return Sums(diagonal, rows, columns, weight.sum(keepdims=True))


def sums_of(matrices: FloatArray) -> Sums:
    """The sums of matrices (..., K, K)."""
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1)
    return Sums(diagonal, matrices.sum(axis=-1), matrices.sum(axis=-2), matrices.sum(axis=(-2, -1)))


def counts_of_classes(matrices: Sums) -> Counts:
    """The counts of each class against the rest, (..., K)."""
    tp, rows, fp = matrices.diagonal, matrices.rows, matrices.columns - matrices.diagonal
    # The sum of `rows`, so that a class that occurs alone has exactly 0 negatives, without a rounding error.
    tn = np.maximum(rows.sum(axis=-1, keepdims=True) - rows - fp, 0)
    return Counts(tp, fp, rows - tp, tn)


def counts_of_positives(matrices: Sums) -> Counts:
    """The counts of class 1 of two, (...)."""
    return Counts(*(count[..., 1] for count in counts_of_classes(matrices)))


def precision(counts: Counts) -> FloatArray:
    nothing_predicted = (counts.tp + counts.fp == 0) & (counts.fn > 0)
    return np.where(nothing_predicted, 0.0, ratio(counts.tp, counts.tp + counts.fp))


def recall(counts: Counts) -> FloatArray:
    return ratio(counts.tp, counts.tp + counts.fn)


def specificity(counts: Counts) -> FloatArray:
    return ratio(counts.tn, counts.tn + counts.fp)


def f_beta(counts: Counts, beta: float = 1.0) -> FloatArray:
    weighted_tp = (1 + beta**2) * counts.tp
    return ratio(weighted_tp, weighted_tp + beta**2 * counts.fn + counts.fp)


def accuracy(matrices: Sums) -> FloatArray:
    return ratio(matrices.diagonal.sum(axis=-1), matrices.total)


def balanced_accuracy(matrices: Sums) -> FloatArray:
    recalls = recall(counts_of_classes(matrices))
    occurring = (~np.isnan(recalls)).sum(axis=-1)
    return np.where(occurring > 1, ratio(np.nansum(recalls, axis=-1), occurring), np.nan)


def matthews_correlation(matrices: Sums) -> FloatArray:
    rows, columns = matrices.rows, matrices.columns
    total = rows.sum(axis=-1)
    covariance = matrices.diagonal.sum(axis=-1) * total - (rows * columns).sum(axis=-1)
    # As a sum of products, each with its own total, the variance of a single class is exactly 0.
    variance_of_truth = (rows * (total[..., None] - rows)).sum(axis=-1)
    variance_of_prediction = (columns * (columns.sum(axis=-1, keepdims=True) - columns)).sum(axis=-1)
    correlation = ratio(covariance, np.sqrt(variance_of_truth * variance_of_prediction))
    return np.where((variance_of_truth > 0) & (variance_of_prediction == 0), 0.0, correlation)
