"""User-supplied CSV tables: labels and the problem they imply, sample weights, row ids, and the test split."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError, error_context, listed
from jaxcls._utils.labels import ProblemName
from jaxcls.data import sources, splits
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import tables

PyTree = Any
Columns = Mapping[str, np.ndarray]

# A column of fractional numbers with more distinct values than this is a measurement, not a class.
_MAX_FRACTIONAL_CLASSES = 20
_TRUTH = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableColumns:
    """The roles of the columns of a table; without a text column, all columns without a role are features.

    Attributes:
      label: the label columns: one of classes, or several of 0 and 1.
      text: the column of texts, the only input if there is one.
      weight: the column of sample weights.
      id: the column of row ids.
      drop: the columns that are ignored.
    """

    label: tuple[str, ...] = ()
    text: str | None = None
    weight: str | None = None
    id: str | None = None
    drop: tuple[str, ...] = ()

    def roles(self) -> dict[str, str]:
        """Returns column name -> role.

        Raises:
          InputError: a column has two roles.

        >>> TableColumns(label=("y",), id="name").roles()
        {'y': 'label', 'name': 'id'}
        """
        roles: dict[str, str] = {}
        for role, value in vars(self).items():
            for name in (value,) if isinstance(value, str) else dict.fromkeys(value or ()):
                if name in roles:
                    raise InputError(f"column {name!r} is both a {roles[name]} and a {role} column; choose one role.")
                roles[name] = role
        return roles


class Labels(NamedTuple):
    """Labels and what they imply.

    Attributes:
      values: int32 (N,), indices into `class_names`; or float32 (N, L) of 0 and 1 for L label columns.
      problem: binary, multiclass or multilabel.
      class_names: as in :class:`jaxcls.data.dataset.Dataset`.
    """

    values: np.ndarray
    problem: ProblemName
    class_names: tuple[str, ...]


def infer_labels(columns: Columns, label_columns: Sequence[str], where: str) -> Labels:
    """Encodes the labels of training rows and infers the problem from them.

    One column with two values is a binary problem, with more a multiclass one. Classes are sorted, numerically if all
    are numbers, so the second of two is the positive class; 1.0 is the same class as '1'. Several columns of 0 and 1
    (or false and true) are a multilabel problem.

    Args:
      columns: name -> (N,) numbers or str objects.
      label_columns: the names of the label columns.
      where: the file, for messages.

    Raises:
      InputError: a column or a label is missing, all labels are equal, the values look like a quantity or like names,
        or one of several columns holds something other than 0 and 1.

    >>> infer_labels({"y": np.array([2.0, 1.0, 2.0, 2.0])}, ["y"], "rows.csv")
    Labels(values=array([1, 0, 1, 1], dtype=int32), problem='binary', class_names=('1', '2'))
    """
    if not label_columns or len(set(label_columns)) != len(label_columns):
        raise InputError(f"the label columns are {', '.join(label_columns)!r}; give one, or several different ones.")
    if len(label_columns) > 1:
        values = _binary_matrix(columns, label_columns, where)
        for name, column in zip(label_columns, values.T, strict=True):
            if np.all(column == column[0]):
                raise InputError(
                    f"{where}: column {name!r} is {column[0]:g} in every row, so there is nothing to learn. "
                    "Remove it from the label columns."
                )
        return Labels(values, "multilabel", tuple(label_columns))
    words, indices = _distinct_words(columns, label_columns[0], where)
    numeric = all(map(tables.PLAIN_NUMBER.fullmatch, words))
    class_names = tuple(sorted(set(words), key=float if numeric else None))
    _check_classes(class_names, len(indices), numeric, f"{where}: column {label_columns[0]!r}")
    problem: ProblemName = "binary" if len(class_names) == 2 else "multiclass"
    return Labels(_encode(words, class_names)[indices], problem, class_names)


def encode_labels(known: Labels, columns: Columns, label_columns: Sequence[str], where: str) -> np.ndarray:
    """Encodes the labels of test rows by the classes of the training rows.

    Raises:
      InputError: as in :func:`infer_labels`, or a row has a class that no training row has.

    >>> known = infer_labels({"y": np.array(["no", "yes", "no", "no"], object)}, ["y"], "train.csv")
    >>> encode_labels(known, {"y": np.array(["yes", "maybe"], object)}, ["y"], "test.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: test.csv: row 2 of column 'y' is 'maybe', which is not a class of ...
    """
    if known.problem == "multilabel":
        return _binary_matrix(columns, label_columns, where)
    words, indices = _distinct_words(columns, label_columns[0], where)
    unknown = np.array([word not in known.class_names for word in words])[indices]
    problem = f"which is not a class of the training rows; these are {listed(known.class_names, most=20)}."
    _reject_first(unknown, columns, label_columns[0], where, problem)
    return _encode(words, known.class_names)[indices]


def sample_weights(columns: Columns, weight_column: str | None, where: str) -> np.ndarray | None:
    """Reads the weight of each row, float32 (N,); None without a weight column.

    >>> sample_weights({"w": np.array([1.0, 0.5])}, "w", "rows.csv")
    array([1. , 0.5], dtype=float32)
    """
    if weight_column is None:
        return None
    weights = tables.numbers(columns, weight_column, where)
    _reject_first(weights < 0, columns, weight_column, where, "but a sample weight is 0 or more.")
    if not np.any(weights > 0):
        raise InputError(f"{where}: column {weight_column!r} is 0 in every row, so no row would count.")
    return weights.astype(np.float32)


def row_ids(columns: Columns, id_column: str | None, where: str) -> np.ndarray:
    """Reads the id of each row, str objects (N,); without an id column, rows are numbered from 1.

    >>> row_ids({"x": np.zeros(2)}, None, "rows.csv").tolist()
    ['1', '2']
    """
    if id_column is None:
        count = len(next(iter(columns.values())))
        return np.array([str(number) for number in range(1, count + 1)], object)
    tables.require(columns, id_column, where)
    check_unique(columns[id_column], id_column, where)
    return columns[id_column]


def check_unique(ids: np.ndarray, id_column: str, where: str) -> None:
    """Raises InputError if an id is empty or occurs twice.

    >>> check_unique(np.array(["a", "b", "a"], object), "id", "rows.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: row 3 of column 'id' is 'a', the same as row 1; ids must be unique.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise InputError(f"{where}: row {row + 1} of column {id_column!r} is empty; every row needs an id.")
        if first.setdefault(name, row) != row:
            raise InputError(
                f"{where}: row {row + 1} of column {id_column!r} is {name!r}, the same as row {first[name] + 1}; "
                "ids must be unique."
            )


def match_ids(ids: np.ndarray, other_ids: np.ndarray, where: str, other_where: str) -> np.ndarray:
    """Returns, for each id, its row among the other ids, which must be the same ones in any order.

    >>> match_ids(np.array(["a", "b"]), np.array(["b", "a"]), "test.csv", "labels.csv").tolist()
    [1, 0]
    """
    for rows, others, file, other in ((ids, other_ids, where, other_where), (other_ids, ids, other_where, where)):
        known = set(others)
        for row, name in enumerate(rows, 1):
            if name not in known:
                raise InputError(f"{file}: row {row} has the id {name!r}, which {other} does not have.")
    row_of = {name: row for row, name in enumerate(other_ids)}
    return np.array([row_of[name] for name in ids])


def hold_out_test(
    examples: Split,
    fraction: float,
    where: str,
    split: Callable[..., tuple[np.ndarray, np.ndarray]] = splits.stratified,
    *,
    seed: int = 0,
) -> tuple[Split, Split]:
    """Splits examples into training and test examples, the same ones whatever the seed of a run.

    >>> rows = Split({"x": np.arange(8.0)}, np.array([0, 1] * 4, np.int32))
    >>> train, test = hold_out_test(rows, 0.25, "rows.csv")
    >>> len(train.labels), test.labels.tolist()
    (6, [0, 1])
    """
    with error_context(where):
        train_rows, test_rows = split(examples, fraction, seed=seed)
    return examples.take(train_rows), examples.take(test_rows)


def read_labels(path: Path, columns: TableColumns) -> Labels:
    """Reads only the labels of a CSV file, from which a task learns its problem before the data is loaded."""
    return infer_labels(_read(path, columns), columns.label, str(path))


def load(name: str, data: Path, test_data: Path | None, columns: TableColumns, test_fraction: float) -> Dataset:
    """Reads a data set from one or two CSV files.

    Args:
      name: of the data set.
      data: the training rows.
      test_data: the test rows, of which the weight column may be missing; if None, a fraction of `data` is held out.
      columns: the roles of the columns.
      test_fraction: the fraction that is held out, of each class.

    Raises:
      InputError: a column is missing or has two roles, or a row does not fit; the message names it.
    """
    where = str(data)
    table = _read(data, columns)
    for column in columns.drop:
        tables.require(table, column, where)
    row_ids(table, columns.id, where)
    labels = infer_labels(table, columns.label, where)
    train = Split(_inputs(table, columns, where), labels.values, sample_weights(table, columns.weight, where))
    # Keyed by role: both files may have the same name.
    sha256 = {"data": sources.checksums([data])[data.name]}
    if test_data is None:
        train, test = hold_out_test(train, test_fraction, where)
        note = f"user data; {len(test.labels):,} rows held out for the test"
    else:
        test = _test_split(test_data, columns, labels, train.inputs)
        sha256["test_data"] = sources.checksums([test_data])[test_data.name]
        note = f"user data; tested on {test_data}"
    if labels.problem == "binary":
        note += f"; the positive class is {labels.class_names[1]!r}"
    return Dataset(
        name, train, test, labels.class_names, Provenance("files", where, sha256, synthetic=False, note=note)
    )


def read_unlabeled(path: Path, columns: TableColumns) -> Unlabeled:
    """Reads the rows of a CSV file to predict, which needs no labels."""
    table = _read(path, columns)
    return Unlabeled(row_ids(table, columns.id, str(path)), _inputs(table, columns, str(path)))


def _read(path: Path, columns: TableColumns) -> dict[str, np.ndarray]:
    # Labels and ids are read as text: as numbers, 007 would be 7, and the last digits of long ids would be lost.
    return tables.read_csv(path, text={*columns.label, columns.id or "", columns.text or ""})


def _inputs(table: Columns, columns: TableColumns, where: str) -> PyTree:
    """The texts (N,), or the feature columns; a column of numbers holds finite numbers or NaN."""
    roles = columns.roles()
    if columns.text is not None:
        tables.require(table, columns.text, where)
        return table[columns.text]
    features = {name: column for name, column in table.items() if name not in roles}
    if not features:
        raise InputError(f"{where}: has no feature columns besides the label, weight, id and dropped columns.")
    _check_numbers(features, features, where)
    return features


def _test_split(path: Path, columns: TableColumns, labels: Labels, train_inputs: PyTree) -> Split:
    where = str(path)
    table = _read(path, columns)
    values = encode_labels(labels, table, columns.label, where)
    weight_column = columns.weight if columns.weight in table else None
    inputs = _inputs(table, columns, where)
    if columns.text is None:
        _check_numbers(inputs, train_inputs, where)
    return Split(inputs, values, sample_weights(table, weight_column, where))


def _check_numbers(table: Columns, like: Columns, where: str) -> None:
    """Requires the columns of another table, and numbers where it has numbers."""
    for name, column in like.items():
        tables.require(table, name, where)
        if column.dtype != object:
            tables.numbers(table, name, where, missing=True)


def _distinct_words(columns: Columns, name: str, where: str) -> tuple[list[str], np.ndarray]:
    """The distinct values of a column as words, and for each row the index of its word; none may be missing."""
    tables.require(columns, name, where)
    if len(columns[name]) == 0:
        raise InputError(f"{where} has no rows.")
    values, indices = np.unique(columns[name], return_inverse=True)
    words = [_word(value) for value in values]
    missing = np.array([word in ("", "nan", "NaN", "inf", "-inf") for word in words])[indices]
    _reject_first(missing, columns, name, where, "but every row needs a label. Fill it in, or remove the row.")
    return words, indices


def _reject_first(wrong: np.ndarray, columns: Columns, name: str, where: str, problem: str) -> None:
    for row in np.flatnonzero(wrong)[:1]:
        raise InputError(f"{where}: row {row + 1} of column {name!r} is {_word(columns[name][row])!r}, {problem}")


def _word(value: object) -> str:
    word = str(value).strip()
    whole = re.fullmatch(r"([+-]?\d+)\.0*", word)
    return whole[1] if whole else word


def _binary_matrix(columns: Columns, names: Sequence[str], where: str) -> np.ndarray:
    """Columns of 0 and 1 as float32 (N, L)."""
    matrix = []
    for name in names:
        words, indices = _distinct_words(columns, name, where)
        values = np.array([_TRUTH.get(word.lower(), np.nan) for word in words], np.float32)[indices]
        problem = "but several label columns hold 0 and 1. For classes, give a single label column."
        _reject_first(np.isnan(values), columns, name, where, problem)
        matrix.append(values)
    return np.stack(matrix, axis=1)


def _check_classes(class_names: tuple[str, ...], rows: int, numeric: bool, where: str) -> None:
    if len(class_names) < 2:
        raise InputError(f"{where} is {class_names[0]!r} in every row; classification needs two classes.")
    fractional = numeric and any(not float(word).is_integer() for word in class_names)
    if len(class_names) > max(2, rows / 2) or (fractional and len(class_names) > _MAX_FRACTIONAL_CLASSES):
        what = "a quantity, as in regression" if numeric else "names or ids"
        raise InputError(
            f"{where} has {len(class_names):,} distinct values in {rows:,} rows. That looks like {what}; in a column "
            "of classes, each class occurs several times. Choose another label column."
        )


def _encode(words: Sequence[str], class_names: tuple[str, ...]) -> np.ndarray:
    classes = {name: index for index, name in enumerate(class_names)}
    return np.array([classes[word] for word in words], np.int32)
