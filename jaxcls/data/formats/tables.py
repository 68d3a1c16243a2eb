"""CSV tables: text in UTF-8 with a line of column names, to columns of numbers and of strings, and back.

As RFC 4180 has it: commas between the values, and double quotes around one that holds a comma, a quote or a new line.
"""

import codecs
import csv
import gzip
import io
import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.data.formats.unpacking import GZIP_MAGIC, gunzip

if TYPE_CHECKING:
    import pyarrow

Table = dict[str, np.ndarray]

# What programs write where a number is missing; in a column of words, all but '' is a word.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>")
# A row has to fit into a block.
_BLOCK = 1 << 24
# With these a spreadsheet lets a formula begin, in some languages with the wide ones; it skips what is blank before it.
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile('[",\r\n]')


def read_csv(path: str | os.PathLike[str], *, required: Sequence[str] = (), text: Collection[str] = ()) -> Table:
    """Reads a CSV file, plain or gzipped (told by its content, not by its name).

    Args:
      path: the file. Its first line holds the names of the columns. Empty lines are skipped, and so is an empty
        column at the end.
      required: columns that it must have.
      text: columns that are text, whatever they hold, such as ids; those that are not there do not matter.

    Returns:
      The columns (N,) by their names, in the order of the file. A column that holds numbers alone is float64, with NaN
      where one is missing; any other holds str objects, with '' where a word is missing.

    Raises:
      InputError: names the file, and the row where one is to blame: the file cannot be read, is empty or not UTF-8,
        a row has too many or too few values, a column has no name or that of another, or a required one is not there.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> _ = path.write_text('name,weight\\n"apple, red",0.2\\npear,\\n')
    >>> read_csv(path)
    {'name': array(['apple, red', 'pear'], dtype=object), 'weight': array([0.2, nan])}
    """
    import pyarrow
    from pyarrow import csv as arrow_csv

    path = Path(path)
    content = _content(path)
    # PyArrow takes the end of the file for the end of a quoted value.
    if content.count(b'"') % 2:
        _check_form(path, content)
    try:
        names = _header(path, content)
        table = arrow_csv.read_csv(
            io.BytesIO(content),
            read_options=arrow_csv.ReadOptions(block_size=_BLOCK),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            # All as text: PyArrow would guess a column's type from its first block, and fail at the second.
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string())),
        )
    except (pyarrow.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        _check_form(path, content)
        raise InputError(f"{path}: cannot be read as CSV: {error}.") from error
    if table.column_names != names:
        raise InputError(f"{path}: its first line is not well-formed CSV.")
    if not table.num_rows:
        raise InputError(f"{path}: holds the names of columns, but no rows.")
    if not names[-1]:
        # Nothing but a comma at the end of every line, as in ChestX-ray14's Data_Entry_2017.csv.
        *names, _ = names
        if any(word.as_py() for word in table[""]):
            raise _nameless(path, len(names) + 1)
        table = table.drop_columns("")
    for name in required:
        require(table.column_names, name, path)
    return {
        name: column.to_numpy() if name in text or (numeric := _as_numbers(column)) is None else numeric
        for name, column in zip(names, table.columns, strict=True)
    }


def require(columns: Collection[str], name: str, path: str | os.PathLike[str]) -> None:
    """Raises InputError unless the column is there.

    >>> require(["weight", "size"], "wieght", "fruit.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: fruit.csv: has no column 'wieght'. Did you mean 'weight'? It has: weight, size.
    """
    if name not in columns:
        listed = [*itertools.islice(columns, 40), *(["..."] if len(columns) > 40 else [])]
        raise InputError(f"{path}: has no column {name!r}.{did_you_mean(name, columns)} It has: {', '.join(listed)}.")


def numbers(
    table: Mapping[str, np.ndarray], name: str, path: str | os.PathLike[str], *, missing: bool = False
) -> np.ndarray:
    """A column that must hold a finite number in each row, float64 (N,).

    Args:
      table: the columns, as of :func:`read_csv`.
      name: of the column.
      path: the file, for messages.
      missing: whether numbers may be missing; they are NaN.

    Raises:
      InputError: the column is not there, or names the first row (of the data, from 1) without a number.

    >>> numbers({"weight": np.array(["0.2", "heavy"], object)}, "weight", "fruit.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: fruit.csv: row 2 of column 'weight' is 'heavy', which is not a finite number.
    """
    require(table, name, path)
    column = table[name]
    values = np.array([_number(word) for word in column]) if column.dtype == object else column
    # A word that is no number is NaN too.
    absent = np.isin(column, MISSING) if column.dtype == object else np.isnan(column)
    wrong = ~np.isfinite(values) & ~(absent & missing)
    if wrong.any():
        row = int(wrong.argmax())
        what = "empty" if absent[row] else repr(column[row]) if column.dtype == object else f"{column[row]}"
        raise InputError(f"{path}: row {row + 1} of column {name!r} is {what}, which is not a finite number.")
    return values.astype(np.float64)


def write_csv(
    path: str | os.PathLike[str],
    columns: Mapping[str, Sequence[object] | np.ndarray],
    *,
    for_spreadsheets: bool = False,
) -> None:
    """Writes columns of equal length as a CSV file; floats are written so that they are read back exactly.

    What is NaN or None is written as empty values; the file is gzipped if its name ends in .gz.

    Args:
      for_spreadsheets: whether a text that a spreadsheet would take for a formula is written with a ' before it, which
        makes it a text; see :func:`is_formula`. A name of a column is a text as well.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> write_csv(path, {"name": ["apple, red", "pear"], "weight": np.array([0.2, np.nan])})
    >>> path.read_text()
    'name,weight\\n"apple, red",0.2\\npear,\\n'
    """
    path = Path(path)
    # An empty line would be no row.
    empty = '""' if len(columns) == 1 else ""
    # As lists of Python values: their shortest exact text is that of str.
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
    rows: Iterable[Iterable[object]] = itertools.chain([columns], zip(*lists, strict=True))
    if for_spreadsheets:
        rows = ([f"'{value}" if is_formula(value) else value for value in row] for row in rows)
    content = "".join(",".join(_quoted(value) or empty for value in row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def is_formula(value: object) -> bool:
    """Whether a spreadsheet would take a text for a formula, as it begins; a number, such as '-1.5', is none.

    >>> [is_formula(value) for value in ("=1+1", "-1.5", "-1+1", "@x", "a=b", -1.5)]
    [True, False, True, True, False, False]
    """
    return isinstance(value, str) and value.startswith(_FORMULA) and _PLAIN_NUMBER.fullmatch(value) is None


def _quoted(value: object) -> str:
    # Not by csv.writer, which leaves a lone carriage return without quotes before Python 3.13.
    if value is None or value != value:  # only NaN differs from itself
        return ""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if content.startswith(GZIP_MAGIC):
        content = gunzip(content, path)
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise InputError(f"{path}: is empty; a CSV file begins with a line of column names.")
    if content.startswith(b"PK\3\4"):
        raise InputError(f"{path}: is a zip archive, whatever its name; unpack it.")
    return content


def likely_encoding(content: bytes) -> str:
    """What a text that is not UTF-8 is likely to be, for a hint.

    >>> likely_encoding("caf\xe9".encode("utf-16")), likely_encoding("caf\xe9".encode("latin-1"))
    ('UTF-16', 'WINDOWS-1252')
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content.split(b"\n", 1)[0]
    return "UTF-16" if utf16 else "WINDOWS-1252"


def _rows(content: bytes) -> Any:
    # newline="" leaves new lines inside of quotes as they are.
    return csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""), strict=True)


def _header(path: Path, content: bytes) -> list[str]:
    names: list[str] = next(row for row in _rows(content) if row)
    # In ASCII, UTF-16 without its mark is UTF-8 with a zero after every letter.
    if "\0" in "".join(names):
        raise InputError(
            f"{path}: is not UTF-8, but like UTF-16. Convert it, for example with: iconv -f UTF-16LE -t UTF-8."
        )
    for separator in (";", "\t"):
        if len(names) == 1 and separator in names[0]:
            raise InputError(f"{path}: its columns are parted by {separator!r}; save it with commas between them.")
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name and place < len(names):
            raise _nameless(path, place)
        if name in seen:
            raise InputError(f"{path}: two columns are called {name!r}; rename or drop one.")
        seen.add(name)
    return names


def _nameless(path: Path, place: int) -> InputError:
    return InputError(
        f"{path}: column {place} has no name in the first line. Name it, or leave it out "
        "(pandas writes its index so unless it is told index=False)."
    )


def _as_numbers(column: "pyarrow.ChunkedArray") -> np.ndarray | None:
    """The column as float64, or None if it holds anything else."""
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


def _check_form(path: Path, content: bytes) -> None:
    """Raises InputError, with the row, if the content is no UTF-8 or a row is not well-formed; it is slow."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = len((content[: error.start] + b".").splitlines())
        raise InputError(
            f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#04x}). Save the file as UTF-8, or "
            f"convert it, for example with: iconv -f {likely_encoding(content)} -t UTF-8."
        ) from None
    rows = _rows(content)
    line = 1
    try:
        columns = len(next(row for row in rows if row))
        line = rows.line_num + 1
        for number, row in enumerate((row for row in rows if row), 1):
            if len(row) != columns:
                raise InputError(
                    f"{path}: row {number} (line {line}) has length {len(row)} where there are {columns} columns. "
                    "A value that holds a comma stands in double quotes."
                )
            line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {line} is not well-formed CSV: {error}. Is a quote not closed?") from None
