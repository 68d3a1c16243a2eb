"""Tables in CSV, Parquet and Feather files, read as columns of numbers and of strings, and written as CSV (RFC 4180).

A value of a CSV file that contains a separator, a quote or a newline is enclosed in double quotes.
"""

import collections
import contextlib
import csv
import functools
import gzip
import io
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.array_cache import cached_file
from jaxcls._utils.clock import progress
from jaxcls._utils.errors import InputError, did_you_mean, listed
from jaxcls.data.formats import columns as column_values
from jaxcls.data.formats import reading, stored_tables

Table = dict[str, np.ndarray]

_SPECIAL = re.compile('[",\r\n]')
# From this size on, the columns of a file are read when they are used.
LARGE_BYTES = 1 << 26
# The bytes of a CSV file that are parsed at a time. A row has to fit.
_BLOCK_BYTES = 1 << 24


class TableFile(NamedTuple):
    """A table as it was read.

    Attributes:
      columns: name -> values (N,), in the order of the file; a
        :class:`jaxcls.data.formats.stored_tables.StoredTable` if it is large. A column of numbers is float64, with NaN
        where one is missing; any other holds str objects, with '' where a value is missing.
      separator: of the values; '' in a Parquet or Feather file.
      decimal: the decimal sign of its numbers.
    """

    columns: Mapping[str, Any]
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
    table = {**read(path, text=text, decimal=".", in_memory=True).columns}
    for name in required:
        require(table, name, path)
    return table


def read(
    path: Path,
    *,
    text: Collection[str] = (),
    separator: str | None = None,
    decimal: str | None = None,
    in_memory: bool = False,
) -> TableFile:
    """Reads a CSV file, plain or gzipped, or a Parquet or Feather file, recognized by their content.

    The columns of a large CSV or Parquet file are read when they are used; CSV is converted to Parquet in the cache
    directory.

    Args:
      path: the file. The first line of a CSV file holds the column names. Empty lines are skipped, and so is an empty
        last column. The first column may have the name '', as an index that pandas or R wrote.
      text: columns to read as text whatever they hold, such as ids; they may be missing.
      separator: of the values of a CSV file; found if None.
      decimal: the decimal sign; found if None, where commas do not separate the values.
      in_memory: whether to read all columns of a large file now.

    Raises:
      InputError: the file cannot be read, is empty or in no encoding that :func:`columns.as_utf8` knows, a row (it is
        named) has too many or too few values, or a column has no name or that of another.
    """
    import pyarrow

    try:
        with reading.opened(path) as file:
            is_large = path.stat().st_size >= LARGE_BYTES
            stored = _stored(path, text, separator, decimal) if is_large and not in_memory else None
            if stored is not None:
                return TableFile(stored, stored.separator, stored.decimal)
            content = file.read()
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
        numeric = None if name in text else stored_tables.as_numbers(column, decimal)
        columns[name] = stored_tables.as_words(column) if numeric is None else numeric
    # Otherwise, PyArrow keeps what a large file took for the next one.
    del table
    pyarrow.default_memory_pool().release_unused()
    return TableFile(columns, separator, decimal)


def _stored(
    path: Path, text: Collection[str], separator: str | None, decimal: str | None
) -> stored_tables.StoredTable | None:
    """Returns a table whose columns are read when they are used; None of a file of another format or encoding."""
    import pyarrow

    with reading.opened(path) as file:
        head = file.read(_BLOCK_BYTES)
    if head.startswith(b"PAR1"):
        return stored_tables.open_parquet(path, text, decimal)
    begin = head[: head.rfind(b"\n") + 1]
    try:
        begin.decode()
    except UnicodeDecodeError:
        return None
    if begin.startswith((b"ARROW1", b"FEA1")) or b"\0" in begin[:2] or not begin.strip():
        return None
    content, separator = column_values.as_utf8(path, begin, separator)
    key = ["1", files.sha256(path), separator, decimal, sorted(text)]
    write = functools.partial(_convert, path, content + head[len(begin) :], len(head), text, separator, decimal)
    try:
        converted = cached_file("tables", key, write)
    except (pyarrow.ArrowInvalid, csv.Error) as error:
        if "UTF8" in str(error):
            return None
        raise InputError(f"{path}: cannot be read as CSV: {error}. Is a quote not closed, or a separator?") from error
    return stored_tables.open_parquet(converted, text, decimal, separator, path)


