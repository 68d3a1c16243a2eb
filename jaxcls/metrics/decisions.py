"""Metrics of decisions: a threshold or an arg max makes predictions of scores, and a confusion matrix counts them.

`tune_threshold` evaluates the matrix of every cut of a label's ranking.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics import confusion
from jaxcls.metrics.averages import averaged, mean_of_defined, ratio
from jaxcls.metrics.collected import Collected, FloatArray, LabelOptions, Options, ThresholdOptions, collect
from jaxcls.metrics.confusion import Counts, Sums, predict
from jaxcls.metrics.ranking import Ranking, rankings

Weighting = Literal["none", "linear", "quadratic"]
# A matrix of more, over a GiB, is refused.
_MOST_CELLS = 1 << 27


def confusion_matrix(scores: ArrayLike, labels: ArrayLike, **options: Unpack[ThresholdOptions]) -> FloatArray:
    """The total weight of the examples of each true class (row) predicted as each class (column).

    Returns:
      (2, 2) if binary, (K, K) if multiclass, (L, 2, 2) if multilabel. Of very many classes, see `confusion_cells`.

    >>> confusion_matrix([0.9, 0.5, 0.2], [1, 0, 0])
    array([[1., 1.],
           [0., 1.]])
    """
    data = collect(scores, labels, options, ThresholdOptions)
    classes = data.scores.shape[1]
    if data.problem == "multiclass" and classes**2 > _MOST_CELLS:
        raise InputError(
            f"the confusion matrix of {classes:,} classes would take {classes**2 >> 27:,} GiB; confusion_cells returns "
            "those of its cells that have an example."
        )
    matrices = confusion.confusion_matrices(data, options.get("threshold", 0.5))
    return matrices if data.problem == "multilabel" else matrices[0]


def confusion_cells(
    scores: ArrayLike, labels: ArrayLike, **options: Unpack[ThresholdOptions]
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """The cells of a multiclass confusion matrix that have an example: their rows, columns and weights.

    >>> true, predicted, weight = confusion_cells([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 1])
    >>> true.tolist(), predicted.tolist(), weight.tolist()
    ([1, 1], [0, 1], [1.0, 2.0])
    """
    data = collect(scores, labels, options, ThresholdOptions, only="multiclass")
    return confusion.cells(data, options.get("threshold", 0.5))


def accuracy(scores: ArrayLike, labels: ArrayLike, **options: Unpack[ThresholdOptions]) -> float:
    """The share of correct decisions; if multilabel, the mean over the labels (see `subset_accuracy`).

    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    return mean_of_defined(confusion.accuracy(_sums(scores, labels, options)[1]))


def subset_accuracy(scores: ArrayLike, labels: ArrayLike, **options: Unpack[ThresholdOptions]) -> float:
    """The share of multilabel examples whose known labels are all predicted correctly (exact match).

    >>> subset_accuracy([[0.9, 0.1], [0.9, 0.1]], [[1, 0], [1, 1]])
    0.5
    """
    data = collect(scores, labels, options, ThresholdOptions, only="multilabel")
    correct = (predict(data, options.get("threshold", 0.5)) == data.truth) | (data.sample_weight == 0)
    return float(np.average(correct.all(axis=1), weights=data.sample_weight.max(axis=1)))


def balanced_accuracy(scores: ArrayLike, labels: ArrayLike, **options: Unpack[ThresholdOptions]) -> float:
    """The mean recall of the classes that occur, nan if only one does; if multilabel, the mean over the labels.

    Source: Brodersen et al. (2010), "The balanced accuracy and its posterior distribution".

    >>> balanced_accuracy([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1])
    0.5
    """
    return mean_of_defined(confusion.balanced_accuracy(_sums(scores, labels, options)[1]))


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, *, k: int = 5, **options: Unpack[Options]) -> float:
    """The share of multiclass examples whose true class is among the k highest scores.

    Of equal scores the later class ranks higher, as in scikit-learn.

    Args:
      k: at least 1 and less than the number of classes.

    >>> top_k_accuracy([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2], k=2)
    0.5
    """
    data = collect(scores, labels, options, only="multiclass")
    classes = data.scores.shape[1]
    if not 1 <= k < classes:
        raise InputError(f"k must be at least 1 and below the {classes} classes of the scores, got {k}")
    true_score = np.take_along_axis(data.scores, data.truth, axis=1)
    later = np.arange(classes) > data.truth
    rank = ((data.scores > true_score) | ((data.scores == true_score) & later)).sum(axis=1)
    return float(np.average(rank < k, weights=data.sample_weight[:, 0]))


