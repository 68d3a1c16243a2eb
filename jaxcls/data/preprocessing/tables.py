"""Tables: columns of numbers to comparable scales, columns of words to indices.

Numbers are standardised by the mean and deviation of their middle 98%, and then clipped smoothly, as in RealMLP
(Holzmüller et al. 2024, arXiv 2407.04491): a few huge values neither shrink the others nor reach the model as such. A
missing number becomes the mean, with a flag.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data.buckets import Buckets
from jaxcls.data.formats.tables import numbers, require

Columns = Mapping[str, np.ndarray]

_FORM = {
    "numeric": [{"name": str, "mean": float, "scale": float, "flagged": bool, "edges": [float]}],
    "categories": {str: [str]},
}
# In messages: which file a table came from is not known here.
_WHERE = "the table"
# No scaled number is larger.
_CLIP = 5.0
# Numbers beyond it are cut off, so that differences and quotients of numbers are finite.
_HUGE = 1e100
# A column with more words than this, or with a new word in most rows, names rows; it is no category.
_MOST_WORDS = 1000


class Numeric(NamedTuple):
    """What was fitted to a column of numbers.

    Attributes:
      name: of the column.
      mean: of the training rows but the outermost; it stands where a number is missing.
      scale: what distances from the mean are multiplied by; 0 for a constant column.
      flagged: whether training rows lack a number, so that the model is told which rows do.
      edges: different quantiles of the scaled training rows, ascending: the bins of piecewise-linear encodings.
    """

    name: str
    mean: float
    scale: float
    flagged: bool
    edges: tuple[float, ...]


class Category(NamedTuple):
    """A column of words, and those of its training rows. Word i has the index i + 1; 0 stands for all others."""

    name: str
    words: tuple[str, ...]

    def indices(self, values: np.ndarray) -> np.ndarray:
        """str objects or float64 (N,) to int32 (N,)."""
        words = values if values.dtype == object else _as_words(values, self.words)
        known = {word: index for index, word in enumerate(self.words, 1)}
        return np.array([known.get(word, 0) for word in words], np.int32)


@dataclasses.dataclass(frozen=True)
class Tables:
    """What was fitted to the columns of training rows; columns go by their names, in any order."""

    numeric: tuple[Numeric, ...]
    categories: tuple[Category, ...]

    buckets: Buckets | None = dataclasses.field(default=None, init=False, repr=False)

    def transform(self, inputs: Columns) -> dict[str, np.ndarray]:
        """Columns (N,) to arrays (N, columns of the kind): "numeric" float32, "missing" uint8, "categories" int32.

        Raises:
          InputError: a column of training is not there, or has a row that is no number where numbers were.

        >>> fitted = fit({"size": np.array([1.0, 2.0, 3.0, np.nan]), "colour": np.array([*"rbrr"], object)})
        >>> encoded = fitted.transform({"colour": np.array(["g", "r"], object), "size": np.array([2.0, np.nan])})
        >>> {name: array.tolist() for name, array in encoded.items()}
        {'numeric': [[0.0], [0.0]], 'missing': [[0], [1]], 'categories': [[0], [2]]}
        """
        for category in self.categories:
            require(inputs, category.name, _WHERE)
        values = {column.name: numbers(inputs, column.name, _WHERE, missing=True) for column in self.numeric}
        rows = len(next(iter(inputs.values())))
        return {
            "numeric": _stacked(
                rows, np.float32, [_scaled(values[name], mean, scale) for name, mean, scale, *_ in self.numeric]
            ),
            "missing": _stacked(rows, np.uint8, [np.isnan(values[name]) for name in self._flagged]),
            "categories": _stacked(rows, np.int32, [column.indices(inputs[column.name]) for column in self.categories]),
        }

    def shapes(self, count: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "numeric": jax.ShapeDtypeStruct((count, len(self.numeric)), np.float32),
            "missing": jax.ShapeDtypeStruct((count, len(self._flagged)), np.uint8),
            "categories": jax.ShapeDtypeStruct((count, len(self.categories)), np.int32),
        }

    def normalize(self, compact: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The same, all float32 but the categories."""
        return {**compact, "missing": jnp.asarray(compact["missing"], jnp.float32)}

    @property
    def _flagged(self) -> list[str]:
        return [column.name for column in self.numeric if column.flagged]

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """The edges of the bins of each column of numbers, the number of flags, and how many indices a category has."""
        return {
            "bins": tuple(column.edges for column in self.numeric),
            "flags": len(self._flagged),
            "cardinalities": tuple(len(column.words) + 1 for column in self.categories),
        }

    def as_record(self) -> dict[str, Any]:
        numeric = [{**column._asdict(), "edges": [*column.edges]} for column in self.numeric]
        return {"kind": "tables", "numeric": numeric, "categories": {name: [*words] for name, words in self.categories}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, _FORM, "the preprocessor")
        names = [*(column["name"] for column in record["numeric"]), *record["categories"]]
        ascending = all(low < high for column in record["numeric"] for low, high in itertools.pairwise(column["edges"]))
        if not names or len(set(names)) < len(names) or not ascending:
            raise InputError("the preprocessor is damaged: there is no column, or one twice, or edges do not ascend.")
        numeric = tuple(
            Numeric(column["name"], column["mean"], column["scale"], column["flagged"], tuple(column["edges"]))
            for column in record["numeric"]
        )
        return cls(numeric, tuple(Category(name, tuple(words)) for name, words in record["categories"].items()))


