"""The geometry of detectors against brute force in NumPy, in float64 and with loops."""

import itertools
import math

import hypothesis
import hypothesis.extra.numpy as numpy_strategies
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxcls._utils.errors import InputError
from jaxcls.models import detection
from jaxcls.models.detection import IGNORED, NEGATIVE, Anchors, Decoding


def box_arrays(count, *, side=64.0):
    """Float32 (count, 4) boxes, corners the right way round, some of them equal."""
    corners = numpy_strategies.arrays(
        np.float32, (count, 2, 2), elements=st.integers(0, int(2 * side)).map(lambda n: n / 2)
    )
    return corners.map(lambda c: np.concatenate([c.min(axis=1), c.max(axis=1) + 0.5], axis=1))


def lists_of_four(elements):
    return st.lists(elements, min_size=4, max_size=4)


def brute_iou(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def brute_giou(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    union = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) / (1 + brute_iou(a, b))
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return brute_iou(a, b) - (around - union) / around


@hypothesis.given(box_arrays(4), box_arrays(3))
@hypothesis.settings(max_examples=30)
def test_overlaps(first, second):
    expected = [[brute_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(detection.pairwise_iou(jnp.array(first), jnp.array(second)), expected, atol=1e-6)
    pairs = detection.generalized_iou(jnp.array(first[:3]), jnp.array(second))
    np.testing.assert_allclose(pairs, [brute_giou(a, b) for a, b in zip(first, second, strict=False)], atol=1e-5)


def test_boxes_without_area_have_finite_overlaps_and_gradients():
    point = jnp.array([3.0, 3.0, 3.0, 3.0])
    assert float(detection.iou(point, point)) == float(detection.generalized_iou(point, point)) == 0
    assert np.isfinite(jax.grad(detection.generalized_iou)(point, point + 1)).all()


def test_gradient_of_generalized_iou():
    far, near = jnp.array([8.0, 8.0, 12.0, 13.0]), jnp.array([0.0, 0.0, 4.0, 4.0])
    check_grads(lambda box: detection.generalized_iou(box, near), (far,), order=1, modes=["rev"], eps=0.1)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 33)])
def test_anchors(height, width):
    anchors = Anchors(levels=(3, 5), size=2.0, scales=(1.0, 1.5), ratios=(0.5, 1.0, 2.0))
    expected = []
    for level in (3, 5):
        stride = 2**level
        for row, column in itertools.product(range(math.ceil(height / stride)), range(math.ceil(width / stride))):
            for scale, ratio in itertools.product((1.0, 1.5), (0.5, 1.0, 2.0)):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                area = (2 * stride * scale) ** 2
                w = math.sqrt(area / ratio)
                expected.append([x - w / 2, y - w * ratio / 2, x + w / 2, y + w * ratio / 2])
    actual = anchors.boxes(height, width)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-5)
    assert sum(anchors.counts(height, width)) == len(actual)
    assert actual.dtype == np.float32


def test_anchors_depend_on_the_size_of_the_canvas():
    assert detection.canvas_anchors(513, 64) == Anchors()
    assert detection.canvas_anchors(64, 256) == Anchors(levels=(3, 4, 5, 6), size=2.0)
    assert Anchors().boxes(800, 800)[:9, 2:].max() < 64, "from 32 pixels a side on"
    assert detection.canvas_anchors(64, 64).levels == (3, 4)
    with pytest.raises(InputError, match="16 x 16 pixels is too small"):
        detection.canvas_anchors(16, 16)


