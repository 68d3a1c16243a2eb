"""Leaves of 99 species (Kaggle 2016): margin, shape and texture as 64 numbers each."""

import functools
import os
from pathlib import Path

import numpy as np

from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv
from jaxcls.data.samples import leaf as sample

FEATURES = tuple(f"{name}{number}" for name in ("margin", "shape", "texture") for number in range(1, 65))
NEEDS = "Set data_dir to a folder with train.csv of Kaggle's leaf-classification, or source to sample."


def load(source: str, data_dir: str | os.PathLike[str] | None, *, test_fraction: float) -> Dataset:
    """Loads the leaves of train.csv, of which a fraction of each species is the test split, whatever the seed."""
    read = functools.partial(_read, test_fraction=test_fraction)
    return sources.load("leaf", source, data_dir, read=read, needs=NEEDS, write_sample=sample.write)


def read_unlabeled(path: Path) -> Unlabeled:
    """Reads leaves to predict, from a file such as Kaggle's test.csv."""
    table = read_csv(path, required=("id",), text=("id",))
    user_tables.check_unique(table["id"], "id", str(path))
    return Unlabeled(table["id"], _features(table, path))


def _read(folder: Path, test_fraction: float) -> Dataset:
    (path,) = sources.require_files(folder, ["train.csv"], NEEDS)
    table = read_csv(path, required=("id", "species"), text=("id", "species"))
    user_tables.check_unique(table["id"], "id", str(path))
    names, first, labels, counts = np.unique(
        table["species"].astype(str), return_index=True, return_inverse=True, return_counts=True
    )
    class_names = tuple(names.tolist())
    for name, row, count in zip(class_names, first, counts, strict=True):
        where = f"{path}: row {row + 1} of column 'species'"
        if not name:
            raise InputError(f"{where} is empty; every training leaf needs its species.")
        if count < 3:
            hint = did_you_mean(name, [other for other in class_names if other != name])
            raise InputError(
                f"{where} is {name!r}, a species of fewer than three leaves; training, validation and test need one "
                f"each.{hint}"
            )
    if len(class_names) < 2:
        raise InputError(f"{path}: every leaf is of species {class_names[0]!r}; classification needs two.")
    leaves = Split(_features(table, path), labels.astype(np.int32))
    train, test = user_tables.hold_out_test(leaves, test_fraction, str(path))
    note = f"test rows are {test_fraction:.0%} of each species of train.csv"
    provenance = Provenance("files", str(folder), sources.checksums([path]), synthetic=False, note=note)
    return Dataset("leaf", train, test, class_names, provenance)


def _features(table: Table, path: Path) -> Table:
    return {name: numbers(table, name, path) for name in FEATURES}
