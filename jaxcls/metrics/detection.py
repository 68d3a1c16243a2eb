"""Average precision of detections: COCO's by faster-coco-eval, Pascal VOC's, and how sure they are.

Boxes are x1, y1, x2, y2. A dict of detections holds ``boxes`` (N, D, 4), ``scores`` (N, D) and ``classes`` (N, D); a
dict of labels holds ``boxes`` (N, M, 4), ``classes`` (N, M) and ``crowd`` (N, M). Where the class is -1 there is
nothing. What is found in a crowd is neither right nor wrong. A class without objects has no precision: it is nan, and
left out of the means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.metrics.collected import FloatArray
from jaxcls.metrics.intervals import Interval

Arrays = Mapping[str, np.ndarray]

# COCO's.
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100
_SIZES = ("all", "small", "medium", "large")
# What :func:`get` knows, and :func:`report` tells.
NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "voc_ap_50")


class DetectionScores(NamedTuple):
    """How good detections are.

    Attributes:
      overall: 'map', COCO's mean average precision over IoU 0.50 to 0.95; 'map_50' and 'map_75', at these; 'map_small',
        'map_medium' and 'map_large', of objects below 32 x 32 pixels, up to 96 x 96, and above, by the area of their
        boxes; 'voc_ap_50', Pascal VOC's.
      per_class: (K,) each: 'map', 'map_50', 'map_75', 'voc_ap_50', and 'objects', the number of those that count.
      recalls: (101,), from 0 to 1.
      precisions: (K, 101), the highest precision at IoU 0.5 at that recall or a higher one; 0 beyond the last.
      confidences: (K, 101), the score at which it is reached; 0 beyond the last.
    """

    overall: dict[str, float]
    per_class: dict[str, FloatArray]
    recalls: FloatArray
    precisions: FloatArray
    confidences: FloatArray


class Matches(NamedTuple):
    """What was found, by COCO's rule at one IoU.

    Attributes:
      detections: int32 (N, D), the place of the object that each detection found; -1 for a false alarm, -2 where it
        does not count: a crowd, or no detection.
      objects: int32 (N, M), the place of the detection that found each object; -1 for a miss, -2 where it does not
        count.
    """

    detections: np.ndarray
    objects: np.ndarray


def evaluate(
    detections: Arrays, labels: Arrays, num_classes: int, *, scale: np.ndarray | None = None
) -> DetectionScores:
    """COCO's and Pascal VOC's average precision, overall and of each class, and the curves.

    Of each image and class, the best 100 detections count. COCO's own evaluation takes the area of a segmentation to
    say what is small; that of the box is taken here.

    Args:
      detections: those of N images.
      labels: the objects in them.
      num_classes: K.
      scale: (N, 2), pixels of the boxes for one of the original image, of height and of width; sizes are told by those.
        1 where it is not given.

    Raises:
      InputError: faster-coco-eval is not installed, shapes do not fit together, or a number is not finite.

    Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv 1405.0312, and its evaluation.

    >>> found = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> round(evaluate(found, truth, 1).overall["map"], 6)  # an IoU of 0.8 is enough for 7 of 10 thresholds
    0.7
    """
    from faster_coco_eval import COCO, COCOeval_faster

    _check(detections, labels, num_classes)
    categories = [{"id": place, "name": str(place)} for place in range(1, num_classes + 1)]
    images = [{"id": row, "height": 1, "width": 1} for row in range(1, len(detections["boxes"]) + 1)]
    truth = {"images": images, "categories": categories, "annotations": _annotations(labels, scale)}
    found = {"images": images, "categories": categories, "annotations": _annotations(detections, scale)}

    def silent(*said: object) -> None:
        """It says how long everything took."""

    evaluation = COCOeval_faster(
        COCO(truth, print_function=silent), COCO(found, print_function=silent), "bbox", print_function=silent
    )
    # Its defaults are these, or 1, 10 and 100.
    evaluation.params.maxDets = [MOST_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU, recall, class, size, most detections); -1 where there is no object.
    precision = np.asarray(evaluation.eval["precision"], np.float64)[..., -1]
    confidence = np.asarray(evaluation.eval["scores"], np.float64)[0, :, :, 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    absent = np.isnan(precision[0, 0, :, 0])
    voc = voc_average_precision(detections, labels, num_classes)
    per_class = {
        "map": precision[..., 0].mean(axis=(0, 1)),
        "map_50": precision[0, ..., 0].mean(axis=0),
        "map_75": precision[5, ..., 0].mean(axis=0),
        "voc_ap_50": voc,
        "objects": _counts(labels, num_classes),
    }
    overall = {
        "map": _mean(precision[..., 0]),
        "map_50": _mean(precision[0, ..., 0]),
        "map_75": _mean(precision[5, ..., 0]),
        **{f"map_{size}": _mean(precision[..., place]) for place, size in enumerate(_SIZES) if place},
        "voc_ap_50": _mean(voc),
    }
    curves = precision[0, :, :, 0].T
    return DetectionScores(overall, per_class, RECALLS, curves, np.where(absent, np.nan, confidence).T)


def get(name: str) -> Callable[..., float]:
    """A metric by its name, one of `NAMES`: ``(detections, labels, *, sample_weight=None, mask=None) -> float``.

    Images whose `mask` is False, or whose weight is 0, do not count; all others count the same.

    Raises:
      InputError: there is none of this name.

    >>> found = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> get("map_75")(found, truth)
    1.0
    """
    if name not in NAMES:
        raise unknown_name("metric of detection", name, NAMES)

    def metric(detections: Arrays, labels: Arrays, *, sample_weight: Any = None, mask: Any = None) -> float:
        counts = np.ones(len(labels["classes"]), bool)
        for some in (sample_weight, mask):
            counts &= True if some is None else np.asarray(some) > 0
        found, truth = ({name: array[counts] for name, array in some.items()} for some in (detections, labels))
        # A class that no image has is in no mean.
        classes = 1 + max(np.max(some["classes"], initial=0) for some in (found, truth))
        return evaluate(found, truth, int(classes)).overall[name]

    return metric


def report(
    detections: Arrays, labels: Arrays, *, class_names: Sequence[str], scale: np.ndarray | None = None
) -> dict[str, Any]:
    """All of it as a plain dict that JSON can hold, nan as None, in the form of :func:`jaxcls.metrics.report`.

    `metrics` is name -> value, of all `NAMES`; `labels` is class -> its 'support', the number of its objects, and its
    values; `undefined_labels` is metric -> the classes without objects, where there are any.

    >>> found = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> report(found, truth, class_names=("cat", "dog"))["labels"]["cat"]
    {'support': 1, 'map': 0.7..., 'map_50': 1.0, 'map_75': 1.0, 'voc_ap_50': 1.0}
    """
    scores = evaluate(detections, labels, len(class_names), scale=scale)
    values = {name: column for name, column in scores.per_class.items() if name != "objects"}
    undefined = [name for name, count in zip(class_names, scores.per_class["objects"], strict=True) if not count]
    return {
        "problem": "detection",
        "examples": len(labels["classes"]),
        "metrics": {name: _json(scores.overall[name]) for name in NAMES},
        "labels": {
            label: {"support": int(scores.per_class["objects"][place])}
            | {name: _json(column[place]) for name, column in values.items()}
            for place, label in enumerate(class_names)
        },
        "undefined_labels": dict.fromkeys(values, undefined) if undefined else {},
    }


def intervals(detections: Arrays, labels: Arrays) -> dict[str, list[float]]:
    """The 95% bootstrap intervals over images of 'map' and 'map_50', name -> [low, high], those that are defined.

    >>> boxes = np.array([[[0, 0, 10, 10.0]]])
    >>> found = {"boxes": boxes, "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> intervals(found, {"boxes": boxes, "classes": np.array([[0]]), "crowd": np.array([[False]])})
    {'map': [1.0, 1.0], 'map_50': [1.0, 1.0]}
    """
    classes = 1 + max(int(np.max(some["classes"], initial=0)) for some in (detections, labels))
    found = bootstrap_intervals(detections, labels, classes, seed=0)
    return {name: [low, high] for name, (low, high, _) in found.items() if not math.isnan(low)}


def precision_recall(detections: Arrays, labels: Arrays, *, num_classes: int) -> list[FloatArray]:
    """The curve of each class at IoU 0.5, points (recall, precision), (101, 2); (0, 2) of a class without objects.

    As COCO draws it: at each recall the highest precision there or at a higher one.

    >>> boxes = np.array([[[0, 0, 10, 10.0]]])
    >>> found = {"boxes": boxes, "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": boxes, "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> [curve.shape for curve in precision_recall(found, truth, num_classes=2)]
    [(101, 2), (0, 2)]
    """
    scores = evaluate(detections, labels, num_classes)
    return [
        np.zeros((0, 2)) if np.isnan(precision[0]) else np.stack([scores.recalls, precision], axis=1)
        for precision in scores.precisions
    ]


def voc_average_precision(detections: Arrays, labels: Arrays, num_classes: int, *, iou: float = 0.5) -> FloatArray:
    """Pascal VOC's average precision of each class since 2010: the area below all points of the curve, (K,).

    A detection belongs to the object of its class and image that it overlaps most. It is right if their IoU is at least
    `iou` and no better one has found the object before. nan for a class without objects.

    Source: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", and its development kit.

    >>> found = {"boxes": np.array([[[0, 0, 10, 10.0]]]), "scores": np.array([[0.9]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": np.array([[[0, 0, 10, 8.0]]]), "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> voc_average_precision(found, truth, 2)
    array([ 1., nan])
    """
    _check(detections, labels, num_classes)
    areas = np.full(num_classes, np.nan)
    for place, objects in enumerate(_counts(labels, num_classes)):
        if not objects:
            continue
        scores: list[float] = []
        right: list[bool] = []
        for row in range(len(labels["classes"])):
            truth, found = (np.flatnonzero(some["classes"][row] == place) for some in (labels, detections))
            found = found[np.argsort(-detections["scores"][row, found], kind="stable")]
            overlaps = _ious(detections["boxes"][row, found], labels["boxes"][row, truth])
            taken = np.zeros(len(truth), bool)
            for score, overlap in zip(detections["scores"][row, found].tolist(), overlaps, strict=True):
                best = int(overlap.argmax()) if len(truth) else 0
                hit = len(truth) > 0 and overlap[best] >= iou
                if hit and labels["crowd"][row, truth[best]]:
                    continue
                scores.append(score)
                right.append(bool(hit and not taken[best]))
                if hit:
                    taken[best] = True
        order = np.argsort(-np.array(scores), kind="stable")
        hits = np.cumsum(np.array(right, bool)[order])
        precision = hits / np.arange(1, len(hits) + 1)
        recall = np.concatenate([[0.0], hits / objects])
        areas[place] = (np.diff(recall) * _envelope(precision)).sum()
    return areas


def matches(detections: Arrays, labels: Arrays, *, iou: float = 0.5) -> Matches:
    """Which detection found which object: the best first, each the one that it overlaps most of those that are left.

    >>> boxes = np.array([[[0, 0, 10, 10.0], [0, 0, 10, 8.0]]])
    >>> found = {"boxes": boxes, "scores": np.array([[0.5, 0.75]]), "classes": np.array([[0, 0]])}
    >>> truth = {"boxes": boxes, "classes": np.array([[0, -1]]), "crowd": np.array([[False, False]])}
    >>> matches(found, truth)
    Matches(detections=array([[-1,  0]], dtype=int32), objects=array([[ 1, -2]], dtype=int32))
    """
    _check(detections, labels, 1 + max(int(np.max(some["classes"], initial=0)) for some in (detections, labels)))
    found = np.full(detections["classes"].shape, -2, np.int32)
    objects = np.where((labels["classes"] >= 0) & ~labels["crowd"], -1, -2).astype(np.int32)
    for row, place, own in _pairs(detections, labels):
        truth = np.flatnonzero(labels["classes"][row] == place)
        matched = _matched(detections["boxes"][row, own], labels, row, truth, np.array([iou]))[0]
        for detection, match in zip(own, matched, strict=True):
            if match < 0:
                found[row, detection] = -1
            elif not labels["crowd"][row, truth[match]]:
                found[row, detection] = truth[match]
                objects[row, truth[match]] = detection
    return Matches(found, objects)


def bootstrap_intervals(
    detections: Arrays,
    labels: Arrays,
    num_classes: int,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 200,
) -> dict[str, Interval]:
    """The percentile bootstrap intervals of COCO's 'map' and 'map_50' over resampled images.

    Detections are matched once; a resample counts each image as often as it was drawn.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.

    >>> boxes = np.array([[[0, 0, 10, 10.0]]])
    >>> found = {"boxes": boxes, "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> truth = {"boxes": boxes, "classes": np.array([[0]]), "crowd": np.array([[False]])}
    >>> bootstrap_intervals(found, truth, 1, seed=0)["map"]
    Interval(low=1.0, high=1.0, undefined=0)
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    matched = _matched_by_class(detections, labels, num_classes)
    count = len(labels["classes"])
    rng = np.random.default_rng(seed)
    values = np.empty((2, resamples))
    for place in range(resamples):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        precision = np.array([one.average_precision(times) for one in matched])
        values[:, place] = _mean(precision), _mean(precision[:, 0])
    intervals = {}
    for name, some in zip(("map", "map_50"), values, strict=True):
        defined = some[~np.isnan(some)]
        bounds = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]) if defined.size else (np.nan,) * 2
        intervals[name] = Interval(float(bounds[0]), float(bounds[1]), resamples - defined.size)
    return intervals


class _OfOneClass(NamedTuple):
    """The detections of one class, best first: the image of each (n,), and whether it is right or wrong at each IoU,
    (10, n); and the number of objects in each image."""

    images: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray

    def average_precision(self, times: np.ndarray) -> FloatArray:
        """COCO's at each IoU, (10,), where each image counts so many times."""
        objects = float((self.objects * times).sum())
        if not objects:
            return np.full(len(IOUS), np.nan)
        if not len(self.images):
            return np.zeros(len(IOUS))
        sample_weight = times[self.images].astype(np.float64)
        right, wrong = np.cumsum(self.right * sample_weight, axis=1), np.cumsum(self.wrong * sample_weight, axis=1)
        recall, precision = right / objects, _envelope(right / np.maximum(right + wrong, np.spacing(1.0)))
        reached = np.stack([np.searchsorted(one, RECALLS) for one in recall])
        padded = np.pad(precision, ((0, 0), (0, 1)))
        return np.take_along_axis(padded, reached, axis=1).mean(axis=1)


def _matched_by_class(detections: Arrays, labels: Arrays, num_classes: int) -> list[_OfOneClass]:
    _check(detections, labels, num_classes)
    scores: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    images: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for row, place, own in _pairs(detections, labels):
        truth = np.flatnonzero(labels["classes"][row] == place)
        matched = _matched(detections["boxes"][row, own], labels, row, truth, IOUS)
        # -1 for a false alarm, 0 where it does not count, 1 where it is right.
        counts = np.where(labels["crowd"][row, truth], 0, 1)
        scores[place].append(detections["scores"][row, own])
        images[place].append(np.full(len(own), row))
        found[place].append(np.concatenate([counts, [-1]])[matched])
    by_class = []
    for place in range(num_classes):
        objects = ((labels["classes"] == place) & ~labels["crowd"]).sum(axis=1)
        if not scores[place]:
            nothing = np.zeros((len(IOUS), 0), bool)
            by_class.append(_OfOneClass(np.zeros(0, int), nothing, nothing, objects))
            continue
        order = np.argsort(-np.concatenate(scores[place]), kind="stable")
        outcome = np.concatenate(found[place], axis=1)[:, order]
        by_class.append(_OfOneClass(np.concatenate(images[place])[order], outcome == 1, outcome == -1, objects))
    return by_class


def _pairs(detections: Arrays, labels: Arrays) -> Any:
    """Each image and class that has detections, and the places of the best 100, best first."""
    for row, (classes, scores) in enumerate(zip(detections["classes"], detections["scores"], strict=True)):
        for place in np.unique(classes[classes >= 0]).tolist():
            own = np.flatnonzero(classes == place)
            yield row, place, own[np.argsort(-scores[own], kind="stable")][:MOST_DETECTIONS]


def _matched(boxes: np.ndarray, labels: Arrays, row: int, truth: np.ndarray, ious: np.ndarray) -> np.ndarray:
    """For each IoU and detection, best first, the number of the object in `truth` that it found; -1 for none."""
    crowd = labels["crowd"][row, truth]
    overlaps = _ious(boxes, labels["boxes"][row, truth], crowd)
    matched = np.full((len(ious), len(boxes)), -1)
    if not len(truth):
        return matched
    taken = np.zeros((len(ious), len(truth)), bool)
    enough = np.minimum(ious, 1 - 1e-10)[:, None]
    every = np.arange(len(ious))
    for place, overlap in enumerate(overlaps):
        open_ = (overlap >= enough) & (crowd | ~taken)
        # A crowd only where there is nothing else; of equals the last one, as COCO has it.
        preferred = np.where(open_, overlap - 2 * crowd, -np.inf)
        best = preferred.shape[1] - 1 - preferred[:, ::-1].argmax(axis=1)
        hit = open_.any(axis=1)
        matched[hit, place] = best[hit]
        taken[every[hit], best[hit]] = True
    return matched


def _ious(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> FloatArray:
    """(n, m) intersections over unions; over the area of the first alone where the second is a crowd."""
    one, other = np.asarray(boxes, np.float64)[:, None], np.asarray(others, np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = sides.clip(0).prod(axis=-1)
    first, second = ((some[..., 2:] - some[..., :2]).prod(axis=-1) for some in (one, other))
    union = first + second - shared
    if crowd is not None:
        union = np.where(crowd, first, union)
    return shared / np.maximum(union, np.spacing(1.0))


def _envelope(precision: FloatArray) -> FloatArray:
    """At each place the highest of that and of those behind it."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def _counts(labels: Arrays, num_classes: int) -> FloatArray:
    """How many objects of each class count, (K,)."""
    counts = labels["classes"][(labels["classes"] >= 0) & ~labels["crowd"]]
    return np.bincount(counts, minlength=num_classes).astype(np.float64)


def _mean(values: FloatArray) -> float:
    """The mean of what is not nan; nan if there is nothing."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _annotations(some: Arrays, scale: np.ndarray | None) -> list[dict[str, Any]]:
    """Detections or objects as annotations of COCO, in original pixels."""
    boxes = np.asarray(some["boxes"], np.float64)
    if scale is not None:
        boxes = boxes / np.asarray(scale, np.float64)[:, None, [1, 0, 1, 0]]
    corners = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)
    kept = np.argwhere(some["classes"] >= 0)
    columns: Sequence[list[Any]] = [
        corners[tuple(kept.T)].tolist(),
        some["classes"][tuple(kept.T)].tolist(),
        np.asarray(some["scores"], np.float64)[tuple(kept.T)].tolist() if "scores" in some else [0.0] * len(kept),
        some["crowd"][tuple(kept.T)].tolist() if "crowd" in some else [False] * len(kept),
    ]
    # An id of 0 would count as none.
    return [
        {
            "id": number,
            "image_id": row + 1,
            "category_id": place + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(crowd),
            "score": score,
        }
        for number, (row, box, place, score, crowd) in enumerate(zip(kept[:, 0].tolist(), *columns, strict=True), 1)
    ]


def _check(detections: Arrays, labels: Arrays, num_classes: int) -> None:
    for what, some, names in (
        ("detections", detections, ("boxes", "scores", "classes")),
        ("labels", labels, ("boxes", "classes", "crowd")),
    ):
        for name in names:
            if name not in some:
                raise InputError(f"{what} lack {name!r}; they hold {', '.join(names)}.")
        shape = np.shape(some["classes"])
        right = {name: (*shape, 4) if name == "boxes" else shape for name in names}
        wrong = [name for name in names if np.shape(some[name]) != right[name]]
        if len(shape) != 2 or wrong:
            given = ", ".join(f"{name} {np.shape(some[name])}" for name in names)
            raise InputError(f"{what} have the shapes {given}; with n for an image, they are (N, n, 4) and (N, n).")
        there = np.asarray(some["classes"]) >= 0
        for name in names:
            finite = np.isfinite(some[name]).reshape(*shape, -1).all(axis=-1)
            for row, place in np.argwhere(there & ~finite)[:1]:
                raise InputError(
                    f"{what}: {name} of row {row}, place {place}, are {some[name][row, place]}, not finite."
                )
        if there.any() and (most := int(np.max(some["classes"]))) >= num_classes:
            raise InputError(f"{what}: a class is {most}; there are {num_classes}, from 0.")
    if len(detections["classes"]) != len(labels["classes"]):
        raise InputError(
            f"detections of {len(detections['classes'])} images, but labels of {len(labels['classes'])}; they must be "
            "of the same."
        )