def brute_match(anchors, boxes, classes, crowd, positive=0.5, negative=0.4):
    """None where an IoU is so near to a bound, or to another one, that rounding decides."""
    real = [m for m in range(len(boxes)) if classes[m] >= 0 and not crowd[m]]
    overlaps = np.array([[brute_iou(a, boxes[m]) if m in real else 0.0 for m in range(len(boxes))] for a in anchors])
    matches = []
    for a, anchor in enumerate(anchors):
        most = overlaps[a].max()
        forced = any(0 < overlaps[:, m].max() <= overlaps[a, m] * (1 + 1e-6) for m in real)
        inside = 0.0
        for m in range(len(boxes)):
            if classes[m] >= 0 and crowd[m]:
                width = max(0, min(anchor[2], boxes[m][2]) - max(anchor[0], boxes[m][0]))
                height = max(0, min(anchor[3], boxes[m][3]) - max(anchor[1], boxes[m][1]))
                inside = max(inside, width * height / ((anchor[2] - anchor[0]) * (anchor[3] - anchor[1])))
        near = [abs(most - positive), abs(most - negative), abs(inside - 0.5)]
        runner_up = np.sort(overlaps[a])[-2] if len(boxes) > 1 else -1
        if min(near) < 1e-5 or 0 < most - runner_up < 1e-5:
            matches.append(None)
        elif most >= positive or forced:
            matches.append(int(overlaps[a].argmax()))
        else:
            matches.append(NEGATIVE if most < negative and inside < 0.5 else IGNORED)
    return matches


@hypothesis.given(
    box_arrays(4), st.lists(st.integers(-1, 2), min_size=4, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4)
)
@hypothesis.settings(max_examples=40)
def test_matches(boxes, classes, crowd):
    anchors = Anchors(levels=(4, 5), size=1.5, scales=(1.0,)).boxes(64, 64)
    classes, crowd = np.array(classes, np.int32), np.array(crowd)
    matches = np.asarray(_match(anchors, boxes, classes, crowd))
    for got, expected in zip(matches, brute_match(anchors, boxes, classes, crowd), strict=True):
        assert expected is None or got == expected


_match = jax.jit(detection.match)


def test_box_with_low_overlap_everywhere_still_matches_an_anchor():
    anchors = Anchors(levels=(4,)).boxes(64, 64)
    box, one = np.array([[10.0, 10, 14, 14]], np.float32), np.zeros(1, np.int32)
    matches = np.asarray(_match(anchors, box, one, np.zeros(1, bool)))
    assert 0 < (matches == 0).sum() < (matches == NEGATIVE).sum()
    assert (np.asarray(_match(anchors, box, one - 1, np.zeros(1, bool))) == NEGATIVE).all(), "padding is no box"


@hypothesis.given(box_arrays(5), box_arrays(5))
@hypothesis.settings(max_examples=20)
def test_box_encoding_and_decoding_are_inverse(boxes, anchors):
    boxes, anchors = jnp.array(boxes), jnp.array(anchors)
    offsets = detection.encode_boxes(boxes, anchors)
    wide = np.asarray(anchors[:, 2] - anchors[:, 0], np.float64)
    np.testing.assert_allclose(offsets[:, 2], np.log(np.asarray(boxes[:, 2] - boxes[:, 0]) / wide), atol=1e-5)
    within = np.all(np.asarray(offsets[:, 2:]) < math.log(1000 / 16), axis=1)
    back = detection.decode_boxes(offsets, anchors)
    np.testing.assert_allclose(np.asarray(back)[within], np.asarray(boxes)[within], rtol=1e-4, atol=1e-3)


def test_offsets_of_an_untrained_network_do_not_overflow():
    grown = detection.decode_boxes(jnp.array([0.0, 0.0, 1e4, 1e4]), jnp.array([0.0, 0.0, 16.0, 16.0]))
    np.testing.assert_allclose(grown, [-492, -492, 508, 508], rtol=1e-5)


def brute_suppress(boxes, scores, classes, threshold, most):
    order = sorted(range(len(boxes)), key=lambda index: (-scores[index], index))
    selected = []
    for index in order:
        if scores[index] > 0 and len(selected) < most and all(
            classes[other] != classes[index] or brute_iou(boxes[other], boxes[index]) <= threshold for other in selected
        ):  # fmt: skip
            selected.append(index)
    return selected


