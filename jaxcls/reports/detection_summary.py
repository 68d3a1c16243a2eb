"""What is kept of a detector's test for its page: some images with their boxes, what it missed, what it made up.

Detections are matched with true boxes as in COCO's evaluation, at an IoU of 0.5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxcls.data.dataset import Split
from jaxcls.metrics.detection import bootstrap_intervals, box_iou, matches, precision_recall
from jaxcls.reports.summary import MOST_CURVES, png, thin

PyTree = Any

MOST_IMAGES = 8
MOST_MISTAKES = 12
IOU = 0.5
# The longer side of an image, or of the surroundings of a box, in pixels as they are kept.
_PIXELS, _CROP = 160, 96


def summarize(
    report: Mapping[str, Any],
    scores: PyTree,
    parts: Mapping[str, Split],
    *,
    class_names: Sequence[str],
    threshold: float,
) -> dict[str, Any]:
    """What a page shows of the test beside its report, as plain JSON values.

    Args:
      scores: what was found in the test images.
      parts: 'train', 'validation' and 'test'.
      threshold: a detection that is surer is shown, and one that is not is no false alarm.
    """
    test = parts["test"]
    return {
        "class_names": [*class_names],
        "intervals": {"metrics": _intervals(scores, test.labels), "labels": {}},
        "curves": _curves(report, scores, test, class_names),
        **_mistakes(scores, test, class_names, threshold),
        "examples": [_example(scores, test, row, class_names, threshold) for row in _rows(test.num_examples)],
        "balance": {name: _balance(part, len(class_names)) for name, part in parts.items()},
    }


def _intervals(scores: PyTree, labels: PyTree) -> dict[str, list[float]]:
    intervals = bootstrap_intervals(scores, labels)
    return {name: [low, high] for name, (low, high, _) in intervals.items() if not np.isnan(low)}


def _curves(report: Mapping[str, Any], scores: PyTree, test: Split, class_names: Sequence[str]) -> dict[str, Any]:
    """By class: its precision-recall curve at IoU 0.5, points (recall, precision), of those that are found worst."""
    curves = precision_recall(scores, test.labels, num_classes=len(class_names))
    known = [name for name in class_names if report["labels"][name]["map_50"] is not None]
    worst = sorted(known, key=lambda name: report["labels"][name]["map_50"])[:MOST_CURVES]
    return {
        name: {"precision_recall": np.round(thin(points), 4).tolist()}
        for name, points in zip(class_names, curves, strict=True)
        if name in worst and len(points)
    }


def _mistakes(scores: PyTree, test: Split, class_names: Sequence[str], threshold: float) -> dict[str, Any]:
    """The largest true boxes that nothing found, and the surest detections that found nothing."""
    missed: list[tuple[float, int, int, str]] = []
    alarms: list[tuple[float, int, int, str]] = []
    counts = dict.fromkeys(("found", "missed", "alarms"), 0)
    sure = scores | {"classes": np.where(scores["scores"] >= threshold, scores["classes"], -1)}
    matched = matches(sure, test.labels)
    for row in range(test.num_examples):
        found, truth = _row(sure, row), _row(test.labels, row)
        overlaps = _overlaps(found, truth)
        left, wrong = np.flatnonzero(matched.objects[row] == -1), np.flatnonzero(matched.detections[row] == -1)
        counts["found"] += int((matched.objects[row] >= 0).sum())
        counts["missed"] += len(left)
        counts["alarms"] += len(wrong)
        for box in left:
            x1, y1, x2, y2 = truth["boxes"][box]
            said = _said_of(overlaps[:, box], found["classes"], truth["classes"][box], class_names)
            missed.append((float((x2 - x1) * (y2 - y1)), row, int(box), said))
        alarms += [
            (
                float(found["scores"][place]),
                row,
                int(place),
                _why(overlaps[place], found["classes"][place], truth, class_names),
            )
            for place in wrong
        ]
    return {
        "counts": counts,
        "mistakes": [
            {
                "row": row,
                "class": class_names[test.labels["classes"][row, box]],
                "said": said,
                "example": _crop(test, row, test.labels["boxes"][row, box]),
            }
            for _, row, box, said in sorted(missed, key=lambda one: -one[0])[:MOST_MISTAKES]
        ],
        "alarms": [
            {
                "row": row,
                "class": class_names[scores["classes"][row, place]],
                "score": round(score, 4),
                "why": why,
                "example": _crop(test, row, scores["boxes"][row, place]),
            }
            for score, row, place, why in sorted(alarms, key=lambda one: -one[0])[:MOST_MISTAKES]
        ],
    }


def _said_of(overlaps: np.ndarray, classes: np.ndarray, truth: int, class_names: Sequence[str]) -> str:
    """What was said where a true box is that nothing found."""
    if not overlaps.size or overlaps.max() < 0.1:
        return "nothing found there"
    nearest = int(overlaps.argmax())
    if classes[nearest] != truth and overlaps[nearest] >= IOU:
        return f"taken for {class_names[classes[nearest]]}"
    return f"the nearest box overlaps it by {overlaps[nearest]:.2f}"


def _why(overlaps: np.ndarray, said: int, truth: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
    """What is wrong with a detection that found nothing (Hoiem et al. 2012, "Diagnosing Error in Object Detectors")."""
    nearest = int(overlaps.argmax())
    overlap, kind = overlaps[nearest], truth["classes"][nearest]
    if overlap < 0.1:
        return "nothing is there"
    if overlap >= IOU:
        return "found already" if kind == said else f"it is {class_names[kind]}"
    own = overlaps[truth["classes"] == said].max(initial=0)
    return f"overlaps its box by {own:.2f}" if own >= 0.1 else f"a piece of {class_names[kind]}"


def _rows(count: int) -> list[int]:
    """Some of the images, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(int)).tolist()


