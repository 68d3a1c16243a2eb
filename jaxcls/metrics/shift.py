"""Whether examples come from another distribution than those of the training: two-sample tests of each column.

- Numbers: the test of Kolmogorov and Smirnov. Its statistic is the largest difference of the distribution functions.
- Words, and whether a number is missing: the chi-squared test. The difference shown is the total variation, half the
  sum of the differences of the shares.

Both differences lie between 0 and 1. The p values are Holm's (1979, "A simple sequentially rejective multiple test
procedure"). With many examples the smallest difference is significant, so that one is called large only where it is
also at least :data:`LARGE`.

SciPy has these tests; importing it takes a third of a second at the end of every training.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# A tenth of the examples would have to change. It was set after the differences in experiments/shift.md were seen.
LARGE, SIGNIFICANT = 0.1, 0.001
# As many as keep the record small. The distribution functions are compared at these, so that the difference is at most
# one in 129 too small, and never too large.
_MOST_QUANTILES = 129
_MOST_WORDS, _MOST_COLUMNS = 50, 500
# Words of which fewer are expected are counted together, as the chi-squared distribution needs.
_LEAST_EXPECTED = 5
_CHARACTERS = 40


class Shift(NamedTuple):
    """How a column differs.

    Attributes:
      column: its name; "NAME is missing" for the share of missing numbers.
      difference: between 0 and 1.
      p_value: corrected for the number of columns.
      before, now: the medians, the shares of missing numbers, or the word whose share differs most with its shares.
    """

    column: str
    difference: float
    p_value: float
    before: str
    now: str

    @property
    def is_large(self) -> bool:
        """Whether it is worth a warning."""
        return self.difference >= LARGE and self.p_value < SIGNIFICANT


def reference(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns a record of columns to compare others with later, plain JSON values.

    Args:
      columns: name -> float64 with NaN where a number is missing, or str objects, (N,); the first 500 are recorded.

    >>> reference({"age": np.array([3.0, np.nan, 1.0])})
    {'age': {'count': 3, 'missing': 1, 'ranks': [[1.0, 0, 1], [3.0, 1, 2]]}}
    """
    first = itertools.islice(columns.items(), _MOST_COLUMNS)
    return {name: _described(np.asarray(column)) for name, column in first if len(column)}


