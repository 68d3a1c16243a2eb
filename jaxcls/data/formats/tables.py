"""Tables in CSV, Parquet and Feather files, read as columns of numbers and of strings, and written as CSV (RFC 4180).

A value of a CSV file that contains a separator, a quote or a newline is enclosed in double quotes.
"""

import collections
import csv
import gzip
import io
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError, did_you_mean, listed
from jaxcls.data.formats import columns as column_values
from jaxcls.data.formats import reading

Table = dict[str, np.ndarray]

_SPECIAL = re.compile('[",\r\n]')
# How pandas calls an index without a name in Parquet files.
_INDEX = "__index_level_0__"


class TableFile(NamedTuple):
    """A table as it was read.

    Attributes:
      columns: name -> values (N,), in the order of the file. A column of numbers is float64, with NaN where one is
        missing; any other holds str objects, with '' where a value is missing.
      separator: of the values; '' in a Parquet or Feather file.
      decimal: the decimal sign of its numbers.
    """

    columns: Table
    separator: str
    decimal: str


def read_csv(path: Path, *, required: Sequence[str] = (), text: Collection[str] = ()) -> Table:
    """Returns the columns of :func:`read` with decimal points, and checks that these are present.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> _ = path.write_text('name,weight\\n"apple, red",0.2\\npear,\\n')
    >>> read_csv(path)
    {'name': array(['apple, red', 'pear'], dtype=object), 'weight': array([0.2, nan])}
    """
    table = read(path, text=text, decimal=".").columns
    for name in required:
        require(table, name, path)
    return table


def read(
    path: Path,
    *,
    text: Collection[str] = (),
    separator: str | None = None,
    decimal: str | None = None,
) -> TableFile:
    """Reads a CSV file, plain or gzipped, or a Parquet or Feather file, recognized by their content.

    Args:
      path: the file. The first line of a CSV file holds the column names. Empty lines are skipped, and so is an empty
        last column. The first column may have the name '', as an index that pandas or R wrote.
      text: columns to read as text whatever they hold, such as ids; they may be missing.
      separator: of the values of a CSV file; found if None.
      decimal: the decimal sign; found if None, where commas do not separate the values.

    Raises:
      InputError: the file cannot be read, is empty or in no encoding that :func:`columns.as_utf8` knows, a row (it is
        named) has too many or too few values, or a column has no name or that of another.
    """
    import pyarrow

    with reading.opened(path) as file:
        content = file.read()
    try:
        if content.startswith((b"PAR1", b"ARROW1", b"FEA1")):
            table, separator = _typed_columns(path, content), ""
        else:
            table, separator = _csv_columns(path, content, separator)
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}.") from error
    columns: Table = {}
    table = {column_values.composed(name): column for name, column in table.items()}
    if decimal is None:
        decimal = "." if separator in ("", ",") or not _has_decimal_commas(table.values()) else ","
    del content
    for name in [*table]:
        # What was converted is freed.
        column = table.pop(name)
        numeric = None if name in text else _as_numbers(column, decimal)
        columns[name] = _as_words(column) if numeric is None else numeric
    # Otherwise, PyArrow keeps what a large file took for the next one.
    del table
    pyarrow.default_memory_pool().release_unused()
    return TableFile(columns, separator, decimal)


