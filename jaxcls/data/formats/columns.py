"""What the values of a table mean: missing ones, numbers, dates, words and texts; and how their file is laid out.

A value means the same whatever the other rows hold: the record of a fitted preprocessor says what its column is.
Exports contain this module, which therefore needs only NumPy.
"""

import codecs
import collections
import csv
import datetime
import functools
import io
import itertools
import logging
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

# What pandas, R, SQL, spreadsheets and the UCI repository write for a missing value.
MISSING = (
    "", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NaT", "NULL", "Null", "null", "None",
    "?", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!",
)  # fmt: skip
_NAN = dict.fromkeys(MISSING, "nan")
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([,\s'][0-9]{3})+(\.\d*)?")
# The characters that begin a formula in a spreadsheet, some of them full-width, after any white space.
_FORMULA = tuple("=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
                 "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
# The formats of dates, as of strptime; where several read all dates of a column, the first is chosen.
ISO = "ISO 8601"
DATE_FORMATS = (
    ISO, "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y",
    "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
# The bytes of a file that are decoded at a time.
_PIECE = 1 << 24
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
DATE_PARTS = ("days", "month", "day", "weekday", "hour")
_EPOCH = datetime.datetime(1970, 1, 1)


def is_missing(word: str) -> bool:
    """Whether the word stands for a missing value."""
    return word.strip() in MISSING


def composed(text: str) -> str:
    """Returns the form (NFC) of a text in which letters and their accents are one character.

    >>> len("e\N{COMBINING ACUTE ACCENT}"), len(composed("e\N{COMBINING ACUTE ACCENT}"))
    (2, 1)
    """
    return unicodedata.normalize("NFC", text)


def number(word: str, decimal: str = ".") -> float:
    """Reads a number; NaN if it is none, or not finite.

    Thousands may be grouped, and a percent or currency sign is left out. A decimal comma makes points group thousands.

    >>> number("-1.5e3"), number("1,234.5"), number("$ 45"), number("45%"), number("1.234,5", ",")
    (-1500.0, 1234.5, 45.0, 45.0, 1234.5)
    """
    word = word.strip().removesuffix("%").strip(" \u00a0$€£")
    swapped = word.translate({44: ".", 46: ","}) if decimal == "," else word
    if _GROUPED.fullmatch(swapped):
        swapped = re.sub(r"[,\s']", "", swapped)
    for spelled in (swapped, word):
        if PLAIN_NUMBER.fullmatch(spelled):
            return value if math.isfinite(value := float(spelled)) else math.nan
    return math.nan


def is_formula(value: object) -> bool:
    """Whether a spreadsheet would evaluate a text as a formula; a number, such as '-1.5', is not one.

    >>> [is_formula(value) for value in ("=1+1", "-1.5", "-1+1", "@x", "a=b", -1.5)]
    [True, False, True, True, False, False]
    """
    return isinstance(value, str) and value.startswith(_FORMULA) and PLAIN_NUMBER.fullmatch(value) is None


def date(word: str, format: str) -> datetime.datetime | None:
    """Reads a date, with or without a time of day, in one of `DATE_FORMATS`; None if it is none.

    >>> date("3/31/2024 18:30", "%m/%d/%Y"), date("31 March 2024", "%m/%d/%Y")
    (datetime.datetime(2024, 3, 31, 18, 30), None)
    """
    word = word.strip()
    try:
        if format == ISO:
            read = datetime.datetime.fromisoformat(word) if re.match(r"\d{4}-\d\d-\d\d", word) else None
            return read and (read.astimezone(datetime.UTC).replace(tzinfo=None) if read.tzinfo else read)
    except (ValueError, OverflowError):
        return None
    for time in _TIMES:
        try:
            return datetime.datetime.strptime(word, format + time)
        except ValueError:
            continue
    return None


def ngrams(text: str) -> set[str]:
    """The words of a text and the pairs of words that follow each other, in lower case.

    >>> sorted(ngrams("So good!"))
    ['good', 'so', 'so good']
    """
    words = re.findall(r"\w+", composed(text).lower())
    return {*words, *(f"{first} {second}" for first, second in itertools.pairwise(words))}


def date_column(name: str, part: str) -> str:
    """The name of the numeric column with a part of the dates of a column."""
    return f"{name} ({part})"


def date_parts(column: Any, name: str, format: str) -> dict[str, np.ndarray]:
    """The days since 1970, month, day, weekday and hour of the dates of a column, each float64 (N,), NaN if missing."""

    def parts(word: Any) -> tuple[float, ...]:
        if (read := date(str(word), format)) is None:
            return (math.nan,) * len(DATE_PARTS)
        days = (read - _EPOCH) / datetime.timedelta(days=1)
        return days, read.month, read.day, read.weekday(), days % 1 * 24

    values = np.array(_mapped(column, parts), np.float64).reshape(-1, len(DATE_PARTS))
    return {date_column(name, part): values[:, index] for index, part in enumerate(DATE_PARTS)}


def to_numbers(column: Any, decimal: str) -> np.ndarray:
    """A column of numbers or of their spellings as float64; what is no finite number is NaN."""
    if isinstance(column, np.ndarray) and column.dtype != object:
        return np.where(np.isinf(column), np.nan, column).astype(np.float64)
    # For speed: of plain numbers, float reads the same as `number`, except for 1_0 and the digits of other scripts.
    try:
        words = [_NAN.get(word, word) for word in column]
        if decimal == "." and (text := "".join(words)).isascii() and "_" not in text:
            return to_numbers(np.array(words, object).astype(np.float64), decimal)
    except (TypeError, ValueError):
        pass
    read = [number(value, decimal) if isinstance(value, str) else math.nan if value is None else float(value)
            for value in column]  # fmt: skip
    return to_numbers(np.array(read, np.float64), decimal)


def indices(column: Any, words: Sequence[str | None]) -> np.ndarray:
    """The index of word i is i + 1, and 0 that of others, int32 (N,); what stands for a missing value is like ''.
    No value has the index of a word that is None.

    A number that is not spelled, as in a Parquet file, is the word that it equals: 7.0 is '07'.
    """
    known = {word: index for index, word in enumerate(words, 1) if word is not None}
    equal = {number(word): word for word in known}

    def index(value: Any) -> int:
        word = equal.get(value, as_word(value))
        return known.get(word, known.get("", 0) if is_missing(word) else 0)

    return np.array(_mapped(column, index), np.int32)


def as_word(value: Any) -> str:
    """A value as it is spelled in a file: a whole number without its fraction, a missing one as ''; words in the form
    of :func:`composed`."""
    if isinstance(value, str):
        return composed(value)
    if value is None or value != value:
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def encode(table: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Encodes the columns of a table, each (N,), by the record of a fitted preprocessor.

    Returns:
      "numeric" float32, "missing" uint8 and "categories" int32, each (N, columns); with texts, "ngrams" uint8 (N,
      n-grams).
    """
    rows = len(next(iter(table.values())))
    columns = {composed(name): column for name, column in table.items()}
    for name, format in record["dates"].items():
        columns |= date_parts(columns[name], name, format)
    scaled = np.empty((rows, len(record["numeric"])), np.float32)
    missing = []
    for index, column in enumerate(record["numeric"]):
        values = to_numbers(columns[column["name"]], record["decimal"])
        scaled[:, index] = standardized(values, column["mean"], column["scale"])
        if column["flagged"]:
            missing.append(np.isnan(values))
    words = [indices(columns[name], known) for name, known in record["categories"].items()]
    present = [occurrences(columns[name], known) for name, known in record["texts"].items()]
    return {
        "numeric": scaled,
        "missing": _stacked_columns(rows, np.uint8, missing),
        "categories": _stacked_columns(rows, np.int32, words),
        **({"ngrams": np.concatenate(present, axis=1)} if present else {}),
    }


def standardized(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """Standardizes float64 (N,) and clips it smoothly to float32 between -5 and 5; NaN becomes 0, the mean."""
    # Clipped first, so that differences and quotients are finite.
    distance = (np.clip(values, -1e100, 1e100) - mean) * scale
    return np.nan_to_num(distance / np.hypot(1.0, distance / 5.0)).astype(np.float32)


def occurrences(column: Any, known: Sequence[str | None]) -> np.ndarray:
    """Which n-grams occur in each text, uint8 (N, len(known)); None never does."""
    index_of = {ngram: index for index, ngram in enumerate(known)}
    present = np.zeros((len(column), len(known)), np.uint8)
    for row, text in enumerate(column):
        present[row, [index_of[ngram] for ngram in ngrams(as_word(text)) & index_of.keys()]] = 1
    return present


def unfamiliar(table: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Says which columns hold other values than those that the preprocessor was fitted on, one line each."""
    columns = {composed(name): column for name, column in table.items()}
    dates = {name: f"no dates ({format})" for name, format in record["dates"].items()}
    numeric = {column["name"]: "no numbers" for column in record["numeric"]}
    words = dict.fromkeys(record["categories"], "words that training rows do not have")
    lines = []
    for name, what in {**numeric, **dates, **words}.items():
        column = columns.get(name, ())
        values = np.asarray(column) if hasattr(column, "dtype") else np.array(column, object)
        if name in numeric:
            is_spelled = values.dtype == object
            values = values[np.isnan(to_numbers(values, record["decimal"])) if is_spelled else np.isinf(values)]
        distinct = collections.Counter(values.tolist())
        counts = {value: count for value, count in distinct.items() if not is_missing(as_word(value))}
        other = [*counts]
        if name in dates:
            other = [value for value in counts if date(as_word(value), record["dates"][name]) is None]
        elif name in words:
            known = indices(other, record["categories"][name])
            other = [value for value, index in zip(other, known, strict=True) if not index]
        count = sum(counts[value] for value in other)
        # A few new words are to be expected.
        if count > (sum(counts.values()) / 10 if name in words else 0):
            lines.append(
                f"column {name!r}: {count:,} of {len(column):,} rows hold {what}, such as {as_word(other[0])[:40]!r}; "
                f"they count as {'unknown' if name in words else 'missing'}"
            )
    return lines


def as_utf8(path: Path, content: bytes, separator: str | None = None) -> tuple[bytes, str]:
    """Returns the content of a CSV file in UTF-8, with a name for every column, and the separator of its values.

    UTF-16 and, with a warning, Windows-1252 are decoded. A byte order mark and Excel's line 'sep=;' are left out, and
    where the first line names all columns but the first one, as R writes row names, that gets the name ''. A separator
    that is not given is the one that divides the first rows into the most columns.

    Raises:
      ValueError: it is an Excel workbook, or not well-formed UTF-16.

    >>> as_utf8(Path("a.csv"), b"sep=;\\na;b\\n1;2\\n")
    (b'a;b\\n1;2\\n', ';')
    """
    if content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise ValueError("it is an Excel workbook or a zip archive; save it as CSV or Parquet, or unpack it")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16").encode()
    elif b"\0" in content[:2]:
        content = content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        # In pieces: the file may be large.
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(content) + 1, _PIECE):
            decoder.decode(content[start : start + _PIECE], final=start + _PIECE > len(content))
    except UnicodeDecodeError:
        # In UTF-8 with damaged bytes, most letters are well-formed. Windows-1252 has no letter for five bytes.
        well_formed = len(content.decode(errors="ignore")) - len(content.decode("ascii", "ignore"))
        damaged = content.decode(errors="replace").count("\N{REPLACEMENT CHARACTER}")
        if damaged > well_formed and not re.search(rb"[\x81\x8d\x8f\x90\x9d]", content):
            content = content.decode("cp1252").encode()
            _warn_of_windows(path)
    if stated := re.match(rb'"?sep=(.)"?\r?\n', content):
        content, separator = content[stated.end() :], separator or stated[1].decode(errors="replace")
    head = content[: 1 << 18].decode(errors="replace")
    first = {sign: _first_rows(head, sign) for sign in ([separator] if separator else [",", ";", "\t", "|"])}
    separator = max(first, key=lambda sign: _num_columns(first[sign]))
    header, *rows = first[separator] or [[]]
    is_named = any(len(row) != len(header) + 1 for row in rows) or len({row[0] for row in rows}) < len(rows)
    if rows and len(header) > 1 and not is_named and any(row[-1] for row in rows):
        content = b'""' + separator.encode() + content.lstrip()
    return content, separator


@functools.cache  # One line per file.
def _warn_of_windows(path: Path) -> None:
    logger.warning("%s: is not UTF-8 and is read as Windows-1252; if letters come out wrong, save it as UTF-8", path)


def csv_reader(text: str, separator: str, *, strict: bool = True) -> Any:
    """A reader of the rows of a CSV file, whose values may have any length."""
    csv.field_size_limit((1 << 31) - 1)
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=strict)


def _first_rows(head: str, separator: str) -> list[list[str]]:
    """The first rows of a file; the last one may be cut off."""
    try:
        rows = [*itertools.islice(filter(None, csv_reader(head, separator, strict=False)), 20)]
    except csv.Error:
        return []
    return rows[:-1] if len(rows) > 2 else rows


def _num_columns(rows: Sequence[Sequence[str]]) -> int:
    """The number of columns, 1 if the rows differ in it."""
    header = len(rows[0]) if rows else 1
    return header if all(len(row) in (header, header + 1) for row in rows) else 1


def _mapped(column: Any, function: Callable[[Any], Any]) -> list[Any]:
    """The function of each value, computed once for equal ones."""
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    known = {value: function(value) for value in {*values}}
    return [known[value] for value in values]


def _stacked_columns(rows: int, dtype: type, columns: list[np.ndarray]) -> np.ndarray:
    """Stacks columns to (rows, columns), also without any."""
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((rows, 0), dtype)
