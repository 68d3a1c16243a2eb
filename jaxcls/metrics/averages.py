"""Averages over labels, of which some may be undefined (a ratio that is 0/0 is nan), and reports of them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls.metrics.collected import Average, Collected, FloatArray

# Of more labels than this, a report lists the most frequent ones.
MOST_LABELS = 1_000


def averaged(values: FloatArray, support: FloatArray, average: Average | None) -> float | FloatArray:
    """The value of each label as it is for None, or their mean, weighted by support for 'weighted'."""
    if average is None:
        return values
    return mean_of_defined(values, support if average == "weighted" else None)


def mean_of_defined(values: FloatArray, sample_weight: FloatArray | None = None) -> float:
    """The mean of the values that are not nan; nan if all are."""
    sample_weight = np.ones_like(values) if sample_weight is None else sample_weight
    defined = ~np.isnan(values)
    total = sample_weight[defined].sum()
    return float(sample_weight[defined] @ values[defined] / total) if total > 0 else math.nan


def mean_of_decisions(values: NDArray[Any], data: Collected) -> float:
    """The mean of (N, decisions): per decision over the examples whose label is known, then over decisions."""
    return mean_of_defined(ratio((data.sample_weight * values).sum(axis=0), data.sample_weight.sum(axis=0)))


def listed(support: FloatArray) -> NDArray[np.intp]:
    """The columns of the labels that a report lists: all, or of very many those with the greatest support."""
    if len(support) <= MOST_LABELS:
        return np.arange(len(support))
    count = max(1, min(MOST_LABELS, np.count_nonzero(support)))
    return np.sort(np.argsort(-support, kind="stable")[:count])


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """numerator / denominator, nan where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _json_number(value: float) -> float | None:
    """The value, or None for nan, which JSON cannot hold."""
    return None if math.isnan(value) else float(value)


def report_of(
    problem: str,
    examples: int,
    metrics: Mapping[str, float],
    support: Mapping[str, float],
    columns: Mapping[str, FloatArray],
) -> dict[str, Any]:
    """A report, see :func:`jaxcls.metrics.report`, of the values of metrics overall, and per label in `columns`."""
    return {
        "problem": problem,
        "examples": examples,
        "metrics": {name: _json_number(value) for name, value in metrics.items()},
        "labels": {
            label: {"support": count, **{name: _json_number(column[i]) for name, column in columns.items()}}
            for i, (label, count) in enumerate(support.items())
        },
        "undefined_labels": {
            name: [label for label, undefined in zip(support, np.isnan(column), strict=True) if undefined]
            for name, column in columns.items()
            if np.isnan(column).any()
        },
    }
