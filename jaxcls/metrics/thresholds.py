"""Threshold tuning: every cut of a label's ranking, evaluated by its confusion matrix."""

from collections.abc import Callable
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics import confusion
from jaxcls.metrics.collected import FloatArray, Options, collect, require_probabilities
from jaxcls.metrics.ranking import Ranking, rankings

_TUNABLE: dict[str, Callable[[FloatArray], FloatArray]] = {
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
    data = collect(scores, labels, options)
    check_tunable(metric, data.problem)
    require_probabilities(data)
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


def _best_threshold(ranking: Ranking, metric: Callable[[FloatArray], FloatArray]) -> float:
    if not (ranking.positives > 0 and ranking.negatives > 0):
        return 0.5
    tp, fp = np.append(0.0, ranking.true_positives), np.append(0.0, ranking.false_positives)
    matrices = np.stack([ranking.negatives - fp, fp, ranking.positives - tp, tp], axis=-1).reshape(-1, 2, 2)
    # Cut i predicts the i highest distinct scores as positive.
    cut = int(metric(matrices).argmax())
    highest = ranking.thresholds[0]
    just_above_one = float(np.nextafter(np.float32(1), np.float32(2)))
    lowest_positive = ranking.thresholds[cut - 1] if cut else (1.0 if highest < 1 else just_above_one)
    highest_negative = ranking.thresholds[cut] if cut < len(ranking.thresholds) else 0.0
    # Rounded to float32, so that a model that compares in float32 decides the same. Where that rounds to the
    # score below, the score above is the threshold.
    middle = float(np.float32((highest_negative + lowest_positive) / 2))
    return middle if highest_negative < middle <= lowest_positive else float(lowest_positive)
