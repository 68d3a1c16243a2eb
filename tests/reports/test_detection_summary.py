"""The summary of a detector's test names the reason of every missed object and false alarm."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaxcls.data.dataset import Split
from jaxcls.metrics import detection as metrics
from jaxcls.reports import detection_summary

NAMES = ("cat", "dog")


def truths(*boxes, crowd=()):
    """Returns the labels of one image with these (box, class) and one row of padding."""
    count = len(boxes)
    return {
        "boxes": np.array([box for box, _ in boxes] + [[0, 0, 0, 0]], np.float32),
        "classes": np.array([kind for _, kind in boxes] + [-1], np.int32),
        "crowd": np.array([index in crowd for index in range(count)] + [False]),
    }


def detected(*boxes):
    """Returns the detections of one image, (box, class, score) by descending score, and one row of padding."""
    return {
        "boxes": np.array([box for box, _, _ in boxes] + [[0, 0, 0, 0]], np.float32),
        "classes": np.array([kind for _, kind, _ in boxes] + [-1], np.int32),
        "scores": np.array([score for _, _, score in boxes] + [0], np.float32),
    }


BOX, NEAR, HALF, FAR = [10, 10, 30, 30], [11, 10, 30, 30], [18, 10, 38, 30], [40, 40, 60, 60]


@pytest.mark.parametrize(
    ("detections", "reasons"),
    [
        ([(FAR, 0, 0.9)], ["background"]),
        ([(BOX, 1, 0.9)], ["object is cat"]),
        ([(BOX, 0, 0.9), (NEAR, 0, 0.8)], ["duplicate detection"]),
        ([(HALF, 0, 0.9)], ["poor localization, IoU 0.43"]),
        ([(HALF, 1, 0.9)], ["overlaps cat"]),
        ([(BOX, 0, 0.9)], []),
        ([(FAR, 0, 0.4)], []),
    ],
)
def test_reason_of_each_kind_of_false_alarm(detections, reasons):
    assert [alarm["reason"] for alarm in summarize(detections)["false_alarms"]] == reasons


@pytest.mark.parametrize(
    ("detections", "reasons"),
    [
        ([], ["not detected"]),
        ([(BOX, 1, 0.9)], ["detected as dog"]),
        ([(HALF, 0, 0.9)], ["nearest detection has IoU 0.43"]),
        ([(BOX, 0, 0.4)], ["not detected"]),
        ([(BOX, 0, 0.9)], []),
    ],
)
def test_reason_of_each_kind_of_missed_object(detections, reasons):
    summary = summarize(detections)
    assert [missed["reason"] for missed in summary["missed"]] == reasons
    assert summary["counts"]["missed"] == len(reasons) == 1 - summary["counts"]["detected"]


def summarize(detections):
    scores, test = batch(detected(*detections)), split()
    report = metrics.report(scores, test.labels, class_names=NAMES)
    return detection_summary.summarize(report, scores, {"test": test}, class_names=NAMES, threshold=0.5)


def batch(one):
    return {name: array[None] for name, array in one.items()}


def split():
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64, 1)
    inputs = {"image": pixels, "size": np.array([[64, 64]], np.int32), "scale": np.ones((1, 2), np.float32)}
    return Split(inputs, batch(truths((BOX, 0))))


def test_crop_shows_the_box_with_a_margin():
    (alarm,) = summarize([([0, 10, 20, 30], 1, 0.9)])["false_alarms"]
    crop = alarm["example"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(crop["png"]))))
    assert pixels.shape == (crop["height"], crop["width"]) == (38, 29)
    np.testing.assert_array_equal(pixels, split().inputs["image"][0, 1:39, :29, 0])
    assert crop["box"] == [0, 9, 20, 29]
