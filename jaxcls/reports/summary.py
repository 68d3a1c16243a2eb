"""What is kept of a run's test for its page: curves, confusions, mistakes and intervals, but no data set."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls import metrics
from jaxcls._utils.labels import ProblemName
from jaxcls.data.dataset import Split

PyTree = Any
FloatArray = NDArray[np.float64]

# Of more labels than this the curves of those that are ranked worst are kept.
MOST_CURVES = 12
MOST_POINTS = 199
MOST_MISTAKES = 24
# Of an example that is shown: the longer side of an image in pixels, the characters of a text, the columns of a row.
_PIXELS, _CHARACTERS, _COLUMNS = 96, 400, 8


def summarize(
    report: Mapping[str, Any],
    scores: np.ndarray,
    parts: Mapping[str, Split],
    *,
    problem: ProblemName,
    class_names: Sequence[str],
    thresholds: ArrayLike,
) -> dict[str, Any]:
    """What a page shows of the test beside its report, as plain JSON values; about 100 kB.

    Args:
      report: of the test examples, as :func:`jaxcls.metrics.report` makes it.
      scores: of the test examples, probabilities, (N,) or (N, classes).
      parts: 'train', 'validation' and 'test'.
      thresholds: one, or one a label.
    """
    test = parts["test"]
    given: dict[str, Any] = {"problem": problem, "sample_weight": test.sample_weight}
    bins = metrics.reliability(scores, test.labels, **given)
    return {
        "class_names": list(class_names),
        "intervals": metrics.report_intervals(report, scores, test.labels, threshold=thresholds, **given),
        "confusion": _confusion(scores, test.labels, thresholds, given),
        "curves": _curves(report, scores, test, problem),
        "reliability": {name: _plain(values) for name, values in bins._asdict().items()},
        "mistakes": [
            mistake._asdict() | {"example": _shown(test.inputs, mistake.row)}
            for mistake in mistakes(
                scores, test.labels, problem=problem, class_names=class_names, thresholds=thresholds
            )
        ],
        "balance": {name: _balance(part.labels, problem, len(class_names)) for name, part in parts.items()},
    }


class Mistake(NamedTuple):
    """A decision that was wrong.

    Attributes:
      row: of the example, from 0.
      label: the label that it is about in a multi-label problem, else None.
      truth, predicted: the names of the classes, or of a label 'yes' and 'no'.
      confidence: the probability of what was predicted.
      truth_probability: that of the truth.
    """

    row: int
    label: str | None
    truth: str
    predicted: str
    confidence: float
    truth_probability: float


def mistakes(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    problem: ProblemName,
    class_names: Sequence[str],
    thresholds: ArrayLike = 0.5,
    most: int = MOST_MISTAKES,
) -> list[Mistake]:
    """The wrong decisions that were the surest of themselves, from the surest; of equals, the first.

    >>> scores, labels = np.array([0.9, 0.2, 0.8, 0.7]), np.array([0, 1, 1, 0])
    >>> [(m.row, m.truth, m.predicted) for m in mistakes(scores, labels, problem="binary", class_names=("no", "yes"))]
    [(0, 'no', 'yes'), (1, 'yes', 'no'), (3, 'no', 'yes')]
    """
    scores = np.asarray(scores, np.float64)
    if problem == "multiclass":
        predicted = scores.argmax(axis=1)
        rows = np.arange(len(scores))
        sure, of_truth = scores[rows, predicted], scores[rows, labels]
        surest = _surest(sure, predicted != labels, most)
        return [
            Mistake(
                int(row),
                None,
                class_names[labels[row]],
                class_names[predicted[row]],
                *map(float, (sure[row], of_truth[row])),
            )
            for row in surest
        ]
    columns = scores.reshape(len(scores), -1)
    truth = np.asarray(labels, np.float64).reshape(columns.shape)
    chosen = columns >= np.asarray(thresholds)
    sure = np.where(chosen, columns, 1 - columns)
    wrong = np.isfinite(truth) & (chosen != (truth == 1))
    found = []
    for place in _surest(sure.ravel(), wrong.ravel(), most):
        row, column = divmod(int(place), columns.shape[1])
        names = class_names if problem == "binary" else ("no", "yes")
        label = None if problem == "binary" else class_names[column]
        said = bool(chosen[row, column])
        confidence = float(sure[row, column])
        found.append(Mistake(row, label, names[not said], names[said], confidence, 1 - confidence))
    return found


def thin(points: ArrayLike, most: int = MOST_POINTS) -> FloatArray:
    """The points of a curve that matter, in their order: its ends, and where it turns.

    Points between two others on a straight line go first, which changes nothing. If more than `most` are left, the one
    that is farthest from the curve so far is taken, again and again (Douglas and Peucker 1973).

    Args:
      points: (N, 2).

    >>> thin([[0, 0], [0.5, 0.5], [1, 1], [2, 0]]).tolist()
    [[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]
    """
    curve = np.asarray(points, np.float64)
    if len(curve) > 2:
        steps = np.diff(curve, axis=0)
        turn = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
        # Products of rates that are rounded: what is within their rounding is straight.
        kept = np.abs(turn) > 1e-15
        curve = curve[np.concatenate([[True], kept, [True]])]
    if len(curve) <= most:
        return curve
    taken = {0, len(curve) - 1}
    open_spans = [_farthest(curve, 0, len(curve) - 1)]
    while len(taken) < most and open_spans:
        open_spans.sort()
        _, first, middle, last = open_spans.pop()
        taken.add(middle)
        open_spans += [_farthest(curve, *ends) for ends in ((first, middle), (middle, last)) if ends[1] - ends[0] > 1]
    return curve[sorted(taken)]


def _farthest(curve: FloatArray, first: int, last: int) -> tuple[float, int, int, int]:
    """How far from the line between two points the farthest of those between them is, and which it is."""
    start, along = curve[first], curve[last] - curve[first]
    away = curve[first + 1 : last] - start
    length = math.hypot(*along)
    far = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / length if length else np.hypot(away[:, 0], away[:, 1])
    middle = int(far.argmax())
    return float(far[middle]), first, first + 1 + middle, last


def _surest(sure: np.ndarray, wrong: np.ndarray, most: int) -> np.ndarray:
    places = np.flatnonzero(wrong)
    return places[np.argsort(-sure[places], kind="stable")][:most]


def _confusion(scores: np.ndarray, labels: np.ndarray, thresholds: ArrayLike, given: Mapping[str, Any]) -> list[Any]:
    """Each cell that is not 0: true, predicted, weight. Of a multi-label problem [[tn, fp], [fn, tp]] of each label."""
    matrix = metrics.confusion_matrix(scores, labels, threshold=thresholds, **given)
    if given["problem"] == "multilabel":
        return matrix.tolist()
    return [[int(true), int(predicted), float(matrix[true, predicted])] for true, predicted in np.argwhere(matrix)]


def _curves(report: Mapping[str, Any], scores: np.ndarray, test: Split, problem: ProblemName) -> dict[str, Any]:
    """By label: its ROC curve, points (false positive rate, true positive rate), and its precision-recall curve,
    points (recall, precision)."""
    labels = list(report["labels"])
    ranked = [label for label in labels if report["labels"][label]["roc_auc"] is not None]
    worst = sorted(ranked, key=lambda label: report["labels"][label]["average_precision"])[:MOST_CURVES]
    columns = scores.reshape(len(scores), -1)
    curves = {}
    for column, label in enumerate(labels):
        if label not in worst:
            continue
        truth = test.labels == column if problem == "multiclass" else test.labels.reshape(columns.shape)[:, column]
        given = {"sample_weight": test.sample_weight, "mask": np.isfinite(truth)}
        roc = metrics.roc_curve(columns[:, column], truth, **given)
        found = metrics.precision_recall_curve(columns[:, column], truth, **given)
        curves[label] = {
            "roc": _plain(thin(np.stack([roc.fpr, roc.tpr], axis=1))),
            # From the highest score down; the curve's own last point, recall 0, is no decision.
            "precision_recall": _plain(thin(np.stack([found.recall, found.precision], axis=1)[-2::-1])),
        }
    return curves


def _balance(labels: np.ndarray, problem: ProblemName, classes: int) -> dict[str, Any]:
    """How many examples there are, and of each class or label; of a label, how many of those where it is known."""
    if problem == "multilabel":
        known = np.isfinite(labels)
        return {
            "examples": len(labels),
            "counts": (labels == 1).sum(axis=0).tolist(),
            "known": known.sum(axis=0).tolist(),
        }
    return {"examples": len(labels), "counts": np.bincount(labels, minlength=classes).tolist()}


def _shown(inputs: PyTree, row: int) -> dict[str, Any] | None:
    """Returns an example in a form that a report can show: an image, a text, or the first columns of a row.

    None where the inputs are of another form, such as arrays of features.
    """
    if isinstance(inputs, Mapping) and all(np.ndim(column) == 1 for column in inputs.values()):
        columns = {name: _cell(column[row]) for name, column in list(inputs.items())[:_COLUMNS]}
        return {"kind": "row", "columns": columns, "more": max(0, len(inputs) - _COLUMNS)}
    if not isinstance(inputs, np.ndarray):
        return None
    if inputs.dtype == object:
        text = str(inputs[row])
        return {"kind": "text", "text": text[:_CHARACTERS], "more": max(0, len(text) - _CHARACTERS)}
    if inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[3] in (1, 3):
        return {"kind": "image", "png": png(inputs[row], _PIXELS), "height": inputs.shape[1], "width": inputs.shape[2]}
    return None


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]


def png(pixels: np.ndarray, most: int) -> str:
    """An image, (height, width, 1 or 3) uint8, as the base64 of a PNG file of so many pixels a side at the most."""
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((most, most))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _plain(values: FloatArray) -> Any:
    """Nested lists of four decimals, None for nan."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [None if math.isnan(value) else round(value, 4) for value in values.tolist()]
