"""Summarize a detector's test for its report: example images with boxes, curves, missed objects and false alarms.

Detections are matched with objects as in COCO's evaluation, at an IoU of 0.5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls.data.dataset import Split
from jaxcls.metrics.detection import bootstrap_intervals, box_iou, matches, precision_recall
from jaxcls.reports.summary import MOST_CURVES, png, thin

Arrays = Mapping[str, np.ndarray]
# The rank, the box and the record of a missed object or a false alarm.
_Mistake = tuple[float, np.ndarray, dict[str, Any]]

MOST_IMAGES = 8
MOST_MISTAKES = 12
IOU = 0.5
# Below this IoU, two boxes do not show the same object.
_SLIGHT_IOU = 0.1
# The longer side of an image, and of the crop around a box, in pixels.
_IMAGE_SIZE, _CROP_SIZE = 320, 96


def summarize(
    report: Mapping[str, Any], scores: Any, splits: Mapping[str, Split], *, class_names: Sequence[str], threshold: float
) -> dict[str, Any]:
    """Returns what the HTML report shows in addition to the metrics, as plain JSON values.

    Args:
      report: of the test images, as :func:`jaxcls.metrics.detection.report` returns it.
      scores: the detections in the test images.
      splits: the splits 'train', 'validation' and 'test'.
      threshold: the score from which a detection is shown, and counts as a false alarm if it matches no object.
    """
    test = splits["test"]
    detections = scores | {"classes": np.where(scores["scores"] >= threshold, scores["classes"], -1)}
    matched = matches(detections, test.labels)
    # Ranked by area and by score.
    missed: list[_Mistake] = []
    false_alarms: list[_Mistake] = []
    for row in range(test.num_examples):
        detected, truth = _row(detections, row), _row(test.labels, row)
        # The IoU of each detection with each object; 0 for padding.
        exists = (detected["classes"] >= 0)[:, None] & (truth["classes"] >= 0)
        ious = np.where(exists, box_iou(detected["boxes"], truth["boxes"]), 0)
        for index in np.flatnonzero(matched.objects[row] == -1):
            box, label = truth["boxes"][index], truth["classes"][index]
            reason = _why_missed(ious[:, index], detected["classes"], label, class_names)
            area = (box[2] - box[0]) * (box[3] - box[1])
            missed.append((area, box, {"row": row, "class": class_names[label], "reason": reason}))
        for index in np.flatnonzero(matched.detections[row] == -1):
            box, label = detected["boxes"][index], detected["classes"][index]
            reason = _why_false(ious[index], label, truth["classes"], class_names)
            score = float(detected["scores"][index])
            alarm = {"row": row, "class": class_names[label], "reason": reason, "score": round(score, 4)}
            false_alarms.append((score, box, alarm))
    shown = np.unique(np.linspace(0, test.num_examples - 1, min(test.num_examples, MOST_IMAGES)).astype(int)).tolist()
    intervals = bootstrap_intervals(scores, test.labels)
    detected_count = int((matched.objects >= 0).sum())
    known = {name: [low, high] for name, (low, high, _) in intervals.items() if not np.isnan(low)}
    return {
        "class_names": [*class_names],
        "intervals": {"metrics": known, "labels": {}},
        "curves": _curves(report, scores, test, class_names),
        "counts": {"detected": detected_count, "missed": len(missed), "false_alarms": len(false_alarms)},
        "missed": _with_crops(missed, test),
        "false_alarms": _with_crops(false_alarms, test),
        "examples": [_example(detections, matched.detections[row] != -1, test, row, class_names) for row in shown],
        "balance": {name: _balance(split, len(class_names)) for name, split in splits.items()},
    }


def _curves(report: Mapping[str, Any], scores: Any, test: Split, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the precision-recall curves at IoU 0.5, points (recall, precision), of the classes of lowest mAP 50."""
    curves = precision_recall(scores, test.labels, num_classes=len(class_names))
    known = [name for name in class_names if report["labels"][name]["map_50"] is not None]
    worst = sorted(known, key=lambda name: report["labels"][name]["map_50"])[:MOST_CURVES]
    return {
        name: {"precision_recall": np.round(thin(points), 4).tolist()}
        for name, points in zip(class_names, curves, strict=True)
        if name in worst and len(points)
    }


