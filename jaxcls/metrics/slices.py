"""Subgroups in which a model errs more often than elsewhere."""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls.metrics.intervals import proportion_interval
from jaxcls.metrics.shift import holm

_MOST_WORDS, _BINS, _CHARACTERS = 50, 4, 40
_LEAST, _LEAST_SHARE = 20, 0.01


class Slice(NamedTuple):
    """A subgroup.

    Attributes:
      name: such as "age 40 to 52" or "plan basic".
      examples: their number.
      error_rate: the share of them that is predicted wrongly.
      interval: Wilson's, of 95 %.
      p_value: of as high an error rate by chance, corrected for the number of subgroups.
    """

    name: str
    examples: int
    error_rate: float
    interval: tuple[float, float]
    p_value: float


def worst_slices(columns: Mapping[str, np.ndarray], wrong: ArrayLike, *, most: int = 10) -> list[Slice]:
    """Returns the subgroups with significantly more errors than the other examples, the highest error rate first.

    Examined are the values of columns of words, and the quarters of columns of numbers, of at least 20 examples and one
    in a hundred. Fisher's exact test, one-sided, with Holm's correction: p below 0.05.

    Args:
      columns: name -> float64 with NaN where a number is missing, or str objects, (N,).
      wrong: bool (N,), whether an example is predicted wrongly.
      most: how many are returned.

    >>> wrong = np.arange(200) < 60
    >>> [one] = worst_slices({"plan": np.where(wrong, "new", "old").astype(object)}, wrong)
    >>> one.name, one.examples, one.error_rate
    ('plan new', 60, 1.0)
    """
    errors = np.asarray(wrong, bool)
    count, total = len(errors), int(errors.sum())
    groups = [
        (name, rows)
        for column, values in columns.items()
        for name, rows in _groups(column, np.asarray(values))
        if max(_LEAST, _LEAST_SHARE * count) <= rows.sum() < count
    ]
    if not groups or total in (0, count):
        return []
    tested = [(int(rows.sum()), int(errors[rows].sum())) for _, rows in groups]
    corrected = holm([_at_least(errors_inside, size, total, count) for size, errors_inside in tested])
    slices = [
        Slice(name, size, errors_inside / size, proportion_interval(errors_inside / size, size), float(p))
        for (name, _), (size, errors_inside), p in zip(groups, tested, corrected, strict=True)
        if p < 0.05
    ]
    return sorted(slices, key=lambda one: -one.error_rate)[:most]


def _groups(column: str, values: np.ndarray) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    if values.dtype == object:
        words, which, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
        for index in np.argsort(-counts, kind="stable")[:_MOST_WORDS]:
            yield f"{column} {words[index][:_CHARACTERS] or 'empty'}", which == index
        return
    missing = ~np.isfinite(values)
    yield f"{column} is missing", missing
    known = values[~missing]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1))) if len(known) else known
    for low, high in itertools.pairwise(edges):
        # The last one includes its upper end.
        inside = (values >= low) & ((values <= high) if high == edges[-1] else (values < high))
        yield f"{column} {low:.4g} to {high:.4g}", inside


def _at_least(errors_inside: int, size: int, total: int, count: int) -> float:
    """The probability of at least this number of errors in a subgroup of this size, if errors fall anywhere."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])

    def log_choose(n: int, k: NDArray[np.int64]) -> np.ndarray:
        result: np.ndarray = factorials[n] - factorials[k] - factorials[n - k]
        return result

    inside = np.arange(max(errors_inside, size - (count - total)), min(size, total) + 1)
    logs = log_choose(total, inside) + log_choose(count - total, size - inside) - log_choose(count, np.array(size))
    return float(min(1, np.exp(logs).sum()))
