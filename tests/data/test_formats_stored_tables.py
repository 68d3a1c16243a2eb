"""Tables on disk: the same values, splits and arrays as in memory, a few rows at a time."""

import os
import time

import jax
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from jaxcls._utils import array_cache, environment
from jaxcls._utils.errors import InputError
from jaxcls.data import duplicates
from jaxcls.data.formats import stored_tables, tables
from jaxcls.data.preprocessing import texts
from jaxcls.tasks import build
from jaxcls.training.settings import Settings

ROWS = 400
RNG = np.random.default_rng(0)
TABLE = {
    "size": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.normal(10, 3, ROWS)),
    "count": RNG.integers(0, 5, ROWS),
    "color": RNG.choice(["red", "green", "", "NA", "a,b"], ROWS),
    # One value, in a late block, is no number.
    "mixed": np.where(np.arange(ROWS) == 333, "none, really", RNG.integers(0, 30, ROWS).astype(str)),
    "day": [f"2024-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(ROWS)],
    "note": RNG.choice([f"a good word number {number}" for number in range(40)], ROWS),
    "is_new": RNG.random(ROWS) < 0.5,
    "kind": RNG.choice(["herb", "tree", "07"], ROWS),
}


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Reads files of every size a few rows at a time, and caches in an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tables, "LARGE_BYTES", 0)
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 2000)
    monkeypatch.setattr(stored_tables, "BLOCK_ROWS", 37)


def write(path, changes=None):
    table = TABLE | (changes or {})
    if path.suffix == ".parquet":
        columns = pyarrow.table({**table, "size": pyarrow.array(table["size"], from_pandas=True)})
        columns = columns.set_column(2, "color", columns["color"].dictionary_encode())
        parquet.write_table(columns, path, row_group_size=100)
    else:
        tables.write_csv(path, table)
        if path.suffix != ".gz":
            # As spreadsheets write it.
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("name", ["plants.csv", "plants.csv.gz", "plants.parquet"])
def test_columns_hold_the_same_values_as_in_memory(on_disk, tmp_path, name):
    write(tmp_path / name)
    stored = tables.read(tmp_path / name, text=["count"])
    read = tables.read(tmp_path / name, text=["count"], in_memory=True)
    assert isinstance(stored.columns, stored_tables.StoredTable)
    assert [*stored.columns] == [*read.columns]
    assert stored[1:] == read[1:]
    rows = np.flatnonzero(np.arange(ROWS) % 3)
    for name, column in read.columns.items():
        stored_column = stored.columns[name]
        assert (stored_column.dtype, len(stored_column)) == (column.dtype, ROWS)
        np.testing.assert_array_equal(np.asarray(stored_column), column)
        np.testing.assert_array_equal(np.asarray(stored_column.select(rows)), column[rows])
        if column.dtype == object:
            assert stored_tables.all_distinct(stored_column) == stored_tables.all_distinct(column)
        for mine, others in zip(stored_tables.distinct(stored_column), stored_tables.distinct(column), strict=True):
            np.testing.assert_array_equal(mine, others)


def test_a_run_gets_the_same_arrays_as_in_memory_and_the_next_one_computes_nothing(on_disk, tmp_path, monkeypatch):
    write(tmp_path / "plants.csv")
    task, settings = build.resolve(Settings(task="csv", data=tmp_path / "plants.csv", label_column=("kind",)))

    def read():
        lines = []
        data = build.preprocessed(task, settings, *build.load(task, settings, say=lines.append), say=lines.append)
        test = build.preprocess(data.preprocessor, data.splits.test)
        copies = duplicates.shared(data.splits.train.inputs, data.splits.test.inputs)
        # Without those of the clock.
        printed = [line for line in lines if not line.startswith(("reading", "preprocessing"))]
        return data.preprocessor, jax.tree.map(np.asarray, (data.train, test)), copies, printed

    stored = read()
    with monkeypatch.context() as context:
        context.setattr(stored_tables.StoredTable, "blocks", None)
        again = read()
    monkeypatch.setattr(tables, "LARGE_BYTES", 1 << 20)
    in_memory = read()
    for one in (stored, again):
        assert one[0] == in_memory[0]
        jax.tree.map(np.testing.assert_array_equal, one[1], in_memory[1])
        assert one[2:] == in_memory[2:]


def test_texts_get_the_same_tokens_as_in_memory(on_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_MOST_WORDS", 20)
    rows = [" ".join(RNG.choice(["so", "good", "a<br/>b", "\u00e9t\u00e9", "x" * 30], RNG.integers(0, 30)))
            for _ in range(ROWS)]  # fmt: skip
    tables.write_csv(tmp_path / "texts.csv", {"text": rows})
    stored = tables.read(tmp_path / "texts.csv", text=["text"]).columns["text"]
    in_memory = np.array(rows, object)
    fitted = [texts.fit(one, vocabulary_size=270, max_length=100) for one in (in_memory, stored, stored)]
    assert fitted[0] == fitted[1] == fitted[2]
    chosen = np.arange(1, ROWS, 2)
    expected = fitted[0].transform(in_memory)
    tokens = fitted[0].transform(stored)
    np.testing.assert_array_equal(tokens[chosen], expected[chosen])
    buckets = fitted[0].buckets
    np.testing.assert_array_equal(buckets.indices(tokens), buckets.indices(expected))
    size = buckets.sizes[0]
    np.testing.assert_array_equal(np.asarray(buckets.cut(tokens.select(chosen), size)), expected[chosen, : size[0]])
    assert duplicates.shared(stored.select(chosen), in_memory) == duplicates.shared(in_memory[chosen], in_memory)


def test_a_damaged_file_of_the_cache_is_computed_again(on_disk, tmp_path):
    # Blocks may be empty.
    shapes = [jax.ShapeDtypeStruct((3, 2), np.float32), jax.ShapeDtypeStruct((3, 0), np.uint8)]
    blocks = [[np.ones((2, 2), np.float32), np.zeros((2, 0), np.uint8)], [np.zeros((1, 2), np.float32)] * 1]

    def cached():
        return array_cache.cached_blocks("encoded", "key", shapes, lambda: iter(blocks))

    expected = [[1, 1], [1, 1], [0, 0]]
    assert cached()[0].tolist() == expected
    (file,) = (environment.cache_directory() / "encoded").iterdir()
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    # What processes left that were killed, and what another one writes now.
    for name, age in ((".old", 7200), (".new", 0)):
        (file.parent / name).touch()
        os.utime(file.parent / name, (0, time.time() - age))
    assert cached()[0].tolist() == expected
    assert cached()[1].shape == (3, 0)
    assert {path.name for path in file.parent.iterdir()} == {".new", file.name}


def test_a_row_with_too_many_values_is_shown(on_disk, tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 2000 + "1,2,3\n" + "1,2\n" * 2000)
    with pytest.raises(InputError, match=r"a\.csv: cannot be read as CSV.*Expected 2 columns, got 3: 1,2,3"):
        tables.read(tmp_path / "a.csv")


def test_of_many_rows_a_sample_is_fitted(monkeypatch):
    from jaxcls.data.preprocessing import tables as preprocessing

    monkeypatch.setattr(preprocessing, "_MOST_ROWS", 100)
    fitted = preprocessing.fit({"size": TABLE["size"], "color": np.array(TABLE["color"], object)})
    monkeypatch.undo()
    every = preprocessing.fit({"size": TABLE["size"], "color": np.array(TABLE["color"], object)})
    assert fitted.categories == every.categories
    assert fitted.numeric[0].mean == pytest.approx(every.numeric[0].mean, abs=1)
    assert fitted.numeric[0] != every.numeric[0]
