"""CSV files: tables are read back as written; errors name the file and the row."""

import csv
import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import columns, tables


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.csv"


def _read(path, content, **options):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tables.read_csv(path, **options)


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,x\n,\n",
        b"\xef\xbb\xbfa,b\n1,x\n,\n",
        b"a,b\r\n1,x\r\n,\r\n",
        b"a,b\n\n1,x\n\n,",
        b'"a","b"\n"1","x"\n"",""\n',
        gzip.compress(b"a,b\n1,x\n,\n", mtime=0),
    ],
    ids=["plain", "byte order mark", "Windows", "empty lines", "quoted", "gzipped"],
)
def test_equivalent_files_give_the_same_table(path, content):
    table = _read(path, content)
    assert list(table) == ["a", "b"]
    np.testing.assert_array_equal(table["a"], [1.0, np.nan])
    assert table["a"].dtype == np.float64
    assert table["b"].tolist() == ["x", ""]


def test_quoted_values_may_contain_commas_quotes_and_newlines(path):
    assert _read(path, 'text,y\n"one,\n""two""\r\n\nthree",1\n')["text"].tolist() == ['one,\n"two"\r\n\nthree']


@pytest.mark.parametrize("word", columns.MISSING)
def test_missing_numbers_are_nan_in_every_spelling(path, word):
    np.testing.assert_array_equal(_read(path, f"a,b\n 1 ,2\n{word},3\n")["a"], [1.0, np.nan])


def test_spellings_of_missing_numbers_are_words_in_a_column_of_words(path):
    assert _read(path, "country,x\nNA,1\nDE,1\n,1\n")["country"].tolist() == ["NA", "DE", ""]


def test_text_columns_keep_leading_zeros(path):
    content = "id,a\n007,1\n00000000000000000000000000000123,2\n"
    assert _read(path, content, text=["id", "absent"])["id"].tolist() == ["007", "00000000000000000000000000000123"]
    assert _read(path, content)["id"].tolist() == [7.0, 123.0]


def test_a_column_with_one_late_word_is_text(path):
    rows = 20_000
    column = _read(path, "a,b\n" + "1,2\n" * rows + "x,2\n")["a"]
    assert column.dtype == object
    assert column[[0, rows]].tolist() == ["1", "x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n3\n", r"row 2 \(line 3\) has 1 values where there are 2 columns"),
        (b'a,b\n"1\n",2\n1,2,3\n', r"row 2 \(line 4\) has 3 values"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,\n0,\n0,2\n", "column 2 has no name"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "line 3 is not well-formed"),
        ("a,b\n\xe9,\xe9\n1,caf".encode() + b"\xe9\n", r"line 3 is not UTF-8 \(byte 0xe9\)"),
        (b"a,b\n1,x\n1,caf\x81\n", r"line 3 is not UTF-8 \(byte 0x81\)"),
        ("a,b\n1,x\n".encode("utf-16")[:-1], "'utf-16-le' codec can't decode"),
        (b"PK\3\4\x14\0", "it is an Excel workbook .*; save it as CSV or Parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "it is an Excel workbook"),
        (gzip.compress(b"a,b\n1,x\n", mtime=0)[:-9], "corrupt gzip"),
        (b"\x1f\x8bnot gzip", "corrupt gzip"),
    ],
)
def test_malformed_files_are_refused_with_file_and_row(path, content, message):
    with pytest.raises(InputError, match=rf"table.csv: .*{message}"):
        _read(path, content)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError, match=rf"{path.name}: cannot be read"):
            tables.read_csv(path)


def test_a_renamed_column_is_suggested(path):
    with pytest.raises(InputError, match=r"no column 'Class'\. Did you mean 'class'\? It has: V1, class\."):
        _read(path, "V1,class\n1,0\n", required=["V1", "Class"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("1\nx\n", "row 2 of column 'a' is 'x'"),
        ('1\n2\n""\n', "row 3 of column 'a' is empty"),
        ("inf\n2\n", "row 1 of column 'a' is inf"),
        ("1\nnan\nx\n", "row 2 of column 'a' is empty"),
    ],
)
def test_the_first_row_without_a_required_number_is_named(path, values, message):
    with pytest.raises(InputError, match=message):
        tables.numbers(_read(path, "a\n" + values), "a", path)


def test_numbers_are_float64(path):
    np.testing.assert_array_equal(tables.numbers(_read(path, "a\n1\n-2.5e3\n"), "a", path), [1.0, -2500.0])


@pytest.mark.parametrize("text", [(), ("a",)], ids=["numbers", "words"])
def test_missing_numbers_are_allowed_on_request(path, text):
    table = _read(path, "a,b\n1,0\nNA,0\n,0\n", text=text)
    np.testing.assert_array_equal(tables.numbers(table, "a", path, missing=True), [1.0, np.nan, np.nan])
    with pytest.raises(InputError, match="row 3 of column 'a' is 'x'"):
        tables.numbers(_read(path, "a\n1\nNA\nx\n", text=text), "a", path, missing=True)
    with pytest.raises(InputError, match=r"row 3 of column 'a' is .*inf"):
        tables.numbers(_read(path, "a\n1\nNA\n-inf\n", text=text), "a", path, missing=True)


_words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
_floats = st.floats(width=64)


@given(st.data(), st.integers(1, 6), st.sampled_from(["table.csv", "table.csv.gz"]))
def test_tables_are_read_back_as_written(path, data, rows, name):
    words = data.draw(st.lists(_words, min_size=rows, max_size=rows))
    floats = data.draw(st.lists(_floats, min_size=rows, max_size=rows))
    names = data.draw(st.lists(_words.filter(bool), min_size=2, max_size=2, unique=True))
    file = path.with_name(name)
    tables.write_csv(file, dict(zip(names, [words, np.array(floats)], strict=True)))
    table = tables.read(file, text=names[:1], separator=",").columns
    assert table[names[0]].tolist() == words
    np.testing.assert_array_equal(table[names[1]], floats)