def precision(scores: ArrayLike, labels: ArrayLike, **options: Unpack[LabelOptions]) -> float | FloatArray:
    """TP / (TP + FP): the share of the predicted positives that are positive.

    Without predicted positives it is 0, and nan if there are no positives either.

    >>> precision([0.9, 0.6, 0.2], [1, 0, 0])
    0.5
    """
    return _of_counts(confusion.precision, scores, labels, options)


def recall(scores: ArrayLike, labels: ArrayLike, **options: Unpack[LabelOptions]) -> float | FloatArray:
    """TP / (TP + FN): the share of the positives that are predicted (sensitivity); nan without positives.

    >>> recall([[0.9, 0.1], [0.2, 0.1]], [[1, 0], [1, 0]], problem="multilabel", average=None)
    array([0.5, nan])
    """
    return _of_counts(confusion.recall, scores, labels, options)


def specificity(scores: ArrayLike, labels: ArrayLike, **options: Unpack[LabelOptions]) -> float | FloatArray:
    """TN / (TN + FP): the share of the negatives that are not predicted; nan without negatives.

    If multiclass, also nan for a class that neither occurs nor is predicted.

    >>> specificity([0.9, 0.6, 0.2], [1, 0, 0])
    0.5
    """
    return _of_counts(confusion.specificity, scores, labels, options)


def f_beta(
    scores: ArrayLike, labels: ArrayLike, *, beta: float = 1.0, **options: Unpack[LabelOptions]
) -> float | FloatArray:
    """(1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP), which weighs recall `beta` times as much as precision.

    nan for a label that neither occurs nor is predicted. The macro average is the mean of the labels' values.
    Source: van Rijsbergen (1979), "Information retrieval", chapter 7.

    >>> f_beta([0.9, 0.6, 0.2], [1, 0, 0], beta=2.0)
    0.833...
    """
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta must be a positive number, got {beta}")
    return _of_counts(partial(confusion.f_beta, beta=beta), scores, labels, options)


