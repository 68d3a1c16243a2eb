"""Metrics of decisions: a threshold or an arg-max turns scores into predictions, and a confusion matrix counts them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics import confusion
from jaxcls.metrics.averages import Average, averaged, check_average, mean_of_defined, ratio
from jaxcls.metrics.collected import Collected, FloatArray, Rows, collect


def confusion_matrix(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> FloatArray:
    """The weight of the examples of each true class (row) predicted as each class (column).

    (2, 2) for binary, (K, K) for multiclass, (L, 2, 2) for multilabel.

    >>> confusion_matrix([0.9, 0.5, 0.2], [1, 0, 0], problem="binary")
    array([[1., 1.],
           [0., 1.]])
    """
    matrices = confusion.matrices_of(collect(scores, labels, problem, sample_weight, mask), threshold)
    return matrices if problem == "multilabel" else matrices[0]


def accuracy(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float:
    """The share of decisions that are right; for multilabel the mean over the labels (see `subset_accuracy`).

    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1], problem="multiclass")
    0.5
    """
    matrices = confusion.matrices_of(collect(scores, labels, problem, sample_weight, mask), threshold)
    return mean_of_defined(confusion.accuracy(matrices))


def subset_accuracy(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float:
    """The share of multilabel rows whose known labels are all right (exact match).

    >>> subset_accuracy([[0.9, 0.1], [0.9, 0.1]], [[1, 0], [1, 1]])
    0.5
    """
    data = collect(scores, labels, "multilabel", sample_weight, mask)
    right = (confusion.predict(data, threshold) == data.truth) | (data.sample_weight == 0)
    return float(np.average(right.all(axis=1), weights=data.sample_weight.max(axis=1)))


def balanced_accuracy(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float:
    """The mean recall of the classes that occur, nan if only one does; for multilabel the mean over labels.

    >>> balanced_accuracy([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1], problem="binary")
    0.5
    """
    matrices = confusion.matrices_of(collect(scores, labels, problem, sample_weight, mask), threshold)
    return mean_of_defined(confusion.balanced_accuracy(matrices))


def top_k_accuracy(
    scores: ArrayLike, labels: ArrayLike, *, k: int = 5, sample_weight: Rows = None, mask: Rows = None
) -> float:
    """The share of multiclass rows whose true class is among the k highest scores (k below the class count).

    Of equal scores the later class ranks higher, as in scikit-learn.

    >>> top_k_accuracy([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2], k=2)
    0.5
    """
    data = collect(scores, labels, "multiclass", sample_weight, mask)
    classes = data.scores.shape[1]
    if not 1 <= k < classes:
        raise InputError(f"k must be at least 1 and below the {classes} classes of the scores, got {k}")
    of_truth = np.take_along_axis(data.scores, data.truth, axis=1)
    later = np.arange(classes) > data.truth
    rank = ((data.scores > of_truth) | ((data.scores == of_truth) & later)).sum(axis=1)
    return float(np.average(rank < k, weights=data.sample_weight[:, 0]))


def precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """TP / (TP + FP): the share of the predicted positives that are positive.

    Where nothing was predicted it is 0, or nan if there was nothing to predict.

    >>> precision([0.9, 0.6, 0.2], [1, 0, 0], problem="binary")
    0.5
    """
    return _counted(confusion.precision, collect(scores, labels, problem, sample_weight, mask), average, threshold)


def recall(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """TP / (TP + FN): the share of the positives that were predicted (sensitivity); nan without positives.

    >>> recall([[0.9, 0.1], [0.2, 0.1]], [[1, 0], [1, 0]], problem="multilabel", average=None)
    array([0.5, nan])
    """
    return _counted(confusion.recall, collect(scores, labels, problem, sample_weight, mask), average, threshold)


def specificity(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """TN / (TN + FP): the share of the negatives that were not predicted; nan without negatives.

    >>> specificity([0.9, 0.6, 0.2], [1, 0, 0], problem="binary")
    0.5
    """
    return _counted(confusion.specificity, collect(scores, labels, problem, sample_weight, mask), average, threshold)


def f_beta(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    beta: float = 1.0,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The harmonic mean of precision and recall, with recall `beta` times as important.

    nan for a label that neither occurs nor was predicted. Macro is the mean of the labels' values.

    >>> f_beta([0.9, 0.6, 0.2], [1, 0, 0], problem="binary", beta=2.0)
    0.833...
    """
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta must be a positive number, got {beta}")
    data = collect(scores, labels, problem, sample_weight, mask)
    return _counted(partial(confusion.f_beta, beta=beta), data, average, threshold)


def f1(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    average: Average | None = "auto",
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """`f_beta` with beta 1: 2 TP / (2 TP + FP + FN).

    >>> f1([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [0, 1], problem="multiclass", average=None)
    array([0.66666667, 0.        ,        nan])
    """
    return _counted(confusion.f_beta, collect(scores, labels, problem, sample_weight, mask), average, threshold)


def matthews_correlation(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float:
    """The correlation of truth and prediction, -1 to 1; for multilabel the mean over the labels.

    0 where all predictions are the same, as in scikit-learn; nan where the truth has one class only.
    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".

    >>> matthews_correlation([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], problem="binary")
    1.0
    """
    matrices = confusion.matrices_of(collect(scores, labels, problem, sample_weight, mask), threshold)
    return mean_of_defined(confusion.matthews_correlation(matrices))


def cohen_kappa(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    weighting: Literal["none", "linear", "quadratic"] = "none",
    threshold: ArrayLike = 0.5,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float:
    """The agreement of truth and prediction beyond chance; for multilabel the mean over the labels.

    `weighting` says how a disagreement grows with the distance of two ordered classes (scikit-learn's
    `sample_weight`); every class of the scores has its place in the order, whether it occurs or not. nan where
    truth and prediction are all one class. Source: Cohen (1960; 1968 for the weighting).

    >>> cohen_kappa([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.6, 0.3]], [0, 1, 2], problem="multiclass")
    0.5
    """
    matrices = confusion.matrices_of(collect(scores, labels, problem, sample_weight, mask), threshold)
    ranks = np.arange(matrices.shape[-1])
    distance = np.abs(ranks[:, None] - ranks)
    costs = {"none": distance > 0, "linear": distance, "quadratic": distance**2}
    if weighting not in costs:
        raise unknown_name("weighting", weighting, costs)
    rows, columns = matrices.sum(axis=2), matrices.sum(axis=1)
    expected = ratio(rows[:, :, None] * columns[:, None, :], rows.sum(axis=1)[:, None, None])
    observed_cost = (costs[weighting] * matrices).sum(axis=(1, 2))
    return mean_of_defined(1 - ratio(observed_cost, (costs[weighting] * expected).sum(axis=(1, 2))))


def _counted(
    statistic: Callable[[confusion.Counts], FloatArray],
    data: Collected,
    average: Average | None,
    threshold: ArrayLike,
) -> float | FloatArray:
    """The statistic of the counts of each label, averaged."""
    check_average(average, data.problem)
    matrices = confusion.matrices_of(data, threshold)
    counts = (
        confusion.counts_of_classes(matrices[0])
        if data.problem == "multiclass"
        else confusion.counts_of_positives(matrices)
    )
    if average == "micro":
        return float(statistic(confusion.Counts(*(count.sum() for count in counts))))
    return averaged(statistic(counts), counts.tp + counts.fn, average)