def _convert(
    path: Path, head: bytes, start: int, text: Collection[str], separator: str, decimal: str | None, target: Path
) -> None:
    """Converts a CSV file to Parquet, a few rows at a time.

    Args:
      head: replaces the first `start` bytes.
      target: the file to write.
    """
    import pyarrow
    from pyarrow import compute, parquet
    from pyarrow import csv as arrow_csv

    names = _column_names(path, head, separator)
    named = names[:-1] if len(names) > 1 and not names[-1] else names
    if "" in named[1:]:
        raise _unnamed(path, named.index("", 1))
    words: set[str] = set()
    strays = {""}
    # A column of numbers may turn out to be none in a later block; then all is converted again.
    while strays:
        strays = set()
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(reading.opened(path))
            file.seek(start)
            joined = _Joined(head, file)
            batches = arrow_csv.open_csv(
                pyarrow.PythonFile(joined, mode="r"),
                read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string())),
            )
            writer = None
            for batch in batches:
                if named != names and compute.any(compute.not_equal(batch.column(len(named)), "")).as_py():
                    raise _unnamed(path, len(named))
                columns = dict(zip(named, batch.columns, strict=False))
                if decimal is None:
                    decimal = "," if separator != "," and _has_decimal_commas(columns.values()) else "."
                numbers = {
                    name: stored_tables.as_numbers(column, decimal)
                    for name, column in columns.items()
                    if name not in words and column_values.composed(name) not in text
                }
                new = {name for name, column in numbers.items() if column is None}
                if writer is None and not strays:
                    words |= new
                else:
                    strays |= new
                joined.report(path.stat().st_size)
                if strays:
                    continue
                columns |= {name: pyarrow.array(column) for name, column in numbers.items() if column is not None}
                converted = pyarrow.table(columns).replace_schema_metadata({"decimal": decimal})
                if writer is None:
                    options = {"use_dictionary": sorted(columns.keys() - numbers.keys() | new) or False}
                    writer = stack.enter_context(parquet.ParquetWriter(target, converted.schema, **options))
                writer.write_table(converted)
            if joined.quotes % 2:
                raise pyarrow.ArrowInvalid("a quote is not closed")
            words |= strays


def _unnamed(path: Path, index: int) -> InputError:
    return InputError(f"{path}: column {index + 1} has no name in the first line. Name it.")


class _Joined:
    """A file with another beginning, which counts its quotes."""

    closed = False

    def __init__(self, head: bytes, rest: reading.Reader):
        self._head, self._rest, self.quotes, self._read = io.BytesIO(head), rest, 0, 0

    def read(self, size: int) -> bytes:
        content = self._head.read(size) or self._rest.read(size)
        self.quotes += content.count(b'"')
        self._read += len(content)
        return content

    def report(self, size: int) -> None:
        progress(min(1.0, self._read / size))

    def close(self) -> None:
        pass


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
            read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES),
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
        raise _unnamed(path, names.index("", 1))
    return dict(zip(names, table.columns, strict=True)), separator


def _typed_columns(path: Path, content: bytes) -> dict[str, Any]:
    """Reads the columns of a Parquet or Feather file; what is no number becomes text, spelled as pandas does in CSV."""
    import pyarrow
    from pyarrow import dataset, feather, parquet

    source = pyarrow.BufferReader(content)
    is_parquet = content.startswith(b"PAR1")
    # The first version of Feather is not compressed.
    if not content.startswith(b"FEA1"):
        rows = (dataset.ParquetFileFormat() if is_parquet else dataset.IpcFileFormat()).make_fragment(source)
        for field in rows.physical_schema:
            stored_tables.check_type(path, field)
        stored_tables.check_rows(path, rows.count_rows(), len(rows.physical_schema), len(content))
    table = parquet.read_table(source) if is_parquet else feather.read_table(source)
    table.validate(full=True)
    if not table.num_rows:
        raise InputError(f"{path}: holds column names, but no rows.")
    columns = zip(table.column_names, table.columns, strict=True)
    return {"" if name == stored_tables.INDEX else name: stored_tables.typed(column) for name, column in columns}


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
    column = np.asarray(table[name])
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
