"""Metrics of object detection: COCO's average precision by faster-coco-eval, Pascal VOC's, and their intervals.

Boxes are (x1, y1, x2, y2). Detections are a dict of "boxes" (N, D, 4), "scores" (N, D) and "classes" (N, D); labels are
a dict of "boxes" (N, M, 4), "classes" (N, M) and "crowd" (N, M), the objects of N images. Entries of class -1 are
padding. A detection matched with a crowd counts neither as correct nor as wrong. The average precision of a class
without objects is nan, and is left out of means.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.metrics.averages import report_of
from jaxcls.metrics.collected import FloatArray
from jaxcls.metrics.intervals import Interval, percentile_intervals

__all__ = [
    "NAMES", "DetectionScores", "Matches", "bootstrap_intervals", "box_iou", "evaluate", "get", "matches",
    "precision_recall", "report", "voc_average_precision",
]  # fmt: skip

Arrays = Mapping[str, np.ndarray]

# COCO's IoU thresholds, recall levels, and number of detections per image and class.
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "voc_ap_50")


class DetectionScores(NamedTuple):
    """The average precision of detections.

    Attributes:
      overall: by name. 'map' is COCO's mean average precision over the IoU thresholds 0.50 to 0.95; 'map_50' and
        'map_75' are those at one threshold; 'map_small', 'map_medium' and 'map_large' those of objects whose boxes have
        an area below 32², up to 96² and above 96² pixels; 'voc_ap_50' is Pascal VOC's.
      per_class: by name, (K,): 'map', 'map_50', 'map_75', 'voc_ap_50', and 'objects', the number without crowds.
      recalls: (101,), from 0 to 1.
      precisions: (K, 101), at IoU 0.5 the highest precision at that recall or a higher one; 0 if it is not reached.
      confidences: (K, 101), the score at which it is reached; 0 if it is not.
    """

    overall: dict[str, float]
    per_class: dict[str, FloatArray]
    recalls: FloatArray
    precisions: FloatArray
    confidences: FloatArray


class Matches(NamedTuple):
    """Detections and objects matched by COCO's rule at one IoU threshold.

    Attributes:
      detections: int32 (N, D), the index of the object that each detection matches; -1 for a false positive, -2 if it
        does not count (a crowd, or padding).
      objects: int32 (N, M), the index of the detection that matches each object; -1 for a miss, -2 if it does not
        count.
    """

    detections: np.ndarray
    objects: np.ndarray


def evaluate(
    detections: Arrays, labels: Arrays, num_classes: int, *, scale: np.ndarray | None = None
) -> DetectionScores:
    """COCO's and Pascal VOC's average precision, overall and per class, and the precision-recall curves.

    The 100 detections of the highest score count per image and class. COCO's own evaluation measures the size of an
    object by the area of its segmentation; here it is the area of its box.

    Args:
      detections, labels: of N images, see the module.
      num_classes: K.
      scale: (N, 2), pixels of the boxes per pixel of the original image, vertically and horizontally. Sizes are those
        in the original image. Default: 1.

    Raises:
      InputError: shapes do not match, or a number is not finite.

    Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv 1405.0312, and its evaluation code.

    >>> detections = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> labels = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> round(evaluate(detections, labels, 1).overall["map"], 6)  # an IoU of 0.8 passes 7 of 10 thresholds
    0.7
    """
    from faster_coco_eval import COCO, COCOeval_faster

    _check(detections, labels, num_classes)
    shared = {
        "categories": [{"id": number, "name": str(number)} for number in range(1, num_classes + 1)],
        "images": [{"id": number, "height": 1, "width": 1} for number in range(1, len(detections["boxes"]) + 1)],
    }
    # The library would print how long everything took.
    silent: dict[str, Any] = {"print_function": lambda *message: None}
    truth, predicted = (
        COCO({**shared, "annotations": _annotations(arrays, scale)}, **silent) for arrays in (labels, detections)
    )
    evaluation = COCOeval_faster(truth, predicted, "bbox", **silent)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU, recall, class, size, maximum of detections); -1 where there is no object.
    precision = np.asarray(evaluation.eval["precision"], np.float64)[..., -1]
    confidence = np.asarray(evaluation.eval["scores"], np.float64)[0, :, :, 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    curves = precision[0, :, :, 0]
    of_any_size = {"map": precision[..., 0], "map_50": precision[0, ..., 0], "map_75": precision[5, ..., 0]}
    by_size = {f"map_{size}": precision[..., i] for i, size in enumerate(("small", "medium", "large"), 1)}
    voc = voc_average_precision(detections, labels, num_classes)
    per_class = {name: values.mean(axis=tuple(range(values.ndim - 1))) for name, values in of_any_size.items()}
    return DetectionScores(
        overall={name: _mean(values) for name, values in {**of_any_size, **by_size, "voc_ap_50": voc}.items()},
        per_class={**per_class, "voc_ap_50": voc, "objects": _object_counts(labels, num_classes)},
        recalls=RECALLS,
        precisions=curves.T,
        confidences=np.where(np.isnan(curves[0]), np.nan, confidence).T,
    )


def get(name: str) -> Callable[..., float]:
    """The metric of that name, one of `NAMES`: ``(detections, labels, *, sample_weight=None, mask=None) -> float``.

    Images whose `mask` is False or whose weight is 0 do not count; all others count equally.

    Raises:
      InputError: the name is unknown.

    >>> detections = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> labels = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> get("map_75")(detections, labels)
    1.0
    """
    if name not in NAMES:
        raise unknown_name("detection metric", name, NAMES)

    def metric(
        detections: Arrays, labels: Arrays, *, sample_weight: ArrayLike | None = None, mask: ArrayLike | None = None
    ) -> float:
        counted = np.ones(len(labels["classes"]), bool)
        for values in (sample_weight, mask):
            counted &= True if values is None else np.asarray(values) > 0
        detections, labels = ({key: value[counted] for key, value in tree.items()} for tree in (detections, labels))
        return evaluate(detections, labels, _num_classes(detections, labels)).overall[name]

    return metric


def report(
    detections: Arrays, labels: Arrays, *, class_names: Sequence[str], scale: np.ndarray | None = None
) -> dict[str, Any]:
    """All metrics as a plain dict that JSON can hold, nan as None, like :func:`jaxcls.metrics.report`.

    `metrics` is name -> value, of all `NAMES`; `labels` is class -> its 'support', the number of its objects, and its
    values; `undefined_labels` is metric -> the classes without objects, if any.

    >>> detections = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> labels = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> report(detections, labels, class_names=("cat", "dog"))["labels"]["cat"]
    {'support': 1, 'map': 0.7..., 'map_50': 1.0, 'map_75': 1.0, 'voc_ap_50': 1.0}
    """
    scores = evaluate(detections, labels, len(class_names), scale=scale)
    objects = dict(zip(class_names, scores.per_class["objects"].astype(int).tolist(), strict=True))
    columns = {name: column for name, column in scores.per_class.items() if name != "objects"}
    return report_of("detection", len(labels["classes"]), scores.overall, objects, columns)


def precision_recall(detections: Arrays, labels: Arrays, *, num_classes: int) -> list[FloatArray]:
    """The curve of each class at IoU 0.5, points (recall, precision) (101, 2); (0, 2) for a class without objects.

    As in COCO, precision is the highest at each recall or a higher one.

    >>> boxes = np.array([[[0, 0, 10, 10.0]]])
    >>> detections = {"boxes": boxes, "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> labels = {"boxes": boxes, "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> [curve.shape for curve in precision_recall(detections, labels, num_classes=2)]
    [(101, 2), (0, 2)]
    """
    scores = evaluate(detections, labels, num_classes)
    return [
        np.zeros((0, 2)) if np.isnan(precision[0]) else np.stack([scores.recalls, precision], axis=1)
        for precision in scores.precisions
    ]


def voc_average_precision(detections: Arrays, labels: Arrays, num_classes: int, *, iou: float = 0.5) -> FloatArray:
    """Pascal VOC's average precision per class since 2010, the area under all points of the curve, (K,).

    A detection is assigned to the object of its class and image with which it has the highest IoU. It is correct if
    that IoU is at least `iou` and no detection of a higher score is assigned to the object. nan for a class without
    objects.

    Source: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", and its development kit.

    >>> detections = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> labels = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> voc_average_precision(detections, labels, 2)
    array([ 1., nan])
    """
    _check(detections, labels, num_classes)
    areas = np.full(num_classes, np.nan)
    for label, objects in enumerate(_object_counts(labels, num_classes)):
        if not objects:
            continue
        scores, correct = [np.zeros(0)], [np.zeros(0, bool)]
        for row in range(len(labels["classes"])):
            truth, chosen = (np.flatnonzero(tree["classes"][row] == label) for tree in (labels, detections))
            chosen = chosen[np.argsort(-detections["scores"][row, chosen], kind="stable")]
            # A last column of zeros, for images without an object of the class.
            overlaps = np.pad(box_iou(detections["boxes"][row, chosen], labels["boxes"][row, truth]), ((0, 0), (0, 1)))
            best, hit = overlaps.argmax(axis=1), overlaps.max(axis=1) >= iou
            first = np.zeros(len(chosen), bool)
            first[np.unique(np.where(hit, best, -1), return_index=True)[1]] = True
            counted = ~(hit & np.append(labels["crowd"][row, truth], False)[best])
            scores.append(detections["scores"][row, chosen][counted])
            correct.append((hit & first)[counted])
        order = np.argsort(-np.concatenate(scores), kind="stable")
        hits = np.cumsum(np.concatenate(correct)[order])
        precision = hits / np.arange(1, len(hits) + 1)
        recall = np.concatenate([[0.0], hits / objects])
        areas[label] = (np.diff(recall) * _envelope(precision)).sum()
    return areas


def matches(detections: Arrays, labels: Arrays, *, iou: float = 0.5) -> Matches:
    """Matches each detection, from the highest score down, with the unmatched object of the highest IoU.

    >>> boxes = np.array([[[0, 0, 10, 10.0], [0, 0, 10, 8.0]]])
    >>> detections = {"boxes": boxes, "scores": np.array([[0.5, 0.75]]), "classes": np.array([[0, 0]])}
    >>> labels = {"boxes": boxes, "classes": np.array([[0, -1]]), "crowd": np.array([[False, False]])}
    >>> matches(detections, labels)
    Matches(detections=array([[-1,  0]], dtype=int32), objects=array([[ 1, -2]], dtype=int32))
    """
    _check(detections, labels, _num_classes(detections, labels))
    by_detection = np.full(detections["classes"].shape, -2, np.int32)
    by_object = np.where((labels["classes"] >= 0) & ~labels["crowd"], -1, -2).astype(np.int32)
    for row, _, chosen, truth, (matched,) in _matched(detections, labels, np.array([iou])):
        for detection, match in zip(chosen, matched, strict=True):
            if match < 0:
                by_detection[row, detection] = -1
            elif not labels["crowd"][row, truth[match]]:
                by_detection[row, detection] = truth[match]
                by_object[row, truth[match]] = detection
    return Matches(by_detection, by_object)


def bootstrap_intervals(
    detections: Arrays, labels: Arrays, *, seed: int = 0, confidence: float = 0.95, resamples: int = 200
) -> dict[str, Interval]:
    """The percentile bootstrap intervals of COCO's 'map' and 'map_50' over resampled images.

    Detections are matched once; each resample counts an image as often as it was drawn.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.

    >>> boxes = np.array([[[0, 0, 10, 10.0]]])
    >>> detections = {"boxes": boxes, "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> labels = {"boxes": boxes, "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> bootstrap_intervals(detections, labels)["map"]
    Interval(low=1.0, high=1.0, undefined=0)
    """
    by_class = match_by_class(detections, labels, _num_classes(detections, labels))
    count = len(labels["classes"])

    def resample(rng: np.random.Generator) -> tuple[float, float]:
        draws = np.bincount(rng.integers(count, size=count), minlength=count)
        precision = np.array([matched.average_precision(draws) for matched in by_class])
        return _mean(precision), _mean(precision[:, 0])

    intervals = percentile_intervals(resample, seed=seed, confidence=confidence, resamples=resamples)
    return dict(zip(("map", "map_50"), intervals, strict=True))


def box_iou(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> FloatArray:
    """Intersection over union of each pair of boxes (n, 4) and (m, 4), (n, m); 0 for boxes without an area.

    Args:
      crowd: (m,), where True, the area of the first box replaces the union, as in COCO.

    >>> box_iou([[0, 0, 2, 2]], [[0, 0, 2, 1], [2, 2, 3, 3]])
    array([[0.5, 0. ]])
    """
    first, second = np.asarray(boxes, np.float64)[:, None], np.asarray(others, np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    intersection = sides.clip(0).prod(axis=-1)
    first_area, second_area = ((box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (first, second))
    union = first_area + second_area - intersection
    if crowd is not None:
        union = np.where(crowd, first_area, union)
    return intersection / np.maximum(union, np.spacing(1.0))


class ClassMatches(NamedTuple):
    """The matched detections of one class over all images, from the highest score down.

    Attributes:
      images: (n,), the image of each detection.
      correct, wrong: (10, n), its result at each IoU threshold; neither if it does not count.
      objects: (N,), the number of objects in each image.
    """

    images: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray

    def average_precision(self, draws: np.ndarray) -> FloatArray:
        """COCO's at each IoU threshold, (10,), where image i counts draws[i] times."""
        objects = float((self.objects * draws).sum())
        if not objects:
            return np.full(len(IOUS), np.nan)
        if not len(self.images):
            return np.zeros(len(IOUS))
        sample_weight = draws[self.images].astype(np.float64)
        correct, wrong = np.cumsum(self.correct * sample_weight, axis=1), np.cumsum(self.wrong * sample_weight, axis=1)
        recall, precision = correct / objects, _envelope(correct / np.maximum(correct + wrong, np.spacing(1.0)))
        reached = np.stack([np.searchsorted(row, RECALLS) for row in recall])
        padded = np.pad(precision, ((0, 0), (0, 1)))
        return np.take_along_axis(padded, reached, axis=1).mean(axis=1)


def match_by_class(detections: Arrays, labels: Arrays, num_classes: int) -> list[ClassMatches]:
    """Matches all detections at each IoU threshold, by class."""
    _check(detections, labels, num_classes)
    nothing = (np.zeros(0), np.zeros(0, int), np.zeros((len(IOUS), 0)))
    columns_by_class: list[list[tuple[np.ndarray, ...]]] = [[nothing] for _ in range(num_classes)]
    for row, label, chosen, truth, matched in _matched(detections, labels, IOUS):
        # 1 for a correct detection, -1 for a false positive, 0 for one that does not count.
        results = np.append(np.where(labels["crowd"][row, truth], 0, 1), -1)[matched]
        columns_by_class[label].append((detections["scores"][row, chosen], np.full(len(chosen), row), results))
    by_class = []
    for label, columns in enumerate(columns_by_class):
        scores, images, results = (np.concatenate(parts, axis=-1) for parts in zip(*columns, strict=True))
        order = np.argsort(-scores, kind="stable")
        objects = ((labels["classes"] == label) & ~labels["crowd"]).sum(axis=1)
        by_class.append(ClassMatches(images[order], results[:, order] == 1, results[:, order] == -1, objects))
    return by_class


def _matched(
    detections: Arrays, labels: Arrays, ious: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """Each image and class with detections, its 100 detections of the highest score, its objects, and their matches.

    The matches are, for each IoU threshold and detection, from the highest score down, an index of the objects, or -1.
    """
    for row, (classes, scores) in enumerate(zip(detections["classes"], detections["scores"], strict=True)):
        for label in np.unique(classes[classes >= 0]).tolist():
            chosen = np.flatnonzero(classes == label)
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:MAX_DETECTIONS]
            truth = np.flatnonzero(labels["classes"][row] == label)
            crowd = labels["crowd"][row, truth]
            overlaps = box_iou(detections["boxes"][row, chosen], labels["boxes"][row, truth], crowd)
            yield row, label, chosen, truth, _match(overlaps, crowd, ious)


def _match(overlaps: FloatArray, crowd: np.ndarray, ious: np.ndarray) -> np.ndarray:
    """COCO's rule for the boxes of one image and class, whose overlaps with its objects are (boxes, objects)."""
    matched = np.full((len(ious), len(overlaps)), -1)
    if not len(crowd):
        return matched
    taken = np.zeros((len(ious), len(crowd)), bool)
    thresholds = np.minimum(ious, 1 - 1e-10)[:, None]
    for box, overlap in enumerate(overlaps):
        available = (overlap >= thresholds) & (crowd | ~taken)
        # A crowd only if there is no object; the last of equals, as in COCO.
        preferred = np.where(available, overlap - 2 * crowd, -np.inf)
        best = preferred.shape[1] - 1 - preferred[:, ::-1].argmax(axis=1)
        hit = np.flatnonzero(available.any(axis=1))
        matched[hit, box] = best[hit]
        taken[hit, best[hit]] = True
    return matched


def _envelope(precision: FloatArray) -> FloatArray:
    """The highest precision at each point of the last axis or after it."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def _num_classes(detections: Arrays, labels: Arrays) -> int:
    """The number of classes that occur; classes beyond would be undefined, and in no mean."""
    return 1 + max(int(np.max(tree["classes"], initial=0)) for tree in (detections, labels))


def _object_counts(labels: Arrays, num_classes: int) -> FloatArray:
    """The number of objects of each class without crowds, (K,)."""
    classes = labels["classes"][(labels["classes"] >= 0) & ~labels["crowd"]]
    return np.bincount(classes, minlength=num_classes).astype(np.float64)


def _mean(values: FloatArray) -> float:
    """The mean of the values that are not nan; nan if all are."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _annotations(arrays: Arrays, scale: np.ndarray | None) -> list[dict[str, Any]]:
    """Detections or objects as COCO's annotations, in pixels of the original images."""
    boxes = np.asarray(arrays["boxes"], np.float64)
    if scale is not None:
        boxes = boxes / np.asarray(scale, np.float64)[:, None, [1, 0, 1, 0]]
    real = np.nonzero(arrays["classes"] >= 0)
    scores = np.asarray(arrays.get("scores", np.zeros(arrays["classes"].shape)), np.float64)
    crowd = arrays.get("crowd", np.zeros(arrays["classes"].shape, bool))
    corners = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)[real]
    columns = (real[0], arrays["classes"][real], corners, scores[real], crowd[real])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {
            "id": number,
            "image_id": row + 1,
            "category_id": label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(is_crowd),
            "score": score,
        }
        # COCO takes an id of 0 for none.
        for number, (row, label, box, score, is_crowd) in enumerate(rows, 1)
    ]


