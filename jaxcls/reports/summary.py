"""Summarize a classifier's test for its report: curves, confusions, mistakes, intervals and a few examples."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxcls import metrics
from jaxcls._utils.labels import ProblemName
from jaxcls.data.dataset import Split

if TYPE_CHECKING:
    from PIL import Image

# With more labels than this, only the curves with the lowest average precision are saved.
MOST_CURVES = 12
MOST_POINTS = 199
MOST_MISTAKES = 24
# As many as a thousand classes have.
MOST_CELLS = 1_000_000
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
    worst = mistakes(scores, test.labels, problem=problem, class_names=class_names, thresholds=thresholds)
    return {
        "class_names": list(class_names),
        "intervals": metrics.report_intervals(report, scores, test.labels, threshold=thresholds, **options),
        "confusion": _confusion(scores, test.labels, thresholds, options),
        "curves": _curves(report, scores, test, problem, class_names),
        "reliability": reliability(scores, test.labels, options),
        "mistakes": [mistake | {"example": example(test.inputs, mistake["row"])} for mistake in worst],
        "slices": slices(scores, test, problem, class_names, thresholds),
        "balance": {name: _balance(split.labels, problem, len(class_names)) for name, split in splits.items()},
    }


def slices(
    scores: np.ndarray, split: Split, problem: ProblemName, class_names: Sequence[str], thresholds: ArrayLike
) -> list[dict[str, Any]]:
    """Returns the subgroups with the most errors; of several labels, one wrong decision is an error."""
    # Imports JAX, which the report of a finished run does without.
    from jaxcls.data import descriptions

    rows = descriptions.sampled_rows(split.inputs)
    scores, labels = scores[rows], np.asarray(split.labels)[rows]
    if problem == "multiclass":
        wrong = scores.argmax(axis=1) != labels
    else:
        wrong = np.isfinite(labels) & ((scores >= np.asarray(thresholds)) != (labels == 1))
    columns = descriptions.columns(split.inputs, rows)
    if problem != "multilabel":
        columns = {"class": np.array(class_names, object)[labels.astype(int)]} | columns
    worst = metrics.slices.worst_slices(columns, wrong.reshape(len(rows), -1).any(axis=1))
    return [one._asdict() | {"interval": list(one.interval)} for one in worst]


def reliability(scores: ArrayLike, labels: ArrayLike, options: Any) -> dict[str, Any]:
    """Returns the bins of a reliability diagram, plain JSON values; see :func:`jaxcls.metrics.reliability`."""
    bins = metrics.reliability(scores, labels, **options)
    return {name: _plain(values) for name, values in bins._asdict().items()}


def _confusion(scores: np.ndarray, labels: np.ndarray, thresholds: ArrayLike, options: Any) -> list[Any]:
    """Returns the matrices of a multilabel problem, else the nonzero cells, of very many the largest."""
    if options["problem"] == "multiclass":
        true, predicted, weight = metrics.confusion_cells(scores, labels, **options)
        largest = np.sort(np.argsort(-weight, kind="stable")[:MOST_CELLS]) if len(weight) > MOST_CELLS else slice(None)
        return [
            list(cell) for cell in zip(*(part[largest].tolist() for part in (true, predicted, weight)), strict=True)
        ]
    matrix = metrics.confusion_matrix(scores, labels, threshold=thresholds, **options)
    if options["problem"] == "multilabel":
        return matrix.tolist()
    return [[*cell, float(matrix[*cell])] for cell in np.argwhere(matrix).tolist()]


def mistakes(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    problem: ProblemName,
    class_names: Sequence[str],
    thresholds: ArrayLike = 0.5,
) -> list[dict[str, Any]]:
    """Returns the most confident wrong predictions, the most confident first, equals in the order of the rows.

    Returns:
      For each, the 'row' of the example, from 0; the 'label', or None unless the problem is multilabel; the names of
      the classes 'truth' and 'predicted', 'yes' or 'no' in a multilabel problem; and their probabilities,
      'truth_probability' and 'confidence'.

    >>> scores, labels = np.array([0.9, 0.2, 0.8, 0.7]), np.array([0, 1, 1, 0])
    >>> found = mistakes(scores, labels, problem="binary", class_names=("no", "yes"))
    >>> [(mistake["row"], mistake["truth"], mistake["predicted"]) for mistake in found]
    [(0, 'no', 'yes'), (1, 'yes', 'no'), (3, 'no', 'yes')]
    """
    scores = np.asarray(scores)
    if problem == "multiclass":
        rows = np.arange(len(scores))
        truth, predicted = np.asarray(labels), scores.argmax(axis=1)
        confidence, truth_probability = scores[rows, predicted], scores[rows, truth]
        wrong = predicted != truth
    else:
        scores, truth = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
        predicted = scores >= np.asarray(thresholds)
        confidence = np.where(predicted, scores, 1 - scores)
        truth_probability = 1 - confidence
        # An unknown label is nan.
        wrong = np.isfinite(truth) & (predicted != (truth == 1))
    positions = np.argwhere(wrong)
    order = np.argsort(-confidence[wrong], kind="stable")[:MOST_MISTAKES]
    names = ("no", "yes") if problem == "multilabel" else class_names
    return [
        {
            "row": position[0],
            "label": class_names[position[1]] if problem == "multilabel" else None,
            "truth": names[int(truth[position])],
            "predicted": names[int(predicted[position])],
            "confidence": float(confidence[position]),
            "truth_probability": float(truth_probability[position]),
        }
        for position in map(tuple, positions[order].tolist())
    ]


def thin(points: ArrayLike, most: int = MOST_POINTS) -> np.ndarray:
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


def _farthest(curve: np.ndarray, first: int, last: int) -> tuple[float, int, int, int]:
    """Returns the largest distance of the points between two points from the line through these, and its index."""
    offsets, line = curve[first : last + 1] - curve[first], curve[last] - curve[first]
    # Of a line without a length, from its only point.
    length = math.hypot(*line)
    distances = np.abs(line[0] * offsets[:, 1] - line[1] * offsets[:, 0]) / length if length else np.hypot(*offsets.T)
    farthest = int(distances.argmax())
    return float(distances[farthest]), first, first + farthest, last


def _curves(
    report: Mapping[str, Any], scores: np.ndarray, test: Split, problem: ProblemName, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the curves of the labels with the lowest average precision.

    Points are (false positive rate, true positive rate) and (recall, precision).
    """
    values = report["labels"]
    ranked = [label for label in values if values[label]["roc_auc"] is not None]
    worst = sorted(ranked, key=lambda label: values[label]["average_precision"])[:MOST_CURVES]
    columns = scores.reshape(len(scores), -1)
    curves = {}
    for column, label in enumerate(class_names[1:] if problem == "binary" else class_names):
        if label not in worst:
            continue
        truth = test.labels == column if problem == "multiclass" else test.labels.reshape(columns.shape)[:, column]
        options = {"sample_weight": test.sample_weight, "mask": np.isfinite(truth)}
        roc = metrics.roc_curve(columns[:, column], truth, **options)
        precision, recall, _ = metrics.precision_recall_curve(columns[:, column], truth, **options)
        curves[label] = {
            "roc": _plain(thin(np.stack([roc.fpr, roc.tpr], axis=1))),
            # From the highest score down, without the last point, recall 0, which belongs to no threshold.
            "precision_recall": _plain(thin(np.stack([recall, precision], axis=1)[-2::-1])),
        }
    return curves


