"""Table preprocessing: numeric columns to comparable scales, categorical columns to indices.

Numbers are standardized by the mean and standard deviation of their middle 98%, then smoothly clipped, as in RealMLP
(Holzmüller et al. 2024, arXiv 2407.04491): outliers neither compress the other values nor reach the model. A missing
number becomes the mean, with a flag.
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
from jaxcls.data.batching import Buckets
from jaxcls.data.formats.tables import numbers, require

Columns = Mapping[str, np.ndarray]

_SCHEMA = {
    "numeric": [{"name": str, "mean": float, "scale": float, "flagged": bool, "edges": [float]}],
    "categories": {str: [str]},
}
# The file of a table is not known here.
_WHERE = "the table"
# Numbers are clipped here first, so that their differences and quotients are finite.
_HUGE = 1e100


class NumericColumn(NamedTuple):
    """What was fitted to a column of numbers.

    Attributes:
      name: of the column.
      mean: of the middle 98% of the training rows; it replaces missing numbers.
      scale: the reciprocal of their standard deviation; 0 for a constant column.
      flagged: whether training rows have missing numbers, which the model then sees as a flag.
      edges: distinct quantiles of the scaled training rows, ascending: the bins of piecewise-linear encodings.
    """

    name: str
    mean: float
    scale: float
    flagged: bool
    edges: tuple[float, ...]


class CategoricalColumn(NamedTuple):
    """A column of words and the words of its training rows. Word i has the index i + 1; unknown words have 0."""

    name: str
    words: tuple[str, ...]

    def indices(self, values: np.ndarray) -> np.ndarray:
        """Encodes str objects or float64 (N,) as int32 (N,)."""
        words = values if values.dtype == object else _as_words(values, self.words)
        known = {word: index for index, word in enumerate(self.words, 1)}
        return np.array([known.get(word, 0) for word in words], np.int32)


@dataclasses.dataclass(frozen=True)
class TablePreprocessor:
    """What was fitted to the columns of the training rows; columns are found by name, in any order."""

    numeric: tuple[NumericColumn, ...]
    categories: tuple[CategoricalColumn, ...]

    buckets: Buckets | None = dataclasses.field(default=None, init=False, repr=False)

    def transform(self, inputs: Columns) -> dict[str, np.ndarray]:
        """Encodes columns (N,) as "numeric" float32, "missing" uint8 and "categories" int32, each (N, columns).

        Raises:
          InputError: a training column is missing, or a row of a numeric column is not a number.

        >>> fitted = fit({"size": np.array([1.0, 2.0, 3.0, np.nan]), "color": np.array([*"rbrr"], object)})
        >>> encoded = fitted.transform({"color": np.array(["g", "r"], object), "size": np.array([2.0, np.nan])})
        >>> {name: array.tolist() for name, array in encoded.items()}
        {'numeric': [[0.0], [0.0]], 'missing': [[0], [1]], 'categories': [[0], [2]]}
        """
        for category in self.categories:
            require(inputs, category.name, _WHERE)
        values = [numbers(inputs, column.name, _WHERE, missing=True) for column in self.numeric]
        scaled = [_scale(v, column.mean, column.scale) for v, column in zip(values, self.numeric, strict=True)]
        missing = [np.isnan(v) for v, column in zip(values, self.numeric, strict=True) if column.flagged]
        indices = [column.indices(inputs[column.name]) for column in self.categories]
        rows = len(next(iter(inputs.values())))
        return {
            "numeric": _stack(rows, np.float32, scaled),
            "missing": _stack(rows, np.uint8, missing),
            "categories": _stack(rows, np.int32, indices),
        }

    def shapes(self, count: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "numeric": jax.ShapeDtypeStruct((count, len(self.numeric)), np.float32),
            "missing": jax.ShapeDtypeStruct((count, self._num_flags), np.uint8),
            "categories": jax.ShapeDtypeStruct((count, len(self.categories)), np.int32),
        }

    def normalize(self, compact: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the same arrays, with "missing" as float32."""
        return {**compact, "missing": jnp.asarray(compact["missing"], jnp.float32)}

    @property
    def _num_flags(self) -> int:
        return sum(column.flagged for column in self.numeric)

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """The bin edges of each numeric column, the number of flags, and the number of indices of each category."""
        return {
            "bins": tuple(column.edges for column in self.numeric),
            "flags": self._num_flags,
            "cardinalities": tuple(len(column.words) + 1 for column in self.categories),
        }

    def as_record(self) -> dict[str, Any]:
        numeric = [{**column._asdict(), "edges": [*column.edges]} for column in self.numeric]
        return {"type": "tables", "numeric": numeric, "categories": {name: [*words] for name, words in self.categories}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, _SCHEMA, "the preprocessor")
        names = [*(column["name"] for column in record["numeric"]), *record["categories"]]
        ascending = all(low < high for column in record["numeric"] for low, high in itertools.pairwise(column["edges"]))
        if not names or len(set(names)) < len(names) or not ascending:
            raise InputError("the preprocessor is damaged: no columns, a duplicate column, or edges out of order.")
        numeric = tuple(
            NumericColumn(column["name"], column["mean"], column["scale"], column["flagged"], tuple(column["edges"]))
            for column in record["numeric"]
        )
        categories = tuple(CategoricalColumn(name, tuple(words)) for name, words in record["categories"].items())
        return cls(numeric, categories)


