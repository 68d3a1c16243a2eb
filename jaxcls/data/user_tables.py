"""The user's own data: what its label columns say, what each row counts, and the part of it that tests.

The functions of columns serve tables and folders alike; `from_tables` and `queries` are for the tasks that read CSV.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError, error_context
from jaxcls._utils.labels import ProblemName
from jaxcls.data import sources, splits
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import tables
from jaxcls.training.settings import Settings

PyTree = Any
Columns = Mapping[str, np.ndarray]

# Numbers with fractions that take more values than this are measurements, not classes.
_MOST_FRACTIONS = 20
_TRUTH = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}


class Labels(NamedTuple):
    """Labels as a task takes them, and what they are labels of.

    Attributes:
      values: int32 (N,), the place in `class_names`; or float32 (N, L) of 0 and 1 where there are L columns.
      problem: which of the three it is.
      class_names: as in :class:`jaxcls.data.dataset.Dataset`.
    """

    values: np.ndarray
    problem: ProblemName
    class_names: tuple[str, ...]


def labels_of(columns: Columns, label_columns: Sequence[str], where: str) -> Labels:
    """The labels of training examples, from which the problem follows.

    One column of two values is a binary problem, of more a multiclass one. Class names are the values in order, of
    numbers if all are numbers and else of the alphabet, so the last of two is the positive class; 1.0 is '1'.
    Several columns are a multi-label problem, and hold 0 and 1 (or false and true).

    Args:
      columns: name -> (N,) numbers or str objects.
      label_columns: their names.
      where: the file, for messages.

    Raises:
      InputError: a column is missing, a label is missing (the row is named), there is one class only, or so many
        that they look like a quantity or a name; several columns hold something else than 0 and 1.

    >>> labels_of({"y": np.array([2.0, 1.0, 2.0, 2.0])}, ["y"], "rows.csv")
    Labels(values=array([1, 0, 1, 1], dtype=int32), problem='binary', class_names=('1', '2'))
    """
    if len(set(label_columns)) != len(label_columns) or not label_columns:
        raise InputError(f"--label-column {' '.join(label_columns)}: give one column or several different ones.")
    if len(label_columns) > 1:
        values = _truths(columns, label_columns, where)
        for name, column in zip(label_columns, values.T, strict=True):
            if np.all(column == column[0]):
                raise InputError(
                    f"{where}: column {name!r} holds {column[0]:g} in every row: there is nothing to learn. "
                    "Leave it out of --label-column."
                )
        return Labels(values, "multilabel", tuple(label_columns))
    words, places = _distinct(columns, label_columns[0], where)
    class_names = _in_order(set(words))
    _check_classes(class_names, len(places), f"{where}: column {label_columns[0]!r}")
    problem: ProblemName = "binary" if len(class_names) == 2 else "multiclass"
    return Labels(_classes(words, class_names)[places], problem, class_names)


def labels_like(known: Labels, columns: Columns, label_columns: Sequence[str], where: str) -> np.ndarray:
    """The labels of test examples, by the classes of the training ones.

    Raises:
      InputError: as :func:`labels_of`, or a class that no training example has; its row is named.

    >>> known = labels_of({"y": np.array(["no", "yes", "no", "no"], object)}, ["y"], "train.csv")
    >>> labels_like(known, {"y": np.array(["yes", "maybe"], object)}, ["y"], "test.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: test.csv: row 2 of column 'y' is 'maybe', which no training example has; ...
    """
    if known.problem == "multilabel":
        return _truths(columns, label_columns, where)
    words, places = _distinct(columns, label_columns[0], where)
    classes = set(known.class_names)
    unseen = [word not in classes for word in words]
    _reject_first(
        np.array(unseen)[places],
        columns,
        label_columns[0],
        where,
        f"which no training example has; the classes are {_listed(known.class_names)}.",
    )
    return _classes(words, known.class_names)[places]


def weights_of(columns: Columns, weight_column: str | None, where: str) -> np.ndarray | None:
    """How much each row counts, float32 (N,), or None where no column says so.

    >>> weights_of({"w": np.array([1.0, 0.5])}, "w", "rows.csv")
    array([1. , 0.5], dtype=float32)
    """
    if weight_column is None:
        return None
    weights = tables.numbers(columns, weight_column, where)
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise InputError(
            f"{_place(negative[0], weight_column, where)} is {weights[negative[0]]:g}; a weight is 0 or more."
        )
    if not np.any(weights > 0):
        raise InputError(f"{where}: column {weight_column!r} gives every row the weight 0.")
    return weights.astype(np.float32)


def ids_of(columns: Columns, id_column: str | None, where: str) -> np.ndarray:
    """What each row is called, str objects (N,): by a column, else by its number from 1.

    >>> ids_of({"x": np.zeros(2)}, None, "rows.csv").tolist()
    ['1', '2']
    """
    if id_column is None:
        count = len(next(iter(columns.values())))
        return np.array([str(number) for number in range(1, count + 1)], object)
    tables.require(columns, id_column, where)
    check_unique(columns[id_column], id_column, where)
    return columns[id_column]


def check_unique(ids: np.ndarray, id_column: str, where: str) -> None:
    """Refuses ids of which one is empty or stands twice.

    >>> check_unique(np.array(["a", "b", "a"], object), "id", "rows.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: row 3 of column 'id' is 'a', as is row 1; an id ...
    """
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise InputError(f"{_place(row, id_column, where)} is empty; every row needs an id.")
        if first.setdefault(name, row) != row:
            raise InputError(
                f"{_place(row, id_column, where)} is {name!r}, as is row {first[name] + 1}; an id names one row."
            )


def set_test_aside(
    part: Split, fraction: float, where: str, split: Callable[..., tuple[np.ndarray, np.ndarray]] = splits.stratified
) -> tuple[Split, Split]:
    """Sets a test part aside, and gives what is left and the test part.

    It does not depend on the seed of a run, so that runs of several seeds are judged by the same examples.

    >>> rows = Split({"x": np.arange(8.0)}, np.array([0, 1] * 4, np.int32))
    >>> train, test = set_test_aside(rows, 0.25, "rows.csv")
    >>> len(train.labels), test.labels.tolist()
    (6, [0, 1])
    """
    if not 0 < fraction < 1:
        raise InputError(f"--test-fraction is {fraction:g}; it must be above 0 and below 1.")
    with error_context(where):
        train_rows, test_rows = split(part, fraction, seed=0)
    return part.take(train_rows), part.take(test_rows)


def wants_sample(settings: Settings) -> bool:
    """Whether there is no data of the user's own, so that such a task learns its sample.

    Raises:
      InputError: there is none, but columns of it are named.
    """
    if settings.data is not None or settings.source not in ("auto", "sample"):
        return False
    for name in ("test_data", "label_column", "text_column", "weight_column", "id_column", "drop_column"):
        if getattr(settings, name) is not None:
            raise InputError(f"{_flag(name)} goes with --data, your own file; give both or none.")
    return True


def given(settings: Settings, name: str) -> Any:
    """The value of a setting that such a task cannot do without.

    >>> given(Settings(task="csv"), "data")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: --task csv needs --data. See --help for what it takes.
    """
    value = getattr(settings, name)
    if value is None:
        raise InputError(f"--task {settings.task} needs {_flag(name)}. See --help for what it takes.")
    if name == "data" and settings.source in ("tfds", "sample"):
        raise InputError(f"--data is your own: leave out --source {settings.source}.")
    return value


def learned_from(columns: Columns, settings: Settings) -> dict[str, np.ndarray]:
    """The columns that are neither label, weight, id nor dropped; a file to predict need not have these.

    >>> columns = {"x": np.zeros(1), "y": np.ones(1), "z": np.ones(1)}
    >>> list(learned_from(columns, Settings(label_column=("y",), drop_column=("z",))))
    ['x']
    """
    others = {*(settings.label_column or ()), *(settings.drop_column or ())}
    others |= {name for name in (settings.weight_column, settings.id_column) if name is not None}
    return {name: column for name, column in columns.items() if name not in others}


def labels_of_table(settings: Settings) -> Labels:
    """The labels of --data, a CSV file; what a task is made for before its data is loaded."""
    path = given(settings, "data")
    return labels_of(_read(path, settings), given(settings, "label_column"), str(path))


def from_tables(
    name: str, settings: Settings, inputs_of: Callable[[Columns, str], PyTree], *, text: Collection[str] = ()
) -> Dataset:
    """The data set of --data and --test-data, two CSV files; without the second, --test-fraction is set aside.

    Args:
      name: the task's.
      settings: resolved ones.
      inputs_of: ``(columns, where) -> inputs`` of a :class:`Split`.
      text: columns that are text even where they hold numbers.
    """
    path, label_columns = given(settings, "data"), given(settings, "label_column")
    where = str(path)
    _check_roles(settings)
    columns = _read(path, settings, text)
    for dropped in settings.drop_column or ():
        tables.require(columns, dropped, where)
    if settings.id_column:
        ids_of(columns, settings.id_column, where)
    labels = labels_of(columns, label_columns, where)
    train = Split(inputs_of(columns, where), labels.values, weights_of(columns, settings.weight_column, where))
    files = {"data": path}
    if settings.test_data is None:
        train, test = set_test_aside(train, given(settings, "test_fraction"), where)
        note = f"own data; {len(test.labels):,} rows set aside for the test"
    else:
        test = _test_table(settings.test_data, settings, labels, inputs_of, text)
        files["test_data"] = settings.test_data
        note = f"own data; tested on {settings.test_data}"
    if labels.problem == "binary":
        note += f"; the positive class is {labels.class_names[1]!r}"
    # By what they are for: both may have the same name, in two folders.
    sha256 = {role: digest for role, path in files.items() for digest in sources.checksums([path]).values()}
    record = Provenance("files", where, sha256, synthetic=False, note=note)
    return Dataset(name, train, test, labels.class_names, record)


def _test_table(
    path: Path, settings: Settings, known: Labels, inputs_of: Callable[[Columns, str], PyTree], text: Collection[str]
) -> Split:
    columns = _read(path, settings, text)
    labels = labels_like(known, columns, given(settings, "label_column"), str(path))
    # A test file need not say what its rows count.
    weight_column = settings.weight_column if settings.weight_column in columns else None
    return Split(inputs_of(columns, str(path)), labels, weights_of(columns, weight_column, str(path)))


def queries(
    path: Path, settings: Settings, inputs_of: Callable[[Columns, str], PyTree], *, text: Collection[str] = ()
) -> Unlabeled:
    """The rows of a CSV file to predict, which needs no labels; see :func:`from_tables`."""
    columns = _read(path, settings, text)
    return Unlabeled(ids_of(columns, settings.id_column, str(path)), inputs_of(columns, str(path)))


def _read(path: Path, settings: Settings, text: Collection[str] = ()) -> dict[str, np.ndarray]:
    # Labels and ids are read as text: as numbers, 007 would be 7, and the last digits of long ids would be lost.
    return tables.read_csv(path, text={*(settings.label_column or ()), settings.id_column or "", *text})


def _check_roles(settings: Settings) -> None:
    """Refuses a column that is to be two things at once."""
    roles: dict[str, str] = {}
    for role in ("label_column", "text_column", "weight_column", "id_column", "drop_column"):
        named = getattr(settings, role) or ()
        for name in [named] if isinstance(named, str) else dict.fromkeys(named):
            if name in roles:
                raise InputError(
                    f"column {name!r} is given as {_flag(roles[name])} and as {_flag(role)}: leave one out."
                )
            roles[name] = role


def _distinct(columns: Columns, name: str, where: str) -> tuple[list[str], np.ndarray]:
    """The different values of a column as words, and the place (N,) of each row's among them; none is missing."""
    tables.require(columns, name, where)
    if len(columns[name]) == 0:
        raise InputError(f"{where} has no rows.")
    values, places = np.unique(columns[name], return_inverse=True)
    words = [_word(value) for value in values]
    missing = [word in ("", "nan", "NaN", "inf", "-inf") for word in words]
    right = "but every row needs a value there. Fill it in, or leave the row out."
    _reject_first(np.array(missing)[places], columns, name, where, right)
    return words, places


def _reject_first(bad: np.ndarray, columns: Columns, name: str, where: str, right: str) -> None:
    for row in np.flatnonzero(bad)[:1]:
        raise InputError(f"{_place(row, name, where)} is {_word(columns[name][row])!r}, {right}")


def _word(value: object) -> str:
    word = str(value).strip()
    whole = re.fullmatch(r"([+-]?\d+)\.0*", word)
    return whole[1] if whole else word


def _truths(columns: Columns, names: Sequence[str], where: str) -> np.ndarray:
    """Columns of 0 and 1 as float32 (N, L)."""
    labels = []
    for name in names:
        words, places = _distinct(columns, name, where)
        truths = np.array([_TRUTH.get(word.lower(), np.nan) for word in words], np.float32)[places]
        right = "but several label columns hold 0 and 1. Give one --label-column for classes."
        _reject_first(np.isnan(truths), columns, name, where, right)
        labels.append(truths)
    return np.stack(labels, axis=1)


def _in_order(words: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(words, key=float) if all(map(_is_number, words)) else sorted(words))


def _check_classes(class_names: tuple[str, ...], rows: int, where: str) -> None:
    if len(class_names) < 2:
        raise InputError(f"{where} holds {class_names[0]!r} in every row; it takes two classes to tell apart.")
    numbers = all(map(_is_number, class_names))
    fractions = numbers and any(not float(word).is_integer() for word in class_names)
    if len(class_names) > max(2, rows / 2) or (fractions and len(class_names) > _MOST_FRACTIONS):
        what = "a quantity, as of a regression" if numbers else "names or ids"
        raise InputError(
            f"{where} holds {len(class_names):,} different values in {rows:,} rows. That looks like {what}; the "
            "column of a class holds each class several times. Name another one with --label-column."
        )


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word) is not None


def _classes(words: Sequence[str], class_names: tuple[str, ...]) -> np.ndarray:
    classes = {name: number for number, name in enumerate(class_names)}
    return np.array([classes[word] for word in words], np.int32)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _place(row: int, column: str, where: str) -> str:
    return f"{where}: row {row + 1} of column {column!r}"


def _listed(names: tuple[str, ...], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
