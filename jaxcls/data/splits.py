"""Splits: which rows train and which rows validate."""

import numpy as np

from jaxcls.errors import InputError


def stratified(labels: np.ndarray, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows into training and validation rows so that every class is split in proportion.

    Args:
      labels: integer classes, shape (N,).
      fraction: the part of the rows that validates, between 0 and 1, both excluded.
      seed: a non-negative integer; the same labels and seed give the same rows on every version of NumPy.

    Returns:
      (train_rows, validation_rows): two sorted int64 arrays that together hold each of 0..N-1 once.

    Each class gets fraction * its rows, and the rows lost to rounding go to the largest remainders, as in
    the Hamilton method of apportionment. A class with two or more rows has at least one row on each side; a
    class with one row trains.

    Raises InputError for labels of another shape or type, for a fraction or seed out of range, and where no
    class has two rows.

    >>> train_rows, validation_rows = stratified(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
    >>> len(train_rows), len(validation_rows)
    (6, 2)
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise InputError(
            f"labels have shape {labels.shape} and type {labels.dtype}; they must be integers of shape (N,)."
        )
    if not 0 < fraction < 1:
        raise InputError(f"fraction is {fraction}; it must be above 0 and below 1.")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or above.")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if not np.any(counts >= 2):
        raise InputError(f"{len(labels)} rows are too few to split: no class has two, and it takes one on each side.")

    # Raw words of PCG64 as sort keys: NumPy promises this stream for ever (NEP 19), while those of
    # Generator.permutation and Generator.shuffle may change with any version.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    by_class = np.lexsort((keys, classes))
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    validates = place_in_class < np.repeat(_quotas(counts, fraction), counts)
    return np.sort(by_class[~validates]), np.sort(by_class[validates])


def _quotas(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many rows of each class validate."""
    divisible = counts >= 2
    ideal = np.where(divisible, counts * fraction, 0.0)
    quotas = np.where(divisible, np.maximum(np.floor(ideal), 1), 0).astype(np.int64)
    left = max(0, round(ideal.sum()) - quotas.sum())
    largest_remainders = np.argsort(quotas - ideal, kind="stable")[:left]
    quotas[largest_remainders] += 1
    return np.minimum(quotas, counts - 1)