def f1(scores: ArrayLike, labels: ArrayLike, **options: Unpack[LabelOptions]) -> float | FloatArray:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall: `f_beta` with beta 1.

    >>> f1([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [0, 1], average=None)
    array([0.66666667, 0.        ,        nan])
    """
    return _of_counts(confusion.f_beta, scores, labels, options)


def matthews_correlation(scores: ArrayLike, labels: ArrayLike, **options: Unpack[ThresholdOptions]) -> float:
    """The correlation of truth and prediction, -1 to 1; if multilabel, the mean over the labels.

    0 where all predictions are the same, as in scikit-learn; nan where the truth has one class only.
    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".

    >>> matthews_correlation([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0])
    1.0
    """
    return mean_of_defined(confusion.matthews_correlation(_sums(scores, labels, options)[1]))


def cohen_kappa(
    scores: ArrayLike, labels: ArrayLike, *, weighting: Weighting = "none", **options: Unpack[ThresholdOptions]
) -> float:
    """The agreement of truth and prediction beyond chance; if multilabel, the mean over the labels.

    1 - (observed cost) / (cost expected by chance). nan where truth and prediction are all one class.
    Source: Cohen (1960), "A coefficient of agreement for nominal scales"; (1968) for the weighting.

    Args:
      weighting: how the cost of a disagreement grows with the distance of two ordered classes (scikit-learn's
        `weights`). All columns of the scores are classes of that order, including those that do not occur.

    >>> cohen_kappa([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.6, 0.3]], [0, 1, 2])
    0.5
    """
    if weighting not in get_args(Weighting):
        raise unknown_name("weighting", weighting, get_args(Weighting))
    data, threshold = collect(scores, labels, options, ThresholdOptions), options.get("threshold", 0.5)
    if confusion.is_large(data):
        true, predicted, weight = confusion.cells(data, threshold)
        distance = np.abs(true - predicted)
        observed = float(weight @ {"none": distance > 0, "linear": distance, "quadratic": distance**2}[weighting])
        return float(1 - ratio(observed, _chance_cost(confusion.sums(data, threshold), weighting)))
    matrices = confusion.confusion_matrices(data, threshold)
    ranks = np.arange(matrices.shape[-1])
    distance = np.abs(ranks[:, None] - ranks)
    costs = {"none": distance > 0, "linear": distance, "quadratic": distance**2}
    rows, columns = matrices.sum(axis=2), matrices.sum(axis=1)
    expected = ratio(rows[:, :, None] * columns[:, None, :], rows.sum(axis=1)[:, None, None])
    observed_cost = (costs[weighting] * matrices).sum(axis=(1, 2))
    return mean_of_defined(1 - ratio(observed_cost, (costs[weighting] * expected).sum(axis=(1, 2))))


def _chance_cost(matrices: Sums, weighting: Weighting) -> float:
    """The cost that is expected by chance, from sums: all pairs of many classes would take a matrix."""
    rows, columns, total = matrices.rows[0], matrices.columns[0], matrices.total[0]
    if weighting == "none":
        return float(rows @ (total - columns) / total)
    if weighting == "linear":  # the distance of two classes is the number of the cuts between them
        below, predicted_below = np.cumsum(rows), np.cumsum(columns)
        return float((below * (total - predicted_below) + predicted_below * (total - below)).sum() / total)
    # From the first class that occurs, so that the cost of a single class is exactly 0.
    ranks = np.arange(len(rows)) - np.argmax(rows > 0)
    return float(ranks**2 @ (rows + columns) - 2 * (ranks @ rows) * (ranks @ columns) / total)


_TUNABLE: dict[str, Callable[[Sums], FloatArray]] = {
    "f1": lambda matrices: confusion.f_beta(confusion.counts_of_positives(matrices)),
    "accuracy": confusion.accuracy,
    "balanced_accuracy": confusion.balanced_accuracy,
    "mcc": confusion.matthews_correlation,
}


def tune_threshold(
    scores: ArrayLike, labels: ArrayLike, *, metric: str = "f1", **options: Unpack[Options]
) -> float | FloatArray:
    """The threshold that maximizes a metric: one if binary, one per label (L,) if multilabel.

    Exact: every cut of the sorted probabilities is tried, in O(N log N). A threshold lies midway between the two
    distinct scores that it separates (0 and 1 at the ends; just above 1 if even a score of 1 is better predicted
    negative); of equally good cuts the highest is taken. A label with a single class keeps 0.5. Tune on validation
    data, never on the data of the final score.

    Args:
      metric: 'f1', 'accuracy', 'balanced_accuracy' or 'mcc'.

    >>> tune_threshold([0.1, 0.25, 0.5, 0.75], [0, 0, 1, 1])
    0.375
    """
    data = collect(scores, labels, options, probabilities=True)
    check_tunable(metric, data.problem)
    best = np.array([_best_threshold(ranking, _TUNABLE[metric]) for ranking in rankings(data)])
    return float(best[0]) if data.problem == "binary" else best


def check_tunable(metric: str, problem: ProblemName) -> None:
    """Raises InputError for a metric that no threshold is tuned for, and for a problem without thresholds.

    >>> check_tunable("f1", "binary")
    """
    if metric not in _TUNABLE:
        raise unknown_name("metric to tune a threshold for", metric, _TUNABLE)
    if problem == "multiclass":
        raise InputError("a multiclass prediction is the class of the highest score: it takes no threshold")


def _sums(
    scores: ArrayLike, labels: ArrayLike, options: ThresholdOptions, allowed: type = ThresholdOptions
) -> tuple[Collected, Sums]:
    data = collect(scores, labels, options, allowed)
    return data, confusion.sums(data, options.get("threshold", 0.5))


def _of_counts(
    metric: Callable[[Counts], FloatArray], scores: ArrayLike, labels: ArrayLike, options: LabelOptions
) -> float | FloatArray:
    """The metric of the counts of each label, averaged."""
    data, matrices = _sums(scores, labels, options, LabelOptions)
    average = options.get("average", "auto")
    multiclass = data.problem == "multiclass"
    if multiclass:
        counts = Counts(*(count[0] for count in confusion.counts_of_classes(matrices)))
    else:
        counts = confusion.counts_of_positives(matrices)
    if average == "micro":
        return float(metric(Counts(*(count.sum() for count in counts))))
    values = metric(counts)
    if multiclass:
        # As for the other metrics: a class that neither occurs nor is predicted would have a specificity of 1.
        values = np.where(counts.tp + counts.fn + counts.fp > 0, values, np.nan)
    return averaged(values, counts.tp + counts.fn, average)


def _best_threshold(ranking: Ranking, metric: Callable[[Sums], FloatArray]) -> float:
    if not (ranking.positives > 0 and ranking.negatives > 0):
        return 0.5
    tp, fp = np.append(0.0, ranking.true_positives), np.append(0.0, ranking.false_positives)
    matrices = np.stack([ranking.negatives - fp, fp, ranking.positives - tp, tp], axis=-1).reshape(-1, 2, 2)
    # Cut i predicts the i highest distinct scores as positive.
    cut = int(metric(confusion.sums_of(matrices)).argmax())
    highest = ranking.thresholds[0]
    just_above_one = float(np.nextafter(np.float32(1), np.float32(2)))
    lowest_positive = ranking.thresholds[cut - 1] if cut else (1.0 if highest < 1 else just_above_one)
    highest_negative = ranking.thresholds[cut] if cut < len(ranking.thresholds) else 0.0
    # Rounded to float32, so that a model that compares in float32 decides the same. Where that rounds to the
    # score below, the score above is the threshold.
    middle = float(np.float32((highest_negative + lowest_positive) / 2))
    return middle if highest_negative < middle <= lowest_positive else float(lowest_positive)
