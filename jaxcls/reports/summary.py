"""Summarize a classifier's test for its report: curves, confusions, mistakes, intervals and a few examples."""

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

# With more labels than this, only the curves with the lowest average precision are saved.
MOST_CURVES = 12
MOST_POINTS = 199
MOST_MISTAKES = 24
# Limits of a displayed example: pixels of the longer side of an image, characters of a text, columns of a row.
_PIXELS, _CHARACTERS, _COLUMNS = 96, 400, 8


def summarize(
    report: Mapping[str, Any],
    scores: np.ndarray,
    splits: Mapping[str, Split],
    *,
    problem: ProblemName,
    class_names: Sequence[str],
    thresholds: ArrayLike,
) -> dict[str, Any]:
    """Returns what the HTML report shows in addition to the metrics, as plain JSON values; about 100 kB.

    Args:
      report: of the test examples, as :func:`jaxcls.metrics.report` returns it.
      scores: probabilities of the test examples, (N,) or (N, classes).
      splits: the splits; 'test' is required.
      thresholds: one, or one per label.
    """
    test = splits["test"]
    options: dict[str, Any] = {"problem": problem, "sample_weight": test.sample_weight}
    bins = metrics.reliability(scores, test.labels, **options)
    matrix = metrics.confusion_matrix(scores, test.labels, threshold=thresholds, **options)
    worst = mistakes(scores, test.labels, problem=problem, class_names=class_names, thresholds=thresholds)
    return {
        "class_names": list(class_names),
        "intervals": metrics.report_intervals(report, scores, test.labels, threshold=thresholds, **options),
        "confusion": matrix.tolist() if problem == "multilabel" else _nonzero_cells(matrix),
        "curves": _curves(report, scores, test, problem),
        "reliability": {name: _plain(values) for name, values in bins._asdict().items()},
        "mistakes": [mistake._asdict() | {"example": _example(test.inputs, mistake.row)} for mistake in worst],
        "balance": {name: _balance(split.labels, problem, len(class_names)) for name, split in splits.items()},
    }


