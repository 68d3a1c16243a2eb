"""How sure the value of a metric is: its interval by the bootstrap."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError
from jaxcls.metrics.collected import Rows, known_places, weights_and_mask


class Interval(NamedTuple):
    """The bounds of an interval, and how many resamples were left out because the metric was nan on them."""

    low: float
    high: float
    undefined: int


def bootstrap_interval(
    metric: Callable[..., float],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 1000,
    sample_weight: Rows = None,
    mask: Rows = None,
) -> Interval:
    """The percentile bootstrap interval of `metric(scores, labels)` over resampled rows.

    `metric` is what `get` returns, or any function of (scores, labels) and, if sample_weight are given, `sample_weight=`.
    Resamples on which it is nan (an AUC without positives) are left out and counted; both bounds are nan if
    all are. The interval is then conditional on the metric being defined: distrust it when many were left
    out. Source: Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13.

    >>> from jaxcls.metrics import get
    >>> bootstrap_interval(get("accuracy", "binary"), [0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], seed=0)
    Interval(low=1.0, high=1.0, undefined=0)
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    score_rows, label_rows = np.asarray(scores), np.asarray(labels)
    if score_rows.shape[:1] != label_rows.shape[:1]:
        raise InputError(f"scores {score_rows.shape} and labels {label_rows.shape} differ in their rows")
    row_weights, row_mask = weights_and_mask(len(score_rows), sample_weight, mask)
    # A multilabel row of which no label is known counts for nothing.
    known = known_places(label_rows, "multilabel").any(axis=1) if label_rows.ndim == 2 else True
    kept = np.flatnonzero(row_mask & (row_weights > 0) & known)
    if not kept.size:
        raise InputError("no example is left: no label of the rows that count is known")
    rng = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        rows = rng.choice(kept, size=len(kept))
        weighting = {} if sample_weight is None else {"sample_weight": row_weights[rows]}
        values[i] = metric(score_rows[rows], label_rows[rows], **weighting)
    defined = values[~np.isnan(values)]
    if not defined.size:
        return Interval(math.nan, math.nan, resamples)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), resamples - defined.size)
