"""Table preprocessing: the types of columns; numbers to comparable scales, categories to indices, dates to their parts,
texts to n-grams.

Numbers are standardized by the mean and standard deviation of their middle 98%, then smoothly clipped, as in RealMLP
(Holzmüller et al. 2024, arXiv 2407.04491): outliers neither compress the other values nor reach the model. A missing
number becomes the mean, with a flag.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.array_cache import cached_blocks, cached_record
from jaxcls._utils.clock import progress
from jaxcls._utils.errors import InputError
from jaxcls._utils.text_table import text_table
from jaxcls.data import rows as data_rows
from jaxcls.data.batching import Buckets
from jaxcls.data.formats import columns
from jaxcls.data.formats.stored_tables import StoredTable
from jaxcls.data.formats.tables import require

# The columns are arrays, or those of a StoredTable.
Columns = Mapping[str, Any]

_SCHEMA = {
    "decimal": str,
    "numeric": [{"name": str, "mean": float, "scale": float, "flagged": bool, "edges": [float]}],
    "categories": {str: [(str, None)]},
    "dates": {str: str},
    "texts": {str: [(str, None)]},
}
# The file of a table is not known here.
_WHERE = "the table"
# Numbers are clipped here first, so that their differences and quotients are finite.
_HUGE = 1e100
# A column with this share of numbers, or of dates, is one; what else it holds counts as missing.
_MOST = 0.9
# Of more rows, a sample is fitted: its means and quantiles differ from those of all by a thousandth of a deviation.
_MOST_ROWS = 1 << 20
# A category has at most this many words, and a text column this many n-grams.
_MAX_WORDS, _MAX_NGRAMS = 1000, 500
_IDS = re.compile(r"(?i:(.*[ _.-])?(id|uuid|index)|unnamed: \d+|row[ _.]?(names?|n[ro]|number))|.*[a-z]I[dD]")


class NumericColumn(NamedTuple):
    """What was fitted to a column of numbers.

    Attributes:
      name: of the column.
      mean: of the middle 98% of the training rows; it replaces missing numbers.
      scale: the reciprocal of their standard deviation; 0 for a constant column.
      flagged: whether training rows have missing numbers, which the model then sees as a flag.
      edges: distinct quantiles of the scaled training rows, ascending: the bins of piecewise-linear encodings. A
        repeated last one makes bins that are not used.
    """

    name: str
    mean: float
    scale: float
    flagged: bool
    edges: tuple[float, ...]


class CategoricalColumn(NamedTuple):
    """A column of words and the words of its training rows. Word i has the index i + 1; unknown words have 0.

    Indices of None are not used.
    """

    name: str
    words: tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class TablePreprocessor:
    """What was fitted to the columns of the training rows; columns are found by name, in any order.

    Compiled programs contain the numbers of columns, bins, words and n-grams, but none of the values.

    Attributes:
      numeric: the columns of numbers, and the parts of dates.
      categories: the columns of words.
      dates: column -> format, one of :data:`jaxcls.data.formats.columns.DATE_FORMATS`.
      texts: column -> the n-grams that the model sees; None for one that is not used.
      decimal: the decimal sign of numbers.
      types: the name, the type and the reason for it of each column of training rows, for the user.
    """

    numeric: tuple[NumericColumn, ...]
    categories: tuple[CategoricalColumn, ...]
    dates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    decimal: str = "."
    types: tuple[tuple[str, str, str], ...] = dataclasses.field(default=(), compare=False, repr=False)

    buckets: Buckets | None = dataclasses.field(default=None, init=False, repr=False)

    def transform(self, inputs: Columns) -> dict[str, Any]:
        """Encodes columns (N,) as :func:`jaxcls.data.formats.columns.encode` says.

        Raises:
          InputError: a training column is missing.

        >>> fitted = fit({"size": np.array([1.0, 2.0, 3.0, np.nan]), "color": np.array([*"rbrr"], object)})
        >>> encoded = fitted.transform({"color": np.array(["g", "r"], object), "size": np.array([2.0, np.nan])})
        >>> {name: array.tolist() for name, array in encoded.items()}
        {'numeric': [[0.0], [0.0]], 'missing': [[0], [1]], 'categories': [[0], [2]]}
        """
        self._check(inputs)
        record = self.as_record()
        if not isinstance(inputs, StoredTable):
            return columns.encode(inputs, record)
        shapes = self.shapes(inputs.num_rows)
        key = ["1", inputs.key(), record]

        def encoded() -> Iterator[Any]:
            return (columns.encode(block, record).values() for block in inputs.blocks())

        arrays = cached_blocks("encoded", key, [*shapes.values()], encoded)
        stored = data_rows.Stored(*arrays)
        columns_of = data_rows.columns(stored, *(array[0] for array in arrays), count=inputs.num_rows)
        return dict(zip(shapes, columns_of, strict=True))

    def _check(self, inputs: Columns) -> None:
        for name in self.columns:
            require(inputs, name, _WHERE)

    def refit(self, inputs: Columns) -> Self:
        """Fits scales, bins and vocabularies to other rows, such as those that train in a fold.

        The types of the columns and the numbers of bins, words and n-grams remain, so that compiled programs do; what
        the rows do not fill is not used. Of more bins, words or n-grams, as many as fit are used.

        Raises:
          InputError: a column is missing.

        >>> fitted = fit({"color": np.array([*"rbry"], object)})
        >>> refitted = fitted.refit({"color": np.array([*"rr"], object)})
        >>> refitted.categories[0].words, refitted.program == fitted.program
        (('r', None, None), True)
        """
        self._check(inputs)
        table = {columns.composed(name): np.asarray(column) for name, column in _sampled(inputs).items()}
        for name, format in self.dates.items():
            table |= columns.date_parts(table[name], name, format)
        num_bins = _num_bins(table)
        numeric = []
        for old in self.numeric:
            new = _fit_numeric(old.name, columns.to_numbers(table[old.name], self.decimal), num_bins)
            numeric.append(new._replace(flagged=old.flagged, edges=_resized_edges(new.edges, len(old.edges))))
        categories = []
        for name, words in self.categories:
            column = _as_words(table[name])
            frequent = [word for word, _ in _frequent_words(collections.Counter(column), len(column))]
            categories.append(CategoricalColumn(name, _padded(sorted(frequent[: len(words)]), len(words))))
        texts = {
            name: _padded(_frequent_ngrams(_as_words(table[name]), len(known)), len(known))
            for name, known in self.texts.items()
        }
        return dataclasses.replace(self, numeric=tuple(numeric), categories=tuple(categories), texts=texts)

    def rounded(self) -> Self:
        """Returns it with numbers of bins, words and n-grams that are rounded up to powers of two.

        Similar tables then share compiled programs; what is added is not used.

        >>> fit({"color": np.array([*"rbry"], object)}).rounded().categories[0].words
        ('b', 'r', 'y', None)
        """
        numeric = [
            column._replace(edges=_resized_edges(column.edges, 1 + _power_of_two(len(column.edges) - 1)))
            if column.edges
            else column
            for column in self.numeric
        ]
        categories = [(name, _padded(words, _power_of_two(len(words)))) for name, words in self.categories]
        texts = {name: _padded(known, _power_of_two(len(known))) for name, known in self.texts.items()}
        return dataclasses.replace(
            self, numeric=tuple(numeric), categories=tuple(CategoricalColumn(*one) for one in categories), texts=texts
        )

    def unfamiliar(self, inputs: Columns) -> list[str]:
        """Says which columns hold other values than training rows, one line each."""
        return columns.unfamiliar(_sampled(inputs), self.as_record())

    def shapes(self, count: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "numeric": jax.ShapeDtypeStruct((count, len(self.numeric)), np.float32),
            "missing": jax.ShapeDtypeStruct((count, self._num_flags), np.uint8),
            "categories": jax.ShapeDtypeStruct((count, len(self.categories)), np.int32),
            **({"ngrams": jax.ShapeDtypeStruct((count, self._num_ngrams), np.uint8)} if self.texts else {}),
        }

    def normalize(self, compact: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the same arrays, with "missing" as float32, and the "ngrams" of each text as a vector of length 1."""
        normalized = {**compact, "missing": jnp.asarray(compact["missing"], jnp.float32)}
        if self.texts:
            present = jnp.asarray(compact["ngrams"], jnp.float32)
            normalized["ngrams"] = present * jax.lax.rsqrt(jnp.maximum(present.sum(axis=1, keepdims=True), 1))
        return normalized

    @property
    def words(self) -> tuple[str, ...]:
        """The columns whose spelling counts."""
        return *(column.name for column in self.categories), *self.dates, *self.texts

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns that it takes, and the words of each category that training rows had."""
        parts = {columns.date_column(name, part) for name in self.dates for part in columns.DATE_PARTS}
        words = {column.name: tuple(filter(None, column.words)) for column in self.categories}
        numeric = [column.name for column in self.numeric if column.name not in parts]
        return dict.fromkeys((*numeric, *self.words), ()) | words

    @property
    def _num_flags(self) -> int:
        return sum(column.flagged for column in self.numeric)

    @property
    def _num_ngrams(self) -> int:
        return sum(map(len, self.texts.values()))

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """The bin edges of each numeric column, and the numbers of flags, indices of each category, and n-grams."""
        return {
            "bins": tuple(column.edges for column in self.numeric),
            "flags": self._num_flags,
            "cardinalities": tuple(len(column.words) + 1 for column in self.categories),
            **({"ngrams": self._num_ngrams} if self.texts else {}),
        }

    @property
    def program(self) -> Hashable:
        """The numbers of bins of each numeric column, flags, indices of each category, and n-grams."""
        return (
            "tables",
            tuple(len(column.edges) for column in self.numeric),
            self._num_flags,
            tuple(len(column.words) for column in self.categories),
            self._num_ngrams,
        )

    def as_record(self) -> dict[str, Any]:
        numeric = [{**column._asdict(), "edges": [*column.edges]} for column in self.numeric]
        return {
            "type": "tables",
            "decimal": self.decimal,
            "numeric": numeric,
            "categories": {name: [*words] for name, words in self.categories},
            "dates": {**self.dates},
            "texts": {name: [*known] for name, known in self.texts.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, _SCHEMA, "the preprocessor")
        names = [*(column["name"] for column in record["numeric"]), *record["categories"], *record["texts"]]
        ascending = all(column["edges"] == sorted(column["edges"]) for column in record["numeric"])
        readable = record["decimal"] in (".", ",") and {*record["dates"].values()} <= {*columns.DATE_FORMATS}
        if not names or len(set(names)) < len(names) or not ascending or not readable:
            raise InputError("the preprocessor is damaged: no columns, a duplicate column, or edges out of order.")
        numeric = tuple(
            NumericColumn(column["name"], column["mean"], column["scale"], column["flagged"], tuple(column["edges"]))
            for column in record["numeric"]
        )
        categories = tuple(CategoricalColumn(name, tuple(words)) for name, words in record["categories"].items())
        texts = {name: tuple(known) for name, known in record["texts"].items()}
        return cls(numeric, categories, record["dates"], texts, record["decimal"])


def fit(table: Columns, *, decimal: str = ".") -> TablePreprocessor:
    """Finds the types of the columns of training rows, and fits their scales and vocabularies.

    Args:
      table: name -> (N,), float64 with NaN for missing numbers; or str objects: of numbers, words, dates or texts.
      decimal: the decimal sign of numbers among the str objects.

    Raises:
      InputError: there is no column that can be used.

    >>> fitted = fit({"size": np.array([1.0, 2.0, 3.0, np.nan]), "id": np.array([4.0, 7.0, 2.0, 5.0])})
    >>> fitted.numeric[0].mean, fitted.types[1]
    (2.0, ('id', 'unused', 'its name and its distinct numbers are those of an id'))
    """
    if not table:
        raise InputError("the table has no feature columns.")
    if isinstance(table, StoredTable):
        return _fit_stored(table, decimal)
    return _fit(table, decimal)


def _fit_stored(table: StoredTable, decimal: str) -> TablePreprocessor:
    """Fits to a large table, unless that was done before."""

    def compute() -> tuple[Any, ...]:
        fitted = _fit(table, decimal)
        return fitted.as_record(), fitted.types

    record, types = cached_record("fitted", ["1", table.key(), decimal, _MOST_ROWS], compute)
    return dataclasses.replace(TablePreprocessor.from_record(record), types=tuple(map(tuple, types)))


def _sampled(table: Columns) -> Columns:
    """Of many rows, some that are spread over all, always the same ones."""
    count = len(next(iter(table.values())))
    if count <= _MOST_ROWS:
        return table
    # One of each stretch, at random: every n-th could be like no other.
    limits = np.linspace(0, count, _MOST_ROWS + 1).astype(np.int64)
    offsets = np.random.PCG64(0).random_raw(_MOST_ROWS) % np.diff(limits).astype(np.uint64)
    chosen: Columns = data_rows.select(table, limits[:-1] + offsets.astype(np.int64))
    return chosen


def _fit(table: Columns, decimal: str) -> TablePreprocessor:
    table = _sampled(table)
    num_bins = _num_bins(table)
    numeric: list[NumericColumn] = []
    categories, dates, texts, types = [], {}, {}, []
    for index, (name, column) in enumerate(table.items()):
        progress(index / len(table))
        # A column of a large table is read here.
        column = np.asarray(column)
        type_, fitted, why = _recognized(name, column, decimal)
        match type_:
            case "number":
                numeric.append(_fit_numeric(name, fitted, num_bins))
            case "category":
                categories.append(CategoricalColumn(name, fitted))
            case "text":
                texts[name] = fitted
            case "date":
                dates[name] = fitted
                parts = [_fit_numeric(part, values, num_bins)
                         for part, values in columns.date_parts(column, name, fitted).items()]  # fmt: skip
                numeric += [part for part in parts if part.scale]
        types.append((name, type_, why))
    if not (numeric or categories or texts):
        raise InputError("no column can be used: " + "; ".join(f"{name}: {why}" for name, _, why in types) + ".")
    return TablePreprocessor(tuple(numeric), tuple(categories), dates, texts, decimal, tuple(types))


def _recognized(name: str, column: np.ndarray, decimal: str) -> tuple[str, Any, str]:
    """The type of a column, what is fitted to it, and why: a number with its float64 (N,), a category with its words, a
    date with its format, a text with its n-grams; or unused."""
    if column.dtype != object:
        values, infinite = columns.to_numbers(column, decimal), np.isinf(column)
        return _number(name, values, int(np.isnan(column).sum()), _such(int(infinite.sum()), "not finite", ["inf"]))
    column = _as_words(column)
    counts = collections.Counter(column)
    present = {word: count for word, count in counts.items() if not columns.is_missing(word)}
    known = sum(present.values())
    if not known:
        return "unused", None, "no row has a value"
    missing = len(column) - known
    read = {word: columns.number(word, decimal) for word in present}
    others = [word for word, value in read.items() if np.isnan(value)]
    share = 1 - sum(present[word] for word in others) / known
    # Where few words occur, a rare word that is no number may well be a category.
    if share == 1 or (share >= _MOST and (len(present) > 20 or share >= 0.98)):
        strays = _such(sum(present[word] for word in others), "no numbers", others)
        return _number(name, np.array([read.get(word, np.nan) for word in column]), missing, strays)
    warning = f"; warning: {share:.0%} are numbers, but not {others[0][:40]!r}" if share > 0.5 else ""
    format, dated = _date_format(present, first=1 if decimal == "," else 0)
    if dated >= _MOST:
        strays = "" if dated == 1 else f"; {1 - dated:.0%} are no dates and count as missing"
        return "date", format, f"dates as {format}{_missing(missing)}{strays}"
    is_text = len(present) > 20 and sum(len(w.split()) * count for w, count in present.items()) >= 3 * known
    if is_text and (chosen := _frequent_ngrams(column)):
        why = f"{len(present):,} distinct texts, {len(chosen):,} words and pairs of words are used"
        return "text", tuple(chosen), why
    frequent = _frequent_words(counts, len(column))
    words = [word for word, _ in frequent[:_MAX_WORDS]]
    why = f"{len(present):,} distinct words{_missing(missing)}"
    if len(words) < len(counts):
        if sum(count for _, count in frequent) < len(column) / 2:
            return "unused", None, f"{why} in {len(column):,} rows: they name the rows{warning}"
        why += f", of which the most frequent {len(words):,} are distinguished"
    return "category", tuple(sorted(words)), why + warning


def _as_words(column: np.ndarray) -> np.ndarray:
    return np.array([columns.as_word(word) for word in column], object)


def _frequent_words(counts: collections.Counter[str], rows: int) -> list[tuple[str, int]]:
    """The words and their counts, the most frequent first: all, or of many words those of five rows and more."""
    least = 5 if len(counts) > min(_MAX_WORDS, max(rows / 2, 20)) else 1
    return [(word, count) for word, count in counts.most_common() if count >= least]


def _frequent_ngrams(column: np.ndarray, most: int = _MAX_NGRAMS) -> list[str]:
    """The n-grams that are in enough of the texts, but not in all, sorted."""
    known = sum(not columns.is_missing(text) for text in column)
    counts = collections.Counter(ngram for text in column for ngram in columns.ngrams(text))
    frequent = [(-count, ngram) for ngram, count in counts.items() if max(3, known / 200) <= count < known]
    return sorted(ngram for _, ngram in sorted(frequent)[:most])


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()


def _padded(known: Sequence[str | None], size: int) -> tuple[str | None, ...]:
    return *known, *[None] * (size - len(known))


def _resized_edges(edges: Sequence[float], size: int) -> tuple[float, ...]:
    """Repeats the last of too few edges; of too many, some that are spread over all remain."""
    if len(edges) <= size:
        return *edges, *[edges[-1] if edges else 0.0] * (size - len(edges))
    return tuple(edges[index] for index in np.linspace(0, len(edges) - 1, size).round().astype(int))


def _number(name: str, values: np.ndarray, missing: int, strays: str) -> tuple[str, Any, str]:
    known = values[~np.isnan(values)]
    if not len(known):
        return "unused", None, "no row has a value"
    if _IDS.fullmatch(name) and len(known) == len(values) == len(np.unique(known)) and (known % 1 == 0).all():
        return "unused", None, "its name and its distinct numbers are those of an id"
    constant = ", the same in every row" if len(known) and (known == known[0]).all() else ""
    return "number", values, f"numbers{_missing(missing)}{constant}{strays}"


def _such(count: int, what: str, words: Sequence[str]) -> str:
    return f"; {count:,} are {what} and count as missing, such as {words[0][:40]!r}" if count else ""


def _missing(count: int) -> str:
    return f", {count:,} missing" if count else ""


def _date_format(counts: Mapping[str, int], *, first: int) -> tuple[str, float]:
    """The format that most of the words are dates in, and the share that are. The first 1,000 words decide."""
    some = dict(itertools.islice(counts.items(), 1000))
    # Of month/day and day/month, the order in the table decides where both are possible.
    month_first = [*columns.DATE_FORMATS]
    formats = month_first if not first else sorted(month_first, key=lambda format: not format.startswith("%d"))
    if not any(character.isdigit() for character in next(iter(some))):
        return columns.ISO, 0.0
    share = {
        format: sum(count for word, count in some.items() if columns.date(word, format)) / sum(some.values())
        for format in formats
    }
    best = max(formats, key=lambda format: share[format])
    return best, share[best]


def summary(fitted: TablePreprocessor, *, most: int = 40) -> str:
    """The table of the columns and their types; of many columns, those of plain numbers are only counted.

    >>> print(summary(fit({"size": np.array([1.0, 2.0]), "color": np.array(["red", "blue"], object)})))
    size   number    numbers
    color  category  2 distinct words
    """
    rows = [*fitted.types]
    if len(rows) > most:
        rows = [row for row in rows if row[2] != "numbers"]
        rows.append((f"{len(fitted.types) - len(rows):,} others", "number", "numbers"))
    return text_table(rows, left=3)


def _num_bins(table: Columns) -> int:
    """The number of bins of a numeric column: from two to 16, one for every 200 rows."""
    return min(16, max(len(next(iter(table.values()))) // 200, 2))


def _fit_numeric(name: str, column: np.ndarray, num_bins: int) -> NumericColumn:
    values = columns.to_numbers(column, ".")
    present = np.sort(np.clip(values[~np.isnan(values)], -_HUGE, _HUGE))
    flagged = len(present) < len(column)
    if not len(present) or present[0] == present[-1]:
        return NumericColumn(name, float(present[0]) if len(present) else 0.0, 0.0, flagged, ())
    low, high = np.quantile(present, [0.01, 0.99])
    # In a column such as a rare flag, nearly all rows are equal; then the outliers are all the information.
    middle = np.clip(present, low, high) if low < high else present
    mean, scale = float(middle.mean()), float(1 / max(middle.std(), 1 / _HUGE))
    # Edges are values of rows, so no bin is narrower than the distance of two values.
    scaled = columns.standardized(present, mean, scale)
    edges = np.unique(scaled[np.linspace(0, len(present) - 1, num_bins + 1).round().astype(int)])
    return NumericColumn(name, mean, scale, flagged, tuple(edges.tolist()))
