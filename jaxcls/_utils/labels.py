"""Labels on the host, in NumPy: whether they are what a problem says, and the class weights that they give.

A bad label can be named here; compiled code cannot raise.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from jaxcls._utils.errors import InputError, unknown_name

ProblemName = Literal["binary", "multiclass", "multilabel"]
# The labels of detection stand in several arrays: see :mod:`jaxcls.models.detection`; those of several outputs, each a
# multiclass problem, in an array (N, outputs).
AnyProblemName = Literal[ProblemName, "detection", "multioutput"]


def validate(
    labels: npt.ArrayLike, problem: AnyProblemName, num_classes: int, *, ignore_label: float | None = None
) -> None:
    """Checks a whole set of labels on the host, where a bad one can be named.

    Call it before training: compiled code cannot raise. ``binary`` labels are ``(N,)`` and ``multilabel``
    ones ``(N, num_classes)``, 0 and 1 or soft in [0, 1]; ``multiclass`` ones are integers ``(N,)`` below
    num_classes, or distributions ``(N, num_classes)`` that sum to 1. Places that hold ``ignore_label`` pass
    (not in distributions).

    Raises:
      InputError: a label is out of range or NaN (the first such row is named), or the shape or type is wrong.

    >>> validate([0, 1, 3], "multiclass", 3)
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: labels: row 2 holds 3; multiclass indices lie in 0 to 2.
    """
    check_problem(problem)
    array = _as_numbers(labels)
    shapes = {
        "binary": [array.shape[:1]],
        "multilabel": [(*array.shape[:1], num_classes)],
        "multiclass": [array.shape[:1], (*array.shape[:1], num_classes)],
    }[problem]
    if array.ndim == 0 or array.shape not in shapes:
        raise InputError(
            f"{problem} labels {array.shape} must have shape {' or '.join(map(str, shapes))} for "
            f"num_classes={num_classes}.{squeeze_hint('labels', array.shape, array.shape[:1])}"
        )
    indices = problem == "multiclass" and array.ndim == 1
    if indices and array.dtype.kind not in "iu":
        raise InputError(f"multiclass indices must be integers, not {array.dtype}: labels.astype('int32').")
    distributions = problem == "multiclass" and not indices
    kept = np.ones(array.shape, bool)
    if ignore_label is not None and not distributions:
        kept = ~holds(array, ignore_label)
    if indices:
        good = (array >= 0) & (array < num_classes)
        _reject_first(kept & ~good, array, f"multiclass indices lie in 0 to {num_classes - 1}.")
        return
    good = (array >= 0) & (array <= 1)
    _reject_first(kept & ~good, array, f"{problem} labels are 0 and 1, or soft in [0, 1].")
    if distributions:
        sums = np.asarray(array.sum(axis=1, dtype=np.float64))
        _reject_first(np.abs(sums - 1) > 1e-3, sums, "that is the sum of a distribution, which must be 1.")


def outputs(class_names: Sequence[str]) -> dict[str, slice]:
    """The outputs that the names of the classes of several outputs begin with, and where the classes of each stand.

    Raises:
      InputError: a name does not say of which output it is, the classes of an output do not stand together, or there is
      only one.

    >>> outputs(("article: coat", "article: bag", "group: tops", "group: bags"))
    {'article': slice(0, 2, None), 'group': slice(2, 4, None)}
    """
    found: dict[str, list[int]] = {}
    for place, name in enumerate(class_names):
        output, colon, _ = name.partition(": ")
        if not colon:
            raise InputError(f"class {name!r} says of no output that it is of it; call it '<output>: {name}'.")
        found.setdefault(output, []).append(place)
    for output, places in found.items():
        if len(places) < 2 or places[-1] - places[0] != len(places) - 1:
            raise InputError(f"the classes of output {output!r} must be two or more, one behind the other.")
    return {output: slice(places[0], places[-1] + 1) for output, places in found.items()}


def class_weights(
    labels: npt.ArrayLike,
    num_classes: int,
    *,
    kind: str = "balanced",
    beta: float = 0.999,
    ignore_label: float | None = None,
) -> npt.NDArray[np.float64]:
    """Class weights from the hard labels of the training set, the rarer the heavier.

    ``balanced`` is n / (K count), as in scikit-learn. ``effective`` is (1 - beta) / (1 - beta^count), scaled
    to sum to K (Cui et al. 2019, arXiv:1901.05555). Labels ``(N,)`` give weights ``(num_classes,)``;
    multi-label ones ``(N, num_classes)`` give ``(num_classes, 2)``, the weights of 0 and of 1 for each label.

    Raises:
      InputError: a class has no row, a label is not an integer in range, the shape does not fit, or beta is
      outside [0, 1).

    >>> print(class_weights([0, 0, 0, 1], 2))
    [0.66666667 2.        ]
    """
    array = _as_numbers(labels)
    multilabel = array.ndim == 2
    if not (array.ndim == 1 or (multilabel and array.shape[1] == num_classes)):
        raise InputError(f"labels {array.shape} must have shape (N,), or (N, {num_classes}) for multi-label.")
    classes = 2 if multilabel else num_classes
    kept = np.ones(array.shape, bool) if ignore_label is None else ~holds(array, ignore_label)
    good = (array == np.floor(array)) & (array >= 0) & (array < classes)
    _reject_first(kept & ~good, array, f"class weights count hard labels, integers in 0 to {classes - 1}.")

    columns, kept = (array, kept) if multilabel else (array[:, None], kept[:, None])
    counts = np.stack(
        [
            np.bincount(column[keep].astype(int), minlength=classes)
            for column, keep in zip(columns.T, kept.T, strict=True)
        ]
    )
    for label, empty in np.argwhere(counts == 0):
        where = f" of label {label}" if multilabel else ""
        raise InputError(
            f"class {empty}{where} has no row in the labels, so it has no weight; drop it or give weights."
        )
    match kind:
        case "balanced":
            weights = counts.sum(axis=1, keepdims=True) / (classes * counts)
        case "effective":
            if not 0 <= beta < 1:
                raise InputError(f"beta is {beta}; it must lie in [0, 1).")
            weights = (1 - beta) / (1 - beta**counts)
            weights *= classes / weights.sum(axis=1, keepdims=True)
        case _:
            raise unknown_name("kind of class weights", kind, ["balanced", "effective"])
    return weights if multilabel else weights[0]


def resolve_class_weight(
    class_weight: str | Mapping[int, float] | npt.ArrayLike,
    problem: ProblemName,
    num_classes: int,
    *,
    labels: npt.ArrayLike | None = None,
    ignore_label: float | None = None,
) -> npt.NDArray[np.float64]:
    """The array for a loss's ``class_weight`` from whatever a person gives for it.

    That is an array, a dict {class: weight} that names every class, or 'balanced' or 'effective', which are
    computed from the training ``labels`` by ``class_weights``. The classes of a binary or multi-label
    problem are 0 and 1; its weights are ``(2,)``, and for multi-label also ``(num_classes, 2)``.

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
        if labels is None:
            raise InputError(f"class_weight {class_weight!r} is computed from the training labels: pass labels=.")
        if np.ndim(labels) != (2 if multilabel else 1):
            raise InputError(
                f"class_weight {class_weight!r} needs {problem} labels of shape "
                f"{'(N, L)' if multilabel else '(N,)'}, not {np.shape(labels)}."
            )
        size = num_classes if multilabel else classes
        return class_weights(labels, size, kind=class_weight, ignore_label=ignore_label)
    if isinstance(class_weight, Mapping):
        if set(class_weight) != set(range(classes)):
            raise InputError(
                f"class_weight names the classes {list(class_weight)}; it must name each of 0 to {classes - 1}."
            )
        class_weight = [class_weight[index] for index in range(classes)]
    weights = np.asarray(class_weight, np.float64)
    shapes = [(2,), (num_classes, 2)] if multilabel else [(classes,)]
    if weights.shape not in shapes:
        raise InputError(f"class_weight {weights.shape} must have shape {' or '.join(map(str, shapes))} for {problem}.")
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        raise InputError(f"class_weight holds {weights[~good][:1]}; weights are finite and not negative.")
    return weights