def _why_missed(ious: np.ndarray, classes: np.ndarray, label: int, class_names: Sequence[str]) -> str:
    """Describes the nearest detection of a missed object, given its IoU with each detection."""
    if not ious.size or ious.max() < _SLIGHT_IOU:
        return "not detected"
    nearest = int(ious.argmax())
    if classes[nearest] != label and ious[nearest] >= IOU:
        return f"detected as {class_names[classes[nearest]]}"
    return f"nearest detection has IoU {ious[nearest]:.2f}"


def _why_false(ious: np.ndarray, label: int, classes: np.ndarray, class_names: Sequence[str]) -> str:
    """Describes the error of a false alarm, given its IoU with each object (Hoiem et al. 2012, "Diagnosing Error in
    Object Detectors")."""
    nearest = int(ious.argmax())
    if ious[nearest] < _SLIGHT_IOU:
        return "background"
    if ious[nearest] >= IOU:
        return "duplicate detection" if classes[nearest] == label else f"object is {class_names[classes[nearest]]}"
    same_class = ious[classes == label].max(initial=0)
    if same_class >= _SLIGHT_IOU:
        return f"poor localization, IoU {same_class:.2f}"
    return f"overlaps {class_names[classes[nearest]]}"


def _with_crops(mistakes: Sequence[_Mistake], test: Split) -> list[dict[str, Any]]:
    """Returns the records of the mistakes of highest rank, each with its part of the image."""
    top = sorted(mistakes, key=lambda mistake: -mistake[0])[:MOST_MISTAKES]
    return [mistake | {"example": _crop(test, mistake["row"], box.astype(np.float64))} for _, box, mistake in top]


def _crop(test: Split, row: int, box: np.ndarray) -> dict[str, Any]:
    """Returns the pixels of a box with a margin of a quarter of its sides plus 4, and the box within them."""
    height, width = test.inputs["size"][row]
    margin = (box[2:] - box[:2]) / 4 + 4
    left, top = np.maximum((box[:2] - margin).astype(int), 0).tolist()
    right, bottom = np.minimum(np.ceil(box[2:] + margin).astype(int), (width, height)).tolist()
    return {
        "png": png(test.inputs["image"][row, top:bottom, left:right], _CROP_SIZE),
        "width": right - left,
        "height": bottom - top,
        "box": _rounded(box - (left, top, left, top)),
    }


def _example(
    detections: Arrays, correct: np.ndarray, test: Split, row: int, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns an image with its objects and detections, boxes in pixels of the canvas."""
    detected, truth = _row(detections, row), _row(test.labels, row)
    height, width = test.inputs["size"][row].tolist()

    def boxes(arrays: Arrays, **values: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"box": _rounded(arrays["boxes"][index]), "class": class_names[arrays["classes"][index]]}
            | {name: column[index] for name, column in values.items()}
            for index in np.flatnonzero(arrays["classes"] >= 0).tolist()
        ]

    return {
        "row": row,
        "png": png(test.inputs["image"][row, :height, :width], _IMAGE_SIZE),
        "height": height,
        "width": width,
        "truth": boxes(truth, crowd=truth["crowd"].tolist()),
        # Correct, or in a crowd, where detections do not count.
        "detections": boxes(detected, score=_rounded(detected["scores"], 4), correct=correct.tolist()),
    }


def _balance(split: Split, classes: int) -> dict[str, Any]:
    counted = split.labels["classes"][(split.labels["classes"] >= 0) & ~split.labels["crowd"]]
    return {"examples": split.num_examples, "counts": np.bincount(counted, minlength=classes).tolist()}


def _row(arrays: Arrays, row: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(array[row]) for name, array in arrays.items()}


def _rounded(values: np.ndarray, digits: int = 1) -> list[float]:
    return [round(float(value), digits) for value in values]
