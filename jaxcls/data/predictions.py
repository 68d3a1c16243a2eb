"""Predictions as columns of a CSV file: everything that was predicted, or what a Kaggle competition takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import ProblemName, outputs
from jaxcls.data import user_tables
from jaxcls.data.formats import tables

# Kaggle's log loss clips at this, so that a probability of 0 costs 34.5 nats and not everything.
_SCORERS_CLIP = 1e-15


def columns(
    ids: np.ndarray,
    scores: np.ndarray,
    thresholds: float | np.ndarray,
    problem: ProblemName,
    class_names: Sequence[str],
) -> tables.Table:
    """The id of each example, what is predicted, and a probability of each class; of a binary problem the positive's.

    What is predicted is the name of the likeliest class, or in a multi-label problem the names of the labels whose
    probability reaches its threshold, parted by '|'.

    Args:
      ids: str objects (N,).
      scores: probabilities, (N,) of a binary problem, else (N, K).
      thresholds: one, or one a label; a multiclass problem takes none.

    Raises:
      InputError: a prediction is not finite.

    >>> ids, scores = np.array(["a", "b"], object), np.array([0.25, 0.5])
    >>> for name, column in columns(ids, scores, 0.5, "binary", ("cat", "dog")).items():
    ...     print(name, column.tolist())
    id ['a', 'b']
    predicted ['cat', 'dog']
    probability_dog [0.25, 0.5]
    """
    scores = _probabilities(ids, scores)
    names = np.array(class_names, object)
    match problem:
        case "binary":
            predicted = names[(scores >= thresholds).astype(int)]
            names, scores = names[1:], scores[:, None]
        case "multiclass":
            predicted = names[scores.argmax(axis=1)]
        case "multilabel":
            predicted = np.array(["|".join(names[row]) for row in scores >= thresholds], object)
    return {
        "id": ids,
        "predicted": predicted,
        **{f"probability_{name}": column for name, column in zip(names, scores.T, strict=True)},
    }


def of_outputs(ids: np.ndarray, scores: np.ndarray, class_names: Sequence[str]) -> tables.Table:
    """The id of each example, of each output the likeliest class, and a probability of each class.

    Args:
      class_names: as :func:`jaxcls._utils.labels.outputs` takes them.

    Raises:
      InputError: a prediction is not finite.

    >>> names = ("size: small", "size: large", "colour: red", "colour: blue")
    >>> for name, column in of_outputs(np.array(["a"]), np.array([[0.25, 0.75, 0.5, 0.5]]), names).items():
    ...     print(name, column.tolist())
    id ['a']
    size ['large']
    colour ['red']
    probability_size: small [0.25]
    probability_size: large [0.75]
    probability_colour: red [0.5]
    probability_colour: blue [0.5]
    """
    scores = _probabilities(ids, scores)
    likeliest = {
        output: np.array([name.removeprefix(f"{output}: ") for name in class_names[classes]], object)[
            scores[:, classes].argmax(axis=1)
        ]
        for output, classes in outputs(class_names).items()
    }
    named = {f"probability_{name}": column for name, column in zip(class_names, scores.T, strict=True)}
    return {"id": ids, **likeliest, **named}


def save(path: Path, columns: tables.Table, *, for_spreadsheets: bool = True) -> None:
    """Writes the columns as a CSV file: all of it or nothing."""
    with files.replacing(path) as temporary:
        tables.write_csv(temporary, columns, for_spreadsheets=for_spreadsheets)


class Form(NamedTuple):
    """What a sample submission asks for.

    Attributes:
      id_column: the name of its first column.
      ids: what stands in it, str objects (N,).
      columns: the names of the others.
      rows: of each id, the row among the examples that were predicted.
    """

    id_column: str
    ids: np.ndarray
    columns: tuple[str, ...]
    rows: np.ndarray


def read_form(sample: Path, ids: np.ndarray, problem: ProblemName, class_names: Sequence[str], *, asked: Path) -> Form:
    """Reads a sample submission, and finds what it asks for among the examples that are to be predicted.

    Its first column holds ids. The others are called like the classes or labels; that of a binary problem, the
    probability of the positive class, may be called anything.

    Args:
      sample: the file.
      ids: of the examples, str objects (N,).
      asked: the file that they are from, for messages.

    Raises:
      InputError: the sample has other columns; an id that is not among the examples, or an example that is not among
      the ids; or an id stands twice.
    """
    header = list(tables.read_csv(sample))
    id_column, names = header[0], tuple(header[1:])
    _check_columns(sample, names, problem, class_names)
    # As text: as numbers, 007 would be 7.
    wanted = tables.read_csv(sample, text=[id_column])[id_column]
    user_tables.check_unique(wanted, id_column, str(sample))
    user_tables.check_unique(ids, id_column, str(asked))
    row_of = {name: row for row, name in enumerate(ids)}
    for row, name in enumerate(wanted, 1):
        if name not in row_of:
            raise InputError(
                f"{sample}: row {row} asks for {id_column} {name!r}, which is not in {asked}; give the examples that "
                "the sample submission is for."
            )
    if len(ids) > len(wanted):
        known = set(wanted)
        row, name = next((row, name) for row, name in enumerate(ids, 1) if name not in known)
        raise InputError(
            f"{asked} holds {len(ids):,} examples, but {sample} asks for {len(wanted):,}: row {row}, {id_column} "
            f"{name!r}, is not among them."
        )
    return Form(id_column, wanted, names, np.array([row_of[name] for name in wanted]))


def submission(form: Form, scores: np.ndarray, problem: ProblemName, class_names: Sequence[str]) -> tables.Table:
    """The columns of a Kaggle submission: the ids and the columns of the sample, in its order.

    Rows of a multiclass problem are clipped as the scorer does, and sum to 1.

    Raises:
      InputError: a prediction is not finite.

    >>> form = Form("id", np.array(["8", "4"], object), ("oak", "ash"), np.array([1, 0]))
    >>> filled = submission(form, np.array([[0.25, 0.75], [0.5, 0.5]]), "multiclass", ("ash", "oak"))
    >>> {name: column.tolist() for name, column in filled.items()}
    {'id': ['8', '4'], 'oak': [0.5, 0.75], 'ash': [0.5, 0.25]}
    """
    scores = _probabilities(form.ids, scores[form.rows])
    if problem == "binary":
        return {form.id_column: form.ids, form.columns[0]: scores}
    if problem == "multiclass":
        scores = np.clip(scores, _SCORERS_CLIP, 1 - _SCORERS_CLIP)
        scores /= scores.sum(axis=1, keepdims=True)
    places = {name: place for place, name in enumerate(class_names)}
    return {form.id_column: form.ids, **{name: scores[:, places[name]] for name in form.columns}}


def _probabilities(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    wrong = ~((scores >= 0) & (scores <= 1)).reshape(len(scores), -1).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"row {row + 1}, id {ids[row]!r}: its prediction, {scores[row]}, is no probability. Are its numbers far "
            "from those of the training examples?"
        )
    return scores


def _check_columns(sample: Path, wanted: Sequence[str], problem: ProblemName, class_names: Sequence[str]) -> None:
    if problem == "binary":
        if len(wanted) != 1:
            raise InputError(
                f"{sample}: has {len(wanted)} columns beside the id; that of a binary problem has one, the "
                "probability of the positive class."
            )
        return
    for name in class_names:
        tables.require(wanted, name, sample)
    for name in wanted:
        if name not in class_names:
            raise InputError(f"{sample}: column {name!r} is none of the classes that the run learned.")
