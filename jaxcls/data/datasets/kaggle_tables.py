"""Kaggle's tables: leaves of 99 species (2016), credit card payments (2015), and toxic comments (Jigsaw 2018).

The payments: Dal Pozzolo et al. 2015. TFDS has the comments too.
"""

import functools
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv
from jaxcls.data.samples import fraud, toxic_comment

LEAF_FEATURES = tuple(f"{name}{number}" for name in ("margin", "shape", "texture") for number in range(1, 65))
LEAF_SAMPLE = Path(__file__).parents[1] / "samples" / "leaf" / "train.csv.gz"
PAYMENT_COLUMNS = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
# toxic, severe_toxic, obscene, threat, insult, identity_hate.
TOXIC_LABELS = toxic_comment.LABELS
# The names of these labels in TFDS, and in later data sets.
TOXIC_LABELS_RENAMED = {"toxicity": "toxic", "severe_toxicity": "severe_toxic", "identity_attack": "identity_hate"}
TOXIC_FILES = ("train.csv", "test.csv", "test_labels.csv")
_TFDS_NAME = "wikipedia_toxicity_subtypes"
_TFDS_FILES = ("wikidata_train.csv", "wikidata_test.csv")
_LEAF_NEEDS = "Set data_dir to a folder with train.csv of Kaggle's leaf-classification, or source to sample."
_FRAUD_NEEDS = "Set data_dir to a folder with Kaggle's creditcard.csv, or source to sample."
_TOXIC_NEEDS = (
    "Set data_dir to a folder with train.csv, test.csv and test_labels.csv of Kaggle's "
    "jigsaw-toxic-comment-classification-challenge, unpacked, or source to sample."
)


def load_leaf(source: str, data_dir: str | Path | None, *, test_fraction: float) -> Dataset:
    """Loads Kaggle's leaves or the sample, of which a fraction of each species is the test split, whatever the seed."""
    others = {"sample": functools.partial(_leaf_sample, test_fraction)}
    return sources.load("leaf", source, data_dir, _read_leaf, _LEAF_NEEDS, others=others, test_fraction=test_fraction)


def load_fraud(source: str, data_dir: str | Path | None, *, test_fraction: float) -> Dataset:
    """Loads the payments in order of time without duplicates; the last ones are the test split."""
    return sources.load("fraud", source, data_dir, _read_fraud, _FRAUD_NEEDS, fraud.write, test_fraction=test_fraction)


def load_toxic_comment(source: str, data_dir: str | Path | None) -> Dataset:
    """Loads all training comments and the scored test comments."""
    others = {"tfds": _toxic_from_tfds}
    return sources.load("toxic_comment", source, data_dir, _read_toxic, _TOXIC_NEEDS, toxic_comment.write, others)


def read_unlabeled_leaf(path: Path, features: Iterable[str]) -> Unlabeled:
    """Reads leaves to predict, from a file such as Kaggle's test.csv, with these columns."""
    table = read_csv(path, text=("id",))
    return Unlabeled(user_tables.row_ids(table, "id", path), _numbers(table, features, path))


def read_unlabeled_fraud(path: Path) -> Unlabeled:
    """Reads payments to predict, with or without a class; their ids are their row numbers from 1."""
    table = _numbers(read_csv(path), PAYMENT_COLUMNS, path)
    return Unlabeled(user_tables.row_ids(table, None, path), _with_hour(table))


def read_unlabeled_toxic_comment(path: Path) -> Unlabeled:
    """Reads comments to predict, from a file such as Kaggle's test.csv."""
    table = _read_comments(path)
    return Unlabeled(table["id"], table["comment_text"])


def _read_leaf(folder: Path, test_fraction: float) -> Dataset:
    (path,) = sources.require_files(folder, ["train.csv"], _LEAF_NEEDS)
    return _leaves(path, LEAF_FEATURES, test_fraction)


def _leaf_sample(test_fraction: float) -> Dataset:
    dataset = _leaves(LEAF_SAMPLE, None, test_fraction)
    note = f"32 species of Flavia, not Kaggle's; {dataset.provenance.note}"
    return sources.from_package(dataset, [LEAF_SAMPLE], note)


def _leaves(path: Path, features: Iterable[str] | None, test_fraction: float) -> Dataset:
    """Reads leaves with these columns of numbers; None: all but the id and the species."""
    table = read_csv(path, text=("id", "species"))
    user_tables.row_ids(table, "id", path)
    labels, _, class_names = user_tables.infer_labels(table, ["species"], path)
    for row in np.flatnonzero(np.bincount(labels)[labels] < 3)[:1]:
        name = class_names[labels[row]]
        hint = did_you_mean(name, [other for other in class_names if other != name])
        raise InputError(
            f"{path}: row {row + 1} of column 'species' is {name!r}, a species of fewer than three leaves; training, "
            f"validation and test need one each.{hint}"
        )
    names = features or [name for name in table if name not in ("id", "species")]
    train, test = user_tables.hold_out_test(Split(_numbers(table, names, path), labels), test_fraction, path)
    note = f"test rows are {test_fraction:.0%} of each species of {path.name}"
    provenance = Provenance("files", str(path.parent), sources.checksums([path]), note=note)
    return Dataset("leaf", train, test, class_names, provenance)


