"""Metrics of detection by name, and all of them in one report of the form of the other problems'."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxcls.errors import unknown_name
from jaxcls.metrics import detection
from jaxcls.metrics.collected import FloatArray
from jaxcls.metrics.detection import Arrays

NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "voc_ap_50")


def get(name: str, num_classes: int) -> Callable[..., float]:
    """The metric of that name as `function(detections, labels, *, weights=None, mask=None) -> float`.

    Images that are masked do not count; weights of images are not taken into account, as COCO has none.

    Raises:
      InputError: there is no such metric.

    >>> get("map_5", 3)
    Traceback (most recent call last):
    ...
    jaxcls.errors.InputError: unknown metric of detection 'map_5'. Did you mean 'map_50'? ...
    """
    if name not in NAMES:
        raise unknown_name("metric of detection", name, NAMES)
    return partial(_value, name, num_classes)


def report(detections: Arrays, labels: Arrays, *, class_names: Sequence[str], scale: Any = None) -> dict[str, Any]:
    """Every metric of detection, as a plain dict that JSON can hold (nan becomes None).

    The form is that of :func:`jaxcls.metrics.report`; the support of a class is the number of its objects.

    Args:
      scale: as :func:`jaxcls.metrics.detection.evaluate` takes it.

    >>> found = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> found = report(found, truth, class_names=("cat", "dog"))
    >>> found["metrics"]["map_50"], found["labels"]["dog"]["map_50"], found["undefined_labels"]["map_50"]
    (1.0, None, ['dog'])
    """
    scores = detection.evaluate(detections, labels, len(class_names), scale=scale)
    columns = {"support": scores.per_class["objects"]}
    columns |= {name: values for name, values in scores.per_class.items() if name != "objects"}
    undefined = {name: [class_names[place] for place in np.flatnonzero(np.isnan(v))] for name, v in columns.items()}
    return {
        "problem": "detection",
        "examples": len(labels["classes"]),
        "metrics": {name: _plain(scores.overall[name]) for name in NAMES},
        "labels": {
            label: {name: _plain(values[place]) for name, values in columns.items()}
            for place, label in enumerate(class_names)
        },
        "undefined_labels": {name: left_out for name, left_out in undefined.items() if left_out},
    }


def intervals(detections: Arrays, labels: Arrays, num_classes: int) -> dict[str, list[float]]:
    """95% intervals of the metrics that have one: name -> [low, high]."""
    found = detection.bootstrap_intervals(detections, labels, num_classes, seed=0)
    return {name: [one.low, one.high] for name, one in found.items() if math.isfinite(one.low)}


def precision_recall(detections: Arrays, labels: Arrays, num_classes: int) -> list[FloatArray]:
    """Of each class the points (recall, precision), (P, 2), at an IoU of 0.5; none of a class without objects.

    They end where recall does: beyond it precision is 0.
    """
    scores = detection.evaluate(detections, labels, num_classes)
    return [
        np.stack([scores.recalls, curve], axis=1)[curve > 0] if not np.isnan(curve).any() else np.zeros((0, 2))
        for curve in scores.precisions
    ]


def _value(
    name: str, num_classes: int, detections: Arrays, labels: Arrays, *, weights: Any = None, mask: Any = None
) -> float:
    if mask is not None:
        detections, labels = _rows(detections, mask), _rows(labels, mask)
    return detection.evaluate(detections, labels, num_classes).overall[name]


def _rows(arrays: Mapping[str, np.ndarray], mask: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(array)[np.asarray(mask)] for name, array in arrays.items()}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
