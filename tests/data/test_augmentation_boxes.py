"""Boxes stay aligned with their images under every augmentation."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls.data import augmentation_boxes
from jaxcls.data.augmentation import chain

SIDE, COUNT = 48, 16
CANVASES = [(32, SIDE), (SIDE, 32)]
EVERY = {
    "flip": augmentation_boxes.horizontal_flip,
    "flip vertically": augmentation_boxes.vertical_flip,
    "scale": augmentation_boxes.scale_and_crop(min_scale=0.6, max_scale=1.6),
    "jitter": augmentation_boxes.color_jitter(brightness=0.1, contrast=0.1),
    "chain": chain(
        augmentation_boxes.horizontal_flip,
        augmentation_boxes.scale_and_crop(),
        augmentation_boxes.color_jitter(brightness=0.05),
    ),
}


def draw(seed, canvas=(SIDE, SIDE)):
    """Dark images of several sizes on black canvases with a bright rectangle each, and labels padded to two objects."""
    rng = np.random.default_rng(seed)
    size = rng.integers(24, min(canvas) + 1, (COUNT, 2))
    axis = rng.integers(0, 2, COUNT)
    size[np.arange(COUNT), axis] = np.array(canvas)[axis]
    images, boxes = np.zeros((COUNT, *canvas, 1), np.uint8), np.zeros((COUNT, 2, 4), np.float32)
    for row, (height, width) in enumerate(size):
        y1, x1 = (rng.integers(0, side - 8) for side in (height, width))
        y2, x2 = (rng.integers(start + 6, side + 1) for start, side in ((y1, height), (x1, width)))
        images[row, :height, :width] = 40
        images[row, y1:y2, x1:x2] = 200
        boxes[row, 0] = x1, y1, x2, y2
    classes = np.tile(np.array([1, -1], np.int32), (COUNT, 1))
    labels = {"boxes": boxes, "classes": classes, "crowd": np.zeros((COUNT, 2), bool)}
    return {"image": images, "size": size.astype(np.int32)}, labels


def arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def bright_box(image):
    """x1, y1, x2, y2 of the bright pixels."""
    rows, columns = np.flatnonzero((image > 120).any(axis=(1, 2))), np.flatnonzero((image > 120).any(axis=(0, 2)))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.fixture(scope="module", params=EVERY)
def augmentation(request):
    return jax.jit(EVERY[request.param])


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=10, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_boxes_enclose_their_objects(augmentation, canvas, seed):
    inputs, labels = draw(seed, canvas)
    changed, moved = jax.device_get(augmentation(jax.random.key(seed), arrays(inputs), arrays(labels)))
    assert {name: array.dtype for name, array in changed.items()} == {"image": np.uint8, "size": np.int32}
    for row, (height, width) in enumerate(changed["size"]):
        image, box = changed["image"][row], moved["boxes"][row, 0]
        assert image.shape == (*canvas, 1)
        assert not image[height:].any()
        assert not image[:, width:].any()
        assert image[:height, :width].min() > 0
        if moved["classes"][row, 0] >= 0:
            np.testing.assert_allclose(bright_box(image), box, atol=1)
            assert (box[2:] > box[:2]).all()
            assert (box >= 0).all()
            assert (box <= [width, height, width, height]).all()
        else:
            assert not box.any()
        # Padding stays padding.
        assert moved["classes"][row, 1] == -1
        assert not moved["boxes"][row, 1].any()


def test_results_depend_on_the_key(augmentation):
    batch = [arrays(tree) for tree in draw(0, CANVASES[0])]
    once, again, other = (augmentation(jax.random.key(key), *batch)[0]["image"] for key in (3, 3, 4))
    assert jnp.array_equal(once, again)
    assert not jnp.array_equal(once, other)


def test_flip_is_exact_and_its_own_inverse():
    inputs, labels = (arrays(tree) for tree in draw(1))
    key = jax.random.key(0)
    flip = jax.jit(augmentation_boxes.horizontal_flip)
    once = jax.device_get(flip(key, inputs, labels))
    for row in range(COUNT):
        np.testing.assert_array_equal(bright_box(once[0]["image"][row]), once[1]["boxes"][row, 0])
    twice = flip(key, *arrays(once))
    jax.tree.map(np.testing.assert_array_equal, twice, (inputs, labels))
    flipped = np.array([not np.array_equal(*pair) for pair in zip(once[1]["boxes"], labels["boxes"], strict=True)])
    assert 3 < flipped.sum() < 13


def test_a_scale_of_one_is_the_identity():
    inputs, labels = (arrays(tree) for tree in draw(2))
    same = jax.jit(augmentation_boxes.scale_and_crop(min_scale=1, max_scale=1))(jax.random.key(0), inputs, labels)
    jax.tree.map(np.testing.assert_array_equal, same, (inputs, labels))


def test_edges_are_not_mixed_with_the_padding():
    inputs, labels = draw(6)
    inputs["image"] = np.minimum(inputs["image"], 40)
    changed, _ = jax.jit(EVERY["scale"])(jax.random.key(1), inputs, labels)
    assert set(np.unique(changed["image"]).tolist()) == {0, 40}


def test_objects_with_too_little_visible_area_are_dropped():
    inputs, labels = draw(3)
    inputs["size"][:], labels["crowd"][:, 0] = SIDE, True
    stays, augmented = {}, {}

    @jax.jit
    def larger(visible, *batch):
        return augmentation_boxes.scale_and_crop(min_scale=2, max_scale=2, min_visible=visible)(*batch)

    for visible in (0.0, 0.3, 1.0):
        _, moved = jax.device_get(larger(visible, jax.random.key(1), inputs, labels))
        augmented[visible] = moved
        stays[visible] = np.asarray(moved["classes"][:, 0] >= 0)
        areas, before = ((some[:, 0, 2:] - some[:, 0, :2]).prod(axis=-1) for some in (moved["boxes"], labels["boxes"]))
        fraction = np.asarray(areas / (4 * before))
        assert (fraction[stays[visible]] >= visible - 1e-6).all()
        np.testing.assert_array_equal(moved["crowd"][:, 0], stays[visible])
    assert stays[0.0].sum() > stays[0.3].sum() > stays[1.0].sum() > 0
    # Computed from the crop that drops nothing.
    whole = augmented[0.0]
    visible_area = (whole["boxes"][:, 0, 2:] - whole["boxes"][:, 0, :2]).prod(axis=-1)
    fraction = np.asarray(visible_area / (4 * (labels["boxes"][:, 0, 2:] - labels["boxes"][:, 0, :2]).prod(axis=-1)))
    np.testing.assert_array_equal(stays[0.3], fraction >= 0.3)


def test_scales_cover_their_range():
    inputs, labels = draw(4)
    inputs["size"][:] = SIDE
    smaller = jax.jit(augmentation_boxes.scale_and_crop(min_scale=0.5, max_scale=1.0))
    sizes = np.asarray(smaller(jax.random.key(2), inputs, labels)[0]["size"])
    assert sizes.min() >= SIDE / 2
    assert sizes.max() <= SIDE
    assert len(np.unique(sizes)) > 6


def test_color_jitter_is_bounded_and_keeps_labels():
    inputs, labels = (arrays(tree) for tree in draw(5))
    changed, same = jax.jit(augmentation_boxes.color_jitter(brightness=0.1, contrast=0.5))(
        jax.random.key(0), inputs, labels
    )
    jax.tree.map(np.testing.assert_array_equal, same, labels)
    inside = np.asarray(inputs["image"] > 0)
    before, after = (np.ma.masked_array(np.asarray(some["image"], np.float64), ~inside) for some in (inputs, changed))
    means = after.mean(axis=(1, 2, 3)) - before.mean(axis=(1, 2, 3))
    spreads = after.std(axis=(1, 2, 3)) / before.std(axis=(1, 2, 3))
    assert np.abs(means).max() <= 26.5
    assert spreads.max() <= 1.52
    assert spreads.min() > 0.5
    assert np.ptp(means) > 20
    assert np.ptp(spreads) > 0.3
