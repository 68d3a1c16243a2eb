"""Boxes go with their images: what was drawn is found in its box after every augmentation."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls.data import augmentation_boxes

SIDE, COUNT = 48, 16
EVERY = {
    "flip": augmentation_boxes.horizontal_flip,
    "scale": augmentation_boxes.scale_and_crop(least=0.6, most=1.6),
    "jitter": augmentation_boxes.jitter(brightness=0.1, contrast=0.1),
    "chain": augmentation_boxes.chain(
        augmentation_boxes.horizontal_flip,
        augmentation_boxes.scale_and_crop(),
        augmentation_boxes.jitter(brightness=0.05),
    ),
}


def drawn(seed, canvas=(SIDE, SIDE)):
    """Dark images of several sizes on black canvases, a bright rectangle in each, a place for one object more."""
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


def found(image):
    """x1, y1, x2, y2 of what is bright."""
    rows, columns = np.flatnonzero((image > 120).any(axis=(1, 2))), np.flatnonzero((image > 120).any(axis=(0, 2)))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.fixture(scope="module", params=EVERY)
def augmentation(request):
    return jax.jit(EVERY[request.param])


@pytest.mark.parametrize("canvas", [(SIDE, SIDE), (32, SIDE), (SIDE, 32)], ids=str)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=10, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_what_was_drawn_is_in_its_box(augmentation, canvas, seed):
    inputs, labels = drawn(seed, canvas)
    changed, moved = jax.device_get(augmentation(jax.random.key(seed), arrays(inputs), arrays(labels)))
    assert {name: array.dtype for name, array in changed.items()} == {"image": np.uint8, "size": np.int32}
    for row, (height, width) in enumerate(changed["size"]):
        image, box = changed["image"][row], moved["boxes"][row, 0]
        assert image.shape == (*canvas, 1)
        assert not image[height:].any()
        assert not image[:, width:].any()
        assert image[:height, :width].min() > 0
        if moved["classes"][row, 0] >= 0:
            np.testing.assert_allclose(found(image), box, atol=1)
            assert (box[2:] > box[:2]).all()
            assert (box >= 0).all()
            assert (box <= [width, height, width, height]).all()
        else:
            assert not box.any()
        # Where there was no object there is none.
        assert moved["classes"][row, 1] == -1
        assert not moved["boxes"][row, 1].any()


def test_the_key_decides(augmentation):
    given = [arrays(tree) for tree in drawn(0)]
    once, again, other = (augmentation(jax.random.key(key), *given)[0]["image"] for key in (3, 3, 4))
    assert jnp.array_equal(once, again)
    assert not jnp.array_equal(once, other)


def test_a_flip_moves_no_edge_and_twice_is_none():
    inputs, labels = (arrays(tree) for tree in drawn(1))
    key = jax.random.key(0)
    once = augmentation_boxes.horizontal_flip(key, inputs, labels)
    for row in range(COUNT):
        np.testing.assert_array_equal(found(np.asarray(once[0]["image"][row])), once[1]["boxes"][row, 0])
    twice = augmentation_boxes.horizontal_flip(key, *once)
    jax.tree.map(np.testing.assert_array_equal, twice, (inputs, labels))
    flipped = np.array([not np.array_equal(*pair) for pair in zip(once[1]["boxes"], labels["boxes"], strict=True)])
    assert 3 < flipped.sum() < 13


def test_a_factor_of_one_changes_nothing():
    inputs, labels = (arrays(tree) for tree in drawn(2))
    same = augmentation_boxes.scale_and_crop(least=1, most=1)(jax.random.key(0), inputs, labels)
    jax.tree.map(np.testing.assert_array_equal, same, (inputs, labels))


def test_an_edge_is_not_darkened_by_the_black_beside_it():
    inputs, labels = (arrays(tree) for tree in drawn(6))
    inputs["image"] = jnp.where(inputs["image"] > 0, 40, 0).astype(jnp.uint8)
    changed, _ = EVERY["scale"](jax.random.key(1), inputs, labels)
    assert set(np.unique(changed["image"]).tolist()) == {0, 40}


def test_what_is_cut_off_by_more_than_is_asked_for_is_dropped():
    inputs, labels = (arrays(tree) for tree in drawn(3))
    inputs["size"] = jnp.full_like(inputs["size"], SIDE)
    labels["crowd"] = labels["crowd"].at[:, 0].set(True)
    kept = {}
    for visible in (0.0, 0.3, 1.0):
        larger = augmentation_boxes.scale_and_crop(least=2, most=2, visible=visible)
        _, moved = larger(jax.random.key(1), inputs, labels)
        kept[visible] = np.asarray(moved["classes"][:, 0] >= 0)
        areas, before = ((some[:, 0, 2:] - some[:, 0, :2]).prod(axis=-1) for some in (moved["boxes"], labels["boxes"]))
        share = np.asarray(areas / (4 * before))
        assert (share[kept[visible]] >= visible - 1e-6).all()
        np.testing.assert_array_equal(moved["crowd"][:, 0], kept[visible])
    assert kept[0.0].sum() > kept[0.3].sum() > kept[1.0].sum() > 0
    # By hand: the window of the object's image says how much is left of it.
    whole = augmentation_boxes.scale_and_crop(least=2, most=2, visible=0.0)(jax.random.key(1), inputs, labels)[1]
    left = (whole["boxes"][:, 0, 2:] - whole["boxes"][:, 0, :2]).prod(axis=-1)
    share = np.asarray(left / (4 * (labels["boxes"][:, 0, 2:] - labels["boxes"][:, 0, :2]).prod(axis=-1)))
    np.testing.assert_array_equal(kept[0.3], share >= 0.3)


def test_factors_are_within_their_bounds_and_spread_over_them():
    inputs, labels = (arrays(tree) for tree in drawn(4))
    inputs["size"] = jnp.full_like(inputs["size"], SIDE)
    sizes = augmentation_boxes.scale_and_crop(least=0.5, most=1.0)(jax.random.key(2), inputs, labels)[0]["size"]
    assert sizes.min() >= SIDE / 2
    assert sizes.max() <= SIDE
    assert len(np.unique(sizes)) > 6


def test_jitter_changes_brightness_and_contrast_within_bounds_and_no_label():
    inputs, labels = (arrays(tree) for tree in drawn(5))
    changed, same = augmentation_boxes.jitter(brightness=0.1, contrast=0.5)(jax.random.key(0), inputs, labels)
    assert same is labels
    inside = np.asarray(inputs["image"] > 0)
    before, after = (np.ma.masked_array(np.asarray(some["image"], np.float64), ~inside) for some in (inputs, changed))
    means = after.mean(axis=(1, 2, 3)) - before.mean(axis=(1, 2, 3))
    spreads = after.std(axis=(1, 2, 3)) / before.std(axis=(1, 2, 3))
    assert np.abs(means).max() <= 26.5
    assert spreads.max() <= 1.52
    assert spreads.min() > 0.5
    assert np.ptp(means) > 20
    assert np.ptp(spreads) > 0.3
