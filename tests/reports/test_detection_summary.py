"""What is kept of a detector's test: every kind of miss and of false alarm by its name."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaxcls.reports import detection_summary

NAMES = ("cat", "dog")


def truths(*boxes, crowd=()):
    """(box, class) of one image, padded by one."""
    count = len(boxes)
    return {
        "boxes": np.array([box for box, _ in boxes] + [[0, 0, 0, 0]], np.float32),
        "classes": np.array([kind for _, kind in boxes] + [-1], np.int32),
        "crowd": np.array([place in crowd for place in range(count)] + [False]),
    }


def detected(*boxes):
    """(box, class, score) of one image, the surest first, padded by one."""
    return {
        "boxes": np.array([box for box, _, _ in boxes] + [[0, 0, 0, 0]], np.float32),
        "classes": np.array([kind for _, kind, _ in boxes] + [-1], np.int32),
        "scores": np.array([score for _, _, score in boxes] + [0], np.float32),
    }


BOX, NEAR, HALF, FAR = [10, 10, 30, 30], [11, 10, 30, 30], [18, 10, 38, 30], [40, 40, 60, 60]


@pytest.mark.parametrize(
    ("detections", "why"),
    [
        ([(FAR, 0, 0.9)], ["nothing is there"]),
        ([(BOX, 1, 0.9)], ["it is cat"]),
        ([(BOX, 0, 0.9), (NEAR, 0, 0.8)], ["found already"]),
        ([(HALF, 0, 0.9)], ["overlaps its box by 0.43"]),
        ([(HALF, 1, 0.9)], ["a piece of cat"]),
        ([(BOX, 0, 0.9)], []),
        ([(FAR, 0, 0.4)], []),
    ],
)
def test_every_kind_of_false_alarm(detections, why):
    assert [alarm["why"] for alarm in kept(detections)["alarms"]] == why


@pytest.mark.parametrize(
    ("detections", "said"),
    [
        ([], ["nothing found there"]),
        ([(BOX, 1, 0.9)], ["taken for dog"]),
        ([(HALF, 0, 0.9)], ["the nearest box overlaps it by 0.43"]),
        ([(BOX, 0, 0.4)], ["nothing found there"]),
        ([(BOX, 0, 0.9)], []),
    ],
)
def test_every_kind_of_miss(detections, said):
    summary = kept(detections)
    assert [missed["said"] for missed in summary["mistakes"]] == said
    assert summary["counts"]["missed"] == len(said) == 1 - summary["counts"]["found"]


def kept(detections):
    return detection_summary._mistakes(batch(detected(*detections)), part(), NAMES, 0.5)


def batch(one):
    return {name: array[None] for name, array in one.items()}


def part():
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64, 1)
    inputs = {"image": pixels, "size": np.array([[64, 64]], np.int32), "scale": np.ones((1, 2), np.float32)}
    return detection_summary.Split(inputs, batch(truths((BOX, 0))))


def test_a_crop_shows_the_box_with_its_surroundings():
    crop = detection_summary._crop(part(), 0, np.array([0, 10, 20, 30], np.float32))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(crop["png"]))))
    assert pixels.shape == (crop["height"], crop["width"]) == (38, 29)
    np.testing.assert_array_equal(pixels, part().inputs["image"][0, 1:39, :29, 0])
    assert crop["box"] == [0, 9, 20, 29]