@hypothesis.given(
    box_arrays(12, side=8.0),
    st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8]), min_size=12, max_size=12),
    st.lists(st.integers(0, 1), min_size=12, max_size=12),
    st.sampled_from([0.301, 0.501, 0.701]),
)
@hypothesis.settings(max_examples=60)
def test_suppression_matches_greedy_suppression(boxes, scores, classes, threshold):
    scores, classes = np.array(scores, np.float32), np.array(classes, np.int32)
    indices, is_selected = _suppress(boxes, scores, classes, iou_threshold=threshold, max_detections=6)
    assert np.asarray(indices)[np.asarray(is_selected)].tolist() == brute_suppress(boxes, scores, classes, threshold, 6)


_suppress = jax.jit(detection.suppress, static_argnames="max_detections")


def brute_detections(logits, deltas, anchors, counts, canvas, decoding):
    """The detections of one image: boxes, scores and classes."""
    scores = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    candidates, first = [], 0
    for count in counts:
        level = [(scores[a, k], a, k) for a in range(first, first + count) for k in range(scores.shape[1])]
        level = [one for one in sorted(level, key=lambda one: -one[0]) if one[0] > decoding.score_threshold]
        candidates += level[: decoding.candidates]
        first += count
    boxes = []
    for _, a, _ in candidates:
        x, y = (anchors[a, :2] + anchors[a, 2:]) / 2 + deltas[a, :2] * (anchors[a, 2:] - anchors[a, :2])
        w, h = (anchors[a, 2:] - anchors[a, :2]) * np.exp(deltas[a, 2:])
        low, high = (0, 0, 0, 0), (canvas[1], canvas[0], canvas[1], canvas[0])
        boxes.append(np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], low, high))
    there = [i for i, box in enumerate(boxes) if box[2] > box[0] and box[3] > box[1]]
    selected = brute_suppress(
        [boxes[i] for i in there], [candidates[i][0] for i in there], [candidates[i][2] for i in there],
        decoding.iou_threshold, decoding.max_detections,
    )  # fmt: skip
    return [(boxes[there[i]], candidates[there[i]][0], candidates[there[i]][2]) for i in selected]


@pytest.mark.parametrize("seed", range(3))
def test_detections(seed):
    random = np.random.default_rng(seed)
    grid = Anchors(levels=(3, 4), scales=(1.0,), size=2.0)
    canvas = (40, 56)
    anchors, counts = grid.boxes(*canvas), grid.counts(*canvas)
    logits = random.normal(-2, 2, (2, len(anchors), 3)).astype(np.float32)
    deltas = random.normal(0, 0.5, (2, len(anchors), 4)).astype(np.float32)
    deltas[0, :20, 0] = 20  # beyond the canvas
    logits[1, 3] = np.nan
    decoding = Decoding(score_threshold=0.3, candidates=40, max_detections=30)
    detections = jax.jit(lambda *outputs: detection.decode_detections(*outputs, anchors, counts, canvas, decoding))(
        logits, deltas
    )
    for image in range(2):
        expected = brute_detections(
            np.nan_to_num(logits[image], nan=-99), deltas[image], anchors, counts, canvas, decoding
        )
        number = len(expected)
        assert 10 < number <= 30
        np.testing.assert_allclose(detections["boxes"][image, :number], [box for box, _, _ in expected], atol=1e-3)
        np.testing.assert_allclose(detections["scores"][image, :number], [score for _, score, _ in expected], rtol=1e-5)
        assert detections["classes"][image].tolist() == [kind for _, _, kind in expected] + [-1] * (30 - number)
        assert not np.any(detections["scores"][image, number:])
        assert not np.any(detections["boxes"][image, number:])


def test_image_without_objects_has_no_detections():
    grid = Anchors(levels=(5,))
    anchors, counts = grid.boxes(64, 64), grid.counts(64, 64)
    outputs = jnp.full((1, len(anchors), 2), -9.0), jnp.zeros((1, len(anchors), 4))
    detections = detection.decode_detections(*outputs, anchors, counts, (64, 64), Decoding(max_detections=5))
    assert detections["classes"].tolist() == [[-1] * 5]
    shapes = {name: array.shape for name, array in detections.items()}
    assert shapes == {"boxes": (1, 5, 4), "scores": (1, 5), "classes": (1, 5)}
