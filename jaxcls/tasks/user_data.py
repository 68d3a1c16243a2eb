"""What tasks on user-supplied data share: reading their settings, and the loss and metrics of the inferred problem."""

import dataclasses
from typing import Any

from jaxcls._utils.errors import InputError, flag
from jaxcls._utils.labels import ProblemName
from jaxcls.data import sources, user_tables
from jaxcls.data.dataset import Dataset
from jaxcls.data.user_tables import Labels, TableColumns
from jaxcls.tasks.task import Task, required
from jaxcls.training.settings import Settings

# The data settings of every table besides --data; those of texts and of columns to drop are those of one task each.
TABLE_SETTINGS = (
    "validation_data", "test_data", "label_column", "weight_column", "id_column", "separator", "decimal"
)  # fmt: skip
_METRICS = {"binary": ("roc_auc", "accuracy"), "multiclass": ("accuracy", "f1"), "multilabel": ("roc_auc", "f1")}


def for_problem(task: Task, problem: ProblemName) -> Task:
    """Returns the task for this problem, with its metrics and its loss.

    >>> from jaxcls.tasks import text_csv
    >>> for_problem(text_csv.TASK, "multiclass").recipe("default").loss
    'sparse_categorical_crossentropy'
    """
    return dataclasses.replace(task, problem=problem, metrics=_METRICS[problem])


def uses_sample(settings: Settings) -> bool:
    """Returns whether no user data was given, so that the task trains on its sample.

    Raises:
      InputError: no data was given, but columns of it.
    """
    if settings.data is not None or settings.source not in ("auto", "sample"):
        return False
    for name in (*TABLE_SETTINGS, "text_column", "drop_column"):
        if getattr(settings, name) is not None:
            raise InputError(f"{flag(name)} goes with --data; give both or neither.")
    return True


def or_sample(settings: Settings, **sample: Any) -> Settings:
    """Returns the settings, or if no user data was given, with those of the sample."""
    return dataclasses.replace(settings, source="auto", **sample) if uses_sample(settings) else settings


def table_columns(settings: Settings, *, text: bool = False) -> TableColumns:
    """Returns the roles of the columns of --data.

    Args:
      settings: the settings of a run.
      text: whether the inputs are texts.
    """
    return TableColumns(
        label=settings.label_column or () if text else required(settings, "label_column"),
        text=required(settings, "text_column") if text else None,
        weight=settings.weight_column,
        id=settings.id_column,
        drop=settings.drop_column or (),
        separator=settings.separator,
        decimal=settings.decimal,
    )


def table_labels(settings: Settings, *, text: bool = False) -> tuple[Labels, str]:
    """Reads the labels of --data, and the decimal sign of its numbers."""
    return user_tables.read_labels(required(settings, "data"), table_columns(settings, text=text))


def load_table(name: str, settings: Settings, *, text: bool = False) -> Dataset:
    """Reads the data set of --data, --validation-data and --test-data; see :func:`jaxcls.data.user_tables.load`."""
    return user_tables.load(
        name,
        required(settings, "data"),
        table_columns(settings, text=text),
        validation_data=settings.validation_data,
        test_data=settings.test_data,
        test_fraction=required(settings, "test_fraction"),
    )


def load_sample(name: str, settings: Settings, note: str, *, text: bool = False) -> Dataset:
    """Reads and verifies the files of the package that are the --data and --test-data of these settings."""
    dataset = load_table(name, settings, text=text)
    files = [getattr(settings, setting) for setting in dataset.provenance.sha256]
    return sources.from_package(dataset, files, note)
