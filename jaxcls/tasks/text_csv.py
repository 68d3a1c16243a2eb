"""User-supplied texts in a CSV file: a column of text, and a column of classes or several of 0 and 1.

    python -m jaxcls.train --task text_csv --data FILE --text-column text --label-column label
    python -m jaxcls.train --task text_csv --data FILE --text-column text --label-column rude spam --test-data FILE
    python -m jaxcls.train --task text_csv --data FILE --text-column text    # all other columns are labels
    python -m jaxcls.train --task text_csv

Pitfalls: the label column of the training file decides the problem, and a class that occurs only in the test file is
rejected. Without --label-column, all columns without another role are labels, except one called id: leave others out
by --drop-column. A label column of numbers that hardly repeat is a quantity, not a class. The test rows are the same
for every seed. Of several labels, each has a threshold that is tuned on the validation examples. Without FILE, the task
trains on 3,896 real e-mails, of which a quarter are spam, and tests on 1,000 others.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jaxcls.data import user_tables
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.tasks import texts, user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "text_csv"

_or_sample = functools.partial(
    user_data.or_sample,
    data=SAMPLE / "train.csv.gz",
    test_data=SAMPLE / "test.csv.gz",
    text_column="text",
    label_column=("label",),
)


def load(settings: Settings) -> Dataset:
    if user_data.uses_sample(settings):
        note = "e-mails of 2001 to 2003, the positive class is 'spam'; a subject is in one split only"
        return user_data.load_sample("text_csv", _or_sample(settings), note, text=True)
    return user_data.load_table("text_csv", settings, text=True)


def read(path: Path, settings: Settings, *_: Any) -> Unlabeled:
    return user_tables.read_unlabeled(path, user_data.table_columns(_or_sample(settings), text=True))


def specialize(task: Task, settings: Settings) -> Task:
    if user_data.uses_sample(settings):
        return user_data.for_problem(texts.specialize(task, settings), "binary")
    labels = user_data.table_labels(settings, text=True)[0]
    if labels.problem == "multilabel":
        # Of many labels, few reach one half: each gets the threshold that suits it. The loss is their mean, so that
        # each label learns at its own rate only if that of all grows with their number.
        rate = DEFAULT.learning_rate * len(labels.class_names)
        task = task.with_settings(tune_threshold="f1", learning_rate=rate)
    if settings.class_weight is not None and labels.problem == "multiclass":
        # Weights are for the sake of rare classes, and the weighted loss is least before these are learned.
        task = task.with_settings(monitor="f1")
    return user_data.for_problem(texts.specialize(task, settings), labels.problem)


DEFAULT = dataclasses.replace(
    texts.SETTINGS,
    epochs=6,
    batch_size=64,
    learning_rate=10.0,
    max_length=512,
    test_fraction=0.2,
    validation_fraction=0.1,
    monitor="loss",
    restore_best=True,
)

TASK = Task(
    name="text_csv",
    summary="your texts: a text column and one or more label columns in a CSV file",
    problem="binary",
    load=load,
    read=read,
    fit_preprocessor=texts.fit_preprocessor,
    models=texts.MODELS,
    pretrained="texts",
    presets={"default": Preset(DEFAULT)},
    metrics=["roc_auc"],
    data_settings=("data", "text_column", "drop_column", "vocabulary_size", *user_data.TABLE_SETTINGS),
    specialize=specialize,
)
