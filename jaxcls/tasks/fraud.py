"""Credit card fraud (Kaggle's creditcard.csv, Dal Pozzolo et al. 2015): 284,807 payments, of which 0.17 % are fraud.

    python -m jaxcls.train --task fraud
    python -m jaxcls.train --task fraud --data-dir FOLDER    # with Kaggle's creditcard.csv

Traps: fraud and payments change with time, so the last payments are the test and the last of the others validate; a
split at random would let a model learn from the future. Some rows stand twice: copies are dropped before anything is
split, or one is learned and its copy scored. Nothing is resampled: the loss turns to the hard examples instead, which
leaves validation and test as they are. Scales are those of the training rows, the threshold that of the validation
rows. Accuracy says nothing where 99.8 % is had by never calling fraud: average precision counts.
"""

from pathlib import Path

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv
from jaxcls.data.preprocessing import tables
from jaxcls.data.samples import fraud as sample
from jaxcls.models import tabular
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

COLUMNS = ("Time", *(f"V{place}" for place in range(1, 29)), "Amount")
NEEDS = "Give --data-dir a folder with Kaggle's creditcard.csv, or use --source sample."

DEFAULT = Settings(
    model="mlp",
    epochs=20,
    batch_size=512,
    dropout=0.3,
    # On generated data it ranks better than plain cross-entropy and focal loss: experiments/imbalance.md.
    loss="weighted_crossentropy",
    pos_weight=10.0,
    optimizer="adam",
    learning_rate=4e-3,
    schedule="cosine",
    test_fraction=0.2,
    validation_fraction=0.2,
    monitor="average_precision",
    restore_best=False,
    tune_threshold="f1",
)


def load(settings: Settings) -> Dataset:
    """The payments in order of time, copies dropped; the last --test-fraction of them are the test."""

    def read_folder(folder: Path) -> Dataset:
        return _read_labelled(folder, user_data.required(settings, "test_fraction"))

    return sources.load(
        "fraud",
        settings.source,
        settings.data_dir,
        read=read_folder,
        others={"sample": lambda: sources.load_sample(sample.write, read_folder)},
        needs=NEEDS,
    )


def read(path: Path, settings: Settings) -> Unlabeled:
    """The payments of a file such as creditcard.csv, with or without the class; each is called by its row, from 1."""
    table = _numbers(read_csv(path, required=COLUMNS), path)
    return Unlabeled(user_tables.row_ids(table, None, str(path)), _inputs(table))


def by_time(part: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`jaxcls.data.splits.chronological`; both sides must have payments of both classes."""
    earlier, later = splits.chronological(part, fraction, seed=seed)
    for what, rows in (("first", earlier), ("last", later)):
        found = np.unique(part.labels[rows])
        if len(found) < 2:
            raise InputError(
                f"all {len(rows):,} of the {what} rows, by time, have class {found[0]}; to train, to "
                "validate and to test takes both classes each. Give more rows, or another fraction."
            )
    return earlier, later


def _read_labelled(folder: Path, test_fraction: float) -> Dataset:
    path = folder / "creditcard.csv"
    if not path.is_file():
        raise InputError(f"{folder} does not hold creditcard.csv. {NEEDS}")
    table = read_csv(files.inside(folder, path), required=(*COLUMNS, "Class"))
    labels = numbers(table, "Class", path)
    if not np.isin(labels, (0, 1)).all():
        row = int(np.isin(labels, (0, 1), invert=True).argmax())
        raise InputError(f"{path}: row {row + 1} of column 'Class' is {labels[row]:g}; it must be 0, or 1 for fraud.")
    table = _numbers(table, path)

    rows = np.stack([*table.values(), labels], axis=1)
    different = np.sort([*{row.tobytes(): place for place, row in enumerate(rows)}.values()])
    in_time = different[np.argsort(table["Time"][different], kind="stable")]
    payments = Split(_inputs(table), labels.astype(np.int32)).take(in_time)
    train, test = user_tables.hold_out_test(payments, test_fraction, str(path), by_time)
    note = (
        f"{payments.labels.sum():,} of {len(in_time):,} payments are fraud, {test.labels.sum():,} of them in the test, "
        f"the last {test_fraction:.0%} by time; {len(rows) - len(in_time):,} rows that stand twice were dropped"
    )
    provenance = Provenance("files", str(folder), sources.checksums([path]), synthetic=False, note=note)
    return Dataset("fraud", train, test, ("genuine", "fraud"), provenance)


def _numbers(table: Table, path: Path) -> Table:
    return {name: numbers(table, name, path) for name in COLUMNS}


def _inputs(table: Table) -> Table:
    # Time itself only grows, and the test lies beyond all of it; what comes again is the time of day.
    return {**{name: table[name] for name in COLUMNS[1:]}, "Hour": table["Time"] % 86_400 / 3_600}


TASK = Task(
    name="fraud",
    summary="fraudulent credit card payments, one in 600, in a table of anonymous columns",
    problem="binary",
    load=load,
    read=read,
    fit_preprocessor=lambda inputs, settings: tables.fit(inputs),
    models={"mlp": tabular.MLP, "linear": tabular.Linear},
    presets={"default": Preset(DEFAULT)},
    metrics=["average_precision", "recall_at_precision", "roc_auc"],
    split=by_time,
)
