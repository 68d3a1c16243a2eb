"""Scores, labels and options, validated and brought into one form for the three problems."""

import math
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import ProblemName, check_problem, holds, squeeze_hint

Average = Literal["auto", "binary", "micro", "macro", "weighted"]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Options(TypedDict, total=False):
    """The options of every metric. An option that is left out, or None, has no effect.

    Attributes:
      problem: "binary", "multiclass" or "multilabel"; :mod:`jaxcls.metrics` says when it is inferred.
      sample_weight: (N,), the weight of each example, at least 0.
      mask: (N,), bool. Examples whose mask is False are padding and are not even validated.
    """

    problem: ProblemName | None
    sample_weight: ArrayLike | None
    mask: ArrayLike | None


class ThresholdOptions(Options, total=False):
    """The options of metrics of decisions.

    Attributes:
      threshold: 0.5 by default; if multilabel, one value or one per label (L,).
    """

    threshold: ArrayLike


class AverageOptions(Options, total=False):
    """The options of metrics of each label.

    Attributes:
      average: 'auto', the default, 'binary', 'micro', 'macro', 'weighted' or None, see :mod:`jaxcls.metrics`.
    """

    average: Average | None


class LabelOptions(ThresholdOptions, AverageOptions, total=False):
    """The options of metrics of the decisions of each label: `threshold` and `average`."""


class Collected(NamedTuple):
    """The examples that count. A multiclass example is one decision; otherwise each of its labels is one.

    Attributes:
      problem: what the arrays mean.
      scores: (N, C), one column per class or label.
      truth: (N, decisions), the true class of each decision.
      sample_weight: (N, decisions), 0 where the label is unknown; at least one of a row is above 0.
      rows: (N,), the row of each example in the user's arrays, for error messages.
    """

    problem: ProblemName
    scores: FloatArray
    truth: NDArray[np.int64]
    sample_weight: FloatArray
    rows: NDArray[np.intp]


def collect(
    scores: ArrayLike,
    labels: ArrayLike,
    options: Options,
    allowed: type = Options,
    *,
    only: ProblemName | None = None,
    probabilities: bool = False,
) -> Collected:
    """Validates all examples that are not masked and returns those that count.

    Args:
      scores, labels: see :mod:`jaxcls.metrics`.
      options: as the user passed them.
      allowed: the type of the options of the metric.
      only: the problem of a metric that fits no other.
      probabilities: whether the scores must not be logits.

    Raises:
      InputError: an option is unknown, the problem cannot be inferred, or shapes or values are wrong.
    """
    for name in options:
        if name not in allowed.__annotations__:
            raise unknown_name("option of this metric", name, allowed.__annotations__)
    values, truth = numbers(scores, "scores"), np.asarray(labels)
    problem = options.get("problem") or only
    if problem is None:
        if values.ndim == truth.ndim == 2:
            raise InputError(
                f"labels {truth.shape} may be multi-label or one-hot. If multi-label, call the metric as "
                "metric(scores, labels, problem='multilabel'); if one-hot, as metric(scores, labels.argmax(axis=1))"
            )
        problem = "binary" if values.ndim < 2 else "multiclass"
    check_problem(problem)
    if only is not None and problem != only:
        raise InputError(f"this metric fits {only} problems only, not problem={problem!r}")
    _check_average(options.get("average", "auto"), problem)
    _check_shapes(values.shape, truth.shape, problem)
    sample_weight, mask = weights_and_mask(len(values), options.get("sample_weight"), options.get("mask"))
    values, truth = values.reshape(len(values), -1), truth.reshape(len(truth), -1)
    known = (problem != "multilabel") | ~holds(truth, math.nan)
    _check_rows(np.isfinite(values), mask, values, "scores", "must be finite")
    if problem == "multiclass":
        if truth.dtype.kind not in "iu":
            raise InputError(f"multiclass labels must be integer class indices, got {truth.dtype}")
        last = values.shape[1] - 1
        rule = f"must be from 0 to {last}, one for each column of scores"
        _check_rows((truth >= 0) & (truth <= last), mask, truth, "labels", rule)
    else:
        _check_rows((truth == 0) | (truth == 1) | ~known, mask, truth, "labels", "must be 0 or 1")
    rows = np.flatnonzero(mask & (sample_weight > 0) & known.any(axis=1))
    if not rows.size:
        raise InputError("no example is left: every label of the examples that count is unknown")
    classes = np.where(known, truth, 0)[rows].astype(np.int64)
    # Scores of very many classes are large: without a need they are not copied.
    counted = values if len(rows) == len(values) and values.flags.c_contiguous else values[rows]
    data = Collected(problem, counted, classes, sample_weight[rows, None] * known[rows], rows)
    if probabilities:
        require_probabilities(data)
    return data


