"""Film reviews: aclImdb as folders and as an archive, Kaggle's file, the sample, and errors."""

import tarfile
import types

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data import sources, splits
from jaxcls.data.datasets import sentiment
from jaxcls.data.formats import tables
from jaxcls.data.sources import AbsentError, checksums

SENTENCES = sentiment.load_sample(0.5).train.take(np.arange(40))
COUNT = 4


@pytest.fixture
def folder(tmp_path):
    """The layout of aclImdb: one review per file, named by its number and stars, and lists of addresses."""
    root = tmp_path / "aclImdb"
    reviews = iter(SENTENCES.inputs)
    for name, stars in (("train/neg", 1), ("train/pos", 9), ("test/neg", 3), ("test/pos", 8), ("train/unsup", 0)):
        (root / name).mkdir(parents=True)
        for number in range(COUNT):
            review = f"{next(reviews)}<br /><br />{name}"
            (root / name / f"{number}_{stars}.txt").write_text(review, encoding="utf-8")
        (root / f"{name.replace('/', '_')}_urls.txt").write_text("http://example.org")
    return tmp_path


@pytest.fixture
def archive(folder):
    path = folder / sentiment.ARCHIVE
    with tarfile.open(path, "w:gz") as file:
        file.add(folder / "aclImdb", "aclImdb")
    return path


@pytest.fixture
def kaggle(tmp_path):
    path = tmp_path / sentiment.KAGGLE
    words = np.array(sentiment.CLASS_NAMES, object)[SENTENCES.labels]
    tables.write_csv(path, {"review": SENTENCES.inputs, "sentiment": words})
    return path


def load(folder, source="auto"):
    return sentiment.load(source, folder, test_fraction=0.2)


def test_reviews_without_a_label_are_not_used(folder):
    data = load(folder)
    texts = [*data.train.inputs, *data.test.inputs]
    assert len(texts) == 4 * COUNT
    assert not any("unsup" in text for text in texts)
    assert load(folder / "aclImdb").train.inputs.tolist() == data.train.inputs.tolist()
    for name, part in (("train", data.train), ("test", data.test)):
        assert [text.endswith(f"{name}/pos") for text in part.inputs] == part.labels.astype(bool).tolist()
        assert part.labels.dtype == np.int32


def test_files_sorted_by_class_are_split_by_class(folder):
    data = load(folder)
    assert (np.diff(data.train.labels) >= 0).all()
    for rows in splits.stratified(data.train, 0.25, seed=0):
        assert data.train.labels[rows].mean() == 0.5


def test_the_archive_equals_its_folders(folder, archive):
    unpacked = load(folder)
    (folder / "aclImdb").rename(folder / "elsewhere")
    packed = load(folder)
    assert packed.train.inputs.tolist() == unpacked.train.inputs.tolist()
    assert packed.provenance.sha256 == unpacked.provenance.sha256
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(InputError, match="truncated"):
        load(folder)


def test_tfds_archive_is_verified(archive, monkeypatch):
    (digest,) = checksums([archive]).values()
    url = f"http://example.org/{sentiment.ARCHIVE}"
    registered = {url: types.SimpleNamespace(checksum=digest)}
    monkeypatch.setattr(sources, "registered", lambda name: registered)
    monkeypatch.setattr(sources, "fetch", lambda name, urls, known: (archive.parent, {sentiment.ARCHIVE: archive}))
    data = load(None, "tfds")
    assert (data.provenance.source, len(data.train.labels), len(data.test.labels)) == ("tfds", 2 * COUNT, 2 * COUNT)
    registered[url].checksum = "0" * 64
    with pytest.raises(InputError, match="SHA-256 is not the registered one"):
        load(None, "tfds")


def test_tfds_registers_the_archive(monkeypatch):
    def fetch(name, urls, registered):
        assert name == "imdb_reviews"
        assert registered[urls[sentiment.ARCHIVE]].size == 84125825
        raise AbsentError("no network in a test")

    monkeypatch.setattr(sources, "fetch", fetch)
    with pytest.raises(InputError, match="no network in a test"):
        load(None, "tfds")


def test_kaggles_file_is_always_split_the_same_way(kaggle):
    data = load(kaggle.parent)
    assert len(data.test.labels) == 8
    assert abs(data.test.labels.mean() - SENTENCES.labels.mean()) < 0.1
    assert sorted([*data.train.inputs, *data.test.inputs]) == sorted(SENTENCES.inputs)
    assert load(kaggle.parent).test.inputs.tolist() == data.test.inputs.tolist()
    truth = dict(zip(SENTENCES.inputs, SENTENCES.labels, strict=True))
    assert [truth[text] for text in data.test.inputs] == data.test.labels.tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"], "sentiment": ["positive", "negative"]}, "has no column 'review'"),
        ({"review": ["a", "b"], "sentiment": ["positive", "Negative"]}, "row 2 of column 'sentiment' is 'Negative'"),
        ({"review": ["a", "b"], "sentiment": [1, -1]}, "row 1 of column 'sentiment' is '1'"),
        ({"review": ["a", ""], "sentiment": ["positive", "negative"]}, "row 2 of column 'review' is ''"),
        (
            {"review": ["a", "b"], "sentiment": ["positive", "positive"]},
            "column 'sentiment' is 'positive' in every row",
        ),
    ],
)
def test_an_invalid_table_is_rejected(kaggle, columns, message):
    tables.write_csv(kaggle, columns)
    with pytest.raises(InputError, match=f"IMDB Dataset.csv.*{message}"):
        load(kaggle.parent)


def test_invalid_folders_are_rejected(folder, tmp_path):
    (folder / "aclImdb" / "test" / "pos" / "0_8.txt").write_bytes(b"na\xefve")
    with pytest.raises(InputError, match=r"0_8\.txt: line 1 is not UTF-8"):
        load(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds none of aclImdb, aclImdb_v1\.tar\.gz and 'IMDB Dataset\.csv'"):
        load(tmp_path / "empty")


def test_the_sample_has_real_sentences_without_neutral_ones():
    data = load(None, "sample")
    assert (len(data.train.labels), len(data.test.labels)) == (8454, 2114)
    assert "37 rated 0 are dropped" in data.provenance.note
    assert not data.provenance.synthetic
    assert abs(data.train.labels.mean() - data.test.labels.mean()) < 1e-3
    assert data.test.inputs.tolist() != sentiment.load_sample(0.2, seed=1).test.inputs.tolist()


def test_lines_and_tables_are_read_to_predict(tmp_path):
    lines = tmp_path / "reviews.txt"
    lines.write_text("Good.\nBad, bad.\n")
    rows = sentiment.read_unlabeled(lines)
    assert list(zip(rows.ids, rows.inputs, strict=True)) == [("1", "Good."), ("2", "Bad, bad.")]
    path = tmp_path / "reviews.csv"
    tables.write_csv(path, {"id": ["007", "8"], "text": ["12", "Bad, bad."]})
    rows = sentiment.read_unlabeled(path)
    assert list(zip(rows.ids, rows.inputs, strict=True)) == [("007", "12"), ("8", "Bad, bad.")]
    tables.write_csv(path, {"id": ["007", "8"], "body": ["12", "Bad, bad."]})
    with pytest.raises(InputError, match="has no column 'review'"):
        sentiment.read_unlabeled(path)