def _csv_columns(path: Path, content: bytes, separator: str | None) -> tuple[dict[str, Any], str]:
    """Reads the columns of a CSV file as text, and the separator."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    content, separator = column_values.as_utf8(path, content, separator)
    if not content or content.isspace():
        raise InputError(f"{path}: is empty; a CSV file begins with a line of column names.")
    # PyArrow accepts a quoted value that the end of the file cuts off.
    if content.count(b'"') % 2:
        _check_rows(path, content, separator)
    try:
        names = _column_names(path, content, separator)
        table = arrow_csv.read_csv(
            pyarrow.BufferReader(content),
            # A row has to fit into a block.
            read_options=arrow_csv.ReadOptions(block_size=1 << 24),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            # All as text: PyArrow would guess a column's type from its first block, and fail at the second.
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string())),
        )
    except (pyarrow.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        _check_rows(path, content, separator)
        raise InputError(f"{path}: cannot be read as CSV: {error}.") from error
    if table.column_names != names:
        raise InputError(f"{path}: its first line is not well-formed CSV.")
    if not table.num_rows:
        raise InputError(f"{path}: holds column names, but no rows.")
    # A comma at the end of every line, as in ChestX-ray14's Data_Entry_2017.csv.
    if not names[-1] and not any(word.as_py() for word in table.columns[-1]):
        names.pop()
        table = table.remove_column(len(names))
    if "" in names[1:]:
        raise InputError(f"{path}: column {names.index('', 1) + 1} has no name in the first line. Name it.")
    return dict(zip(names, table.columns, strict=True)), separator


def _typed_columns(path: Path, content: bytes) -> dict[str, Any]:
    """Reads the columns of a Parquet or Feather file; what is no number becomes text, spelled as pandas does in CSV."""
    import pyarrow
    from pyarrow import compute, dataset, feather, parquet

    source = pyarrow.BufferReader(content)
    is_parquet = content.startswith(b"PAR1")
    # The first version of Feather is not compressed.
    if not content.startswith(b"FEA1"):
        rows = (dataset.ParquetFileFormat() if is_parquet else dataset.IpcFileFormat()).make_fragment(source)
        for field in rows.physical_schema:
            if pyarrow.types.is_nested(field.type) or pyarrow.types.is_binary(field.type):
                raise InputError(f"{path}: column {field.name!r} holds {field.type}; store numbers, words or dates.")
        # Of a few bytes, a damaged or hostile file may make any number of rows.
        if rows.count_rows() * len(rows.physical_schema) > max(reading.MAX_RATIO * len(content), 1 << 26):
            raise InputError(f"{path}: unpacks to more than real data does. Do not trust this file.")
    table = parquet.read_table(source) if is_parquet else feather.read_table(source)
    table.validate(full=True)
    if not table.num_rows:
        raise InputError(f"{path}: holds column names, but no rows.")
    typed = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pyarrow.types.is_boolean(column.type):
            column = compute.if_else(column, "True", "False")
        is_number = pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)
        if not is_number:
            is_decimal = pyarrow.types.is_decimal(column.type)
            column = column.cast(pyarrow.float64() if is_decimal else pyarrow.string())
        typed["" if name == _INDEX else name] = column
    return typed


def require(columns: Collection[str], name: str, path: Path | str) -> None:
    """Raises InputError unless the column is present.

    >>> require(["weight", "size"], "wieght", "fruit.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: fruit.csv: has no column 'wieght'. Did you mean 'weight'? It has: weight, size.
    """
    if name not in columns:
        similar = did_you_mean(name, columns)
        raise InputError(f"{path}: has no column {name!r}.{similar} It has: {listed([*columns], most=40)}.")


def numbers(table: Mapping[str, np.ndarray], name: str, path: Path | str, *, missing: bool = False) -> np.ndarray:
    """Returns a column that must hold a finite number in each row, float64 (N,).

    Args:
      table: the columns, as :func:`read_csv` returns them.
      name: the column.
      path: the file, for messages.
      missing: whether numbers may be missing; they are NaN.

    Raises:
      InputError: the column is missing, or a row (the first is named, counted from 1) is not a number.

    >>> numbers({"weight": np.array(["0.2", "heavy"], object)}, "weight", "fruit.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: fruit.csv: row 2 of column 'weight' is 'heavy', which is not a finite number.
    """
    require(table, name, path)
    column = table[name]
    if column.dtype == object:
        # A word that is not a number becomes NaN too.
        values, absent = column_values.to_numbers(column, "."), np.isin(column, column_values.MISSING)
    else:
        values, absent = column.astype(np.float64), np.isnan(column)
    for row in np.flatnonzero(~np.isfinite(values) & ~(absent & missing))[:1]:
        what = "empty" if absent[row] else repr(column[row]) if column.dtype == object else f"{column[row]}"
        raise InputError(f"{path}: row {row + 1} of column {name!r} is {what}, which is not a finite number.")
    return values


def write_csv(
    path: Path, columns: Mapping[str, Sequence[object] | np.ndarray], *, for_spreadsheets: bool = False
) -> None:
    """Writes columns of equal length as a CSV file; floats are read back exactly.

    NaN and None become empty values. The file is gzipped if its name ends in .gz.

    Args:
      path: the file.
      columns: column name -> values.
      for_spreadsheets: whether to put a ' before each text, and each column name, that a spreadsheet would evaluate as
        a formula; see :func:`jaxcls.data.formats.columns.is_formula`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> write_csv(path, {"name": ["apple, red", "pear"], "weight": np.array([0.2, np.nan])})
    >>> path.read_text()
    'name,weight\\n"apple, red",0.2\\npear,\\n'
    """
    # An empty line would be skipped when read.
    empty = '""' if len(columns) == 1 else ""
    # As Python values, whose str is the shortest exact text.
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
    rows: Iterable[Iterable[object]] = itertools.chain([columns], zip(*lists, strict=True))
    if for_spreadsheets:
        rows = ([f"'{value}" if column_values.is_formula(value) else value for value in row] for row in rows)
    content = "".join(",".join(_quoted(value) or empty for value in row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _quoted(value: object) -> str:
    # Not by csv.writer, which leaves a lone carriage return without quotes before Python 3.13.
    if value is None or value != value:  # only NaN differs from itself
        return ""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _column_names(path: Path, content: bytes, separator: str) -> list[str]:
    # Only the first line is decoded.
    file = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
    names: list[str] = next(row for row in csv.reader(file, delimiter=separator, strict=True) if row)
    for name, count in collections.Counter(map(column_values.composed, names)).items():
        if name and count > 1:
            raise InputError(f"{path}: two columns are called {name!r}; rename or drop one.")
    return names


def _has_decimal_commas(table: Collection[Any]) -> bool:
    """Whether more values have a comma before their last digits than a point."""
    from pyarrow import compute

    def count(sign: str) -> int:
        matches = (compute.match_substring_regex(column, rf"^\s*[+-]?\d+{sign}\d+\s*$") for column in table)
        return sum(compute.sum(match).as_py() or 0 for match in matches)

    return count(",") > count(r"\.")


def _as_numbers(column: Any, decimal: str) -> np.ndarray | None:
    """The column as float64, or None if it holds anything else than numbers and missing ones."""
    import pyarrow
    from pyarrow import compute

    if pyarrow.types.is_string(column.type):
        words = compute.utf8_trim_whitespace(column)
        if decimal == ",":
            # A point groups thousands, or not: columns.number knows.
            if compute.any(compute.match_substring(words, ".")).as_py():
                return None
            words = compute.replace_substring(words, ",", ".")
        column = compute.if_else(compute.is_in(words, value_set=pyarrow.array(column_values.MISSING)), None, words)
    try:
        return column.cast(pyarrow.float64(), safe=False).to_numpy()
    except pyarrow.ArrowInvalid:
        return None


def _as_words(column: Any) -> np.ndarray:
    import pyarrow
    from pyarrow import compute

    if pyarrow.types.is_floating(column.type):
        return np.array([column_values.as_word(value) for value in column.to_pylist()], object)
    return compute.fill_null(column.cast(pyarrow.string()), "").to_numpy()


def _check_rows(path: Path, content: bytes, separator: str) -> None:
    """Raises an InputError that names the first line or row that is not UTF-8 or not well-formed. Slow."""
    text = reading.decode_text(content, path)
    rows = column_values.csv_reader(text, separator)
    columns, line = 0, 1
    try:
        for number, row in enumerate(filter(None, rows)):
            columns = columns or len(row)
            if len(row) != columns:
                raise InputError(
                    f"{path}: row {number} (line {line}) has {len(row)} values where there are {columns} columns. "
                    f"Enclose a value that contains {separator!r} in double quotes."
                )
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {line} is not well-formed CSV: {error}. Is a quote not closed?") from None