def _balance(labels: np.ndarray, problem: ProblemName, classes: int) -> dict[str, Any]:
    """Returns the number of examples and the count of each class or label; of a label, also where it is known."""
    if problem == "multilabel":
        known = np.isfinite(labels).sum(axis=0)
        return {"examples": len(labels), "counts": (labels == 1).sum(axis=0).tolist(), "known": known.tolist()}
    return {"examples": len(labels), "counts": np.bincount(labels, minlength=classes).tolist()}


def example(inputs: Any, row: int) -> dict[str, Any] | None:
    """Returns an example as the report shows it: an image, a text, or the first columns of a row.

    None for other types of inputs, such as arrays of features.
    """
    if isinstance(inputs, Mapping) and all(np.ndim(column) == 1 for column in inputs.values()):
        columns = {name: cell(column[row]) for name, column in list(inputs.items())[:_COLUMNS]}
        return {"type": "row", "columns": columns, "more": max(0, len(inputs) - _COLUMNS)}
    if not hasattr(inputs, "dtype"):
        return None
    if inputs.dtype == object:
        text = str(inputs[row])
        return {"type": "text", "text": text[:_CHARACTERS], "more": max(0, len(text) - _CHARACTERS)}
    if inputs.dtype == np.uint8 and len(inputs.shape) == 4 and inputs.shape[3] in (1, 3):
        return {"type": "image", "png": png(inputs[row], _PIXELS), "height": inputs.shape[1], "width": inputs.shape[2]}
    return None


def cell(value: Any) -> str:
    """Returns a value of a table as the report shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]


def png(pixels: np.ndarray, most: int) -> str:
    """Returns a PNG file, base64-encoded, of an image whose longer side is reduced to ``most`` pixels.

    Args:
      pixels: uint8 (height, width, 1 or 3).
    """
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((most, most))
    if image.mode == "RGB" and max(image.size) > _PIXELS:
        # 256 colors take a third of the bytes, and hardly differ to the eye.
        image = image.quantize(256)
    return encoded(image)


def encoded(image: "Image.Image") -> str:
    """Returns an image as a PNG file, base64-encoded."""
    with io.BytesIO() as file:
        image.save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode("ascii")


def _plain(values: np.ndarray) -> Any:
    """Returns nested lists of values rounded to four decimals, None for nan."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [None if math.isnan(value) else round(value, 4) for value in values.tolist()]
