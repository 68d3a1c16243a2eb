"""The detection loss agrees with loops in float64; masked images and ignored anchors have no effect."""

import functools
import math

import jax
import numpy as np
import pytest

from jaxcls import losses
from jaxcls._utils.errors import InputError
from jaxcls.losses.detection import detection_loss, smooth_l1
from jaxcls.models.detection import IGNORED, Anchors, match

GRID = Anchors(levels=(4, 5), size=1.5, scales=(1.0, 1.4))
ANCHORS = GRID.boxes(64, 64)
CLASSES = 3
MATCH = jax.jit(match)


def draw_batch(seed, images=3):
    random = np.random.default_rng(seed)
    corner, side = random.uniform(0, 40, (images, 5, 2)), random.uniform(6, 24, (images, 5, 2))
    labels = {
        "boxes": np.concatenate([corner, corner + side], axis=-1).astype(np.float32),
        "classes": random.integers(-1, CLASSES, (images, 5)).astype(np.int32),
        "crowd": random.random((images, 5)) < 0.2,
    }
    labels["classes"][1] = -1  # an image with no boxes
    outputs = {
        "class_logits": random.normal(-2, 2, (images, len(ANCHORS), CLASSES)).astype(np.float32),
        "box_deltas": random.normal(0, 1, (images, len(ANCHORS), 4)).astype(np.float32),
    }
    return outputs, labels


def matched(labels, image):
    return np.asarray(MATCH(ANCHORS, *(labels[name][image] for name in ("boxes", "classes", "crowd"))))


def brute_force(outputs, labels, image, gamma=2.0, alpha=0.25, box_loss="smooth_l1"):
    """The two sums of an image, and its positive anchors."""
    truths = [labels[name][image] for name in ("boxes", "classes", "crowd")]
    matches = matched(labels, image)
    class_sum = box_sum = 0.0
    for a, (number, anchor) in enumerate(zip(matches, ANCHORS.astype(np.float64), strict=True)):
        if number == IGNORED:
            continue
        for k in range(CLASSES):
            p = 1 / (1 + math.exp(-float(outputs["class_logits"][image, a, k])))
            if number >= 0 and truths[1][number] == k:
                class_sum -= alpha * (1 - p) ** gamma * math.log(p)
            else:
                class_sum -= (1 - alpha) * p**gamma * math.log(1 - p)
        if number < 0:
            continue
        box, deltas = truths[0][number].astype(np.float64), outputs["box_deltas"][image, a].astype(np.float64)
        size, box_size = anchor[2:] - anchor[:2], box[2:] - box[:2]
        if box_loss == "giou":
            center, side = (anchor[:2] + anchor[2:]) / 2 + deltas[:2] * size, size * np.exp(deltas[2:])
            predicted = np.concatenate([center - side / 2, center + side / 2])
            both = np.prod(np.maximum(np.minimum(predicted[2:], box[2:]) - np.maximum(predicted[:2], box[:2]), 0))
            union = side.prod() + box_size.prod() - both
            enclosing = np.prod(np.maximum(predicted[2:], box[2:]) - np.minimum(predicted[:2], box[:2]))
            box_sum += 1 - both / union + (enclosing - union) / enclosing
        else:
            target = np.concatenate([(box[:2] + box_size / 2 - anchor[:2] - size / 2) / size, np.log(box_size / size)])
            distance = np.abs(deltas - target)
            box_sum += np.where(distance < 1 / 9, 4.5 * distance**2, distance - 1 / 18).sum()
    return class_sum, box_sum, int((matches >= 0).sum())


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
@pytest.mark.parametrize("normalizer", ["positives", "batch", "weights", "none"])
def test_the_loss_agrees_with_loops(box_loss, normalizer):
    outputs, labels = draw_batch(2)
    weights = np.array([1.0, 2.0, 0.5], np.float32)
    sums = [brute_force(outputs, labels, image, box_loss=box_loss) for image in range(3)]
    whole = np.array([2 * a + 3 * b for a, b, _ in sums])
    positives = np.array([count for *_, count in sums])
    assert positives[0] > 2
    assert positives[1] == 0
    each = weights * whole / np.maximum(positives, 1)
    expected = {
        "positives": (weights * whole).sum() / positives.sum(),
        "batch": each.mean(),
        "weights": each.sum() / weights.sum(),
        "none": each,
    }[normalizer]
    actual = jax.jit(functools.partial(
        detection_loss, anchors=ANCHORS, class_loss=losses.get("focal_loss", "detection", gamma=2.0, alpha=0.25),
        box_loss=box_loss, loss_weights=(2.0, 3.0), sample_weight=weights, normalizer=normalizer,
    ))(outputs, labels)  # fmt: skip
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_with_gamma_zero_the_class_loss_is_cross_entropy():
    outputs, labels = draw_batch(1)
    options = {"anchors": ANCHORS, "loss_weights": (1.0, 0.0)}
    focal, plain = (
        jax.jit(functools.partial(detection_loss, class_loss=loss, **options))(outputs, labels)
        for loss in (losses.get("focal_loss", "detection", gamma=0.0), losses.get("binary_crossentropy"))
    )
    np.testing.assert_allclose(focal, plain, rtol=1e-6)


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_masked_images_reach_neither_value_nor_gradient(box_loss):
    outputs, labels = draw_batch(2)
    three = {name: array.copy() for name, array in outputs.items()}
    three["class_logits"][2], three["box_deltas"][2] = np.nan, np.inf

    @jax.jit
    @jax.value_and_grad
    def loss(outputs, labels, mask):
        return detection_loss(outputs, labels, anchors=ANCHORS, box_loss=box_loss, mask=mask)

    two = {name: array[:2] for name, array in outputs.items()}
    value, gradient = loss(three, labels, np.array([True, True, False]))
    expected, expected_gradient = loss(two, {name: array[:2] for name, array in labels.items()}, None)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name, array in gradient.items():
        np.testing.assert_allclose(array[:2], expected_gradient[name], rtol=1e-5, atol=1e-8)
        assert not np.any(array[2])
    assert float(loss(three, labels, np.zeros(3, bool))[0]) == 0