class Mistake(NamedTuple):
    """A wrong prediction.

    Attributes:
      row: of the example, from 0.
      label: the label that was predicted in a multilabel problem, else None.
      truth: the name of the true class; 'yes' or 'no' in a multilabel problem.
      predicted: the name of the predicted class, likewise.
      confidence: the probability of the predicted class.
      truth_probability: the probability of the true class.
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
    """Returns the most confident wrong predictions, the most confident first, equals in the order of the rows.

    >>> scores, labels = np.array([0.9, 0.2, 0.8, 0.7]), np.array([0, 1, 1, 0])
    >>> [(m.row, m.truth, m.predicted) for m in mistakes(scores, labels, problem="binary", class_names=("no", "yes"))]
    [(0, 'no', 'yes'), (1, 'yes', 'no'), (3, 'no', 'yes')]
    """
    scores = np.asarray(scores, np.float64)
    if problem == "multiclass":
        rows = np.arange(len(scores))
        truth, predicted = np.asarray(labels), scores.argmax(axis=1)
        confidence, truth_probability = scores[rows, predicted], scores[rows, truth]
        wrong = predicted != truth
    else:
        truth = np.asarray(labels, np.float64)
        predicted = scores >= np.asarray(thresholds)
        confidence = np.where(predicted, scores, 1 - scores)
        truth_probability = 1 - confidence
        # An unknown label is nan.
        wrong = np.isfinite(truth) & (predicted != (truth == 1))
    indices = np.flatnonzero(wrong)
    indices = indices[np.argsort(-confidence.ravel()[indices], kind="stable")][:most]
    multilabel = problem == "multilabel"
    names = ("no", "yes") if multilabel else class_names
    ranked = []
    for index in indices.tolist():
        row, label = divmod(index, len(class_names)) if multilabel else (index, None)
        ranked.append(
            Mistake(
                row=row,
                label=None if label is None else class_names[label],
                truth=names[int(truth.flat[index])],
                predicted=names[int(predicted.flat[index])],
                confidence=float(confidence.flat[index]),
                truth_probability=float(truth_probability.flat[index]),
            )
        )
    return ranked


def thin(points: ArrayLike, most: int = MOST_POINTS) -> FloatArray:
    """Returns at most ``most`` points of a curve that keep its shape, in their order.

    The result starts from the two ends of the curve, and the point farthest from it is added until all points are on it
    or there are ``most`` (Douglas and Peucker 1973).

    Args:
      points: (N, 2).

    >>> thin([[0, 0], [0.5, 0.5], [1, 1], [2, 0]]).tolist()
    [[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]
    """
    curve = np.asarray(points, np.float64)
    chosen, spans = {0, len(curve) - 1}, [_farthest(curve, 0, len(curve) - 1)]
    while len(chosen) < most:
        spans.sort()
        distance, first, middle, last = spans.pop()
        # The coordinates are rounded rates, so nearer points are on the line.
        if distance < 1e-12:
            break
        chosen.add(middle)
        spans += [_farthest(curve, first, middle), _farthest(curve, middle, last)]
    return curve[sorted(chosen)]


def _farthest(curve: FloatArray, first: int, last: int) -> tuple[float, int, int, int]:
    """Returns the largest distance of the points between two points from the line through these, and its index."""
    start, line = curve[first], curve[last] - curve[first]
    offsets = curve[first + 1 : last] - start
    length = math.hypot(*line)
    if length:
        distances = np.abs(line[0] * offsets[:, 1] - line[1] * offsets[:, 0]) / length
    else:
        distances = np.hypot(offsets[:, 0], offsets[:, 1])
    if not len(distances):
        return 0.0, first, first, last
    middle = int(distances.argmax())
    return float(distances[middle]), first, first + 1 + middle, last


def _nonzero_cells(matrix: FloatArray) -> list[list[Any]]:
    """Returns [true class, predicted class, weight] of each cell that is not 0."""
    return [[int(true), int(predicted), float(matrix[true, predicted])] for true, predicted in np.argwhere(matrix)]


def _curves(report: Mapping[str, Any], scores: np.ndarray, test: Split, problem: ProblemName) -> dict[str, Any]:
    """Returns the curves of the labels with the lowest average precision.

    Points are (false positive rate, true positive rate) and (recall, precision).
    """
    values = report["labels"]
    ranked = [label for label in values if values[label]["roc_auc"] is not None]
    worst = sorted(ranked, key=lambda label: values[label]["average_precision"])[:MOST_CURVES]
    columns = scores.reshape(len(scores), -1)
    curves = {}
    for column, label in enumerate(values):
        if label not in worst:
            continue
        truth = test.labels == column if problem == "multiclass" else test.labels.reshape(columns.shape)[:, column]
        options = {"sample_weight": test.sample_weight, "mask": np.isfinite(truth)}
        roc = metrics.roc_curve(columns[:, column], truth, **options)
        precision_recall = metrics.precision_recall_curve(columns[:, column], truth, **options)
        curves[label] = {
            "roc": _plain(thin(np.stack([roc.fpr, roc.tpr], axis=1))),
            # From the highest score down, without the last point, recall 0, which belongs to no threshold.
            "precision_recall": _plain(
                thin(np.stack([precision_recall.recall, precision_recall.precision], axis=1)[-2::-1])
            ),
        }
    return curves


def _balance(labels: np.ndarray, problem: ProblemName, classes: int) -> dict[str, Any]:
    """Returns the number of examples and the count of each class or label; of a label, also where it is known."""
    if problem == "multilabel":
        known = np.isfinite(labels).sum(axis=0)
        return {"examples": len(labels), "counts": (labels == 1).sum(axis=0).tolist(), "known": known.tolist()}
    return {"examples": len(labels), "counts": np.bincount(labels, minlength=classes).tolist()}


def _example(inputs: PyTree, row: int) -> dict[str, Any] | None:
    """Returns an example as the report shows it: an image, a text, or the first columns of a row.

    None for other types of inputs, such as arrays of features.
    """
    if isinstance(inputs, Mapping) and all(np.ndim(column) == 1 for column in inputs.values()):
        columns = {name: _cell(column[row]) for name, column in list(inputs.items())[:_COLUMNS]}
        return {"type": "row", "columns": columns, "more": max(0, len(inputs) - _COLUMNS)}
    if not isinstance(inputs, np.ndarray):
        return None
    if inputs.dtype == object:
        text = str(inputs[row])
        return {"type": "text", "text": text[:_CHARACTERS], "more": max(0, len(text) - _CHARACTERS)}
    if inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[3] in (1, 3):
        return {"type": "image", "png": png(inputs[row], _PIXELS), "height": inputs.shape[1], "width": inputs.shape[2]}
    return None


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]


def png(pixels: np.ndarray, most: int) -> str:
    """Returns a PNG file, base64-encoded, of an image whose longer side is reduced to ``most`` pixels.

    Args:
      pixels: uint8 (height, width, 1 or 3).
    """
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((most, most))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _plain(values: FloatArray) -> Any:
    """Returns nested lists of values rounded to four decimals, None for nan."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [None if math.isnan(value) else round(value, 4) for value in values.tolist()]
