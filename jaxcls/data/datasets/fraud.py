"""Credit card payments (Dal Pozzolo et al. 2015): Kaggle's creditcard.csv."""

import functools
import os
from pathlib import Path

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv
from jaxcls.data.samples import fraud as sample

COLUMNS = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
NEEDS = "Set data_dir to a folder with Kaggle's creditcard.csv, or source to sample."


def load(source: str, data_dir: str | os.PathLike[str] | None, *, test_fraction: float) -> Dataset:
    """Loads the payments in order of time without duplicates; the last ones are the test split."""
    read = functools.partial(_read, test_fraction=test_fraction)
    return sources.load("fraud", source, data_dir, read=read, needs=NEEDS, write_sample=sample.write)


def read_unlabeled(path: Path) -> Unlabeled:
    """Reads payments to predict, with or without a class; their ids are their row numbers from 1."""
    table = _numbers(read_csv(path, required=COLUMNS), path)
    return Unlabeled(user_tables.row_ids(table, None, str(path)), _inputs(table))


def _read(folder: Path, test_fraction: float) -> Dataset:
    (path,) = sources.require_files(folder, ["creditcard.csv"], NEEDS)
    table = read_csv(path, required=(*COLUMNS, "Class"))
    labels = numbers(table, "Class", path)
    for row in np.flatnonzero(~np.isin(labels, (0, 1)))[:1]:
        raise InputError(f"{path}: row {row + 1} of column 'Class' is {labels[row]:g}; it must be 0, or 1 for fraud.")
    table = _numbers(table, path)

    rows = np.stack([*table.values(), labels], axis=1)
    distinct = np.sort([*{row.tobytes(): index for index, row in enumerate(rows)}.values()])
    in_time = distinct[np.argsort(table["Time"][distinct], kind="stable")]
    payments = Split(_inputs(table), labels.astype(np.int32)).take(in_time)
    train, test = user_tables.hold_out_test(payments, test_fraction, str(path), splits.chronological)
    note = (
        f"{payments.labels.sum():,} of {len(in_time):,} payments are fraud, {test.labels.sum():,} of them in the test "
        f"split, the last {test_fraction:.0%} by time; {len(rows) - len(in_time):,} duplicate rows were dropped"
    )
    provenance = Provenance("files", str(folder), sources.checksums([path]), synthetic=False, note=note)
    return Dataset("fraud", train, test, ("genuine", "fraud"), provenance)


def _numbers(table: Table, path: Path) -> Table:
    return {name: numbers(table, name, path) for name in COLUMNS}


def _inputs(table: Table) -> Table:
    # All test times lie beyond the training times; the time of day recurs.
    return {**{name: table[name] for name in COLUMNS[1:]}, "Hour": table["Time"] % 86_400 / 3_600}