def test_ignored_anchors_have_no_gradient_and_negative_anchors_no_box_gradient():
    outputs, labels = draw_batch(10)
    gradient = jax.jit(jax.grad(lambda outputs: detection_loss(outputs, labels, anchors=ANCHORS)))(outputs)
    matches = np.stack([matched(labels, image) for image in range(3)])
    assert (matches == IGNORED).any()
    assert (matches >= 0).any()
    assert not np.any(gradient["class_logits"][matches == IGNORED])
    assert not np.any(gradient["box_deltas"][matches < 0])
    assert np.all(np.any(gradient["class_logits"][matches != IGNORED], axis=-1))
    assert np.isfinite(gradient["class_logits"]).all()
    assert np.isfinite(gradient["box_deltas"]).all()


def test_a_perfect_detector_has_no_loss():
    _, labels = draw_batch(4)
    labels["crowd"][:] = False
    outputs = {"class_logits": np.full((3, len(ANCHORS), CLASSES), -30, np.float32)}
    deltas = np.zeros((3, len(ANCHORS), 4), np.float32)
    for image in range(3):
        for a, number in enumerate(matched(labels, image)):
            if number >= 0:
                outputs["class_logits"][image, a, labels["classes"][image, number]] = 30
                box, anchor = labels["boxes"][image, number], ANCHORS[a]
                size, box_size = anchor[2:] - anchor[:2], box[2:] - box[:2]
                centers = (box[:2] + box_size / 2 - anchor[:2] - size / 2) / size
                deltas[image, a] = [*centers, *np.log(box_size / size)]
    for box_loss in ("smooth_l1", "giou"):
        loss = jax.jit(functools.partial(detection_loss, anchors=ANCHORS, box_loss=box_loss))
        actual = loss(outputs | {"box_deltas": deltas}, labels)
        assert abs(float(actual)) < 1e-5


def test_smooth_l1_is_quadratic_then_linear():
    np.testing.assert_allclose(smooth_l1(np.array([0.0, 0.05, -1.0])), [0, 4.5 * 0.0025, 1 - 1 / 18], rtol=1e-6)


def test_invalid_arguments_are_rejected():
    outputs, labels = draw_batch(5)
    with pytest.raises(InputError, match=r"must be \(N, 3, K\) and \(N, 3, 4\), for 3 anchors"):
        detection_loss(outputs, labels, anchors=ANCHORS[:3])
    with pytest.raises(InputError, match="unknown box loss 'l2'"):
        detection_loss(outputs, labels, anchors=ANCHORS, box_loss="l2")
