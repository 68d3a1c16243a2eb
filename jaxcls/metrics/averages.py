"""Averages over labels, of which some may be undefined: a ratio that is 0/0 is nan."""

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.collected import Collected, FloatArray

Average = Literal["auto", "binary", "micro", "macro", "weighted"]


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


def check_average(average: Average | None, problem: ProblemName) -> None:
    """Raises InputError for an unknown average, or one that the problem does not have."""
    if average is not None and average not in get_args(Average):
        raise unknown_name("average", average, get_args(Average))
    if problem == "binary" and average in ("micro", "macro", "weighted"):
        raise InputError(
            f"average={average!r} needs several labels and a binary problem has one: use 'binary', or "
            "problem='multiclass' with two columns of scores to average over both classes"
        )
    if problem != "binary" and average == "binary":
        raise InputError("average='binary' is for a binary problem: use 'micro', 'macro', 'weighted' or None")


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """numerator / denominator, nan where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def json_number(value: float) -> float | None:
    """The value, or None for nan, which JSON cannot hold."""
    return None if math.isnan(value) else float(value)
