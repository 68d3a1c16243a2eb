"""Tables of Kaggle's competitions: leaves of 99 species (2016), and credit card payments (Dal Pozzolo et al. 2015)."""

from pathlib import Path

import numpy as np

from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv
from jaxcls.data.samples import fraud, leaf

LEAF_FEATURES = tuple(f"{name}{number}" for name in ("margin", "shape", "texture") for number in range(1, 65))
PAYMENT_COLUMNS = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
_LEAF_NEEDS = "Set data_dir to a folder with train.csv of Kaggle's leaf-classification, or source to sample."
_FRAUD_NEEDS = "Set data_dir to a folder with Kaggle's creditcard.csv, or source to sample."


def load_leaf(source: str, data_dir: str | Path | None, *, test_fraction: float) -> Dataset:
    """Loads the leaves of train.csv, of which a fraction of each species is the test split, whatever the seed."""
    return sources.load("leaf", source, data_dir, _read_leaf, _LEAF_NEEDS, leaf.write, test_fraction=test_fraction)


def load_fraud(source: str, data_dir: str | Path | None, *, test_fraction: float) -> Dataset:
    """Loads the payments in order of time without duplicates; the last ones are the test split."""
    return sources.load("fraud", source, data_dir, _read_fraud, _FRAUD_NEEDS, fraud.write, test_fraction=test_fraction)


def read_unlabeled_leaf(path: Path) -> Unlabeled:
    """Reads leaves to predict, from a file such as Kaggle's test.csv."""
    table = read_csv(path, text=("id",))
    return Unlabeled(user_tables.row_ids(table, "id", path), _numbers(table, LEAF_FEATURES, path))


def read_unlabeled_fraud(path: Path) -> Unlabeled:
    """Reads payments to predict, with or without a class; their ids are their row numbers from 1."""
    table = _numbers(read_csv(path), PAYMENT_COLUMNS, path)
    return Unlabeled(user_tables.row_ids(table, None, path), _with_hour(table))


def _read_leaf(folder: Path, test_fraction: float) -> Dataset:
    (path,) = sources.require_files(folder, ["train.csv"], _LEAF_NEEDS)
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
    leaves = Split(_numbers(table, LEAF_FEATURES, path), labels)
    train, test = user_tables.hold_out_test(leaves, test_fraction, path)
    note = f"test rows are {test_fraction:.0%} of each species of train.csv"
    provenance = Provenance("files", str(folder), sources.checksums([path]), note=note)
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


def _numbers(table: Table, names: tuple[str, ...], path: Path) -> Table:
    return {name: numbers(table, name, path) for name in names}


def _with_hour(payments: Table) -> Table:
    # All test times lie beyond the training times; the time of day recurs.
    return {**{name: payments[name] for name in PAYMENT_COLUMNS[1:]}, "Hour": payments["Time"] % 86_400 / 3_600}
