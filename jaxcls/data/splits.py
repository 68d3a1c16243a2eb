"""Splits: which rows train and which rows validate.

Each is ``(part, fraction, *, seed) -> (train_rows, validation_rows)``: two sorted int64 arrays that together hold
each of 0..N-1 once. `fraction` is the part of the rows that validates, between 0 and 1, both excluded; `seed` is a
non-negative integer, and the same part and seed give the same rows on every version of NumPy.
"""

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Split


def stratified(part: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows so that every class is split in proportion; in a multi-label problem, every rarest label.

    A row with several labels counts as one of the rarest of them; rows with none are a class of their own. Each
    class gets fraction * its rows, and the rows lost to rounding go to the largest remainders, as in the Hamilton
    method of apportionment. A class with two or more rows has at least one row on each side; a class with one row
    trains.

    Raises:
      InputError: the labels are neither classes nor a column a label, the fraction or seed is out of range, or no
      class has two rows.

    >>> part = Split(np.zeros((8, 3)), np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    >>> train_rows, validation_rows = stratified(part, 0.25, seed=0)
    >>> part.labels[validation_rows]
    array([0, 1])
    """
    _check(fraction, seed)
    _, classes, counts = np.unique(_strata(part.labels), return_inverse=True, return_counts=True)
    if not np.any(counts >= 2):
        raise InputError(f"{len(classes)} rows are too few to split: no class has two, and it takes one on each side.")
    by_class = np.lexsort((_sort_keys(len(classes), seed), classes))
    place_in_class = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    validates = place_in_class < np.repeat(_quotas(counts, fraction), counts)
    return np.sort(by_class[~validates]), np.sort(by_class[validates])


def grouped(part: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits whole groups, so that every class is split in proportion as nearly as the groups allow.

    Classes are those of :func:`stratified`. From the rarest to the most common, the groups that hold a class are
    gone through at random, and one validates where that brings the class nearer to fraction * its rows. A class
    that stands in two groups or more is on both sides, unless all its groups were wanted for rarer ones; a class
    that stands in one group trains. Source: Sechidis et al. (2011), "On the stratification of multi-label data",
    with groups in the place of rows.

    Raises:
      InputError: as for :func:`stratified`; there are no groups, or too few to have some on each side.

    >>> part = Split(np.zeros((6, 3)), np.array([0, 0, 0, 0, 1, 1]), groups=np.array(["a", "a", "b", "b", "c", "d"]))
    >>> train_rows, validation_rows = grouped(part, 0.5, seed=0)
    >>> part.groups[validation_rows]
    array(['b', 'b', 'd'], dtype='<U1')
    """
    _check(fraction, seed)
    if part.groups is None:
        raise InputError("the examples have no groups to keep together; split them by class.")
    _, groups = np.unique(part.groups, return_inverse=True)
    _, classes, class_rows = np.unique(_strata(part.labels), return_inverse=True, return_counts=True)
    num_groups = int(groups.max(initial=-1)) + 1
    # One entry for each class in each group, in order of the class, and how many rows it has.
    entries, entry_rows = np.unique(classes * np.int64(num_groups) + groups, return_counts=True)
    first_entries = np.searchsorted(entries, np.arange(len(class_rows) + 1) * num_groups)
    order = np.argsort(_sort_keys(num_groups, seed), kind="stable")
    place = np.argsort(order, kind="stable")

    validates, assigned = np.zeros(num_groups, bool), np.zeros(num_groups, bool)
    for label in np.argsort(class_rows, kind="stable"):
        own = slice(first_entries[label], first_entries[label + 1])
        holders, sizes = entries[own] % num_groups, entry_rows[own]
        shuffled = np.argsort(place[holders])
        holders, sizes = holders[shuffled], sizes[shuffled]
        wanted = fraction * class_rows[label] - sizes[validates[holders]].sum()
        free = np.flatnonzero(~assigned[holders])
        for entry in free:
            if len(holders) > 1 and sizes[entry] / 2 < wanted:
                validates[holders[entry]] = True
                wanted -= sizes[entry]
        assigned[holders] = True
        if len(free) and len(holders) > 1 and len(set(validates[holders])) == 1:
            smallest = holders[free[sizes[free].argmin()]]
            validates[smallest] = not validates[smallest]
    if not validates.any():
        raise InputError(
            f"{num_groups} groups are too few to split: no class stands in two that can be parted, and it takes one "
            "on each side."
        )
    return np.flatnonzero(~validates[groups]), np.flatnonzero(validates[groups])


def by_chance(part: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Any rows validate, whatever their labels: where an example has no class of its own, as in detection.

    Raises:
      InputError: the fraction or seed is out of range, or there are fewer than two rows.

    >>> train_rows, validation_rows = by_chance(Split(np.zeros((5, 3)), np.zeros(5)), 0.4, seed=0)
    >>> len(train_rows), len(validation_rows)
    (3, 2)
    """
    count, validates = _count(part, fraction, seed)
    order = np.argsort(_sort_keys(count, seed), kind="stable")
    return np.sort(order[validates:]), np.sort(order[:validates])


def by_time(part: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The last rows validate, as those to be predicted come after those that were learned from.

    The rows of the part stand in the order of time. Nothing is drawn; `seed` is there as in every split.

    Raises:
      InputError: the fraction or seed is out of range, or there are fewer than two rows.

    >>> by_time(Split(np.zeros((5, 3)), np.array([0, 1, 0, 0, 1])), 0.4, seed=0)
    (array([0, 1, 2]), array([3, 4]))
    """
    count, validates = _count(part, fraction, seed)
    cut = count - validates
    return np.arange(cut, dtype=np.int64), np.arange(cut, count, dtype=np.int64)


def _count(part: Split, fraction: float, seed: int) -> tuple[int, int]:
    """The number of rows, and how many of them validate."""
    _check(fraction, seed)
    count = part.num_examples
    if count < 2:
        raise InputError(f"{count} rows are too few to split: it takes one on each side.")
    return count, min(max(round(count * fraction), 1), count - 1)


def _check(fraction: float, seed: int) -> None:
    if not 0 < fraction < 1:
        raise InputError(f"fraction is {fraction}; it must be above 0 and below 1.")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or above.")


def _strata(labels: np.ndarray) -> np.ndarray:
    """The class of each row, (N,); of several labels the rarest, and of none the number of labels."""
    labels = np.asarray(labels)
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        return labels
    if labels.ndim != 2 or labels.dtype.kind not in "iubf":
        raise InputError(
            f"labels have shape {labels.shape} and type {labels.dtype}; they must be integers of shape (N,), or "
            "numbers of shape (N, L), a column for each label."
        )
    positive = labels >= 0.5  # False where a label is not known
    support = positive.sum(axis=0)
    rarity = np.where(positive, support, len(labels) + 1)
    none = np.full((len(labels), 1), len(labels))
    return np.hstack([rarity, none]).argmin(axis=1)


def _sort_keys(count: int, seed: int) -> np.ndarray:
    # Raw words of PCG64: NumPy promises this stream for ever (NEP 19), while those of Generator.permutation and
    # Generator.shuffle may change with any version.
    return np.random.PCG64(seed).random_raw(count)


def _quotas(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many rows of each class validate."""
    divisible = counts >= 2
    ideal = np.where(divisible, counts * fraction, 0.0)
    quotas = np.where(divisible, np.maximum(np.floor(ideal), 1), 0).astype(np.int64)
    left = max(0, round(ideal.sum()) - quotas.sum())
    largest_remainders = np.argsort(quotas - ideal, kind="stable")[:left]
    quotas[largest_remainders] += 1
    return np.minimum(quotas, counts - 1)