def fit(columns: Columns, *, most_bins: int = 16, rows_a_bin: int = 200) -> Tables:
    """The scales and vocabularies of the training rows.

    Args:
      columns: name -> (N,), float64 with NaN where a number is missing, or str objects.
      most_bins: that a column of numbers is cut into.
      rows_a_bin: how many rows a bin has at the least, so that there is something to learn of it; but there are two.

    Raises:
      InputError: there is no column, a number is infinite, or words are different in too many rows.

    >>> fit({"size": np.array([1.0, 2.0, 3.0, np.nan])}).numeric[0].mean
    2.0
    """
    if not columns:
        raise InputError("the table has no column to learn from.")
    rows = len(next(iter(columns.values())))
    num_bins = min(most_bins, max(rows // rows_a_bin, 2))
    numeric = tuple(_fit_numbers(name, c, num_bins) for name, c in columns.items() if c.dtype != object)
    return Tables(numeric, tuple(_fit_words(name, c) for name, c in columns.items() if c.dtype == object))


def _fit_numbers(name: str, column: np.ndarray, num_bins: int) -> Numeric:
    values = numbers({name: column}, name, _WHERE, missing=True)
    present = np.sort(np.clip(values[~np.isnan(values)], -_HUGE, _HUGE))
    flagged = len(present) < len(column)
    if not len(present) or present[0] == present[-1]:
        return Numeric(name, float(present[0]) if len(present) else 0.0, 0.0, flagged, ())
    low, high = np.quantile(present, [0.01, 0.99])
    # Where nearly all rows are equal, such as in a rare flag, the others are all that there is.
    middle = np.clip(present, low, high) if low < high else present
    mean, scale = float(middle.mean()), float(1 / max(middle.std(), 1 / _HUGE))
    # Values of rows, not between them: a bin is as wide as the numbers on its sides are apart.
    edges = np.unique(_scaled(present, mean, scale)[np.linspace(0, len(present) - 1, num_bins + 1).round().astype(int)])
    return Numeric(name, mean, scale, flagged, tuple(edges.tolist()))


def _fit_words(name: str, column: np.ndarray) -> Category:
    words = sorted(set(column))
    if len(words) > min(_MOST_WORDS, max(len(column) / 2, 20)):
        alike = sum(_is_number(word) for word in words)
        stray = next((word for word in words if not _is_number(word)), "")
        hint = (
            f"Most of them are numbers, but not {stray!r}."
            if alike > len(words) / 2
            else f"If it names the rows, give --id-column {name}; else leave it out with --drop-column {name}."
        )
        raise InputError(
            f"column {name!r} has {len(words):,} different words in {len(column):,} rows, too many for a category. "
            f"{hint}"
        )
    return Category(name, tuple(words))


def _scaled(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """float64 (N,) to float32 (N,) between -5 and 5, with 0 for NaN."""
    distance = (np.clip(values, -_HUGE, _HUGE) - mean) * scale
    return np.nan_to_num(distance / np.hypot(1.0, distance / _CLIP)).astype(np.float32)


def _as_words(values: np.ndarray, words: tuple[str, ...]) -> list[str]:
    """The words that these are: in another file, whose words all look like numbers, '07' was read as 7.0."""
    spelled = {float(word): word for word in words if _is_number(word)}
    return ["" if np.isnan(value) else spelled.get(value, repr(value)) for value in values.tolist()]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _stacked(rows: int, dtype: type, columns: list[np.ndarray]) -> np.ndarray:
    """The columns side by side, (rows, 0) if there is none."""
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((rows, 0), dtype)
