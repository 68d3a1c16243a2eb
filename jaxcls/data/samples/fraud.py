"""A synthetic creditcard.csv: payments of two days in the format of Kaggle's file, few of them fraud.

What makes the real set hard is here too: fraud is rare, the ways of it shift with time and so do ordinary payments,
amounts have a heavy tail, rows stand twice, and part of the fraud cannot be told from an ordinary payment.
"""

from pathlib import Path

import numpy as np

SECONDS = 172_793  # two days, as in the real file
COMPONENTS = 28
# A fraud of the first kind lies far out in these components (V14 and V17 stand out in the real file too); one of the
# second kind lies on either side, so that no weighted sum of the columns finds it.
_FAR = {4: 2.8, 11: 2.6, 10: -2.8, 12: -3.4, 14: -4.0, 17: -3.4}
_EITHER_SIDE = {2: 4.0, 5: -3.6, 7: 4.0, 21: -3.6}
# The share of the frauds that are drawn as ordinary payments are: no model ranks them above others.
HIDDEN = 0.12


def write(folder: Path, *, rows: int = 40_000, fraud: float = 0.005, twice: float = 0.004, seed: int = 0) -> None:
    """Writes creditcard.csv: Time, V1..V28, Amount, Class, with the header and the class in quotes as in Kaggle's.

    Args:
      rows: different payments.
      fraud: the share of them that is fraud; 0.0017 in the real file, too few for a file of this size to be scored.
      twice: the share of the payments of each class that the file holds a second time.
    """
    from pyarrow import Table, csv

    rng = np.random.default_rng(seed)
    positive = np.zeros(rows, bool)
    positive[rng.choice(rows, round(fraud * rows), replace=False)] = True
    when = _times(rng, rows)
    values = _components(rng, when / SECONDS, positive) * np.linspace(1.96, 0.33, COMPONENTS)
    amounts = np.where(positive, _amounts(rng, rows, median=12.0, spread=2.2), _amounts(rng, rows, 22.0, 1.6))
    copies = [
        rng.choice(of_class, -int(-twice * len(of_class) // 1))
        for of_class in map(np.flatnonzero, (positive, ~positive))
    ]
    order = np.sort(np.concatenate([np.arange(rows), *copies]))  # a payment stands beside its copy
    columns = {
        "Time": when,
        **{f"V{i + 1}": np.round(values[:, i], 9) for i in range(COMPONENTS)},
        "Amount": amounts,
        "Class": np.where(positive, "1", "0"),
    }
    # Arrow writes the header and strings in quotes and numbers without, which is Kaggle's form.
    csv.write_csv(
        Table.from_pydict({name: column[order] for name, column in columns.items()}), folder / "creditcard.csv"
    )


def _times(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Whole seconds, ascending, fewer by night."""
    candidates = rng.integers(0, SECONDS, 4 * rows)
    day = np.sin((candidates / 86_400 - 0.25) * 2 * np.pi)
    return np.sort(candidates[rng.random(len(candidates)) < 0.6 + 0.4 * day][:rows]).astype(np.float64)


def _components(rng: np.random.Generator, progress: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """V1..V28 before they are scaled, (rows, 28); `progress` runs from 0 to 1 with time."""
    rows = len(progress)
    far, either_side, drift = np.zeros((3, COMPONENTS))
    far[np.array([*_FAR]) - 1] = [*_FAR.values()]
    either_side[np.array([*_EITHER_SIDE]) - 1] = [*_EITHER_SIDE.values()]
    drift[::3] = 0.4
    # Most payments are alike, some are unusual in every way.
    spread = np.where(rng.random(rows) < 0.05, 1.8, 0.9)
    values = rng.standard_normal((rows, COMPONENTS)) * spread[:, None] + np.outer(progress, drift)

    kind = rng.random(rows)
    strength = rng.uniform(0.6, 1.4, rows)
    first_kind = 0.75 - 0.2 * progress  # the second kind takes over
    is_far = positive & (kind < first_kind)
    is_either_side = positive & (kind >= first_kind) & (kind < 1 - HIDDEN)
    # Among ordinary payments are some that look half like fraud.
    suspect = ~positive & (kind < 0.005)
    side = rng.choice([-1.0, 1.0], rows)
    values += np.outer(is_far * strength + suspect * 0.5, far)
    values += np.outer(is_either_side * strength * side, either_side)
    return values


def _amounts(rng: np.random.Generator, rows: int, median: float, spread: float) -> np.ndarray:
    return np.round(np.exp(np.log(median) + spread * rng.standard_normal(rows)), 2)