def _check(detections: Arrays, labels: Arrays, num_classes: int) -> None:
    for what, arrays, names in (
        ("detections", detections, ("boxes", "scores", "classes")),
        ("labels", labels, ("boxes", "classes", "crowd")),
    ):
        for name in names:
            if name not in arrays:
                raise InputError(f"{what} lack {name!r}; they hold {', '.join(names)}.")
        shape = np.shape(arrays["classes"])
        expected = {name: (*shape, 4) if name == "boxes" else shape for name in names}
        if len(shape) != 2 or any(np.shape(arrays[name]) != expected[name] for name in names):
            actual = ", ".join(f"{name} {np.shape(arrays[name])}" for name in names)
            raise InputError(f"{what} have the shapes {actual}; for n per image, they must be (N, n, 4) and (N, n).")
        real = np.asarray(arrays["classes"]) >= 0
        for name in names:
            finite = np.isfinite(arrays[name]).reshape(*shape, -1).all(axis=-1)
            for row, i in np.argwhere(real & ~finite)[:1]:
                raise InputError(f"{what}: {name} [{row}, {i}] is {arrays[name][row, i]}; it must be finite.")
        if real.any() and (highest := int(np.max(arrays["classes"]))) >= num_classes:
            raise InputError(f"{what}: there is a class {highest}; classes are 0 to {num_classes - 1}.")
    if len(detections["classes"]) != len(labels["classes"]):
        raise InputError(
            f"detections of {len(detections['classes'])} images, but labels of {len(labels['classes'])}; they must be "
            "of the same images."
        )
