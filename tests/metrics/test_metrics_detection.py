"""Average precision of detections agrees with pycocotools and with brute force in NumPy, crowds and ties included."""

import contextlib
import io
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.metrics import detection

CLASSES = 3


def draw(seed, images=5, most=5, crowds=True, spread=60):
    """Objects, and detections that are near some of them; scores with ties; a class without objects now and then."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, spread, (images, most, 2))
    sides = rng.integers(4, rng.choice([30, 130]), (images, most, 2))
    boxes = np.concatenate([corner, corner + sides], axis=-1).astype(np.float32)
    classes = rng.integers(-1, rng.integers(1, CLASSES + 1), (images, most))
    labels = {"boxes": boxes, "classes": classes, "crowd": (rng.random((images, most)) < 0.2) & crowds}
    near = boxes[:, rng.integers(0, most, 2 * most)] + rng.integers(-3, 4, (images, 2 * most, 4))
    near[..., 2:] = np.maximum(near[..., 2:], near[..., :2] + 1)
    predicted = rng.integers(-1, CLASSES, (images, 2 * most))
    predicted = np.where(rng.random(predicted.shape) < 0.7, classes[:, rng.integers(0, most, 2 * most)], predicted)
    scores = rng.integers(1, 9, (images, 2 * most)) / 8
    return {"boxes": near.astype(np.float32), "scores": scores.astype(np.float32), "classes": predicted}, labels


def with_pycocotools(detections, labels):
    """The twelve numbers of its summary, and the precision of each class at IoU 0.5."""
    from pycocotools import coco, cocoeval

    count = len(labels["classes"])
    truth, predicted = [], []
    for row in range(count):
        for arrays, annotations in ((labels, truth), (detections, predicted)):
            for index in np.flatnonzero(arrays["classes"][row] >= 0):
                x1, y1, x2, y2 = arrays["boxes"][row, index].tolist()
                entry = {
                    "image_id": row,
                    "category_id": int(arrays["classes"][row, index]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
                if arrays is labels:
                    crowd = int(arrays["crowd"][row, index])
                    annotations.append(entry | {"id": len(truth) + 1, "area": (x2 - x1) * (y2 - y1), "iscrowd": crowd})
                else:
                    annotations.append(entry | {"score": float(arrays["scores"][row, index])})
    with contextlib.redirect_stdout(io.StringIO()):
        gt = coco.COCO()
        gt.dataset = {
            "images": [{"id": row} for row in range(count)],
            "categories": [{"id": index} for index in range(CLASSES)],
            "annotations": truth,
            "info": {},
        }
        gt.createIndex()
        evaluation = cocoeval.COCOeval(gt, gt.loadRes(predicted), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"][0, :, :, 0, -1].T, evaluation.eval["scores"][0, :, :, 0, -1].T


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25)
def test_coco_average_precision_agrees_with_pycocotools(seed):
    detections, labels = draw(seed)
    hypothesis.assume((detections["classes"] >= 0).any())
    stats, precisions, confidences = with_pycocotools(detections, labels)
    scores = detection.evaluate(detections, labels, CLASSES)
    expected = np.where(stats[:6] < 0, np.nan, stats[:6])
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
    np.testing.assert_allclose([scores.overall[name] for name in names], expected, rtol=1e-9)
    np.testing.assert_allclose(scores.precisions, np.where(precisions < 0, np.nan, precisions), rtol=1e-9)
    np.testing.assert_allclose(scores.confidences, np.where(confidences < 0, np.nan, confidences), rtol=1e-9)
    np.testing.assert_allclose(scores.per_class["map_50"], scores.precisions.mean(axis=1))


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25)
def test_bootstrapped_average_precision_is_the_reported_one(seed):
    detections, labels = draw(seed)
    once = np.ones(len(labels["classes"]), int)
    actual = np.array(
        [matched.average_precision(once) for matched in detection.match_by_class(detections, labels, CLASSES)]
    )
    scores = detection.evaluate(detections, labels, CLASSES)
    np.testing.assert_allclose(actual.mean(axis=1), scores.per_class["map"], rtol=1e-9)
    np.testing.assert_allclose(actual[:, 0], scores.per_class["map_50"], rtol=1e-9)


def test_an_image_that_is_drawn_twice_counts_twice():
    detections, labels = draw(1)
    detections["scores"] = np.random.default_rng(0).permutation(detections["scores"].size).reshape(5, 10) / 64.0
    times = np.array([2, 0, 1, 3, 0])
    rows = np.repeat(np.arange(5), times)
    weighted = [matched.average_precision(times) for matched in detection.match_by_class(detections, labels, CLASSES)]
    again = detection.evaluate(*({k: v[rows] for k, v in arrays.items()} for arrays in (detections, labels)), CLASSES)
    np.testing.assert_allclose(np.mean(weighted, axis=1), again.per_class["map"], rtol=1e-9)


def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def brute_force_voc(detections, labels, label):
    """As the development kit computes it: one loop over all detections, the best first."""
    flat = [(-detections["scores"][row, d], row, d) for row, d in np.argwhere(detections["classes"] == label).tolist()]
    total = int(((labels["classes"] == label) & ~labels["crowd"]).sum())
    seen, right, wrong, points = set(), 0, 0, []
    for _, row, d in sorted(flat):
        best, at = -1.0, None
        for m in np.flatnonzero(labels["classes"][row] == label).tolist():
            overlap = iou(detections["boxes"][row, d].tolist(), labels["boxes"][row, m].tolist())
            if overlap > best:
                best, at = overlap, (row, m)
        if best >= 0.5 and labels["crowd"][at]:
            continue
        if best >= 0.5 and at not in seen:
            seen.add(at)
            right += 1
        else:
            wrong += 1
        points.append((right / total if total else np.nan, right / (right + wrong)))
    if not total:
        return np.nan
    area, before = 0.0, 0.0
    for number, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[number:])
        before = recall
    return area


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25)
def test_voc_average_precision_agrees_with_brute_force(seed):
    detections, labels = draw(seed)
    predicted = detection.voc_average_precision(detections, labels, CLASSES)
    np.testing.assert_allclose(predicted, [brute_force_voc(detections, labels, k) for k in range(CLASSES)], rtol=1e-9)


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=10)
def test_the_report_and_the_metrics_by_name_agree(seed):
    detections, labels = draw(seed)
    names = ("cat", "dog", "cow")
    report = detection.report(detections, labels, class_names=names)
    json.dumps(report, allow_nan=False)
    for name in detection.NAMES:
        value = detection.get(name)(detections, labels)
        assert report["metrics"][name] == (None if np.isnan(value) else value)
    rows = np.array([True, False, True, True, False])
    arrays = [{name: array[rows] for name, array in tree.items()} for tree in (detections, labels)]
    expected = detection.get("map")(*arrays)
    for options in ({"mask": rows}, {"sample_weight": rows.astype(np.float32)}):
        np.testing.assert_equal(detection.get("map")(detections, labels, **options), expected)
    curves = detection.precision_recall(detections, labels, num_classes=CLASSES)
    for name, curve in zip(names, curves, strict=True):
        values = report["labels"][name]
        assert (values["support"] == 0) == (values["map"] is None) == (len(curve) == 0)
        assert ("map" in report["undefined_labels"] and name in report["undefined_labels"]["map"]) == (len(curve) == 0)
        if len(curve):
            np.testing.assert_allclose(curve[:, 1].mean(), values["map_50"])


def one_image(predicted, truth, crowd=False):
    predicted, truth = (np.array(arrays, np.float32).reshape(1, -1, 4) for arrays in (predicted, truth))
    zeros = np.zeros(predicted.shape[:2], int)
    return (
        {"boxes": predicted, "scores": np.linspace(0.9, 0.5, predicted.shape[1])[None], "classes": zeros},
        {"boxes": truth, "classes": np.zeros(truth.shape[:2], int), "crowd": np.full(truth.shape[:2], crowd)},
    )


def test_detections_of_a_crowd_are_neither_correct_nor_wrong():
    detections, labels = one_image(
        [[0, 0, 10, 10], [50, 50, 60, 60], [52, 50, 62, 60]], [[0, 0, 10, 10], [40, 40, 90, 90]]
    )
    labels["crowd"][0, 1] = True
    assert detection.evaluate(detections, labels, 1).overall["map"] == 1
    detections, labels = one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]], crowd=True)
    assert np.isnan(detection.evaluate(detections, labels, 1).overall["map"])


def test_no_detections_are_zero_and_no_objects_are_nan():
    detections, labels = one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    nothing = detections | {"classes": np.full((1, 1), -1)}
    assert detection.evaluate(nothing, labels, 2).overall["map"] == 0
    scores = detection.evaluate(detections, labels | {"classes": np.full((1, 1), -1)}, 2)
    assert np.isnan([*scores.overall.values()]).all()
    scores = detection.evaluate(detections, labels, 2)
    assert scores.overall["map"] == 1
    assert np.isnan(scores.per_class["map"]).tolist() == [False, True]
    assert scores.per_class["objects"].tolist() == [1, 0]


def test_sizes_are_measured_in_the_original_image():
    detections, labels = one_image([[0, 0, 40, 40]], [[0, 0, 40, 40]])
    medium = detection.evaluate(detections, labels, 1).overall
    small = detection.evaluate(detections, labels, 1, scale=np.array([[2.0, 2.0]])).overall
    large = detection.evaluate(detections, labels, 1, scale=np.array([[0.5, 0.25]])).overall
    for scores, size in ((small, "small"), (medium, "medium"), (large, "large")):
        assert {name for name in ("small", "medium", "large") if scores[f"map_{name}"] == 1} == {size}


def test_intervals_contain_the_value_and_narrow_with_the_confidence():
    detections, labels = draw(3, images=40)
    value = detection.evaluate(detections, labels, CLASSES).overall
    intervals = detection.bootstrap_intervals(detections, labels, seed=0, resamples=100)
    for name, (low, high, undefined) in intervals.items():
        assert low < value[name] < high
        assert undefined == 0
    assert intervals == detection.bootstrap_intervals(detections, labels, seed=0, resamples=100)
    few = detection.bootstrap_intervals(detections, labels, seed=0, resamples=100, confidence=0.5)
    assert few["map"].high - few["map"].low < intervals["map"].high - intervals["map"].low


@pytest.mark.parametrize(
    ("what", "name", "value", "message"),
    [
        ("predicted", "boxes", np.full((1, 1, 4), np.nan), r"detections: boxes \[0, 0\] is .*; it must be finite"),
        ("predicted", "scores", np.full((1, 1), np.inf), r"detections: scores \[0, 0\] is inf; it must be finite"),
        ("predicted", "classes", np.full((1, 1), 5), "detections: there is a class 5; classes are 0 to 0"),
        ("predicted", "scores", np.zeros((1, 2)), r"detections have the shapes boxes \(1, 1, 4\), scores \(1, 2\)"),
        ("truth", "classes", np.full((1, 1), 1), "labels: there is a class 1; classes are 0 to 0"),
        ("truth", "boxes", np.zeros((1, 4)), "labels have the shapes"),
        ("truth", "crowd", None, "labels lack 'crowd'"),
    ],
)
def test_invalid_arrays_are_rejected(what, name, value, message):
    options = dict(zip(("predicted", "truth"), one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]]), strict=True))
    if value is None:
        del options[what][name]
    else:
        options[what][name] = value
    with pytest.raises(InputError, match=message):
        detection.evaluate(options["predicted"], options["truth"], 1)


def test_padding_is_not_read():
    detections, labels = one_image([[0, 0, 10, 10], [0, 0, 0, 0]], [[0, 0, 10, 10]])
    detections["classes"][0, 1], detections["boxes"][0, 1] = -1, np.nan
    assert detection.evaluate(detections, labels, 1).overall["map"] == 1


def test_different_numbers_of_images_are_rejected():
    detections, labels = one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    twice = {name: np.repeat(array, 2, axis=0) for name, array in labels.items()}
    with pytest.raises(InputError, match="detections of 1 images, but labels of 2"):
        detection.evaluate(detections, twice, 1)


def test_nothing_is_printed(capfd):
    detections, labels = draw(0)
    detection.evaluate(detections, labels, CLASSES)
    assert capfd.readouterr() == ("", "")
