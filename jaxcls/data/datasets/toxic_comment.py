"""Toxic comments (Kaggle 2018, Jigsaw): Kaggle's CSV files, or the archive that TFDS registers."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, read_csv
from jaxcls.data.samples import toxic_comment as sample

# toxic, severe_toxic, obscene, threat, insult, identity_hate.
LABELS = sample.LABELS
# The names of TFDS, and of later data sets.
RENAMED = {"toxicity": "toxic", "severe_toxicity": "severe_toxic", "identity_attack": "identity_hate"}
FILES = ("train.csv", "test.csv", "test_labels.csv")
TFDS_NAME = "wikipedia_toxicity_subtypes"
TFDS_FILES = ("wikidata_train.csv", "wikidata_test.csv")
NEEDS = (
    f"Set data_dir to a folder with {', '.join(FILES)} of Kaggle's jigsaw-toxic-comment-classification-challenge, "
    "unpacked, or source to sample."
)


def load(source: str, data_dir: str | Path | None) -> Dataset:
    """Loads all training comments and the scored test comments."""
    others = {"tfds": _from_tfds}
    return sources.load("toxic_comment", source, data_dir, _read_folder, NEEDS, sample.write, others)


def read_unlabeled(path: Path) -> Unlabeled:
    """Reads comments to predict, from a file such as Kaggle's test.csv."""
    table = _read(path)
    return Unlabeled(table["id"], table["comment_text"])


def _read_folder(folder: Path) -> Dataset:
    train_path, test_path, labels_path = paths = sources.require_files(folder, FILES, NEEDS)
    train = _labeled(train_path)
    user_tables.check_varied(train.labels, LABELS, train_path)
    test, answers = _read(test_path), _read(labels_path, ("id",))
    labels = _labels(answers, labels_path, allowed=(0, 1, -1))
    unknown = labels == -1
    for row in np.flatnonzero(unknown.any(axis=1) & ~unknown.all(axis=1))[:1]:
        raise InputError(f"{labels_path}: row {row + 1} is -1 in some columns; a row is scored in all or in none.")
    if unknown.all():
        raise InputError(f"{labels_path}: all labels are -1, so no row can be scored; Kaggle added the labels later.")
    labels = labels[user_tables.match_ids(test["id"], answers["id"], test_path, labels_path)]
    scored = labels[:, 0] >= 0
    note = f"{scored.sum():,} of {len(scored):,} test rows are scored, the labels of the others are -1"
    record = Provenance("files", str(folder), sources.checksums(paths), note=note)
    return Dataset("toxic_comment", train, Split(test["comment_text"][scored], labels[scored]), LABELS, record)


def _from_tfds() -> Dataset:
    archive, digest = sources.fetch_archive(TFDS_NAME, "_v0.3.zip")
    folder = environment.cache_directory() / "unpacked" / f"{TFDS_NAME}-{digest[:12]}"
    sources.write_once(folder, lambda empty: _unpack(archive, empty))
    train, test = (_labeled(folder / name) for name in TFDS_FILES)
    user_tables.check_varied(train.labels, LABELS, folder / TFDS_FILES[0])
    note = f"TFDS {TFDS_NAME}, SHA-256 verified; holds the scored test rows only"
    record = Provenance("tfds", str(archive.parent), {archive.name: digest}, note=note)
    return Dataset("toxic_comment", train, test, LABELS, record)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as members:
            for name in TFDS_FILES:
                members.extract(name, folder)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{archive}: not the archive that TFDS registers ({error}).") from error


def _labeled(path: Path) -> Split:
    table = _read(path)
    return Split(table["comment_text"], _labels(table, path, allowed=(0, 1)))


def _read(path: Path, required: Sequence[str] = ("id", "comment_text")) -> Table:
    table = read_csv(path, required=required, text=("id", "comment_text"))
    user_tables.check_unique(table["id"], "id", path)
    return {RENAMED.get(name, name): column for name, column in table.items()}


def _labels(table: Table, path: Path, *, allowed: tuple[int, ...]) -> np.ndarray:
    """The labels in the order of LABELS, float32 (N, 6)."""
    columns = [user_tables.coded_numbers(table, name, path, allowed) for name in LABELS]
    return np.stack(columns, axis=1).astype(np.float32)
