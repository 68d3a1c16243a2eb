"""User-supplied CSV tables: labels and the problem they imply, sample weights, row ids, and the test split."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError, error_context, listed
from jaxcls._utils.labels import ProblemName
from jaxcls.data import sources, splits
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import tables
from jaxcls.data.formats.columns import PLAIN_NUMBER, composed, is_missing
from jaxcls.data.formats.stored_tables import StoredTable, all_distinct, distinct

Columns = Mapping[str, np.ndarray]

# A column of fractional numbers with more distinct values than this is a measurement, not a class.
_MAX_FRACTIONAL_CLASSES = 20
_TRUTH = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableColumns:
    """The roles of the columns of a table; without a text column, all columns without a role are features.

    Attributes:
      label: the label columns: one of classes, or several of 0 and 1. With a text column, none means all columns
        without a role, except one called id.
      text: the column of texts, the only input if there is one.
      weight: the column of sample weights.
      id: the column of row ids.
      drop: the columns that are ignored.
      separator, decimal: of a CSV file; found if None.
    """

    label: tuple[str, ...] = ()
    text: str | None = None
    weight: str | None = None
    id: str | None = None
    drop: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str | None = None

    def roles(self) -> dict[str, str]:
        """Returns column name -> role.

        Raises:
          InputError: a column has two roles.

        >>> TableColumns(label=("y",), id="name").roles()
        {'y': 'label', 'name': 'id'}
        """
        roles: dict[str, str] = {}
        for role in ("label", "text", "weight", "id", "drop"):
            value = getattr(self, role)
            for name in (value,) if isinstance(value, str) else dict.fromkeys(value or ()):
                if name in roles:
                    raise InputError(f"column {name!r} is both a {roles[name]} and a {role} column; choose one role.")
                roles[name] = role
        return roles


class Labels(NamedTuple):
    """Labels and what they imply.

    Attributes:
      values: int32 (N,), indices into `class_names`, -1 where a label is missing; or float32 (N, L) of 0 and 1 for L
        label columns, NaN where one is missing.
      problem: binary, multiclass or multilabel.
      class_names: as in :class:`jaxcls.data.dataset.Dataset`.
    """

    values: np.ndarray
    problem: ProblemName
    class_names: tuple[str, ...]


def infer_labels(columns: Columns, label_columns: Sequence[str], where: str | Path, *, missing: bool = False) -> Labels:
    """Encodes the labels of training rows and infers the problem from them.

    One column with two values is a binary problem, with more a multiclass one. Classes are sorted, numerically if all
    are numbers, so the second of two is the positive class; 1.0 is the same class as '1'. Several columns of 0 and 1
    (or false and true) are a multilabel problem.

    Args:
      columns: name -> (N,) numbers or str objects.
      label_columns: the names of the label columns.
      where: the file, for messages.
      missing: whether labels may be missing, as `MISSING` of :mod:`jaxcls.data.formats.columns` spells them.

    Raises:
      InputError: a column or a label is missing, all labels are equal, the values look like a quantity or like names,
        or one of several columns holds something other than 0 and 1.

    >>> infer_labels({"y": np.array([2.0, 1.0, 2.0, 2.0])}, ["y"], "rows.csv")
    Labels(values=array([1, 0, 1, 1], dtype=int32), problem='binary', class_names=('1', '2'))
    """
    if not label_columns:
        raise InputError(f"{where}: has no label column.")
    if len(set(label_columns)) != len(label_columns):
        raise InputError(f"the label columns are {', '.join(label_columns)!r}; give one, or several different ones.")
    if len(label_columns) > 1:
        values = encode_labels((), columns, label_columns, where, missing=missing)
        check_varied(values, label_columns, where)
        return Labels(values, "multilabel", tuple(label_columns))
    (name,) = label_columns
    words, indices = _distinct_words(columns, name, where, missing=missing)
    named = [word for word in words if word]
    numeric = all(map(PLAIN_NUMBER.fullmatch, named))
    class_names = tuple(sorted(set(named), key=float if numeric else None))
    if len(class_names) < 2:
        raise InputError(f"{where}: column {name!r} is {named[0]!r} in every row; classification needs two classes.")
    fractional = numeric and any(not float(word).is_integer() for word in class_names)
    rows = len(indices)
    if len(class_names) > max(2, rows / 2) or (fractional and len(class_names) > _MAX_FRACTIONAL_CLASSES):
        what = "a quantity, as in regression" if numeric else "names or ids"
        raise InputError(
            f"{where}: column {name!r} has {len(class_names):,} distinct values in {rows:,} rows. That looks like "
            f"{what}; in a column of classes, each class occurs several times. Choose another label column."
        )
    problem: ProblemName = "binary" if len(class_names) == 2 else "multiclass"
    return Labels(_indices(words, class_names)[indices], problem, class_names)


def encode_labels(
    class_names: Sequence[str],
    columns: Columns,
    label_columns: Sequence[str],
    where: str | Path,
    *,
    missing: bool = False,
) -> np.ndarray:
    """Encodes labels as :func:`infer_labels` does, by known classes; several columns of 0 and 1 need none.

    Raises:
      InputError: as in :func:`infer_labels`, or a row has another class.

    >>> encode_labels(("no", "yes"), {"y": np.array(["yes", "maybe"], object)}, ["y"], "test.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: test.csv: row 2 of column 'y' is 'maybe', which is not a class; these are no, yes.
    """
    matrix = []
    for name in label_columns:
        words, indices = _distinct_words(columns, name, where, missing=missing)
        if len(label_columns) > 1:
            codes = np.array([_TRUTH.get(word.lower(), -1) if word else np.nan for word in words], np.float32)
            problem = (
                f"but several label columns ({listed(label_columns, most=5)}) hold 0 and 1. For classes, give a single "
                "label column."
            )
        else:
            codes = _indices(words, class_names)
            problem = f"which is not a class; these are {listed(class_names, most=20)}."
        matrix.append(codes[indices])
        absent = np.array([not word for word in words])[indices]
        reject_first((matrix[-1] < 0) & ~absent, columns, name, where, problem)
    return np.stack(matrix, axis=1) if len(matrix) > 1 else matrix[0]


def coded_numbers(
    columns: Columns, name: str, where: str | Path, codes: Sequence[int], *, missing: bool = False
) -> np.ndarray:
    """Reads a column of numbers that each stand for something, float64 (N,); a missing one is NaN, if it may be.

    >>> coded_numbers({"y": np.array([1.0, 2.0])}, "y", "rows.csv", (0, 1))
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: row 2 of column 'y' is '2', but must be one of 0, 1.
    """
    values = tables.numbers(columns, name, where, missing=missing)
    problem = f"but must be one of {', '.join(map(str, codes))}{', or blank' if missing else ''}."
    reject_first(~np.isin(values, codes) & ~np.isnan(values), columns, name, where, problem)
    return values


def reject_first(wrong: np.ndarray, columns: Columns, name: str, where: str | Path, problem: str) -> None:
    """Raises InputError for the first row of a column that is wrong, bool (N,).

    >>> reject_first(np.array([False, True]), {"y": np.array([1.0, -1.0])}, "y", "rows.csv", "but must be positive.")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: row 2 of column 'y' is '-1', but must be positive.
    """
    for row in np.flatnonzero(wrong)[:1]:
        raise InputError(f"{where}: row {row + 1} of column {name!r} is {_word(columns[name][row])!r}, {problem}")


def check_varied(labels: np.ndarray, names: Sequence[str], where: str | Path) -> None:
    """Raises InputError if a column of labels (N, L) has the same value in every row.

    >>> check_varied(np.array([[0, 1], [1, 1]]), ["rude", "spam"], "rows.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: column 'spam' is 1 in every row, so there is nothing to learn. ...
    """
    for column, values in enumerate(labels.T):
        known = values[~np.isnan(values)]
        if len(known) and (known != known[0]).any():
            continue
        what = f"{known[0]:g}" if len(known) else "missing"
        raise InputError(
            f"{where}: column {names[column]!r} is {what} in every row, so there is nothing to learn. "
            "Leave it out, or add rows."
        )


def sample_weights(columns: Columns, weight_column: str | None, where: str | Path) -> np.ndarray | None:
    """Reads the weight of each row, float32 (N,); None without a weight column.

    >>> sample_weights({"w": np.array([1.0, 0.5])}, "w", "rows.csv")
    array([1. , 0.5], dtype=float32)
    """
    if weight_column is None:
        return None
    weights = tables.numbers(columns, weight_column, where)
    reject_first(weights < 0, columns, weight_column, where, "but a sample weight is 0 or more.")
    if not np.any(weights > 0):
        raise InputError(f"{where}: column {weight_column!r} is 0 in every row, so no row would count.")
    return weights.astype(np.float32)


def row_ids(columns: Columns, id_column: str | None, where: str | Path) -> np.ndarray:
    """Reads the id of each row, str objects (N,); without an id column, rows are numbered from 1.

    >>> row_ids({"x": np.zeros(2)}, None, "rows.csv").tolist()
    ['1', '2']
    """
    if id_column is None:
        count = len(next(iter(columns.values())))
        return np.array([str(number) for number in range(1, count + 1)], object)
    tables.require(columns, id_column, where)
    if "" in columns[id_column] or not all_distinct(columns[id_column]):
        check_unique(columns[id_column], id_column, where)
    return np.asarray(columns[id_column])


def check_unique(ids: np.ndarray, id_column: str, where: str | Path) -> None:
    """Raises InputError if an id is empty or occurs twice.

    >>> check_unique(np.array(["a", "b", "a"], object), "id", "rows.csv")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: row 3 of column 'id' is 'a', the same as row 1; ids must be unique.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(map(composed, ids), 1):
        if not name:
            raise InputError(f"{where}: row {row} of column {id_column!r} is empty; every row needs an id.")
        if (other := first.setdefault(name, row)) != row:
            same = f"the same as row {other}; ids must be unique."
            raise InputError(f"{where}: row {row} of column {id_column!r} is {name!r}, {same}")


def match_ids(ids: np.ndarray, other_ids: np.ndarray, where: str | Path, other_where: str | Path) -> np.ndarray:
    """Returns, for each id, its row among the other ids, which must be the same ones in any order.

    >>> match_ids(np.array(["a", "b"]), np.array(["b", "a"]), "test.csv", "labels.csv").tolist()
    [1, 0]
    """
    ids, other_ids = (np.array([*map(composed, some)], object) for some in (ids, other_ids))
    for rows, others, file, other in ((ids, other_ids, where, other_where), (other_ids, ids, other_where, where)):
        known = set(others)
        for row, name in enumerate(rows, 1):
            if name not in known:
                raise InputError(f"{file}: row {row} has the id {name!r}, which {other} does not have.")
    row_of = {name: row for row, name in enumerate(other_ids)}
    return np.array([row_of[name] for name in ids])


def hold_out_test(
    examples: Split, fraction: float, where: str | Path, split: splits.Splitter = splits.stratified, *, seed: int = 0
) -> tuple[Split, Split]:
    """Splits examples into training and test examples, the same ones whatever the seed of a run.

    >>> rows = Split({"x": np.arange(8.0)}, np.array([0, 1] * 4, np.int32))
    >>> train, test = hold_out_test(rows, 0.25, "rows.csv")
    >>> len(train.labels), test.labels.tolist()
    (6, [0, 1])
    """
    with error_context(str(where)):
        train_rows, test_rows = split(examples, fraction, seed=seed)
    return examples.take(train_rows), examples.take(test_rows)


def read_labels(path: Path, columns: TableColumns) -> tuple[Labels, str]:
    """Reads only the labels of a file, from which a task learns its problem, and the decimal sign of its numbers."""
    file, columns = _read(path, columns)
    return infer_labels(file.columns, columns.label, path, missing=True), file.decimal


def load(
    name: str,
    data: Path,
    columns: TableColumns,
    *,
    validation_data: Path | None = None,
    test_data: Path | None = None,
    test_fraction: float,
) -> Dataset:
    """Reads a data set from one to three files. Rows without a label are left out.

    Args:
      name: of the data set.
      data: the training rows.
      columns: the roles of the columns.
      validation_data: the validation rows, if they are not to be taken from `data`. The weight column may be missing.
      test_data: the test rows, likewise; if None, a fraction of `data` is held out.
      test_fraction: the fraction that is held out, of each class.

    Raises:
      InputError: a column is missing or has two roles, or a row does not fit; the message names it.
    """
    file, columns = _read(data, columns)
    table = file.columns
    for column in columns.drop:
        tables.require(table, column, data)
    if columns.id is not None:
        row_ids(table, columns.id, data)
    labels = infer_labels(table, columns.label, data, missing=True)
    inputs = _inputs(table, columns, data)
    train, notes = _labeled(Split(inputs, labels.values, sample_weights(table, columns.weight, data)))
    if file.separator not in ("", ","):
        notes.insert(0, f"values separated by {file.separator!r}, decimal sign {file.decimal!r}")
    # Keyed by role: both files may have the same name.
    sha256 = {"data": sources.checksums([data])[data.name]}
    others: dict[str, Split] = {}
    for role, path in {"validation": validation_data, "test": test_data}.items():
        if path is None:
            continue
        words = [name for name, column in inputs.items() if column.dtype == object] if columns.text is None else ()
        other, _ = _read(path, dataclasses.replace(columns, decimal=file.decimal), words)
        values = encode_labels(labels.class_names, other.columns, columns.label, path, missing=True)
        weights = sample_weights(other.columns, columns.weight if columns.weight in other.columns else None, path)
        examples = Split(_inputs(other.columns, columns, path, like=inputs), values, weights)
        others[role], more_notes = _labeled(examples)
        sha256[f"{role}_data"] = sources.checksums([path])[path.name]
        notes += [f"{role} on {path}", *more_notes]
    if test_data is None:
        train, others["test"] = hold_out_test(train, test_fraction, data)
        notes.append(f"{len(others['test'].labels):,} rows held out for the test")
    if labels.problem == "multilabel":
        notes.append(f"{len(labels.class_names)} label columns: {listed(labels.class_names, most=5)}")
    if labels.problem == "binary":
        notes.append(f"the positive class is {labels.class_names[1]!r}")
    provenance = Provenance("files", str(data), sha256, note="; ".join(notes))
    return Dataset(name, train, others["test"], labels.class_names, provenance, others.get("validation"))


def read_unlabeled(path: Path, columns: TableColumns, text: Collection[str] = ()) -> Unlabeled:
    """Reads the rows of a file to predict, which needs no labels; these columns as text whatever they hold."""
    file, columns = _read(path, columns, text)
    return Unlabeled(row_ids(file.columns, columns.id, path), _inputs(file.columns, columns, path))


def _read(path: Path, columns: TableColumns, text: Collection[str] = ()) -> tuple[tables.TableFile, TableColumns]:
    """Reads a file, with lists such as 'a,b' among the names of columns divided."""
    roles: dict[str, Any] = {
        role: composed(value) if isinstance(value, str) else value and tuple(map(composed, value))
        for role, value in vars(columns).items()
    }
    columns = TableColumns(**roles)
    listed_names = [word for name in (*columns.label, *columns.drop) for word in (name, *name.split(","))]
    # Labels and ids are read as text: as numbers, 007 would be 7, and the last digits of long ids would be lost.
    texts = {*listed_names, columns.id or "", columns.text or "", *text}
    file = tables.read(path, text=texts, separator=columns.separator, decimal=columns.decimal)

    def divided(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(part for name in names for part in ([name] if name in file.columns else name.split(",")))

    columns = dataclasses.replace(columns, label=divided(columns.label), drop=divided(columns.drop))
    if columns.text is not None and not columns.label:
        others = [name for name in file.columns if name.lower() not in ("", "id") and name not in columns.roles()]
        columns = dataclasses.replace(columns, label=tuple(others))
    if columns.id is None and "" in file.columns and all_distinct(file.columns[""]):
        columns = dataclasses.replace(columns, id="")
    return file, columns


def _labeled(examples: Split) -> tuple[Split, list[str]]:
    """Leaves out rows without any label, and says how many."""
    labels = examples.labels
    known = labels >= 0 if labels.ndim == 1 else ~np.isnan(labels).all(axis=1)
    if known.all():
        return examples, []
    return examples.take(known), [f"{np.sum(~known):,} rows without a label left out"]


def _inputs(table: Columns, columns: TableColumns, where: Path, like: Any = None) -> Any:
    """The texts (N,), or the feature columns, among them those of `like`."""
    roles = columns.roles()
    if columns.text is not None:
        tables.require(table, columns.text, where)
        return table[columns.text]
    names = [name for name in table if name and name not in roles]
    features = table.only(names) if isinstance(table, StoredTable) else {name: table[name] for name in names}
    if not features:
        raise InputError(f"{where}: has no feature columns besides the label, weight, id and dropped columns.")
    for name in like or ():
        tables.require(table, name, where)
    return features


def _distinct_words(
    columns: Columns, name: str, where: str | Path, *, missing: bool = False
) -> tuple[list[str], np.ndarray]:
    """The distinct values of a column as words, '' for a missing one, and for each row the index of its word."""
    tables.require(columns, name, where)
    if len(columns[name]) == 0:
        raise InputError(f"{where} has no rows.")
    values, indices = distinct(columns[name])
    words = ["" if is_missing(word) or word in ("inf", "-inf") else word for word in map(_word, values)]
    absent = np.array([not word for word in words])[indices]
    if not missing or absent.all():
        reject_first(absent, columns, name, where, "but every row needs a label. Fill it in, or remove the row.")
    return words, indices


def _word(value: object) -> str:
    word = composed(str(value).strip())
    whole = re.fullmatch(r"([+-]?\d+)\.0*", word)
    return whole[1] if whole else word


def _indices(words: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """The index of each word among the classes, or -1."""
    index_of = {name: index for index, name in enumerate(class_names)}
    return np.array([index_of.get(word, -1) for word in words], np.int32)