def _example(scores: PyTree, test: Split, row: int, class_names: Sequence[str], threshold: float) -> dict[str, Any]:
    """An image with its true boxes and the sure ones of what was found, in pixels of the canvas."""
    found, truth = _row(scores, row), _row(test.labels, row)
    one = ({name: array[row : row + 1] for name, array in tree.items()} for tree in (scores, test.labels))
    right = matches(*one).detections[0] != -1
    height, width = (int(side) for side in test.inputs["size"][row])
    return {
        "row": row,
        "png": png(test.inputs["image"][row, :height, :width], _PIXELS),
        "height": height,
        "width": width,
        "truth": [
            {"box": _numbers(truth["boxes"][box]), "class": class_names[kind], "crowd": bool(truth["crowd"][box])}
            for box, kind in enumerate(truth["classes"])
            if kind >= 0
        ],
        "found": [
            {
                "box": _numbers(found["boxes"][place]),
                "class": class_names[kind],
                "score": round(float(found["scores"][place]), 4),
                # Or in a crowd.
                "right": bool(right[place]),
            }
            for place, kind in enumerate(found["classes"])
            if kind >= 0 and found["scores"][place] >= threshold
        ],
    }


def _crop(test: Split, row: int, box: np.ndarray) -> dict[str, Any]:
    """A box with half of its size around it, and where it is in there."""
    height, width = (int(side) for side in test.inputs["size"][row])
    x1, y1, x2, y2 = (float(corner) for corner in box)
    across, down = (x2 - x1) / 4 + 4, (y2 - y1) / 4 + 4
    left, top = max(0, int(x1 - across)), max(0, int(y1 - down))
    right, bottom = min(width, int(np.ceil(x2 + across))), min(height, int(np.ceil(y2 + down)))
    return {
        "png": png(test.inputs["image"][row, top:bottom, left:right], _CROP),
        "width": right - left,
        "height": bottom - top,
        "box": _numbers(np.array([x1 - left, y1 - top, x2 - left, y2 - top])),
    }


def _balance(part: Split, classes: int) -> dict[str, Any]:
    real = (part.labels["classes"] >= 0) & ~part.labels["crowd"]
    return {
        "examples": part.num_examples,
        "counts": np.bincount(part.labels["classes"][real], minlength=classes).tolist(),
    }


def _row(tree: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(array[row]) for name, array in tree.items()}


def _overlaps(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> NDArray[np.float64]:
    """IoU of each detection with each true box, (D, M); 0 with padding, and of it."""
    real = (found["classes"] >= 0)[:, None] & (truth["classes"] >= 0)[None]
    return np.where(real, box_iou(found["boxes"], truth["boxes"]), 0)


def _numbers(box: np.ndarray) -> list[float]:
    return [round(float(corner), 1) for corner in box]