def _read_fraud(folder: Path, test_fraction: float) -> Dataset:
    (path,) = sources.require_files(folder, ["creditcard.csv"], _FRAUD_NEEDS)
    content = read_csv(path)
    labels = user_tables.coded_numbers(content, "Class", path, (0, 1))
    table = _numbers(content, PAYMENT_COLUMNS, path)
    rows = np.stack([*table.values(), labels], axis=1)
    distinct = np.sort([*{row.tobytes(): index for index, row in enumerate(rows)}.values()])
    in_time = distinct[np.argsort(table["Time"][distinct], kind="stable")]
    payments = Split(_with_hour(table), labels.astype(np.int32)).take(in_time)
    train, test = user_tables.hold_out_test(payments, test_fraction, path, splits.chronological)
    note = (
        f"{payments.labels.sum():,} of {len(in_time):,} payments are fraud, {test.labels.sum():,} of them in the test "
        f"split, the last {test_fraction:.0%} by time; {len(rows) - len(in_time):,} duplicate rows were dropped"
    )
    provenance = Provenance("files", str(folder), sources.checksums([path]), note=note)
    return Dataset("fraud", train, test, ("genuine", "fraud"), provenance)


def _numbers(table: Table, names: Iterable[str], path: Path) -> Table:
    return {name: numbers(table, name, path) for name in names}


def _with_hour(payments: Table) -> Table:
    # All test times lie beyond the training times; the time of day recurs.
    return {**{name: payments[name] for name in PAYMENT_COLUMNS[1:]}, "Hour": payments["Time"] % 86_400 / 3_600}


def _read_toxic(folder: Path) -> Dataset:
    train_path, test_path, labels_path = paths = sources.require_files(folder, TOXIC_FILES, _TOXIC_NEEDS)
    train = _labeled_comments(train_path)
    user_tables.check_varied(train.labels, TOXIC_LABELS, train_path)
    test, answers = _read_comments(test_path), _read_comments(labels_path, ("id",))
    labels = _toxic_labels(answers, labels_path, allowed=(0, 1, -1))
    unknown = labels == -1
    for row in np.flatnonzero(unknown.any(axis=1) & ~unknown.all(axis=1))[:1]:
        raise InputError(f"{labels_path}: row {row + 1} is -1 in some columns; a row is scored in all or in none.")
    if unknown.all():
        raise InputError(f"{labels_path}: all labels are -1, so no row can be scored; Kaggle added the labels later.")
    labels = labels[user_tables.match_ids(test["id"], answers["id"], test_path, labels_path)]
    scored = labels[:, 0] >= 0
    note = f"{scored.sum():,} of {len(scored):,} test rows are scored, the labels of the others are -1"
    record = Provenance("files", str(folder), sources.checksums(paths), note=note)
    return Dataset("toxic_comment", train, Split(test["comment_text"][scored], labels[scored]), TOXIC_LABELS, record)


def _toxic_from_tfds() -> Dataset:
    archive, digest = sources.fetch_archive(_TFDS_NAME, "_v0.3.zip")
    folder = environment.cache_directory() / "unpacked" / f"{_TFDS_NAME}-{digest[:12]}"
    sources.write_once(folder, lambda empty: _unpack(archive, empty))
    train, test = (_labeled_comments(folder / name) for name in _TFDS_FILES)
    user_tables.check_varied(train.labels, TOXIC_LABELS, folder / _TFDS_FILES[0])
    note = f"TFDS {_TFDS_NAME}, SHA-256 verified; holds the scored test rows only"
    record = Provenance("tfds", str(archive.parent), {archive.name: digest}, note=note)
    return Dataset("toxic_comment", train, test, TOXIC_LABELS, record)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as members:
            for name in _TFDS_FILES:
                members.extract(name, folder)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{archive}: not the archive that TFDS registers ({error}).") from error


def _labeled_comments(path: Path) -> Split:
    table = _read_comments(path)
    return Split(table["comment_text"], _toxic_labels(table, path, allowed=(0, 1)))


def _read_comments(path: Path, required: Sequence[str] = ("id", "comment_text")) -> Table:
    table = read_csv(path, required=required, text=("id", "comment_text"))
    user_tables.check_unique(table["id"], "id", path)
    return {TOXIC_LABELS_RENAMED.get(name, name): column for name, column in table.items()}


def _toxic_labels(table: Table, path: Path, *, allowed: tuple[int, ...]) -> np.ndarray:
    """The labels in the order of TOXIC_LABELS, float32 (N, 6)."""
    columns = [user_tables.coded_numbers(table, name, path, allowed) for name in TOXIC_LABELS]
    return np.stack(columns, axis=1).astype(np.float32)
