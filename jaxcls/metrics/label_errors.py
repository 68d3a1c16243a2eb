"""Examples whose label is probably wrong, by confident learning from scores of models that have not seen them.

Source: Northcutt et al. (2021), "Confident learning: estimating uncertainty in dataset labels", arXiv 1911.00068.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.collected import FloatArray, collect

# Numbers that are compared at a time: those of very many classes take as much memory as their scores.
_CHUNK = 1 << 20


class LabelErrors(NamedTuple):
    """Probable label errors, the most probable first.

    Attributes:
      rows: of the examples.
      columns: of the labels of a multilabel problem; 0 otherwise.
      current, suggested: classes; 0 and 1 in a binary or multilabel problem.
      current_probability, suggested_probability: their scores; the rank is by the former.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    current: NDArray[np.int64]
    suggested: NDArray[np.int64]
    current_probability: FloatArray
    suggested_probability: FloatArray


def find_label_errors(scores: ArrayLike, labels: ArrayLike, *, problem: ProblemName | None = None) -> LabelErrors:
    """Finds labels that the scores contradict.

    How many labels of a class are wrong is estimated from its examples with a confident score: one of at least the
    mean score of the class among the examples with that label, so that a class whose scores are generally low is not
    blamed. As many of its examples are listed, those with the lowest score of their label ("prune by class"), unless
    their label is the most likely class. Give scores of models that were not trained on these labels, as out-of-fold
    ones: a model that has learned a wrong label repeats it.

    Args:
      scores, labels: see :mod:`jaxcls.metrics`; probabilities. Unknown labels of a multilabel problem are left out.

    >>> scores = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.95, 0.05], [0.2, 0.8]]
    >>> errors = find_label_errors(scores, [0, 0, 1, 1, 1])
    >>> errors.rows.tolist(), errors.current.tolist(), errors.suggested.tolist()
    ([3], [1], [0])
    """
    data = collect(scores, labels, {"problem": problem}, probabilities=True)
    parts = []
    for column in range(data.truth.shape[1]):
        known = np.flatnonzero(data.sample_weight[:, column])
        if data.problem == "multiclass":
            errors = _of_decision(data.scores, data.truth[:, 0])
        else:
            p = data.scores[known, column]
            errors = _of_decision(np.stack([1 - p, p], axis=1), data.truth[known, column])
        parts.append(errors._replace(rows=data.rows[known[errors.rows]], columns=np.full_like(errors.columns, column)))
    joined: Any = [np.concatenate(values) for values in zip(*parts, strict=True)]
    joined = LabelErrors(*joined)
    order = np.lexsort((joined.columns, joined.rows, joined.current_probability))
    return LabelErrors(*(values[order] for values in joined))


def _of_decision(scores: FloatArray, labels: NDArray[np.int64]) -> LabelErrors:
    """The errors of one label of each example."""
    count, classes = scores.shape
    label_scores = scores[np.arange(count), labels]
    of_class = np.bincount(labels, minlength=classes)
    # No example shows what a confident score of a class without labels is.
    mean = np.bincount(labels, weights=label_scores, minlength=classes) / np.maximum(of_class, 1)
    thresholds = np.where(of_class > 0, mean, np.inf)
    likely, confident = np.empty(count, np.int64), np.empty(count, np.int64)
    step = max(1, _CHUNK // classes)
    for start in range(0, count, step):
        some = slice(start, start + step)
        above = np.where(scores[some] >= thresholds, scores[some], -1.0)
        likely[some] = scores[some].argmax(axis=1)
        confident[some] = np.where(above.max(axis=1) >= 0, above.argmax(axis=1), -1)
    counted = confident >= 0
    wrong = counted & (confident != labels)
    share = np.bincount(labels[wrong], minlength=classes) / np.maximum(
        np.bincount(labels[counted], minlength=classes), 1
    )
    estimated = np.rint(share * of_class).astype(int)
    # By class, the lowest scores first; each has a rank within its class.
    order = np.lexsort((label_scores, labels))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count) - np.repeat(np.cumsum(of_class) - of_class, of_class)
    rows = np.flatnonzero((rank < estimated[labels]) & (likely != labels))
    suggested = likely[rows]
    return LabelErrors(rows, np.zeros_like(rows), labels[rows], suggested, label_scores[rows], scores[rows, suggested])
