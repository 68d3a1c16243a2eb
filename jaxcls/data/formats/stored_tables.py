"""Tables that need not fit into memory: some rows of a Parquet file, whose columns are read when they are used."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data.formats import columns as column_values
from jaxcls.data.formats import reading

# Rows that are in memory at a time.
BLOCK_ROWS = 1 << 15
# How pandas calls an index without a name in Parquet files.
INDEX = "__index_level_0__"


class _Field(NamedTuple):
    """A column of a Parquet file: its name there, and whether it holds numbers."""

    name: str
    is_number: bool


class StoredTable(Mapping[str, "StoredColumn"]):
    """Some rows of a table in a Parquet file, as a mapping of names to columns.

    Attributes:
      separator: of the CSV file that it was; '' if it was none.
      decimal: the decimal sign of numbers in columns of text.
    """

    def __init__(
        self, path: Path, identity: str, fields: Mapping[str, _Field], separator: str, decimal: str, rows: np.ndarray
    ):
        self.separator, self.decimal = separator, decimal
        self._path, self._identity, self._fields, self._rows = path, identity, fields, rows

    def __getitem__(self, name: str) -> "StoredColumn":
        return StoredColumn(self.only([name]), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def select(self, rows: np.ndarray) -> "StoredTable":
        """Returns some rows, in ascending order, by integers or by a mask; reads nothing."""
        chosen = self._rows[rows]
        assert (chosen[1:] > chosen[:-1]).all(), "the rows of a stored table are read in their order"
        return self._replaced(self._fields, chosen)

    def only(self, names: Collection[str]) -> "StoredTable":
        """Returns the table of these columns, in the order of the file."""
        return self._replaced({name: self._fields[name] for name in self._fields if name in names}, self._rows)

    def with_numbers(self, are_numbers: Mapping[str, bool]) -> "StoredTable":
        """Returns the table with the columns that hold numbers."""
        fields = {name: field._replace(is_number=are_numbers[name]) for name, field in self._fields.items()}
        return self._replaced(fields, self._rows)

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers."""
        return self._fields[name].is_number

    def key(self) -> list[Any]:
        """Returns what decides the values, as JSON values."""
        fields = [[name, *field] for name, field in self._fields.items()]
        return [self._identity, fields, hashlib.sha256(self._rows.tobytes()).hexdigest()]

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the columns of a few rows at a time: float64, with NaN for a missing number, or str objects."""
        for batch in self.batches():
            block = {
                name: as_numbers(batch[name], self.decimal) if field.is_number else as_words(batch[name])
                for name, field in self._fields.items()
            }
            yield {name: column for name, column in block.items() if column is not None}

    def batches(self) -> Iterator[dict[str, Any]]:
        """Yields the columns of a few rows at a time as Arrow arrays of numbers or strings."""
        from pyarrow import parquet

        # Repeated words are not made into as many strings.
        words = [field.name for field in self._fields.values() if not field.is_number]
        names = [field.name for field in self._fields.values()]
        with parquet.ParquetFile(self._path, read_dictionary=words, pre_buffer=False) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = np.cumsum([0, *counts])
            for group in np.unique(np.searchsorted(starts, self._rows, side="right") - 1).tolist():
                first = starts[group]
                for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=names):
                    begin, end = np.searchsorted(self._rows, [first, first + len(batch)])
                    if begin < end:
                        taken = batch.take(self._rows[begin:end] - first) if end - begin < len(batch) else batch
                        yield {name: typed(taken.column(field.name)) for name, field in self._fields.items()}
                    first += len(batch)

    def _replaced(self, fields: Mapping[str, _Field], rows: np.ndarray) -> "StoredTable":
        return StoredTable(self._path, self._identity, fields, self.separator, self.decimal, rows)


class StoredColumn:
    """A column of a :class:`StoredTable`, which ``np.asarray`` reads.

    Attributes:
      table: of this column alone.
    """

    ndim = 1

    def __init__(self, table: StoredTable, name: str):
        self.table, self._name = table, name
        self.dtype = np.dtype(np.float64 if table.is_number(name) else object)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: int) -> Any:
        return np.asarray(self.select(np.array([row])))[0]

    def select(self, rows: np.ndarray) -> "StoredColumn":
        """See :meth:`StoredTable.select`."""
        return StoredColumn(self.table.select(rows), self._name)

    def key(self) -> list[Any]:
        """See :meth:`StoredTable.key`."""
        return self.table.key()

    def blocks(self) -> Iterator[np.ndarray]:
        """See :meth:`StoredTable.blocks`."""
        return (block[self._name] for block in self.table.blocks())

    def __iter__(self) -> Iterator[Any]:
        return (value for block in self.blocks() for value in block)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values, first = np.empty(len(self), self.dtype), 0
        for block in self.blocks():
            values[first : first + len(block)] = block
            first += len(block)
        return values if dtype is None else values.astype(dtype)

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the distinct values, ascending, and the index of that of each row."""
        if self.dtype != object:
            return np.unique(np.asarray(self), return_inverse=True)
        known: dict[str, int] = {}
        indices, first = np.empty(len(self), np.int32), 0
        for batch in self.table.batches():
            words, of_rows = _coded(batch[self._name])
            numbers = np.array([known.setdefault(word, len(known)) for word in words], np.int32)
            indices[first : first + len(of_rows)] = numbers[of_rows]
            first += len(of_rows)
        values = np.array([*known], object)
        order = np.argsort(values)
        # A dictionary may hold words that do not occur.
        order = order[np.bincount(indices, minlength=len(values))[order] > 0]
        rank = np.zeros(len(values), np.int32)
        rank[order] = np.arange(len(order))
        return values[order], rank[indices]


