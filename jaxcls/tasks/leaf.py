"""Leaf Classification (Kaggle 2016): 99 species, from 192 numbers of the margin, shape and texture of ten leaves each.

    python -m jaxcls.train --task leaf
    python -m jaxcls.train --task leaf --data-dir FOLDER    # with Kaggle's train.csv

Traps: Kaggle's test.csv has no labels, so test leaves are cut from train.csv, two of ten of each species; a cut at
random would leave species out. The numbers of the shape are a hundred times as small as the others: without
standardising, by statistics of the training leaves alone, they are not seen. The score is the log loss, which punishes
false confidence: Kaggle divides each row by its sum and clips probabilities, and so does `metrics.log_loss`. The
columns of a submission are the species in sorted order.
"""

import functools
from pathlib import Path

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv
from jaxcls.data.preprocessing import tables
from jaxcls.data.samples import leaf as sample
from jaxcls.models import tabular
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

FEATURES = tuple(f"{kind}{place}" for kind in ("margin", "shape", "texture") for place in range(1, 65))
NEEDS = "Give --data-dir a folder with train.csv of Kaggle's leaf-classification, or use --source sample."

DEFAULT = Settings(
    model="mlp",
    epochs=60,
    batch_size=64,
    dropout=0.3,
    loss="categorical_crossentropy",
    optimizer="adam",
    learning_rate=3e-3,
    schedule="cosine",
    test_fraction=0.2,
    validation_fraction=0.125,
    monitor="log_loss",
    restore_best=False,
)


def load(settings: Settings) -> Dataset:
    """The leaves of train.csv, of which --test-fraction are the test, the same ones for every seed."""

    def read_folder(folder: Path) -> Dataset:
        return _read_train(folder, user_data.required(settings, "test_fraction"))

    return sources.load(
        "leaf",
        settings.source,
        settings.data_dir,
        read=read_folder,
        others={"sample": lambda: sources.load_sample(sample.write, read_folder)},
        needs=NEEDS,
    )


def read(path: Path, settings: Settings) -> Unlabeled:
    """The leaves of a file such as Kaggle's test.csv."""
    table = read_csv(path, required=("id",), text=("id",))
    user_tables.check_unique(table["id"], "id", str(path))
    return Unlabeled(table["id"], _features(table, path))


def _read_train(folder: Path, test_fraction: float) -> Dataset:
    path = folder / "train.csv"
    if not path.is_file():
        raise InputError(f"{folder} does not hold train.csv. {NEEDS}")
    table = read_csv(files.inside(folder, path), required=("id", "species"), text=("id", "species"))
    user_tables.check_unique(table["id"], "id", str(path))
    _check_species(table["species"], path)
    names, labels = np.unique(table["species"].astype(str), return_inverse=True)
    part = Split(_features(table, path), labels.astype(np.int32))
    train, test = user_tables.hold_out_test(part, test_fraction, str(path))
    note = f"test rows are {test_fraction:.0%} of each species of train.csv"
    provenance = Provenance("files", str(folder), sources.checksums([path]), synthetic=False, note=note)
    return Dataset("leaf", train, test, tuple(names.tolist()), provenance)


def _features(table: Table, path: Path) -> Table:
    return {name: numbers(table, name, path) for name in FEATURES}


def _check_species(species: np.ndarray, path: Path) -> None:
    names, first, counts = (
        found.tolist() for found in np.unique(species.astype(str), return_index=True, return_counts=True)
    )
    for name, row, count in zip(names, first, counts, strict=True):
        where = f"{path}: row {row + 1} of column 'species'"
        if not name:
            raise InputError(f"{where} is empty; every leaf to learn from needs its species.")
        if count < 3:
            hint = did_you_mean(name, [other for other in names if other != name])
            raise InputError(
                f"{where} is {name!r}, of which there are fewer than three leaves; it takes one each to train, to "
                f"validate and to test.{hint}"
            )
    if len(names) < 2:
        raise InputError(f"{path}: every leaf is of species {names[0]!r}; there must be two species to tell apart.")


TASK = Task(
    name="leaf",
    summary="99 species of plants from the margin, shape and texture of a leaf, ten leaves each",
    problem="multiclass",
    load=load,
    read=read,
    fit_preprocessor=lambda inputs, settings: tables.fit(inputs),
    # Many species of few leaves each: a wide layer tells more of them apart than a narrow one.
    models={"mlp": functools.partial(tabular.MLP, hidden=(512,)), "linear": tabular.Linear},
    presets={"default": Preset(DEFAULT)},
    metrics=["log_loss", "accuracy"],
)
