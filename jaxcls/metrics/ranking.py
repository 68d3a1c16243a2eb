"""Metrics of rankings: exact curves with one point per distinct score, and the areas below them."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls.metrics.averages import averaged, ratio
from jaxcls.metrics.collected import AverageOptions, Collected, FloatArray, Options, collect, one_vs_rest, support


def roc_auc(scores: ArrayLike, labels: ArrayLike, **options: Unpack[AverageOptions]) -> float | FloatArray:
    """The area under the ROC curve: the probability that a positive ranks above a negative, ties counting half.

    Multiclass is one class against the rest. nan for a label with a single class.
    Source: Hanley and McNeil (1982), "The meaning and use of the area under a ROC curve".

    >>> roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    return _of_rankings(_roc_auc, scores, labels, options)


def average_precision(scores: ArrayLike, labels: ArrayLike, **options: Unpack[AverageOptions]) -> float | FloatArray:
    """Σ (R_i - R_{i-1}) P_i over the distinct scores, from the highest down, without interpolation.

    R_i and P_i are recall and precision where a score of at least the i-th is positive. Multiclass is one class
    against the rest. nan for a label without positives, where scikit-learn returns 0.

    >>> average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.833...
    """
    return _of_rankings(_average_precision, scores, labels, options)


def recall_at_precision(
    scores: ArrayLike, labels: ArrayLike, *, at: float = 0.9, **options: Unpack[AverageOptions]
) -> float | FloatArray:
    """The highest recall of any threshold whose precision is at least `at`, 0 if no threshold reaches it.

    nan for a label without positives.

    >>> recall_at_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], at=0.6)
    1.0
    """
    if not 0 < at <= 1:
        raise InputError(f"at must be a precision above 0 and at most 1, got {at}")
    return _of_rankings(partial(_recall_at_precision, at=at), scores, labels, options)


class RocCurve(NamedTuple):
    """The false and true positive rates where a score of at least `thresholds` is positive."""

    fpr: FloatArray
    tpr: FloatArray
    thresholds: FloatArray


def roc_curve(scores: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> RocCurve:
    """The ROC curve of a binary problem, or of one multilabel column: one point per distinct score.

    The thresholds fall, from inf, where nothing is positive, as in scikit-learn with `drop_intermediate=False`.
    A rate of a class without examples is nan.

    >>> roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).tpr
    array([0. , 0.5, 0.5, 1. , 1. ])
    """
    ranking = _binary_ranking(scores, labels, options)
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


def precision_recall_curve(scores: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> PrecisionRecallCurve:
    """The precision-recall curve of a binary problem, or of one multilabel column: one point per distinct score.

    The thresholds rise, as in scikit-learn; precision and recall have one point more. Recall is nan without
    positives.

    >>> precision_recall_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).recall
    array([1. , 1. , 0.5, 0.5, 0. ])
    """
    ranking = _binary_ranking(scores, labels, options)
    return PrecisionRecallCurve(
        np.append(ranking.precision[::-1], 1.0),
        np.append(ranking.recall[::-1], 0.0),
        ranking.thresholds[::-1],
    )


class Ranking(NamedTuple):
    """The total weight of the examples of one label with at least each distinct score, from the highest down."""

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
    """The ranking of one label by its scores (N,); examples of weight 0 are left out."""
    known = np.flatnonzero(sample_weight > 0)
    # Stable, so that the rounding of the cumulative weights does not depend on the machine's sorting code.
    order = known[np.argsort(-scores[known], kind="stable")]
    scores, positive, sample_weight = scores[order], positive[order], sample_weight[order]
    last_of_ties = np.flatnonzero(np.append(scores[1:], -np.inf) != scores)
    true_positives = np.cumsum(np.where(positive, sample_weight, 0.0))[last_of_ties]
    false_positives = np.cumsum(np.where(positive, 0.0, sample_weight))[last_of_ties]
    return Ranking(scores[last_of_ties], true_positives, false_positives)


def rankings(data: Collected, columns: Iterable[int] | None = None) -> Iterator[Ranking]:
    """The ranking of each column of the scores, or of some; one at a time: all take several times as much memory."""
    shared = data.problem == "multiclass"
    for column in range(data.scores.shape[1]) if columns is None else columns:
        decision = 0 if shared else column
        positive = data.truth[:, decision] == (column if shared else 1)
        yield rank(data.scores[:, column], positive, data.sample_weight[:, decision])


def _binary_ranking(scores: ArrayLike, labels: ArrayLike, options: Options) -> Ranking:
    return next(rankings(collect(scores, labels, options, only="binary")))


def _of_rankings(
    metric: Callable[[Ranking], float], scores: ArrayLike, labels: ArrayLike, options: AverageOptions
) -> float | FloatArray:
    """The metric of the ranking of each label, averaged."""
    data, average = collect(scores, labels, options, AverageOptions), options.get("average", "auto")
    if average == "micro":
        positive = one_vs_rest(data)
        sample_weight = np.broadcast_to(data.sample_weight, positive.shape)
        return metric(rank(data.scores.ravel(), positive.ravel(), sample_weight.ravel()))
    positives = support(data)
    # These metrics are undefined without positives, and most of very many classes have none.
    columns, values = np.flatnonzero(positives > 0), np.full(len(positives), math.nan)
    values[columns] = [metric(ranking) for ranking in rankings(data, columns)]
    return averaged(values, positives, average)


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