def weights_and_mask(
    rows: int, sample_weight: ArrayLike | None, mask: ArrayLike | None
) -> tuple[FloatArray, BoolArray]:
    """The validated weight and mask of each row, with their defaults; at least one row counts."""
    row_mask = np.ones(rows, dtype=bool) if mask is None else np.asarray(mask)
    if row_mask.shape != (rows,) or row_mask.dtype != bool:
        raise InputError(f"mask must be {rows} booleans, got {row_mask.dtype} of shape {row_mask.shape}")
    row_weights = np.ones(rows) if sample_weight is None else numbers(sample_weight, "sample_weight")
    if row_weights.shape != (rows,):
        raise InputError(f"sample_weight must have shape ({rows},), got {row_weights.shape}")
    valid = np.isfinite(row_weights) & (row_weights >= 0)
    _check_rows(valid[:, None], row_mask, row_weights[:, None], "sample_weight", "must be finite and not negative")
    if not (row_weights[row_mask] > 0).any():
        raise InputError("no example is left: every row is masked or has weight 0")
    return row_weights, row_mask


def require_probabilities(data: Collected) -> None:
    """Raises InputError if scores look like logits: outside [0, 1], or multiclass and not summing to 1."""
    remedy = f"Apply {'softmax' if data.problem == 'multiclass' else 'sigmoid'} to logits first."
    outside = ((data.scores < 0) | (data.scores > 1)).any(axis=1)
    if outside.any():
        i = outside.argmax()
        raise InputError(f"scores must be probabilities in [0, 1]; row {data.rows[i]} holds {data.scores[i]}. {remedy}")
    # A softmax in bfloat16 sums to 1 only to about 0.4%.
    excess = np.abs(data.scores.sum(axis=1) - 1)
    if data.problem == "multiclass" and (excess > 0.01).any():
        i = excess.argmax()
        total = data.scores[i].sum()
        raise InputError(
            f"multiclass scores must be probabilities that sum to 1; row {data.rows[i]} sums to {total}. {remedy}"
        )


def one_vs_rest(data: Collected) -> BoolArray:
    """Whether each example is a positive of each column, (N, C)."""
    return data.truth == (np.arange(data.scores.shape[1]) if data.problem == "multiclass" else 1)


def support(data: Collected) -> FloatArray:
    """The total weight of the known positives of each column, (C,)."""
    if data.problem == "multiclass":
        weights, classes = data.sample_weight[:, 0], data.scores.shape[1]
        return np.bincount(data.truth[:, 0], weights=weights, minlength=classes).astype(np.float64, copy=False)
    return (data.sample_weight * one_vs_rest(data)).sum(axis=0)


def numbers(values: ArrayLike, argument: str) -> FloatArray:
    """The values as float64; the error names the argument."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument} must be an array of numbers: {error}") from error


def _check_shapes(scores: tuple[int, ...], labels: tuple[int, ...], problem: ProblemName) -> None:
    axes, form = {
        "binary": (1, "(N,)"),
        "multiclass": (2, "(N, classes), of two classes or more"),
        "multilabel": (2, "(N, labels)"),
    }[problem]
    if len(scores) != axes or (problem == "multiclass" and scores[1] < 2):
        hint = squeeze_hint("scores", scores, scores[:1])
        raise InputError(f"{problem} scores must have shape {form}, got {scores}.{hint}")
    if 0 in scores:
        raise InputError(f"scores are empty: their shape is {scores}")
    expected = scores if problem == "multilabel" else scores[:1]
    if labels != expected:
        hint = squeeze_hint("labels", labels, expected)
        raise InputError(f"labels must have shape {expected} for {problem} scores {scores}, got {labels}.{hint}")


def _check_rows(valid: BoolArray, mask: BoolArray, values: NDArray[Any], argument: str, rule: str) -> None:
    bad = ~valid & mask[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"{argument} {rule}; row {row} holds {values[row, column]}")


def _check_average(average: Any, problem: ProblemName) -> None:
    if average is not None and average not in get_args(Average):
        raise unknown_name("average", average, get_args(Average))
    if problem == "binary" and average in ("micro", "macro", "weighted"):
        raise InputError(
            f"average={average!r} needs several labels and a binary problem has one: use 'binary', or "
            "problem='multiclass' with two columns of scores to average over both classes"
        )
    if problem != "binary" and average == "binary":
        raise InputError("average='binary' is for a binary problem: use 'micro', 'macro', 'weighted' or None")