def check_problem(problem: str) -> None:
    """Refuses a name that is not one of a problem whose labels stand in one array."""
    if problem not in get_args(ProblemName):
        raise unknown_name("problem", problem, get_args(ProblemName))


def squeeze_hint(name: str, shape: tuple[int, ...], right: tuple[int, ...]) -> str:
    """What to do about an axis of size 1 too many, or an empty string.

    >>> squeeze_hint("labels", (4, 1), (4,))
    ' Squeeze the labels: labels[..., 0].'
    """
    return f" Squeeze the {name}: {name}[..., 0]." if shape == (*right, 1) else ""


def holds(labels: Any, label: float) -> Any:
    """Where an array, of NumPy or JAX, holds that label; NaN is a label like any other.

    >>> holds(np.array([0.0, np.nan]), np.nan)
    array([False,  True])
    """
    return labels != labels if math.isnan(label) else labels == label


def _as_numbers(labels: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(labels)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"labels are of type {array.dtype}; they must be numbers. Map names to the integers 0 to K-1 first."
        )
    return array


def _reject_first(bad: npt.NDArray[np.bool_], array: npt.NDArray[Any], right: str) -> None:
    for position in np.argwhere(bad)[:1]:
        place = f"row {position[0]}" + (f", column {position[1]}" if len(position) > 1 else "")
        raise InputError(f"labels: {place} holds {array[tuple(position)]}; {right}")
