"""CSV files (RFC 4180) in UTF-8 with a header line, read as columns of numbers and of strings, and written.

Values are separated by commas; one that contains a comma, a quote or a newline is enclosed in double quotes.
"""

import codecs
import collections
import csv
import gzip
import io
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError, did_you_mean, listed
from jaxcls.data.formats import reading

Table = dict[str, np.ndarray]

# What programs write for a missing number; in a column of words, only '' is missing.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>")
# The characters that begin a formula in a spreadsheet, some of them full-width, after any white space.
_FORMULA = tuple("=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
                 "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile('[",\r\n]')


def read_csv(path: Path, *, required: Sequence[str] = (), text: Collection[str] = ()) -> Table:
    """Reads a CSV file, plain or gzipped (recognized by its content, not by its name).

    Args:
      path: the file. Its first line holds the column names. Empty lines are skipped, and so is an empty last column.
      required: the columns that must be present.
      text: columns to read as text whatever they hold, such as ids; they may be missing.

    Returns:
      Column name -> values (N,), in the order of the file. A column of numbers is float64, with NaN where one is
      missing; any other holds str objects, with '' where a value is missing.

    Raises:
      InputError: the file cannot be read, is empty or not UTF-8, a row (it is named) has too many or too few values,
        a column has no name or that of another, or a required column is missing.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> _ = path.write_text('name,weight\\n"apple, red",0.2\\npear,\\n')
    >>> read_csv(path)
    {'name': array(['apple, red', 'pear'], dtype=object), 'weight': array([0.2, nan])}
    """
    import pyarrow
    from pyarrow import csv as arrow_csv

    with reading.opened(path) as file:
        content = file.read().removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise InputError(f"{path}: is empty; a CSV file begins with a line of column names.")
    if content.startswith(b"PK\3\4"):
        raise InputError(f"{path}: is a zip archive, whatever its name; unpack it.")
    # PyArrow accepts a quoted value that the end of the file cuts off.
    if content.count(b'"') % 2:
        _check_rows(path, content)
    try:
        names = _column_names(path, content)
        table = arrow_csv.read_csv(
            io.BytesIO(content),
            # A row has to fit into a block.
            read_options=arrow_csv.ReadOptions(block_size=1 << 24),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            # All as text: PyArrow would guess a column's type from its first block, and fail at the second.
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string())),
        )
    except (pyarrow.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        _check_rows(path, content)
        raise InputError(f"{path}: cannot be read as CSV: {error}.") from error
    if table.column_names != names:
        raise InputError(f"{path}: its first line is not well-formed CSV.")
    if not table.num_rows:
        raise InputError(f"{path}: holds column names, but no rows.")
    # A comma at the end of every line, as in ChestX-ray14's Data_Entry_2017.csv.
    if not names[-1] and not any(word.as_py() for word in table.columns[-1]):
        names.pop()
        table = table.remove_column(len(names))
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} has no name in the first line. Name it, or leave it out (pandas "
            "writes its index this way unless it is told index=False)."
        )
    for name in required:
        require(table.column_names, name, path)
    return {
        name: column.to_numpy() if name in text or (numeric := _as_numbers(column)) is None else numeric
        for name, column in zip(names, table.columns, strict=True)
    }


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
        values, absent = np.array([_number(word) for word in column]), np.isin(column, MISSING)
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
        a formula; see :func:`is_formula`.

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
        rows = ([f"'{value}" if is_formula(value) else value for value in row] for row in rows)
    content = "".join(",".join(_quoted(value) or empty for value in row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def is_formula(value: object) -> bool:
    """Whether a spreadsheet would evaluate a text as a formula; a number, such as '-1.5', is not one.

    >>> [is_formula(value) for value in ("=1+1", "-1.5", "-1+1", "@x", "a=b", -1.5)]
    [True, False, True, True, False, False]
    """
    return isinstance(value, str) and value.startswith(_FORMULA) and PLAIN_NUMBER.fullmatch(value) is None


def _quoted(value: object) -> str:
    # Not by csv.writer, which leaves a lone carriage return without quotes before Python 3.13.
    if value is None or value != value:  # only NaN differs from itself
        return ""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _rows(content: bytes) -> Any:
    # newline="" preserves newlines within quotes.
    return csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""), strict=True)


def _column_names(path: Path, content: bytes) -> list[str]:
    names: list[str] = next(row for row in _rows(content) if row)
    # UTF-16 without a byte order mark decodes as UTF-8, with a zero after every ASCII letter.
    if "\0" in "".join(names):
        raise InputError(
            f"{path}: is not UTF-8, but probably UTF-16. Convert it, for example with: iconv -f UTF-16LE -t UTF-8."
        )
    for separator in (";", "\t"):
        if len(names) == 1 and separator in names[0]:
            raise InputError(f"{path}: its columns are separated by {separator!r}; save it with commas between them.")
    for name, count in collections.Counter(names).items():
        if name and count > 1:
            raise InputError(f"{path}: two columns are called {name!r}; rename or drop one.")
    return names


def _as_numbers(column: Any) -> np.ndarray | None:
    """The column as float64, or None if it holds anything else than numbers."""
    import pyarrow
    from pyarrow import compute

    words = compute.utf8_trim_whitespace(column)
    missing = compute.is_in(words, value_set=pyarrow.array(MISSING))
    try:
        return compute.if_else(missing, None, words).cast(pyarrow.float64()).to_numpy()
    except pyarrow.ArrowInvalid:
        return None


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return np.nan


def _check_rows(path: Path, content: bytes) -> None:
    """Raises an InputError that names the first line or row that is not UTF-8 or not well-formed. Slow."""
    reading.decode_text(content, path)
    rows = _rows(content)
    columns, line = 0, 1
    try:
        for number, row in enumerate(filter(None, rows)):
            columns = columns or len(row)
            if len(row) != columns:
                raise InputError(
                    f"{path}: row {number} (line {line}) has {len(row)} values where there are {columns} columns. "
                    "Enclose a value that contains a comma in double quotes."
                )
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {line} is not well-formed CSV: {error}. Is a quote not closed?") from None