@given(st.binary(max_size=60) | st.text(st.sampled_from('ab1,"\n\r ')).map(str.encode))
def test_any_bytes_are_a_table_or_an_input_error(path, content):
    try:
        path.write_bytes(content)
        table = tables.read(path, separator=",").columns
    except InputError:
        return
    # The standard library is the oracle.
    is_utf8 = content.decode(errors="ignore").encode() == content
    rows = [
        row for row in csv.reader(io.StringIO(content.decode("utf-8-sig" if is_utf8 else "cp1252"), newline="")) if row
    ]
    # An empty last column is skipped; the first may be an index without a name, which the header may leave out.
    index = [""] if len(rows[1]) == len(rows[0]) + 1 and rows[1][-1] else []
    assert list(table) == [*index, *(name for position, name in enumerate(rows[0]) if name or not position)]
    assert {len(column) for column in table.values()} == {len(rows) - 1}


@pytest.mark.parametrize(
    "content",
    [
        b"a;b\n1,5;x\n;\n",
        b"a\tb\n1,5\tx\n\t\n",
        b"a|b\n1.5|x\n|\n",
        b"sep=;\r\na;b\r\n1,5;x\r\n;\r\n",
        "a;b\n1,5;x\n;\n".encode("utf-16"),
        "a,b\n1.5,x\n,\n".encode("utf-16-le"),
        gzip.compress("a;b\n1,5;x\n;\n".encode("utf-16"), mtime=0),
    ],
    ids=["semicolons", "tabs", "bars", "Excel", "UTF-16", "UTF-16 without a mark", "gzipped"],
)  # fmt: skip
def test_separators_and_encodings_are_found(path, content):
    path.write_bytes(content)
    table = tables.read(path)
    assert table.columns["b"].tolist() == ["x", ""]
    values = columns.to_numbers(table.columns["a"], table.decimal)
    np.testing.assert_array_equal(values, [1.5, np.nan])


def test_windows_1252_is_read_with_one_line(tmp_path, caplog):
    path = tmp_path / "table.csv"
    path.write_bytes("pr\xe9nom,y\nZo\xeb,1\nSpa\xdf\u201c \u20ac,2\n".encode("cp1252"))
    for _ in range(2):
        assert tables.read(path).columns["pr\xe9nom"].tolist() == ["Zo\xeb", "Spa\xdf\u201c \u20ac"]
    assert [*caplog.messages] == [
        f"{path}: is not UTF-8 and is read as Windows-1252; if letters come out wrong, save it as UTF-8"
    ]


def test_a_separator_and_a_decimal_sign_may_be_given(path):
    path.write_text("a:b\n1,5:x\n")
    table = tables.read(path, separator=":", decimal=",").columns
    assert columns.to_numbers(table["a"], ",").tolist() == [1.5]


def test_a_value_may_be_long(path):
    long = "word " * 40_000 + '"'
    tables.write_csv(path, {"text": [long, "b"], "y": [1, 2]})
    assert tables.read_csv(path)["text"].tolist() == [long, "b"]


@pytest.mark.parametrize("content", ["a,b\nr1,1,x\nr2,2,y\n", ",a,b\nr1,1,x\nr2,2,y\n"], ids=["R", "pandas"])
def test_an_index_without_a_name_is_read(path, content):
    table = _read(path, content)
    assert table[""].tolist() == ["r1", "r2"]
    assert table["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("format", ["parquet", "feather"])
def test_parquet_and_feather_files_are_read_as_csv_is(tmp_path, format):
    import datetime

    import pyarrow
    from pyarrow import feather, parquet

    table = pyarrow.table(
        {
            "whole": pyarrow.array([1, None, 3]),
            "number": pyarrow.array([0.5, float("nan"), None]),
            "word": pyarrow.array(["007", None, "b"]).dictionary_encode(),
            "truth": pyarrow.array([True, False, None]),
            "day": pyarrow.array([datetime.date(2024, 1, 2), None, datetime.date(2024, 1, 3)]),
        }
    )
    path = tmp_path / "table"
    (parquet.write_table if format == "parquet" else feather.write_feather)(table, path)
    columns_ = tables.read(path).columns
    np.testing.assert_array_equal(columns_["whole"], [1, np.nan, 3])
    np.testing.assert_array_equal(columns_["number"], [0.5, np.nan, np.nan])
    assert columns_["word"].tolist() == ["007", "", "b"]
    assert columns_["truth"].tolist() == ["True", "False", ""]
    assert columns_["day"].tolist() == ["2024-01-02", "", "2024-01-03"]
    assert tables.read(path, text=("whole",)).columns["whole"].tolist() == ["1", "", "3"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as a table"):
        tables.read(path)


def test_a_url_gets_a_clear_answer():
    from pathlib import Path

    with pytest.raises(InputError, match=r"Download it first.* https://example\.com/rows\.csv"):
        tables.read(Path("https://example.com/rows.csv"))


@given(st.lists(st.text("0123456789.,-+eE_ %n\u0663", max_size=6) | st.floats().map(str)), st.sampled_from(".,"))
def test_a_value_is_the_same_number_alone_and_among_others(words, decimal):
    together = columns.to_numbers(np.array(words, object), decimal)
    np.testing.assert_array_equal(together, [columns.number(word, decimal) for word in words])
    assert not np.isinf(together).any()
