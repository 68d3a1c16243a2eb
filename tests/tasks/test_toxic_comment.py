"""Toxic comments: Kaggle's four files, TFDS's archive, and errors."""

import csv
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.data import duplicates, sources
from jaxcls.data.datasets import kaggle_tables
from jaxcls.data.samples import toxic_comment as sample
from jaxcls.data.sources import checksums

TRAIN, TEST = 300, 60


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_rows(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.fixture
def kaggle(tmp_path):
    folder = tmp_path / "kaggle"
    folder.mkdir()
    sample.write(folder, train_rows=TRAIN, test_rows=TEST)
    return folder


def load(folder):
    return kaggle_tables.load_toxic_comment("auto", folder)


def assert_same(ours, theirs):
    for part, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert part.inputs.tolist() == other.inputs.tolist()
        np.testing.assert_array_equal(part.labels, other.labels)


def test_rows_with_the_label_minus_one_are_not_scored(kaggle):
    data = load(kaggle)
    labels = {name: [int(label) for label in row] for name, *row in rows_of(kaggle / "test_labels.csv")[1:]}
    scored = [(text, labels[name]) for name, text in rows_of(kaggle / "test.csv")[1:] if -1 not in labels[name]]
    assert len(data.train.labels) == TRAIN
    assert 0 < len(scored) < TEST / 2
    assert data.test.inputs.tolist() == [text for text, _ in scored]
    np.testing.assert_array_equal(data.test.labels, [label for _, label in scored])
    assert data.test.labels.dtype == np.float32
    assert f"{len(scored)} of {TEST} test rows are scored" in data.provenance.note


def test_comments_and_ids_are_read_verbatim(kaggle):
    # As numbers, several of these ids are 0 and several are infinity.
    rows = rows_of(kaggle / "test.csv")[1:]
    rows[1] = ["0000000000000000", 'She said "no", twice.\n\n\n,,\t\u00e9\U0001f642 ']
    write_rows(kaggle / "test.csv", [["id", "comment_text"], *rows])
    comments = kaggle_tables.read_unlabeled_toxic_comment(kaggle / "test.csv")
    assert list(zip(comments.ids, comments.inputs, strict=True)) == [tuple(row) for row in rows]
    train = rows_of(kaggle / "train.csv")[1:]
    assert {"0000e12345678901", "0000e98765432109"} <= {name for name, *_ in [*rows, *train]}
    texts = [text for _, text, *_ in train]
    assert any("\n" in text for text in texts)
    assert any('"' in text for text in texts)
    assert any(not text.isascii() for text in texts)
    assert (kaggle / "train.csv").read_text(encoding="utf-8").startswith('"id","comment_text","toxic",')


def test_the_columns_of_a_submission_are_in_the_order_of_the_labels(kaggle):
    data = load(kaggle)
    assert rows_of(kaggle / "sample_submission.csv")[0] == ["id", *data.class_names]


@given(rng=st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_of_columns_matters(tmp_path_factory, rng):
    folder, shuffled = (tmp_path_factory.mktemp("files") for _ in range(2))
    sample.write(folder, train_rows=60, test_rows=20)
    for name in kaggle_tables.TOXIC_FILES:
        rows = rows_of(folder / name)
        columns = rng.sample(range(len(rows[0])), len(rows[0]))
        order = rng.sample(rows[1:], len(rows) - 1) if name == "test_labels.csv" else rows[1:]
        write_rows(shuffled / name, [[row[column] for column in columns] for row in [rows[0], *order]])
    assert_same(load(shuffled), load(folder))


def archive_of(kaggle, path):
    """Writes TFDS's archive: the scored rows with their labels, and a language column."""
    labels = {name: row for name, *row in rows_of(kaggle / "test_labels.csv")}
    test = [[*row, *labels[row[0]]] for row in rows_of(kaggle / "test.csv") if "-1" not in labels[row[0]]]
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in (("train", rows_of(kaggle / "train.csv")), ("test", test)):
            write_rows(kaggle / "with_language.csv", [[*row, "lang" if row[0] == "id" else "en"] for row in rows])
            archive.write(kaggle / "with_language.csv", f"wikidata_{name}.csv")
    return path


@pytest.fixture
def from_tfds(tmp_path, monkeypatch):
    """Loads an archive as if TFDS had fetched it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def load_archive(archive, checksum=None):
        checksum = checksum or checksums([archive])[archive.name]
        registered = {"https://host/toxicity_v0.3.zip": types.SimpleNamespace(checksum=checksum)}
        monkeypatch.setattr(sources, "registered", lambda name: registered)
        monkeypatch.setattr(sources, "fetch", lambda name, urls, infos: (archive.parent, {next(iter(urls)): archive}))
        return kaggle_tables.load_toxic_comment("tfds", None)

    return load_archive


def test_tfds_registers_the_archive():
    registered = sources.registered("wikipedia_toxicity_subtypes")
    assert [url for url in registered if url.endswith("_v0.3.zip")]


def test_the_archive_of_tfds_has_the_same_data(kaggle, tmp_path, from_tfds):
    data = from_tfds(archive_of(kaggle, tmp_path / "toxic.zip"))
    assert_same(data, load(kaggle))
    assert data.provenance.source == "tfds"


def test_labels_may_have_their_tfds_names(kaggle):
    expected = load(kaggle)
    theirs = {ours: name for name, ours in kaggle_tables.TOXIC_LABELS_RENAMED.items()}
    for name in ("train.csv", "test_labels.csv"):
        rows = rows_of(kaggle / name)
        write_rows(kaggle / name, [[theirs.get(column, column) for column in rows[0]], *rows[1:]])
    data = load(kaggle)
    assert_same(data, expected)
    assert data.class_names == expected.class_names


def test_a_damaged_archive_of_tfds_is_rejected(kaggle, tmp_path, from_tfds):
    archive = archive_of(kaggle, tmp_path / "toxic.zip")
    with pytest.raises(InputError, match=r"toxic.zip: its SHA-256 is not the registered one"):
        from_tfds(archive, checksum="0" * 64)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"toxic.zip: not the archive that TFDS registers"):
        from_tfds(archive)
    assert not list((tmp_path / "cache" / "jaxcls" / "unpacked").iterdir())


def test_the_synthetic_sample_has_the_label_rates_of_the_real_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = kaggle_tables.load_toxic_comment("sample", None)
    assert data.provenance.synthetic
    rates = dict(zip(data.class_names, data.train.labels.mean(axis=0), strict=True))
    # Of Kaggle's 159,571 training rows.
    real = {
        "toxic": 0.0958, "severe_toxic": 0.0100, "obscene": 0.0529, "threat": 0.0030, "insult": 0.0494,
        "identity_hate": 0.0088,
    }  # fmt: skip
    assert rates == pytest.approx(real, rel=0.4)
    assert not np.any(data.train.labels[:, 1:].max(axis=1) > data.train.labels[:, 0])
    assert len(data.test.labels) / 4000 == pytest.approx(63_978 / 153_164, abs=0.001)
    assert np.all(data.test.labels.sum(axis=0) >= 2)
    assert 0 < duplicates.shared(data.train.inputs, data.test.inputs) < 20


def drop_column(name):
    def change(rows):
        column = rows[0].index(name)
        for row in rows:
            del row[column]

    return change


def put(row, name, value):
    """Edits a value; row 1 is the first below the header."""

    def change(rows):
        rows[row][rows[0].index(name)] = value

    return change


def put_everywhere(names, value):
    def change(rows):
        for row in range(1, len(rows)):
            for name in names:
                put(row, name, value)(rows)

    return change


def repeat_id(rows):
    rows[5][0] = rows[2][0]


def rename(old, new):
    return put(0, old, new)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train.csv", drop_column("threat"), "train.csv: has no column 'threat'"),
        ("train.csv", rename("comment_text", "comment"), "has no column .comment_text.*Did you mean .comment."),
        ("train.csv", rename("id", "ID"), "train.csv: has no column 'id'"),
        ("train.csv", put(7, "insult", "2"), "train.csv: row 7 of column 'insult' is '2', but must be one of 0, 1"),
        ("train.csv", put(7, "insult", "-1"), "train.csv: row 7 of column 'insult' is '-1'"),
        ("train.csv", put(7, "insult", ""), "train.csv: row 7 of column 'insult' is empty"),
        ("train.csv", put(7, "insult", "nan"), "train.csv: row 7 of column 'insult' is empty"),
        ("train.csv", put(7, "insult", "yes"), "train.csv: row 7 of column 'insult' is 'yes'"),
        ("train.csv", repeat_id, "train.csv: row 5 of column 'id' is '.*', the same as row 2"),
        ("train.csv", put(3, "id", ""), "train.csv: row 3 of column 'id' is empty"),
        ("train.csv", put_everywhere(["threat"], "0"), "train.csv: column 'threat' is 0 in every row"),
        ("train.csv", lambda rows: rows.__delitem__(slice(1, None)), "train.csv: .*no rows"),
        ("train.csv", lambda rows: rows[9].pop(), "train.csv: row 9 .*7 .*8 columns"),
        ("test_labels.csv", lambda rows: rows.pop(4), "test.csv: row 4 has the id .*which .*test_labels.csv does"),
        ("test.csv", lambda rows: rows.pop(4), "test_labels.csv: row 4 has the id '.*', which .*test.csv does not"),
        ("test_labels.csv", repeat_id, "test_labels.csv: row 5 of column 'id' is '.*', the same as row 2"),
        ("test.csv", repeat_id, "test.csv: row 5 of column 'id' is '.*', the same as row 2"),
        ("test_labels.csv", put(8, "toxic", "0.5"), "row 8 of column .toxic. is '0.5', but must be one of 0, 1, -1"),
        ("test_labels.csv", put_everywhere(["toxic"], "-1"), "test_labels.csv: row .* is -1 in some columns"),
        ("test_labels.csv", put_everywhere(sample.LABELS, "-1"), "test_labels.csv: all labels are -1"),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_the_row(kaggle, file, change, message):
    rows = rows_of(kaggle / file)
    change(rows)
    write_rows(kaggle / file, rows)
    with pytest.raises(InputError, match=message):
        load(kaggle)


def test_another_encoding_is_rejected_with_the_line(kaggle):
    text = (kaggle / "train.csv").read_text(encoding="utf-8")
    (kaggle / "train.csv").write_bytes(text.encode("cp1251", "replace").replace(b"?", b"\x81"))
    with pytest.raises(InputError, match=r"train.csv: line \d+ is not UTF-8"):
        load(kaggle)


def test_missing_files_are_named(kaggle):
    (kaggle / "test_labels.csv").unlink()
    with pytest.raises(InputError, match=r"does not hold test_labels.csv\. Set data_dir .*unpacked"):
        load(kaggle)
