"""Sentiment of film reviews: IMDB's 50,000 reviews (Maas et al. 2011), or sentences of reviews as a sample.

    python -m jaxcls.train --task sentiment
    python -m jaxcls.train --task sentiment --data-dir FOLDER    # aclImdb, or with Kaggle's "IMDB Dataset.csv"

Traps: the folder train/unsup holds reviews without a label (TFDS gives them -1), which are not used. Files lie class by
class on the disk, so whoever does not shuffle sees one class first; here every cut and every epoch does. Reviews hold
raw HTML breaks, which the tokenizer reads as spaces. Kaggle's file has no test part: one is cut from it, the same for
every seed. A transformer takes memory with the square of the length: give it --max-length 256 or so.
"""

import functools
import gzip
import hashlib
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import downloads, sources, splits
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv, require
from jaxcls.data.formats.texts import read_archive, read_folders, read_lines
from jaxcls.models import text
from jaxcls.tasks import texts, user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

Source = Literal["files", "tfds"]

CLASS_NAMES = ("negative", "positive")
FOLDERS = ("train/neg", "train/pos", "test/neg", "test/pos")
ARCHIVE = "aclImdb_v1.tar.gz"
KAGGLE = "IMDB Dataset.csv"
NEEDS = f"Give --data-dir the folder aclImdb, or one with it, {ARCHIVE} or Kaggle's {KAGGLE!r}; or use --source sample."

DEFAULT = Settings(
    model="ngrams",
    epochs=10,
    batch_size=128,
    dropout=0.0,
    loss="binary_crossentropy",
    # See toxic_comment, whose loss is the mean of six labels.
    optimizer="sgd",
    momentum=0.9,
    learning_rate=20.0,
    schedule="cosine",
    # Small, so that tokens are pieces of words and n-grams of them are whole ones.
    vocabulary_size=1200,
    max_length=1024,
    test_fraction=0.2,
    validation_fraction=0.05,
    monitor="accuracy",
    # The rate ends at zero, so the last epoch is the one to keep.
    restore_best=False,
)


def load(settings: Settings) -> Dataset:
    """The reviews with a label."""
    test_fraction = user_data.required(settings, "test_fraction")
    return sources.load(
        "sentiment",
        settings.source,
        settings.data_dir,
        read=functools.partial(_from_folder, test_fraction=test_fraction),
        others={"tfds": _from_tfds, "sample": lambda: from_sample(test_fraction)},
        needs=NEEDS,
    )


def read(path: Path, settings: Settings) -> Unlabeled:
    """The texts of a CSV file (its column review or text), or the lines of any other file."""
    if path.suffix not in (".csv", ".gz"):
        lines = read_lines(path)
        return Unlabeled(_numbered(len(lines)), lines)
    table = read_csv(path, text={"review", "text", "id"})
    name = next((column for column in ("review", "text") if column in table), "review")
    require(table, name, path)
    return Unlabeled(table.get("id", _numbered(len(table[name]))), table[name])


def from_sample(test_fraction: float, *, seed: int = 0) -> Dataset:
    """The sentences in the package, with the sign of their mean rating as the label.

    Args:
      test_fraction: the share of each class that is set aside for the test.
      seed: which ones.
    """
    with resources.as_file(resources.files("jaxcls.data.samples") / "sentiment") as folder:
        path = folder / "sentences.csv.gz"
        digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        if digest not in (folder / "SHA256SUMS").read_text(encoding="utf-8"):
            raise InputError(f"{path}: its SHA-256 is not the one in SHA256SUMS. Install jaxcls again.")
        table = read_csv(path, required=("text", "rating"), text=("text",))
        ratings = numbers(table, "rating", path)
    decided = ratings != 0
    labels = (ratings > 0).astype(np.int32)
    dropped = len(ratings) - int(decided.sum())
    note = f"sentences of film reviews and their mean rating by readers; {dropped} rated 0 are dropped"
    location = "jaxcls/data/samples/sentiment"
    record = Provenance("sample", location, {"sentences.csv": digest}, synthetic=False, note=note)
    return _divided(Split(table["text"], labels).take(decided), test_fraction, seed, record)


