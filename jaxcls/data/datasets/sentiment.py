"""Film reviews: IMDB (Maas et al. 2011) as folders, an archive or Kaggle's table, or a sample of real sentences."""

import gzip
import hashlib
from importlib import resources
from pathlib import Path

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import numbers, read_csv, require
from jaxcls.data.formats.texts import read_archive, read_folders, read_lines

CLASS_NAMES = ("negative", "positive")
FOLDERS = ("train/neg", "train/pos", "test/neg", "test/pos")
ARCHIVE = "aclImdb_v1.tar.gz"
KAGGLE = "IMDB Dataset.csv"
NEEDS = f"Set data_dir to the folder aclImdb, or to one with it, {ARCHIVE} or Kaggle's {KAGGLE!r}; or source to sample."


def load(source: str, data_dir: str | Path | None, *, test_fraction: float) -> Dataset:
    """Loads the labeled reviews; `test_fraction` is for the sources without a test split."""
    others: sources.Loaders = {"tfds": _from_tfds, "sample": lambda: load_sample(test_fraction)}
    return sources.load("sentiment", source, data_dir, _read, NEEDS, others=others, test_fraction=test_fraction)


def load_sample(test_fraction: float, *, seed: int = 0) -> Dataset:
    """Loads the sentences in the package, labeled by the sign of their mean rating.

    Args:
      test_fraction: the fraction of each class that is held out for testing.
      seed: of the test split.
    """
    with resources.as_file(resources.files("jaxcls.data.samples") / "sentiment") as folder:
        path = folder / "sentences.csv.gz"
        digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        sources.check_packaged(path, digest)
        table = read_csv(path, required=("text", "rating"), text=("text",))
        ratings = numbers(table, "rating", path)
    rated = ratings != 0
    note = f"sentences of film reviews and their mean rating by readers; {np.sum(~rated)} rated 0 are dropped"
    location = "jaxcls/data/samples/sentiment"
    record = Provenance("sample", location, {"sentences.csv": digest}, note=note)
    sentences = Split(table["text"], (ratings > 0).astype(np.int32)).take(rated)
    train, test = user_tables.hold_out_test(sentences, test_fraction, location, seed=seed)
    return Dataset("sentiment", train, test, CLASS_NAMES, record)


def read_unlabeled(path: Path) -> Unlabeled:
    """Reads texts to predict: the column review or text of a CSV file, or the lines of any other file."""
    if path.suffix not in (".csv", ".gz"):
        lines = read_lines(path)
        return Unlabeled(user_tables.row_ids({"text": lines}, None, path), lines)
    table = read_csv(path, text={"review", "text", "id"})
    name = "text" if "text" in table and "review" not in table else "review"
    require(table, name, path)
    ids = table["id"] if "id" in table else user_tables.row_ids(table, None, path)
    return Unlabeled(ids, table[name])


def _read(folder: Path, test_fraction: float) -> Dataset:
    for root in (folder, folder / "aclImdb"):
        if (root / "train").is_dir():
            return _from_reviews(read_folders(root, FOLDERS, inside=folder), root)
    if (folder / ARCHIVE).is_file():
        return _from_archive(files.inside(folder, folder / ARCHIVE))
    path = folder / KAGGLE
    if not path.is_file():
        raise InputError(f"{folder} holds none of aclImdb, {ARCHIVE} and {KAGGLE!r}. {NEEDS}")
    table = read_csv(files.inside(folder, path), required=("review",), text=("review", "sentiment"))
    user_tables.reject_first(table["review"] == "", table, "review", path, "but every row needs a text.")
    # Two classes at least, and no others.
    user_tables.infer_labels(table, ["sentiment"], path)
    labels = user_tables.encode_labels(CLASS_NAMES, table, ["sentiment"], path)
    train, test = user_tables.hold_out_test(Split(table["review"], labels), test_fraction, path)
    note = f"test rows are {test_fraction:.0%} of each class"
    record = Provenance("files", str(folder), sources.checksums([path]), note=note)
    return Dataset("sentiment", train, test, CLASS_NAMES, record)


def _from_tfds() -> Dataset:
    archive, _ = sources.fetch_archive("imdb_reviews", ARCHIVE)
    return sources.with_provenance(_from_archive(archive), note="TFDS imdb_reviews, SHA-256 verified")


def _from_archive(path: Path) -> Dataset:
    members = read_archive(path, [f"aclImdb/{folder}" for folder in FOLDERS])
    return _from_reviews({name.removeprefix("aclImdb/"): texts for name, texts in members.items()}, path)


def _from_reviews(reviews: dict[str, np.ndarray], location: Path) -> Dataset:
    def split(name: str) -> Split:
        classes = [reviews[f"{name}/neg"], reviews[f"{name}/pos"]]
        labels = np.repeat(np.arange(2, dtype=np.int32), [len(texts) for texts in classes])
        return Split(np.concatenate(classes), labels)

    # One checksum per folder, not for each of 50,000 files.
    sha256 = {name: hashlib.sha256("\0".join(texts).encode()).hexdigest() for name, texts in reviews.items()}
    record = Provenance("files", str(location), sha256, note="the labeled reviews of aclImdb")
    return Dataset("sentiment", split("train"), split("test"), CLASS_NAMES, record)
