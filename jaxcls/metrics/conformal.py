"""Conformal prediction: sets of classes that contain the true one with a stated probability, whatever the model.

Each class of an example has a score of nonconformity, greater where the model finds it less likely. A set holds the
classes whose score does not exceed a limit, a quantile of the scores of the true classes of examples that the model did
not train on. If those and the new examples are exchangeable, the true class of a new example is in its set with at
least the stated probability, on average over both. Source: Vovk et al. (2005), "Algorithmic learning in a random
world"; Angelopoulos and Bates (2021), arXiv 2107.07511.

'lac' scores 1 - p (Sadinle et al. 2019, arXiv 1609.00451): the smallest sets on average. A set may be empty: where the
model is right more often than asked, the examples that it is least sure of have none. 'aps' scores the total
probability of the classes that are more probable, and a random part of the class's own (Romano et al. 2020, arXiv
2006.02544): larger sets where the model is unsure, and a coverage that depends less on how hard an example is.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.metrics.collected import BoolArray, FloatArray, Options, collect

Method = Literal["lac", "aps"]


class SetQuality(NamedTuple):
    """How good sets are.

    Attributes:
      coverage: the share of examples whose true class is in their set.
      worst_class: the least coverage of the examples of a class.
      mean_size: the mean number of classes in a set.
      single, empty: the shares of sets with one class and with none.
    """

    coverage: float
    worst_class: float
    mean_size: float
    single: float
    empty: float


def nonconformity(probabilities: ArrayLike, method: Method = "lac") -> FloatArray:
    """The score of nonconformity of each class, (N, K).

    The random part of 'aps' follows from the probabilities of the example, so that its set depends on nothing else.

    Args:
      probabilities: (N, K), or (N,) of the positive one of two classes.

    >>> nonconformity([0.25, 1.0])
    array([[0.25, 0.75],
           [1.  , 0.  ]])
    """
    if method not in get_args(Method):
        raise unknown_name("method of conformal sets", method, get_args(Method))
    array = np.asarray(probabilities)
    values = array.astype(np.float64)
    if values.ndim == 1:
        values = np.stack([1 - values, values], axis=1)
    if method == "lac":
        scores: FloatArray = 1 - values
        return scores
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in np.ascontiguousarray(array))
    part = np.array([int.from_bytes(digest) / 2**64 for digest in digests])
    order = np.argsort(-values, axis=1, kind="stable")
    sorted_values = np.take_along_axis(values, order, axis=1)
    cumulative = np.cumsum(sorted_values, axis=1) - (1 - part[:, None]) * sorted_values
    scores = np.empty_like(values)
    np.put_along_axis(scores, order, cumulative, axis=1)
    return scores


def calibration_scores(
    probabilities: ArrayLike, labels: ArrayLike, method: Method = "lac", **options: Unpack[Options]
) -> list[FloatArray]:
    """The scores of the true classes, sorted, of the examples of each class.

    Args:
      probabilities: (N, K), or (N,) of the positive one of two classes.
      labels: (N,). Rows that are masked or of weight 0 are left out; other weights do not count.

    >>> calibration_scores([0.25, 0.75, 1.0], [0, 1, 1])
    [array([0.25]), array([0.  , 0.25])]
    """
    data = collect(probabilities, labels, options, probabilities=True)
    if data.problem == "multilabel":
        raise InputError("conformal sets are of problems with one class per example, not of multilabel ones.")
    scores = nonconformity(np.asarray(probabilities)[data.rows], method)
    true = np.take_along_axis(scores, data.truth, axis=1)[:, 0]
    return [np.sort(true[data.truth[:, 0] == index]) for index in range(scores.shape[1])]


def limits(scores: Sequence[ArrayLike], coverage: float, *, by_class: bool = False) -> FloatArray:
    """The greatest score of each class (K,) with which it is in a set.

    That is the ceil((n + 1) * coverage)-th of the n scores, in ascending order; infinite if n is too small for it.

    Args:
      scores: from :func:`calibration_scores`.
      coverage: the probability, between 0 and 1, that the true class is in a set.
      by_class: each class has a limit of its own, from its own examples, so that the coverage holds for each class.

    >>> limits([[0.1, 0.3], [0.2, 0.4]], 0.8)
    array([0.4, 0.4])
    >>> limits([[0.1, 0.3], [0.2, 0.4]], 0.6, by_class=True)
    array([0.3, 0.4])
    """
    if not 0 < coverage < 1:
        raise InputError(f"coverage is {coverage}; give a number between 0 and 1, such as 0.9.")
    of_class = [np.asarray(one, np.float64) for one in scores]
    if not by_class:
        of_class = [np.concatenate(of_class)] * len(of_class)
    return np.array([_limit(one, coverage) for one in of_class])


def _limit(scores: FloatArray, coverage: float) -> float:
    # Rounded, since 30 * 0.9 is greater than 27.
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


def prediction_sets(probabilities: ArrayLike, limit: ArrayLike, method: Method = "lac") -> BoolArray:
    """Whether each class is in the set of each example, (N, K).

    Args:
      probabilities: (N, K), or (N,) of the positive one of two classes.
      limit: (K,), from :func:`limits`.

    >>> prediction_sets([[0.7, 0.2, 0.1]], [0.8, 0.8, 0.8])
    array([[ True,  True, False]])
    """
    inside: BoolArray = nonconformity(probabilities, method) <= np.asarray(limit)
    return inside


def set_quality(sets: BoolArray, labels: ArrayLike) -> SetQuality:
    """How good the sets (N, K) of examples with these labels (N,) are.

    >>> set_quality(np.array([[True, False], [True, True], [False, False]]), [0, 1, 1])._asdict()["mean_size"]
    1.0
    """
    truth = np.asarray(labels, np.int64)
    covered, sizes = sets[np.arange(len(sets)), truth], sets.sum(axis=1)
    worst = min(covered[truth == index].mean() for index in np.unique(truth))
    means = (covered.mean(), worst, sizes.mean(), (sizes == 1).mean(), (sizes == 0).mean())
    return SetQuality(*map(float, means))
