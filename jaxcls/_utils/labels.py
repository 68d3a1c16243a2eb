"""Labels on the host, in NumPy: their validation for a problem, and the class weights that follow from them.

Compiled code cannot raise, so invalid labels are reported here.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from jaxcls._utils.errors import InputError, listed, unknown_name

ProblemName = Literal["binary", "multiclass", "multilabel"]
# Detection labels are several arrays, see :mod:`jaxcls.models.detection`. Multioutput labels are (N, outputs), each
# column those of a multiclass problem.
AnyProblemName = Literal[ProblemName, "detection"]


def validate(
    labels: npt.ArrayLike, problem: AnyProblemName, num_classes: int, *, ignore_label: float | None = None
) -> None:
    """Validates all labels of a data set; call it before training.

    Args:
      labels: binary (N,) and multilabel (N, num_classes), 0 and 1 or soft in [0, 1]; multiclass (N,), integers below
        num_classes, or (N, num_classes), distributions that sum to 1.
      problem: 'binary', 'multiclass' or 'multilabel'.
      num_classes: the number of classes, or of labels if multilabel.
      ignore_label: labels of this value are valid (except in distributions).

    Raises:
      InputError: a label is out of range or NaN (the first such row is named), or the shape or dtype is wrong.

    >>> validate([0, 1, 3], "multiclass", 3)
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: labels: row 2 holds 3; multiclass indices lie in 0 to 2.
    """
    check_problem(problem)
    array = _as_numbers(labels)
    rows = array.shape[:1]
    matrix = (*rows, num_classes)
    shapes = {"binary": [rows], "multilabel": [matrix], "multiclass": [rows, matrix]}[problem]
    if array.ndim == 0 or array.shape not in shapes:
        raise InputError(
            f"{problem} labels {array.shape} must have shape {' or '.join(map(str, shapes))} for "
            f"num_classes={num_classes}.{squeeze_hint('labels', array.shape, rows)}"
        )
    if problem == "multiclass" and array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise InputError(f"multiclass indices must be integers, not {array.dtype}: labels.astype('int32').")
        valid = (array >= 0) & (array < num_classes)
        right = f"multiclass indices lie in 0 to {num_classes - 1}."
    else:
        valid = (array >= 0) & (array <= 1)
        right = f"{problem} labels are 0 and 1, or soft in [0, 1]."
    distributions = problem == "multiclass" and array.ndim == 2
    _reject_first(~valid & _is_counted(array, None if distributions else ignore_label), array, right)
    if distributions:
        sums = np.asarray(array.sum(axis=1, dtype=np.float64))
        _reject_first(np.abs(sums - 1) > 1e-3, sums, "that is the sum of a distribution, which must be 1.")


def class_weights(
    labels: npt.ArrayLike,
    num_classes: int,
    *,
    method: str = "balanced",
    beta: float = 0.999,
    ignore_label: float | None = None,
) -> npt.NDArray[np.float64]:
    """Class weights from the hard labels of the training set; rare classes have a high weight.

    Args:
      labels: (N,), class indices, or (N, num_classes), 0 and 1, if multi-label.
      num_classes: the number of classes, or of labels if multi-label.
      method: 'balanced' is N / (K count), as in scikit-learn; 'effective' is (1 - beta) / (1 - beta^count), scaled to
        sum to K (Cui et al. 2019, arXiv:1901.05555).
      beta: in [0, 1).
      ignore_label: labels of this value are not counted.

    Returns:
      (num_classes,); if multi-label (num_classes, 2), the weights of 0 and 1 for each label.

    Raises:
      InputError: a class has no row, a label is not an integer in range, the shape is wrong, or beta is out of range.

    >>> print(class_weights([0, 0, 0, 1], 2))
    [0.66666667 2.        ]
    """
    array = _as_numbers(labels)
    multilabel = array.ndim == 2
    if not (array.ndim == 1 or (multilabel and array.shape[1] == num_classes)):
        raise InputError(f"labels {array.shape} must have shape (N,), or (N, {num_classes}) for multi-label.")
    classes = 2 if multilabel else num_classes
    counted = _is_counted(array, ignore_label)
    valid = (array == np.floor(array)) & (array >= 0) & (array < classes)
    _reject_first(counted & ~valid, array, f"class weights count hard labels, integers in 0 to {classes - 1}.")

    columns = zip(np.atleast_2d(array.T), np.atleast_2d(counted.T), strict=True)
    counts = np.stack([np.bincount(column[rows].astype(int), minlength=classes) for column, rows in columns])
    for label, empty in np.argwhere(counts == 0):
        where = f" of label {label}" if multilabel else ""
        raise InputError(
            f"class {empty}{where} has no row in the labels, so it has no weight; drop it or pass weights."
        )
    match method:
        case "balanced":
            weights = counts.sum(axis=1, keepdims=True) / (classes * counts)
        case "effective":
            if not 0 <= beta < 1:
                raise InputError(f"beta is {beta}; it must lie in [0, 1).")
            weights = (1 - beta) / (1 - beta**counts)
            weights *= classes / weights.sum(axis=1, keepdims=True)
        case _:
            raise unknown_name("method of class weights", method, ["balanced", "effective"])
    return weights if multilabel else weights[0]


def resolve_class_weight(
    class_weight: str | Mapping[int, float] | npt.ArrayLike,
    problem: ProblemName,
    num_classes: int,
    *,
    labels: npt.ArrayLike | None = None,
    ignore_label: float | None = None,
) -> npt.NDArray[np.float64]:
    """The array for a loss's `class_weight` from any form of it.

    Args:
      class_weight: an array; a dict {class: weight} of every class; or 'balanced' or 'effective', see `class_weights`.
        The classes of binary and multilabel problems are 0 and 1.
      problem: 'binary', 'multiclass' or 'multilabel'.
      num_classes: the number of classes, or of labels if multilabel.
      labels: the training labels, for 'balanced' and 'effective'.
      ignore_label: labels of this value are not counted.

    Returns:
      (num_classes,) if multiclass, (2,) if binary, and (2,) or (num_classes, 2) if multilabel.

    Raises:
      InputError: the name, the classes, the shape or the values are wrong, or the labels are missing.

    >>> print(resolve_class_weight({0: 1, 1: 5}, "binary", 2))
    [1. 5.]
    >>> print(resolve_class_weight("balanced", "multiclass", 2, labels=[0, 0, 0, 1]))
    [0.66666667 2.        ]
    """
    check_problem(problem)
    multilabel = problem == "multilabel"
    classes = num_classes if problem == "multiclass" else 2
    if isinstance(class_weight, str):
        if labels is None or np.ndim(labels) != (2 if multilabel else 1):
            raise InputError(
                f"class_weight {class_weight!r} is computed from the training labels: pass labels= of shape "
                f"{'(N, L)' if multilabel else '(N,)'}, not {'None' if labels is None else np.shape(labels)}."
            )
        size = num_classes if multilabel else classes
        return class_weights(labels, size, method=class_weight, ignore_label=ignore_label)
    if isinstance(class_weight, Mapping):
        for which, names in (
            ("lacks", [index for index in range(classes) if index not in class_weight]),
            ("has a weight for the unknown", [name for name in class_weight if name not in range(classes)]),
        ):
            if names:
                every = f"it must have a weight for each class from 0 to {classes - 1}"
                raise InputError(f"class_weight {which} class {listed(names)}; {every}.")
        class_weight = [class_weight[index] for index in range(classes)]
    weights = np.asarray(class_weight, np.float64)
    shapes = [(2,), (num_classes, 2)] if multilabel else [(classes,)]
    if weights.shape not in shapes:
        raise InputError(f"class_weight {weights.shape} must have shape {' or '.join(map(str, shapes))} for {problem}.")
    valid = np.isfinite(weights) & (weights >= 0)
    if not valid.all():
        raise InputError(f"class_weight holds {weights[~valid][:1]}; weights are finite and not negative.")
    return weights


def check_problem(problem: str) -> None:
    """Raises InputError unless the problem is one whose labels are a single array."""
    if problem not in get_args(ProblemName):
        raise unknown_name("problem", problem, get_args(ProblemName))


def squeeze_hint(name: str, shape: tuple[int, ...], right: tuple[int, ...]) -> str:
    """How to remove a last axis of size 1 that is one too many, or an empty string.

    >>> squeeze_hint("labels", (4, 1), (4,))
    ' Squeeze the labels: labels[..., 0].'
    """
    return f" Squeeze the {name}: {name}[..., 0]." if shape == (*right, 1) else ""


def holds(labels: Any, label: float) -> Any:
    """Whether each element of a NumPy or JAX array is that label, which may be NaN.

    >>> holds(np.array([0.0, np.nan]), np.nan)
    array([False,  True])
    """
    return labels != labels if math.isnan(label) else labels == label


def _is_counted(array: npt.NDArray[Any], ignore_label: float | None) -> npt.NDArray[np.bool_]:
    return np.ones(array.shape, bool) if ignore_label is None else ~holds(array, ignore_label)


def _as_numbers(labels: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(labels)
    if array.dtype.kind not in "biuf":
        raise InputError(f"labels are {array.dtype}; they must be numbers. Map names to the integers 0 to K-1 first.")
    return array


def _reject_first(bad: npt.NDArray[np.bool_], array: npt.NDArray[Any], right: str) -> None:
    for index in np.argwhere(bad)[:1]:
        where = f"row {index[0]}" + (f", column {index[1]}" if len(index) > 1 else "")
        raise InputError(f"labels: {where} holds {array[tuple(index)]}; {right}")
