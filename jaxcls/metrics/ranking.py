"""Metrics of rankings: exact curves over every distinct score, and what lies below them."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.averages import Average, averaged, check_average, ratio
from jaxcls.metrics.collected import Collected, FloatArray, Rows, collect, one_vs_rest, support_of


def roc_auc(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    average: Average | None = "auto",
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The area under the ROC curve: the chance that a positive outranks a negative, half of it for ties.

    Multiclass is one class against the rest. nan for a label with one class only.

    >>> roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], problem="binary")
    0.75
    """
    return _ranked(_roc_auc, collect(scores, labels, problem, sample_weight, mask), average)


def average_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    average: Average | None = "auto",
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The sum of the precision at each distinct score times the recall gained there, without interpolation.

    Multiclass is one class against the rest. nan for a label without positives, where scikit-learn says 0.

    >>> average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], problem="binary")
    0.833...
    """
    return _ranked(_average_precision, collect(scores, labels, problem, sample_weight, mask), average)


def recall_at_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    at: float = 0.9,
    average: Average | None = "auto",
    sample_weight: Rows = None,
    mask: Rows = None,
) -> float | FloatArray:
    """The highest recall of any threshold whose precision is at least `at`, 0 if no threshold reaches it.

    nan for a label without positives.

    >>> recall_at_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], problem="binary", at=0.6)
    1.0
    """
    if not 0 < at <= 1:
        raise InputError(f"at must be a precision above 0 and at most 1, got {at}")
    data = collect(scores, labels, problem, sample_weight, mask)
    return _ranked(partial(_recall_at_precision, at=at), data, average)


class RocCurve(NamedTuple):
    """The false and the true positive rate where a score of at least `thresholds` is positive."""

    fpr: FloatArray
    tpr: FloatArray
    thresholds: FloatArray


def roc_curve(scores: ArrayLike, labels: ArrayLike, *, sample_weight: Rows = None, mask: Rows = None) -> RocCurve:
    """The ROC curve of a binary problem (or one multilabel column), one point a distinct score.

    The thresholds fall from inf, where nothing is positive; this is scikit-learn's with
    `drop_intermediate=False`. A rate without its class is nan.

    >>> roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).tpr
    array([0. , 0.5, 0.5, 1. , 1. ])
    """
    data = collect(scores, labels, "binary", sample_weight, mask)
    ranking = rank(data.scores[:, 0], data.truth[:, 0] == 1, data.sample_weight[:, 0])
    return RocCurve(
        ratio(np.append(0.0, ranking.false_positives), ranking.negatives),
        ratio(np.append(0.0, ranking.true_positives), ranking.positives),
        np.append(np.inf, ranking.thresholds),
    )


class PrecisionRecallCurve(NamedTuple):
    """`precision` and `recall` where a score of at least `thresholds` is positive, then the point (1, 0)."""

    precision: FloatArray
    recall: FloatArray
    thresholds: FloatArray


def precision_recall_curve(
    scores: ArrayLike, labels: ArrayLike, *, sample_weight: Rows = None, mask: Rows = None
) -> PrecisionRecallCurve:
    """The precision-recall curve of a binary problem (or one multilabel column), one point a distinct score.

    The thresholds rise, as in scikit-learn; precision and recall have one point more. Recall is nan without
    positives.

    >>> precision_recall_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).recall
    array([1. , 1. , 0.5, 0.5, 0. ])
    """
    data = collect(scores, labels, "binary", sample_weight, mask)
    ranking = rank(data.scores[:, 0], data.truth[:, 0] == 1, data.sample_weight[:, 0])
    return PrecisionRecallCurve(
        np.append(ranking.precision[::-1], 1.0),
        np.append(ranking.recall[::-1], 0.0),
        ranking.thresholds[::-1],
    )


class Ranking(NamedTuple):
    """What is found at each distinct score of one label, from the highest down; nothing where it is not known."""

    thresholds: FloatArray
    true_positives: FloatArray
    false_positives: FloatArray

    @property
    def positives(self) -> float:
        return self.true_positives.max(initial=0.0)

    @property
    def negatives(self) -> float:
        return self.false_positives.max(initial=0.0)

    @property
    def precision(self) -> FloatArray:
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def recall(self) -> FloatArray:
        return ratio(self.true_positives, self.positives)


def rank(scores: FloatArray, positive: NDArray[np.bool_], sample_weight: FloatArray) -> Ranking:
    known = np.flatnonzero(sample_weight > 0)
    # Stable, so that the rounding of summed sample_weight does not depend on the sorting code of the machine.
    order = known[np.argsort(-scores[known], kind="stable")]
    scores, positive, sample_weight = scores[order], positive[order], sample_weight[order]
    last_of_ties = np.flatnonzero(np.append(scores[1:], -np.inf) != scores)
    true_positives = np.cumsum(np.where(positive, sample_weight, 0.0))[last_of_ties]
    false_positives = np.cumsum(np.where(positive, 0.0, sample_weight))[last_of_ties]
    return Ranking(scores[last_of_ties], true_positives, false_positives)


def _ranked(statistic: Callable[[Ranking], float], data: Collected, average: Average | None) -> float | FloatArray:
    """The statistic of the ranking of each label, averaged."""
    check_average(average, data.problem)
    positive = one_vs_rest(data)
    sample_weight = np.broadcast_to(data.sample_weight, positive.shape)
    if average == "micro":
        return statistic(rank(data.scores.ravel(), positive.ravel(), sample_weight.ravel()))
    columns = zip(data.scores.T, positive.T, sample_weight.T, strict=True)
    return averaged(np.array([statistic(rank(*column)) for column in columns]), support_of(data), average)


def _roc_auc(ranking: Ranking) -> float:
    if not (ranking.positives > 0 and ranking.negatives > 0):
        return math.nan
    heights = np.append(0.0, ranking.true_positives)
    area = np.diff(ranking.false_positives, prepend=0.0) @ (heights[1:] + heights[:-1]) / 2
    return float(area / ranking.positives / ranking.negatives)


def _average_precision(ranking: Ranking) -> float:
    if not ranking.positives > 0:
        return math.nan
    return float(np.diff(ranking.true_positives, prepend=0.0) @ ranking.precision / ranking.positives)


def _recall_at_precision(ranking: Ranking, at: float) -> float:
    if not ranking.positives > 0:
        return math.nan
    return float(ranking.recall[ranking.precision >= at].max(initial=0.0))
