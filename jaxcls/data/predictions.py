"""Predictions as the columns of a CSV file: ids, classes and probabilities, or a Kaggle submission."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, listed
from jaxcls._utils.labels import ProblemName
from jaxcls.data import user_tables
from jaxcls.data.formats import tables
from jaxcls.data.formats.columns import PLAIN_NUMBER, composed, is_formula

# Kaggle's log loss clips here, so a probability of 0 costs 34.5 nats, not infinity.
_KAGGLE_CLIP = 1e-15
# Of more classes than this, only the most probable ones of each example are written.
_MOST_COLUMNS, _RANKED = 1_000, 5


def columns(
    ids: np.ndarray,
    scores: np.ndarray,
    thresholds: float | np.ndarray,
    problem: ProblemName,
    class_names: Sequence[str],
    sets: Mapping[str, np.ndarray] | None = None,
) -> tables.Table:
    """Returns the columns id, predicted, and one probability per class (binary: of the positive class only).

    Of more than a thousand classes: the most probable one with its probability, then the next four with theirs.

    The prediction is the name of the most probable class; for a multilabel problem, the names of the labels whose
    probability reaches their threshold, separated by '|'.

    Args:
      ids: str objects (N,).
      scores: probabilities, (N,) for a binary problem, else (N, K).
      thresholds: one, or one per label; unused for multiclass problems.
      problem: binary, multiclass or multilabel.
      class_names: of the K classes or labels, or of the two classes of a binary problem.
      sets: bool (N, K) by the name of a column in which the names of these classes are written, separated by '|'.

    Raises:
      InputError: a score is not a probability.

    >>> ids, scores = np.array(["a", "b"], object), np.array([0.25, 0.5])
    >>> for name, column in columns(ids, scores, 0.5, "binary", ("cat", "dog")).items():
    ...     print(name, column.tolist())
    id ['a', 'b']
    predicted ['cat', 'dog']
    probability_dog [0.25, 0.5]
    """
    scores = _probabilities(ids, scores)
    names = np.array(class_names, object)
    written = {name: np.array(["|".join(names[row]) for row in rows], object) for name, rows in (sets or {}).items()}
    match problem:
        case "binary":
            predicted = names[(scores >= thresholds).astype(int)]
            names, scores = names[1:], scores[:, None]
        case "multiclass" if len(names) > _MOST_COLUMNS:
            ranked: tables.Table = {"id": ids}
            rest, rows = scores.copy(), np.arange(len(ids))
            for name, number in [("predicted", ""), *((f"class_{rank}", f"_{rank}") for rank in range(2, _RANKED + 1))]:
                best = rest.argmax(axis=1)
                ranked |= {name: names[best], f"probability{number}": scores[rows, best]}
                rest[rows, best] = -1
            return ranked
        case "multiclass":
            predicted = names[scores.argmax(axis=1)]
        case "multilabel":
            predicted = np.array(["|".join(names[row]) for row in scores >= thresholds], object)
    probabilities = {f"probability_{name}": column for name, column in zip(names, scores.T, strict=True)}
    return {"id": ids, "predicted": predicted, **written, **probabilities}


def save(path: Path, columns: tables.Table, say: Callable[[str], None], *, for_spreadsheets: bool = True) -> None:
    """Writes the columns as a CSV file, atomically, and tells of texts that a spreadsheet would evaluate."""
    with files.replacing(path) as temporary:
        tables.write_csv(temporary, columns, for_spreadsheets=for_spreadsheets)
    texts = [*columns, *(value for column in columns.values() if column.dtype == object for value in column)]
    if formulas := [text for text in texts if is_formula(text)]:
        what = f"note: some ids or names begin like a formula, such as {formulas[0]!r}: "
        say(what + ("they are written with a ' before them" if for_spreadsheets else "do not open it as a spreadsheet"))


class SampleSubmission(NamedTuple):
    """The layout of a Kaggle submission.

    Attributes:
      id_column: the name of the first column.
      ids: its values, str objects (N,).
      columns: the names of the other columns.
      rows: for each id, the row of the predicted examples.
      words: what is written for each class, where the sample holds labels; None where it holds probabilities.
    """

    id_column: str
    ids: np.ndarray
    columns: tuple[str, ...]
    rows: np.ndarray
    words: tuple[str, ...] | None = None

    def __str__(self) -> str:
        if self.words is None:
            return f"{', '.join(self.columns[:3])}{', ...' * (len(self.columns) > 3)}: probabilities"
        return f"{self.columns[0]}: the predicted {listed(self.words)}"


def read_sample_submission(
    sample: Path, ids: np.ndarray, problem: ProblemName, class_names: Sequence[str], *, source: Path
) -> SampleSubmission:
    """Reads a sample submission and matches its ids with those of the predicted examples.

    The first column holds the ids. The others have the names of the classes or labels, and are filled with
    probabilities. A single other column may have any name: it is filled with labels if the sample holds labels there
    (names of classes, or 0 and 1 or False and True of a binary problem); if it holds other numbers, or the same one in
    each row, with the probability of the positive class.

    Args:
      sample: the file.
      ids: of the predicted examples, str objects (N,).
      problem: binary, multiclass or multilabel.
      class_names: of the classes or labels.
      source: the file of the examples, for messages.

    Raises:
      InputError: the sample has other columns, an id occurs twice, or the two files have different ids.
    """
    id_column, *names = tables.read_csv(sample)
    if problem == "binary" and len(names) != 1:
        raise InputError(
            f"{sample}: has {len(names)} columns besides the id; for a binary problem it has one, the label or the "
            "probability of the positive class."
        )
    # As text: as numbers, 007 would be 7.
    table = tables.read_csv(sample, text=[id_column, *names])
    words = None
    if problem == "binary" or (problem == "multiclass" and len(names) == 1):
        words = _words_of_classes({*map(composed, table[names[0]])}, class_names)
        if problem == "multiclass" and words is None:
            raise InputError(
                f"{sample}: column {names[0]!r} holds {table[names[0]][0]!r}, which is not a class of the run; these "
                f"are {listed(class_names)}."
            )
    else:
        for name in class_names:
            tables.require(names, name, sample)
        for name in names:
            if name not in class_names:
                raise InputError(f"{sample}: column {name!r} is not a class of the run.")
    sample_ids = table[id_column]
    user_tables.check_unique(sample_ids, id_column, str(sample))
    user_tables.check_unique(ids, id_column, str(source))
    rows = user_tables.match_ids(sample_ids, ids, str(sample), str(source))
    return SampleSubmission(id_column, sample_ids, tuple(names), rows, words)


def _words_of_classes(values: set[str], class_names: Sequence[str]) -> tuple[str, ...] | None:
    """Returns what a sample that holds these values calls each class; None if they are not labels."""
    truths = [words for words in (("False", "True"), ("false", "true"), ("FALSE", "TRUE")) if values <= {*words}]
    if len(class_names) == 2 and (truths or values == {"0", "1"}):
        return truths[0] if truths else ("0", "1")
    # One number in each row of a binary sample, such as 0, may as well stand for a probability.
    is_number = len(values) == 1 and PLAIN_NUMBER.fullmatch(next(iter(values)))
    return tuple(class_names) if values <= {*class_names} and not (len(class_names) == 2 and is_number) else None


def submission(
    sample: SampleSubmission,
    scores: np.ndarray,
    problem: ProblemName,
    class_names: Sequence[str],
    thresholds: float | np.ndarray = 0.5,
) -> tables.Table:
    """Returns the columns of a Kaggle submission, in the order of its sample.

    Multiclass probabilities are clipped as by Kaggle, and normalized to sum to 1. ``thresholds`` is that of the labels
    of a binary problem.

    Raises:
      InputError: a score is not a probability.

    >>> sample = SampleSubmission("id", np.array(["8", "4"], object), ("oak", "ash"), np.array([1, 0]))
    >>> filled = submission(sample, np.array([[0.25, 0.75], [0.5, 0.5]]), "multiclass", ("ash", "oak"))
    >>> {name: column.tolist() for name, column in filled.items()}
    {'id': ['8', '4'], 'oak': [0.5, 0.75], 'ash': [0.5, 0.25]}
    """
    scores = _probabilities(sample.ids, scores[sample.rows])
    if sample.words is not None:
        labels = (scores >= thresholds).astype(int) if problem == "binary" else scores.argmax(axis=1)
        return {sample.id_column: sample.ids, sample.columns[0]: np.array(sample.words, object)[labels]}
    if problem == "binary":
        return {sample.id_column: sample.ids, sample.columns[0]: scores}
    if problem == "multiclass":
        scores = np.clip(scores, _KAGGLE_CLIP, 1 - _KAGGLE_CLIP)
        scores /= scores.sum(axis=1, keepdims=True)
    by_name = dict(zip(class_names, scores.T, strict=True))
    return {sample.id_column: sample.ids, **{name: by_name[name] for name in sample.columns}}


def _probabilities(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    wrong = ~((scores >= 0) & (scores <= 1)).reshape(len(scores), -1).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"row {row + 1}, id {ids[row]!r}: the prediction {scores[row]} is not a probability. Are the inputs far "
            "from those of the training examples?"
        )
    return scores