def distinct(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values of a column, ascending, and the index of that of each row, (N,)."""
    return column.distinct() if isinstance(column, StoredColumn) else np.unique(column, return_inverse=True)


def all_distinct(column: Any) -> bool:
    """Whether no value of a column occurs twice."""
    if not isinstance(column, StoredColumn):
        return len({*column}) == len(column)
    import pyarrow

    words = [values.cast(pyarrow.string()) for batch in column.table.batches() for values in batch.values()]
    return len(pyarrow.chunked_array(words).fill_null("").unique()) == len(column)


def open_parquet(
    path: Path, text: Collection[str], decimal: str | None, separator: str = "", where: Path | None = None
) -> StoredTable:
    """Returns the table of a Parquet file.

    Args:
      text: the columns that are text whatever they hold.
      decimal: the decimal sign of numbers in columns of text; that in its metadata if None.
      where: the file that it was made from, for messages.

    Raises:
      InputError: the file has no rows, or a column of other values than numbers, words and dates.
    """
    from pyarrow import parquet, types

    fields = {}
    with parquet.ParquetFile(path) as file:
        count, schema = file.metadata.num_rows, file.schema_arrow
    decimal = decimal or (schema.metadata or {}).get(b"decimal", b".").decode()
    for field in schema:
        check_type(where or path, field)
        is_number = types.is_integer(field.type) or types.is_floating(field.type) or types.is_decimal(field.type)
        name = "" if field.name == INDEX else column_values.composed(field.name)
        fields[name] = _Field(field.name, is_number)
    check_rows(where or path, count, len(fields), path.stat().st_size)
    table = StoredTable(path, files.sha256(path), fields, separator, decimal, np.arange(count))

    def holds_numbers(name: str) -> bool:
        # The first block with a word ends it.
        return all(as_numbers(batch[name], decimal) is not None for batch in table.only([name]).batches())

    return table.with_numbers(
        {name: name not in text and (fields[name].is_number or holds_numbers(name)) for name in fields}
    )


def check_type(path: Path, field: Any) -> None:
    """Raises InputError for a column of a typed file whose values are neither numbers, words nor dates."""
    from pyarrow import types

    if types.is_nested(field.type) or types.is_binary(field.type):
        raise InputError(f"{path}: column {field.name!r} holds {field.type}; store numbers, words or dates.")


def check_rows(path: Path, rows: int, columns: int, size: int) -> None:
    """Raises InputError for a typed file without rows, or with more than its bytes give reason for."""
    # Of a few bytes, a damaged or hostile file may make any number of rows.
    if rows * columns > max(reading.MAX_RATIO * size, 1 << 26):
        raise InputError(f"{path}: unpacks to more than real data does. Do not trust this file.")
    if not rows:
        raise InputError(f"{path}: holds column names, but no rows.")


def typed(column: Any) -> Any:
    """Returns a column of a typed file as one of numbers or of text, spelled as pandas does in CSV."""
    import pyarrow
    from pyarrow import compute, types

    is_coded = types.is_dictionary(column.type)
    kind = column.type.value_type if is_coded else column.type
    if is_coded and not (types.is_string(kind) and isinstance(column, pyarrow.Array)):
        column = column.cast(kind)
    if types.is_boolean(kind):
        return compute.if_else(column, "True", "False")
    if types.is_decimal(kind):
        return column.cast(pyarrow.float64())
    if types.is_integer(kind) or types.is_floating(kind) or is_coded:
        return column
    return column.cast(pyarrow.string())


def as_numbers(column: Any, decimal: str) -> np.ndarray | None:
    """Returns a column as float64, or None if it holds anything else than numbers and missing ones."""
    import pyarrow
    from pyarrow import compute, types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type):
        words = compute.utf8_trim_whitespace(column)
        if decimal == ",":
            # A point groups thousands, or not: columns.number knows.
            if compute.any(compute.match_substring(words, ".")).as_py():
                return None
            words = compute.replace_substring(words, ",", ".")
        column = compute.if_else(compute.is_in(words, value_set=pyarrow.array(column_values.MISSING)), None, words)
    try:
        numbers = column.cast(pyarrow.float64(), safe=False)
    except pyarrow.ArrowInvalid:
        return None
    return numbers.to_numpy(zero_copy_only=False) if isinstance(numbers, pyarrow.Array) else numbers.to_numpy()


def as_words(column: Any) -> np.ndarray:
    """Returns a column as str objects, '' where a value is missing."""
    import pyarrow
    from pyarrow import compute, types

    if types.is_dictionary(column.type):
        words, indices = _coded(column)
        return words[indices]
    if types.is_floating(column.type):
        return np.array([column_values.as_word(value) for value in column.to_pylist()], object)
    words = compute.fill_null(column.cast(pyarrow.string()), "")
    return words.to_numpy(zero_copy_only=False) if isinstance(words, pyarrow.Array) else words.to_numpy()


def _coded(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns words, and the index of that of each row; of an Arrow array."""
    from pyarrow import compute, types

    coded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    words = np.append(as_words(coded.dictionary), "")
    return words, compute.fill_null(coded.indices, len(words) - 1).to_numpy(zero_copy_only=False)
