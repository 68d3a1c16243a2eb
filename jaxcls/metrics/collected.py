"""What was collected, checked once, in one form for the three problems."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import ProblemName, check_problem, holds

FloatArray = NDArray[np.float64]
Rows = ArrayLike | None  # one value a row, or None for the default of every row


class Collected(NamedTuple):
    """The rows that count. A row of a multiclass problem is one decision, any other row is one a column.

    scores (N, C); truth (N, decisions), the class of each decision; sample_weight (N, decisions), 0 where the class is
    not known, and above 0 somewhere in every row; rows (N,), where each row stood, for messages.
    """

    scores: FloatArray
    truth: NDArray[np.int64]
    sample_weight: FloatArray
    rows: NDArray[np.intp]
    problem: ProblemName


def collect(scores: ArrayLike, labels: ArrayLike, problem: ProblemName, sample_weight: Rows, mask: Rows) -> Collected:
    """The rows that count, after a check of every row that is not masked."""
    check_problem(problem)
    values, truth = numbers(scores, "scores"), np.asarray(labels)
    _check_shapes(values.shape, truth.shape, problem)
    row_weights, row_mask = weights_and_mask(len(values), sample_weight, mask)
    values, truth = values.reshape(len(values), -1), truth.reshape(len(truth), -1)
    known = known_places(truth, problem)
    _check_rows(np.isfinite(values), row_mask, values, "scores", "must be finite")
    if problem == "multiclass":
        if truth.dtype.kind not in "iu":
            raise InputError(f"multiclass labels must be integer class indices, got {truth.dtype}")
        last = values.shape[1] - 1
        rule = f"must be from 0 to {last}, one for each column of scores"
        _check_rows((truth >= 0) & (truth <= last), row_mask, truth, "labels", rule)
    else:
        _check_rows((truth == 0) | (truth == 1) | ~known, row_mask, truth, "labels", "must be 0 or 1")
    kept = np.flatnonzero(row_mask & (row_weights > 0) & known.any(axis=1))
    if not kept.size:
        raise InputError("no example is left: no label of the rows that count is known")
    classes = np.where(known, truth, 0)[kept].astype(np.int64)
    return Collected(values[kept], classes, row_weights[kept, None] * known[kept], kept, problem)


def known_places(labels: NDArray[Any], problem: ProblemName) -> NDArray[np.bool_]:
    """Where a label is known; only a multilabel one may be nan, which says that it is not."""
    return ~holds(labels, math.nan) if problem == "multilabel" else np.ones(labels.shape, dtype=bool)


def weights_and_mask(rows: int, sample_weight: Rows, mask: Rows) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The weight of each row and whether it is read at all; at least one row has a weight."""
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
    """Refuses logits, which are not in [0, 1], or do not sum to 1."""
    remedy = f"Apply {'softmax' if data.problem == 'multiclass' else 'sigmoid'} to logits first."
    outside = ((data.scores < 0) | (data.scores > 1)).any(axis=1)
    if outside.any():
        i = outside.argmax()
        where = f"row {data.rows[i]} holds {data.scores[i]}"
        raise InputError(f"scores must be probabilities in [0, 1]; {where}. {remedy}")
    # A softmax in bfloat16 sums to 1 only to about 0.4%.
    excess = np.abs(data.scores.sum(axis=1) - 1)
    if data.problem == "multiclass" and (excess > 0.01).any():
        i = excess.argmax()
        where = f"row {data.rows[i]} sums to {data.scores[i].sum()}"
        raise InputError(f"multiclass scores must be probabilities that sum to 1; {where}. {remedy}")


def one_vs_rest(data: Collected) -> NDArray[np.bool_]:
    """Which example is a positive of which column, (N, C)."""
    return data.truth == (np.arange(data.scores.shape[1]) if data.problem == "multiclass" else 1)


def support_of(data: Collected) -> FloatArray:
    """The weight of the known positives of each column, (C,)."""
    return (data.sample_weight * one_vs_rest(data)).sum(axis=0)


def numbers(values: ArrayLike, argument: str) -> FloatArray:
    """Whatever was given as an array of float64."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument} must be an array of numbers: {error}") from error


def _check_shapes(scores: tuple[int, ...], labels: tuple[int, ...], problem: ProblemName) -> None:
    columns = {"binary": "", "multiclass": "classes", "multilabel": "labels"}[problem]
    form = f"(examples, {columns})" if columns else "(examples,)"
    if len(scores) != (2 if columns else 1) or (problem == "multiclass" and scores[1] < 2):
        least = ", at least two classes" if problem == "multiclass" else ""
        raise InputError(f"scores of a {problem} problem must have shape {form}{least}, got {scores}")
    if 0 in scores:
        raise InputError(f"scores are empty: their shape is {scores}")
    expected = scores if problem == "multilabel" else scores[:1]
    if labels != expected:
        raise InputError(f"labels must have shape {expected} for {problem} scores {scores}, got {labels}")


def _check_rows(
    valid: NDArray[np.bool_], mask: NDArray[np.bool_], values: NDArray[Any], argument: str, rule: str
) -> None:
    bad = ~valid & mask[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"{argument} {rule}; row {row} holds {values[row, column]}")
