"""A user-supplied table: a CSV file with a column of classes, or several columns of 0 and 1.

    python -m jaxcls.train --task csv --data FILE --label-column y
    python -m jaxcls.train --task csv --data FILE --label-column rude spam --test-data FILE --id-column id
    python -m jaxcls.train --task csv

All columns are features except the label, weight and id columns, those of --drop-column, and those that cannot be
used. Training begins with a table of the columns and their types: numbers, categories, dates (as parts and elapsed
days) or texts (as words and pairs of words). FILE is a CSV, Parquet or Feather file; separator and decimal sign are
found. Without FILE, the task trains on a real table of 178 wines.

Pitfalls:
- A column that is only known once the class is known (the date of a diagnosis) leaks the label: use --drop-column.
- A column of row numbers that is not called an id is a feature: drop it yourself.
- Rows that belong together (visits of one patient) must not be split between training and test: use --test-data.
- A test file must have the columns of --data. What is no number in a column of numbers counts as missing, with a
  warning.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax

from jaxcls._utils.labels import ProblemName
from jaxcls.data import user_tables
from jaxcls.data.augmentation import inputs_only
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.preprocessing import tables
from jaxcls.models import tabular
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "csv" / "wine.csv"

# Chosen on validation rows of real tables; see experiments/own_tables.md.
DEFAULT = Settings(
    model="ensemble",
    epochs=40,
    batch_size=64,
    dropout=0.2,
    optimizer="adamw",
    learning_rate=7e-3,
    weight_decay=0.05,
    warmup=0.1,
    test_fraction=0.2,
    # Nothing is chosen by the validation rows, so few suffice. To choose anything by them, use more, such as 0.2.
    validation_fraction=0.02,
    monitor="loss",
)
# In 40 epochs, one perceptron learns a small table by heart; the mean of eight does not.
SMALL_MLP = dataclasses.replace(DEFAULT, model="mlp", epochs=10, batch_size=32, dropout=0.5, learning_rate=5e-3)
# From this number of rows on, there is more to learn and less overfitting.
LARGE_ROWS = 20_000
LARGE = dataclasses.replace(
    DEFAULT, model="mlp", epochs=12, batch_size=512, dropout=0.1, learning_rate=3e-3, validation_fraction=0.05
)


def load(settings: Settings) -> Dataset:
    if user_data.uses_sample(settings):
        return user_data.load_sample("csv", _or_sample(settings), "178 wines from three cultivars; a fifth is the test")
    return user_data.load_table("csv", settings)


def read(path: Path, settings: Settings, fitted: tables.TablePreprocessor) -> Unlabeled:
    return user_tables.read_unlabeled(path, user_data.table_columns(_or_sample(settings)), fitted.words)


def specialize(task: Task, settings: Settings) -> Task:
    labels, decimal = user_data.table_labels(_or_sample(settings))
    return for_table(task, settings, len(labels.values), labels.problem, decimal)


def for_table(task: Task, settings: Settings, rows: int, problem: ProblemName, decimal: str = ".") -> Task:
    """Returns the task with the recipe for about this many rows, and with the loss and the metrics of the problem."""
    recipe = LARGE if rows >= LARGE_ROWS else SMALL_MLP if settings.model == "mlp" else DEFAULT
    # A setting, so that the rows of any other file are read like those of --data.
    recipe = dataclasses.replace(recipe, decimal="," if decimal == "," else None)
    preset = Preset(recipe, inputs_only(functools.partial(jitter, rows)))
    return user_data.for_problem(dataclasses.replace(task, presets={"default": preset}), problem)


def jitter(rows: int, key: jax.Array, table: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds noise to the numbers against overfitting: a third of a standard deviation for 144 rows.

    It acts like a penalty on the squared weights (Bishop 1995, "Training with Noise is Equivalent to Tikhonov
    Regularization"), and likewise decreases with the number of rows.
    """
    numbers = table["numeric"]
    return {**table, "numeric": numbers + min(0.5, 4 * rows**-0.5) * jax.random.normal(key, numbers.shape)}


def _or_sample(settings: Settings) -> Settings:
    return user_data.or_sample(settings, data=SAMPLE, label_column=("class",))


TASK = Task(
    name="csv",
    summary="your table: columns of numbers and of words, and one or more label columns, in a CSV file",
    problem="multiclass",
    load=load,
    read=read,
    fit_preprocessor=lambda inputs, settings: tables.fit(inputs, decimal=settings.decimal or "."),
    models={
        "ensemble": functools.partial(tabular.TabularMLP, hidden=(64,), members=8),
        "mlp": functools.partial(tabular.TabularMLP, hidden=(256, 256)),
        "linear": tabular.TabularLinear,
    },
    presets={"default": Preset(DEFAULT)},
    metrics=["accuracy"],
    data_settings=("data", "drop_column", *user_data.TABLE_SETTINGS),
    specialize=specialize,
)
