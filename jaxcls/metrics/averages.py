"""Averages over labels, some of which may have no value: a ratio that is 0/0 is nan."""

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.collected import Collected, FloatArray

Average = Literal["auto", "binary", "micro", "macro", "weighted"]


def averaged(vector: FloatArray, support: FloatArray, average: Average | None) -> float | FloatArray:
    """The vector itself, or its mean, for 'weighted' by the support of each label."""
    if average is None:
        return vector
    return mean_of_defined(vector, support if average == "weighted" else None)


def mean_of_defined(vector: FloatArray, sample_weight: FloatArray | None = None) -> float:
    """The mean of the values that are not nan, and nan if none is left."""
    sample_weight = np.ones_like(vector) if sample_weight is None else sample_weight
    defined = ~np.isnan(vector)
    total = sample_weight[defined].sum()
    return float(sample_weight[defined] @ vector[defined] / total) if total > 0 else math.nan


def mean_of_decisions(values: NDArray[Any], data: Collected) -> float:
    """The mean of (N, decisions): of each decision over the rows where it is known, then over the decisions."""
    return mean_of_defined(ratio((data.sample_weight * values).sum(axis=0), data.sample_weight.sum(axis=0)))


def check_average(average: Average | None, problem: ProblemName) -> None:
    """Refuses an average that is unknown, or means nothing for the problem."""
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
