"""User-supplied texts in a CSV file: a column of text, and a column of classes or several of 0 and 1.

    python -m jaxcls.train --task text_csv --data FILE --text-column text --label-column label
    python -m jaxcls.train --task text_csv --data FILE --text-column text --label-column rude spam --test-data FILE
    python -m jaxcls.train --task text_csv

Pitfalls: the label column of the training file decides the problem, and a class that occurs only in the test file is
rejected. A label column of numbers that hardly repeat is a quantity, not a class. The test rows are the same for every
seed. Without FILE, the task trains on synthetic comments, of which a tenth are toxic.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.samples import toxic_comment as sample
from jaxcls.tasks import texts, user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

_or_sample = functools.partial(user_data.or_sample, text_column="comment_text", label_column=("toxic",), id_column="id")


def load(settings: Settings) -> Dataset:
    if not user_data.uses_sample(settings):
        return user_data.load_table("text_csv", settings, text=True)
    on_sample = _or_sample(settings)
    return sources.load_sample(
        sample.write, lambda folder: load(dataclasses.replace(on_sample, data=folder / "train.csv"))
    )


def read(path: Path, settings: Settings, *_: Any) -> Unlabeled:
    return user_tables.read_unlabeled(path, user_data.table_columns(_or_sample(settings), text=True))


def specialize(task: Task, settings: Settings) -> Task:
    problem = "binary" if user_data.uses_sample(settings) else user_data.table_labels(settings)[0].problem
    return user_data.for_problem(texts.specialize(task, settings), problem)


DEFAULT = dataclasses.replace(
    texts.SETTINGS,
    epochs=16,
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
    data_settings=("data", "text_column", *user_data.TABLE_SETTINGS),
    specialize=specialize,
)