def compare(before: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> list[Shift]:
    """Returns how columns differ from those of a :func:`reference`, the largest difference first.

    >>> record = reference({"age": np.arange(100.0), "plan": np.array(["basic", "more"] * 50, object)})
    >>> [one] = compare(record, {"age": np.arange(50.0, 150.0)})
    >>> one.difference, one.is_large, one.before, one.now
    (0.5, True, '49', '99')
    """
    differences: list[Any] = []
    for name, record in before.items():
        values = np.asarray(columns[name]) if name in columns else np.empty(0)
        if not len(values):
            continue
        if "shares" in record:
            words, counts = np.unique(values.astype(str), return_counts=True)
            now = dict(zip(words.tolist(), (counts / len(values)).tolist(), strict=True))
            difference, p_value, *shown = _chi_squared(record["shares"], record["count"], now, len(values))
            differences.append((name, difference, p_value, *shown))
            continue
        numbers = _sorted(values)
        missing = record["missing"] / max(1, record["count"]), 1 - len(numbers) / len(values)
        if any(missing):
            shares = [{"missing": share, "known": 1 - share} for share in missing]
            difference, p_value, *_ = _chi_squared(shares[0], record["count"], shares[1], len(values))
            differences.append((f"{name} is missing", difference, p_value, f"{missing[0]:.1%}", f"{missing[1]:.1%}"))
        if record["ranks"] and len(numbers):
            values, below, up_to = np.array(record["ranks"], np.float64).T
            size = max(1.0, up_to[-1])
            difference = _largest_difference(values, np.stack([below, up_to]) / size, numbers)
            p_value = _kolmogorov_tail(math.sqrt(size * len(numbers) / (size + len(numbers))) * difference)
            median = values[np.searchsorted(up_to[:-1], size / 2)]
            differences.append((name, difference, p_value, f"{median:.4g}", f"{numbers[(len(numbers) - 1) // 2]:.4g}"))
    corrected = holm([one[2] for one in differences])
    shifts = [
        Shift(name, difference, float(p), *shown)
        for (name, difference, _, *shown), p in zip(differences, corrected, strict=True)
    ]
    return sorted(shifts, key=lambda one: -one.difference)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Returns Holm's adjusted p values.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p, order = np.asarray(p_values, np.float64), np.argsort(p_values)
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def score_columns(scores: Any, problem: Any, class_names: Any = None) -> dict[str, np.ndarray]:
    """Returns columns that describe the scores of examples: the highest of each and its class, of a binary problem the
    only one, of several labels their mean; by output if there are several.

    Args:
      scores: probabilities, as metrics take them; those of a detector have no columns.
      problem: a name, or a dict of names by output.
      class_names: of a multiclass problem; without them, its classes are numbers.
    """
    if isinstance(problem, Mapping):
        return {
            f"{name}: {column}": values
            for name, one in problem.items()
            for column, values in score_columns(scores[name], one, (class_names or {}).get(name)).items()
        }
    if problem == "binary":
        return {"probability": np.asarray(scores, np.float64)}
    if problem == "multiclass":
        scores = np.asarray(scores, np.float64)
        names = np.array(class_names or [*map(str, range(scores.shape[1]))], object)
        return {"highest probability": scores.max(axis=1), "class": names[scores.argmax(axis=1)]}
    if problem == "multilabel":
        return {"mean probability": np.asarray(scores, np.float64).mean(axis=1)}
    return {}


def _described(column: np.ndarray) -> dict[str, Any]:
    if column.dtype == object:
        words, counts = np.unique(column.astype(str), return_counts=True)
        most = [i for i in np.argsort(-counts, kind="stable")[:_MOST_WORDS] if counts[i] >= _LEAST_EXPECTED]
        return {"count": len(column), "shares": {str(words[i]): float(counts[i] / len(column)) for i in most}}
    numbers = _sorted(column)
    chosen = np.unique(numbers)
    if len(chosen) > _MOST_QUANTILES:
        chosen = np.unique(numbers[np.linspace(0, len(numbers) - 1, _MOST_QUANTILES).round().astype(int)])
    below, up_to = _ranks(numbers, chosen).tolist()
    ranks = [list(each) for each in zip(chosen.tolist(), below, up_to, strict=True)]
    return {"count": len(column), "missing": len(column) - len(numbers), "ranks": ranks}


def _sorted(values: np.ndarray) -> np.ndarray:
    """The numbers that a record can hold; NaN and infinite ones are missing."""
    return np.sort(values[np.abs(values) < 1e300])


def _ranks(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many of sorted numbers are below each value, and how many are not above it, (2, values)."""
    return np.stack([np.searchsorted(numbers, values, "left"), np.searchsorted(numbers, values, "right")])


def _largest_difference(values: np.ndarray, shares: np.ndarray, numbers: np.ndarray) -> float:
    """The largest difference of two distribution functions at values of the first and just below them.

    Args:
      shares: of the first, below each value and up to it, (2, values).
      numbers: of the second, sorted.
    """
    return float(np.abs(shares - _ranks(numbers, values) / len(numbers)).max())


def _chi_squared(
    before: Mapping[str, float], count: int, now: Mapping[str, float], examples: int
) -> tuple[float, float, str, str]:
    """The total variation, the p value, and the word whose share differs most with its two shares."""
    words = sorted({*before, *now} if len(before) < _MOST_WORDS else before)
    shares = np.array([[one.get(word, 0.0) for word in words] for one in (before, now)])
    rest = np.maximum(0, 1 - shares.sum(axis=1, keepdims=True))
    sizes = np.array([[count], [examples]])
    pooled = (shares * sizes).sum(axis=0) / sizes.sum()
    rare = pooled * sizes.min() < _LEAST_EXPECTED
    table = np.concatenate([shares[:, ~rare], rest + shares[:, rare].sum(axis=1, keepdims=True)], axis=1)
    expected = (table * sizes).sum(axis=0) / sizes.sum()
    used = expected > 0
    statistic = (sizes * (table - expected)[:, used] ** 2 / expected[used]).sum()
    p_value = _chi_squared_tail(float(statistic), int(used.sum()) - 1)
    if not words:
        return 0.0, 1.0, "", ""
    most = int(np.abs(shares[0] - shares[1]).argmax())
    shown = (f"{words[most][:_CHARACTERS] or 'empty'}: {share:.1%}" for share in shares[:, most])
    return min(1.0, float(np.abs(table[0] - table[1]).sum() / 2)), p_value, next(shown), next(shown)


def _kolmogorov_tail(x: float) -> float:
    """The probability of more than x in Kolmogorov's distribution.

    >>> round(_kolmogorov_tail(1.358), 3), _kolmogorov_tail(0)
    (0.05, 1.0)
    """
    if x < 0.3:
        return 1.0  # to four decimals; the sum converges slowly
    k = np.arange(1, 20)
    return float(min(1, max(0, 2 * (np.exp(-2 * (k * x) ** 2) * (-1.0) ** (k - 1)).sum())))


def _chi_squared_tail(x: float, degrees: int) -> float:
    """The probability of more than x in the chi-squared distribution with these degrees of freedom.

    >>> round(_chi_squared_tail(3.841, 1), 3), round(_chi_squared_tail(5.991, 2), 3)
    (0.05, 0.05)
    """
    if x <= 0 or degrees < 1:
        return 1.0
    powers = np.arange(degrees % 2 / 2, degrees / 2)
    logs = [power * math.log(x / 2) - x / 2 - math.lgamma(power + 1) for power in powers.tolist()]
    return min(1.0, math.erfc(math.sqrt(x / 2)) * (degrees % 2) + sum(map(math.exp, logs)))