def fit(columns: Columns, *, max_bins: int = 16, rows_per_bin: int = 200) -> TablePreprocessor:
    """Fits the scales and vocabularies of training rows.

    Args:
      columns: name -> (N,), float64 with NaN for missing numbers, or str objects.
      max_bins: the maximum number of bins of a numeric column; the minimum is two.
      rows_per_bin: the minimum number of rows per bin.

    Raises:
      InputError: there are no columns, a number is infinite, or a column has too many distinct words.

    >>> fit({"size": np.array([1.0, 2.0, 3.0, np.nan])}).numeric[0].mean
    2.0
    """
    if not columns:
        raise InputError("the table has no feature columns.")
    rows = len(next(iter(columns.values())))
    num_bins = min(max_bins, max(rows // rows_per_bin, 2))
    numeric = tuple(_fit_numeric(name, c, num_bins) for name, c in columns.items() if c.dtype != object)
    return TablePreprocessor(numeric, tuple(_fit_words(name, c) for name, c in columns.items() if c.dtype == object))


def _fit_numeric(name: str, column: np.ndarray, num_bins: int) -> NumericColumn:
    values = numbers({name: column}, name, _WHERE, missing=True)
    present = np.sort(np.clip(values[~np.isnan(values)], -_HUGE, _HUGE))
    flagged = len(present) < len(column)
    if not len(present) or present[0] == present[-1]:
        return NumericColumn(name, float(present[0]) if len(present) else 0.0, 0.0, flagged, ())
    low, high = np.quantile(present, [0.01, 0.99])
    # In a column such as a rare flag, nearly all rows are equal; then the outliers are all the information.
    middle = np.clip(present, low, high) if low < high else present
    mean, scale = float(middle.mean()), float(1 / max(middle.std(), 1 / _HUGE))
    # Edges are values of rows, so no bin is narrower than the distance of two values.
    edges = np.unique(_scale(present, mean, scale)[np.linspace(0, len(present) - 1, num_bins + 1).round().astype(int)])
    return NumericColumn(name, mean, scale, flagged, tuple(edges.tolist()))


def _fit_words(name: str, column: np.ndarray) -> CategoricalColumn:
    words = sorted(set(column))
    # Then they are names, not categories.
    if len(words) > min(1000, max(len(column) / 2, 20)):
        not_numbers = [word for word in words if not _is_number(word)]
        hint = (
            f"Most of them are numbers, but not {not_numbers[0]!r}."
            if 0 < len(not_numbers) < len(words) / 2
            else f"If it names the rows, make {name} the id column; else drop it."
        )
        raise InputError(
            f"column {name!r} has {len(words):,} distinct words in {len(column):,} rows, too many for a category. "
            f"{hint}"
        )
    return CategoricalColumn(name, tuple(words))


def _scale(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """Standardizes float64 (N,) and clips it smoothly to float32 between -5 and 5; NaN becomes 0."""
    distance = (np.clip(values, -_HUGE, _HUGE) - mean) * scale
    return np.nan_to_num(distance / np.hypot(1.0, distance / 5.0)).astype(np.float32)


def _as_words(values: np.ndarray, words: tuple[str, ...]) -> list[str]:
    """Spells numbers as in training: in a file where all words of the column look like numbers, '07' is read as 7.0."""
    spelled = {float(word): word for word in words if _is_number(word)}
    return ["" if np.isnan(value) else spelled.get(value, repr(value)) for value in values.tolist()]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _stack(rows: int, dtype: type, columns: list[np.ndarray]) -> np.ndarray:
    """Stacks columns to (rows, columns), also without any."""
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((rows, 0), dtype)
