"""Your own texts in a CSV file: one column of text, and one column of classes or several of 0 and 1.

    python -m jaxcls.train --task text_csv --data FILE --text-column text --label-column label
    python -m jaxcls.train --task text_csv --data FILE --text-column text --label-column rude spam --test-data FILE
    python -m jaxcls.train --task text_csv

Traps: a class is what the label column holds, so the problem follows from the training file, and a class of the test
file that is not among them is refused. A label column of numbers that hardly repeat is a quantity, not a class. The
test rows are the same whatever the seed.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.samples import toxic_comment as sample
from jaxcls.models import text
from jaxcls.tasks import texts, user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

# Where there is no data of one's own, synthetic comments are told apart, of which a tenth are toxic.
SAMPLE_COLUMNS: dict[str, Any] = {"text_column": "comment_text", "label_column": ("toxic",), "id_column": "id"}


def load(settings: Settings) -> Dataset:
    if user_data.uses_sample(settings):
        return sources.load_sample(sample.write, functools.partial(_load_sample, settings))
    return user_data.load_table("text_csv", settings, text=True)


def _load_sample(settings: Settings, folder: Path) -> Dataset:
    return load(dataclasses.replace(settings, source="auto", data=folder / "train.csv", **SAMPLE_COLUMNS))


def read(path: Path, settings: Settings) -> Unlabeled:
    if user_data.uses_sample(settings):
        settings = dataclasses.replace(settings, **SAMPLE_COLUMNS)
    return user_tables.read_unlabeled(path, user_data.table_columns(settings, text=True))


def specialize(task: Task, settings: Settings) -> Task:
    problem = "binary" if user_data.uses_sample(settings) else user_data.table_labels(settings).problem
    return user_data.for_problem(texts.specialize(task, settings), problem)


DEFAULT = Settings(
    model="ngrams",
    epochs=16,
    batch_size=64,
    dropout=0.0,
    # `specialize` gives each problem its own.
    loss="binary_crossentropy",
    # See toxic_comment, whose loss is the mean of six labels.
    optimizer="sgd",
    momentum=0.9,
    learning_rate=10.0,
    schedule="cosine",
    vocabulary_size=8000,
    max_length=512,
    test_fraction=0.2,
    validation_fraction=0.1,
    monitor="loss",
    restore_best=True,
)

TASK = Task(
    name="text_csv",
    summary="your own texts: a column of text and one or more of labels in a CSV file",
    problem="binary",
    load=load,
    read=read,
    fit_preprocessor=texts.fit_preprocessor,
    models={"ngrams": functools.partial(text.NGrams, orders=2), "cnn": text.CNN, "transformer": text.Transformer},
    presets={"default": Preset(DEFAULT)},
    metrics=["roc_auc"],
    data_settings=("data", "test_data", "text_column", "label_column", "weight_column", "id_column"),
    specialize=specialize,
)
