"""A synthetic creditcard.csv: payments of two days in the format of Kaggle's file, few of them fraud.

It has what makes the real set hard: fraud is rare, its patterns drift over time and so do ordinary payments, amounts
are heavy-tailed, rows are duplicated, and some of the fraud is indistinguishable from ordinary payments.
"""

from pathlib import Path

import numpy as np

SECONDS = 172_793  # two days, as in the real file
COMPONENTS = 28
# Fraud of the first pattern lies far out in these components (V14 and V17 stand out in the real file too); fraud of the
# second lies on either side, so that no linear model finds it.
_FAR = {4: 2.8, 11: 2.6, 10: -2.8, 12: -3.4, 14: -4.0, 17: -3.4}
_EITHER_SIDE = {2: 4.0, 5: -3.6, 7: 4.0, 21: -3.6}
# The fraction of fraud that is drawn like ordinary payments.
HIDDEN = 0.12


def write(folder: Path, *, rows: int = 40_000, fraud: float = 0.005, twice: float = 0.004, seed: int = 0) -> None:
    """Writes creditcard.csv: Time, V1..V28, Amount, Class, with the header and the class in quotes as in Kaggle's.

    Args:
      folder: where to write it.
      rows: the number of distinct payments.
      fraud: the fraction of fraud; 0.0017 in the real file, too few to evaluate on in a file of this size.
      twice: the fraction of the payments of each class that are duplicated.
      seed: the seed of all that is random.
    """
    from pyarrow import Table, csv

    rng = np.random.default_rng(seed)
    positive = np.zeros(rows, bool)
    positive[rng.choice(rows, round(fraud * rows), replace=False)] = True
    # Whole seconds, ascending, fewer at night.
    candidates = rng.integers(0, SECONDS, 4 * rows)
    day = np.sin((candidates / 86_400 - 0.25) * 2 * np.pi)
    time = np.sort(candidates[rng.random(len(candidates)) < 0.6 + 0.4 * day][:rows]).astype(np.float64)
    values = _components(rng, time / SECONDS, positive) * np.linspace(1.96, 0.33, COMPONENTS)
    amounts = np.where(positive, _amounts(rng, rows, median=12.0, spread=2.2), _amounts(rng, rows, 22.0, 1.6))
    duplicates = [
        rng.choice(members, -int(-twice * len(members) // 1)) for members in map(np.flatnonzero, (positive, ~positive))
    ]
    order = np.sort(np.concatenate([np.arange(rows), *duplicates]))  # a duplicate follows the original
    columns = {
        "Time": time,
        **{f"V{i + 1}": np.round(values[:, i], 9) for i in range(COMPONENTS)},
        "Amount": amounts,
        "Class": np.where(positive, "1", "0"),
    }
    # Arrow writes the header and strings in quotes and numbers without, as in Kaggle's file.
    csv.write_csv(
        Table.from_pydict({name: column[order] for name, column in columns.items()}), folder / "creditcard.csv"
    )


def _components(rng: np.random.Generator, progress: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """V1..V28 before scaling, (rows, COMPONENTS); `progress` runs from 0 to 1 with time."""
    rows = len(progress)
    far, either_side, drift = np.zeros((3, COMPONENTS))
    far[np.array([*_FAR]) - 1] = [*_FAR.values()]
    either_side[np.array([*_EITHER_SIDE]) - 1] = [*_EITHER_SIDE.values()]
    drift[::3] = 0.4
    # Most payments are alike; some are unusual in every component.
    spread = np.where(rng.random(rows) < 0.05, 1.8, 0.9)
    values = rng.standard_normal((rows, COMPONENTS)) * spread[:, None] + np.outer(progress, drift)

    pattern = rng.random(rows)
    strength = rng.uniform(0.6, 1.4, rows)
    first = 0.75 - 0.2 * progress  # the second pattern becomes more frequent
    is_far = positive & (pattern < first)
    is_either_side = positive & (pattern >= first) & (pattern < 1 - HIDDEN)
    # Some ordinary payments look a little like fraud.
    suspicious = ~positive & (pattern < 0.005)
    side = rng.choice([-1.0, 1.0], rows)
    values += np.outer(is_far * strength + suspicious * 0.5, far)
    values += np.outer(is_either_side * strength * side, either_side)
    return values


def _amounts(rng: np.random.Generator, rows: int, median: float, spread: float) -> np.ndarray:
    return np.round(np.exp(np.log(median) + spread * rng.standard_normal(rows)), 2)