def _from_folder(folder: Path, test_fraction: float) -> Dataset:
    for root in (folder, folder / "aclImdb"):
        if (root / "train").is_dir():
            return _of_folders(
                read_folders(root, FOLDERS, inside=folder), "files", root, "the reviews with a label of aclImdb"
            )
    if (folder / ARCHIVE).is_file():
        return _from_archive(files.inside(folder, folder / ARCHIVE), "files", "the reviews with a label")
    path = folder / KAGGLE
    if not path.is_file():
        raise InputError(f"{folder} holds none of aclImdb, {ARCHIVE} and {KAGGLE!r}. {NEEDS}")
    part = _labelled(
        read_csv(files.inside(folder, path), required=("review", "sentiment"), text=("review", "sentiment")), path
    )
    note = f"test rows are {test_fraction:.0%} of each class"
    record = Provenance("files", str(folder), sources.checksums([path]), synthetic=False, note=note)
    return _divided(part, test_fraction, 0, record)


def _from_tfds() -> Dataset:
    registered = downloads.registered("imdb_reviews")
    url = next(url for url in registered if url.endswith(ARCHIVE))
    _, fetched = downloads.fetch("imdb_reviews", {ARCHIVE: url}, registered)
    # TFDS verifies what it downloads, and not what it finds in its cache.
    (digest,) = sources.checksums([fetched[ARCHIVE]]).values()
    if digest != registered[url].checksum:
        raise InputError(f"{fetched[ARCHIVE]}: its SHA-256 is not the registered one. Delete it and run again.")
    return _from_archive(fetched[ARCHIVE], "tfds", "TFDS imdb_reviews, SHA-256 verified")


def _from_archive(path: Path, source: Source, note: str) -> Dataset:
    members = read_archive(path, [f"aclImdb/{folder}" for folder in FOLDERS])
    return _of_folders({name.removeprefix("aclImdb/"): members[name] for name in members}, source, path, note)


def _of_folders(folders: dict[str, np.ndarray], source: Source, location: Path, note: str) -> Dataset:
    def part(name: str) -> Split:
        classes = [folders[f"{name}/neg"], folders[f"{name}/pos"]]
        labels = np.repeat(np.arange(2, dtype=np.int32), [len(reviews) for reviews in classes])
        return Split(np.concatenate(classes), labels)

    # One checksum a folder: one a file would be 50,000.
    sha256 = {name: hashlib.sha256("\0".join(reviews).encode()).hexdigest() for name, reviews in folders.items()}
    record = Provenance(source, str(location), sha256, synthetic=False, note=note)
    return Dataset("sentiment", part("train"), part("test"), CLASS_NAMES, record)


def _labelled(table: Table, path: Path) -> Split:
    for name, right in (("review", "a text"), ("sentiment", "positive or negative")):
        for row, value in enumerate(table[name], 1):
            if not value or (name == "sentiment" and value not in CLASS_NAMES):
                raise InputError(f"{path}: row {row} of column {name!r} is {value!r}; it should be {right}.")
    for name in CLASS_NAMES:
        if name not in table["sentiment"]:
            raise InputError(f"{path}: no row is {name}; it takes both classes to tell them apart.")
    return Split(table["review"], (table["sentiment"] == "positive").astype(np.int32))


def _divided(part: Split, test_fraction: float, seed: int, record: Provenance) -> Dataset:
    train, test = (part.take(rows) for rows in splits.stratified(part, test_fraction, seed=seed))
    return Dataset("sentiment", train, test, CLASS_NAMES, record)


def _numbered(count: int) -> np.ndarray:
    return np.array([str(row) for row in range(1, count + 1)], object)


TASK = Task(
    name="sentiment",
    summary="film reviews, negative or positive",
    problem="binary",
    load=load,
    read=read,
    fit_preprocessor=texts.fit_preprocessor,
    models={
        "ngrams": functools.partial(text.NGrams, buckets=1 << 20),
        "cnn": text.CNN,
        "transformer": text.Transformer,
    },
    presets={"default": Preset(DEFAULT)},
    metrics=["accuracy", "roc_auc"],
    specialize=texts.specialize,
)
