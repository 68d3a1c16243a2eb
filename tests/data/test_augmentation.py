"""Augmentations keep shape and type, and differ between images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxcls.data import augmentation

IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (64, 6, 5, 2)), jnp.uint8)
KEY = jax.random.key(3)


@pytest.mark.parametrize(
    "augmentation",
    [
        augmentation.horizontal_flip,
        augmentation.shift(2),
        augmentation.cutout(3),
        augmentation.affine(degrees=20, scale=0.1, shear=0.1),
        augmentation.exposure(gamma=0.3, contrast=0.2, brightness=0.1),
        augmentation.chain(augmentation.horizontal_flip, augmentation.shift(1)),
    ],
)
def test_augmentations_keep_shape_and_type_and_depend_on_the_key(augmentation):
    compiled = jax.jit(augmentation)
    result = compiled(KEY, IMAGES)
    assert result.shape == IMAGES.shape
    assert result.dtype == IMAGES.dtype
    assert np.array_equal(result, compiled(KEY, IMAGES))
    assert not np.array_equal(result, compiled(jax.random.key(4), IMAGES))


def test_flip_mirrors_about_half_of_the_images():
    result = np.asarray(jax.jit(augmentation.horizontal_flip)(KEY, IMAGES))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(result, IMAGES, strict=True)]
    unchanged = [np.array_equal(a, b) for a, b in zip(result, IMAGES, strict=True)]
    assert all(m != u for m, u in zip(mirrored, unchanged, strict=True))
    assert 16 < sum(mirrored) < 48


def test_shift_moves_each_image_within_the_bound():
    offsets = set()
    for before, after in zip(np.asarray(IMAGES), np.asarray(jax.jit(augmentation.shift(2))(KEY, IMAGES)), strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        matches = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 6, x : x + 5], after)]
        assert len(matches) == 1
        offsets.add(matches[0])
    assert len(offsets) > 15


def test_cutout_zeroes_one_square_only():
    areas = set()
    for before, after in zip(np.asarray(IMAGES), np.asarray(jax.jit(augmentation.cutout(3))(KEY, IMAGES)), strict=True):
        black = (after == 0).all(-1)
        assert np.array_equal(after[~black], before[~black])
        rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
        assert black[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.add(int(black.sum()))
    assert areas <= {4, 6, 9, 3, 2, 1}
    assert 9 in areas


@pytest.mark.parametrize(
    "amounts",
    [
        {"degrees": 25},
        {"scale": 0.3},
        {"shear": 0.4},
        {"degrees": 15, "scale": 0.2, "shear": 0.2, "translate": 0.1, "fill": "edge"},
    ],
)
def test_affine_samples_as_scipy_does(amounts):
    images = np.random.default_rng(1).uniform(size=(3, 9, 12, 2)).astype(np.float32)
    drawn = np.asarray(jax.random.uniform(KEY, (3, 4), minval=-1.0), np.float64)
    farthest, mode = amounts.get("translate", 0), "nearest" if "fill" in amounts else "grid-constant"
    fractions = jax.random.uniform(jax.random.fold_in(KEY, 1), (3, 2), minval=-farthest, maxval=farthest)
    result = np.asarray(jax.jit(augmentation.affine(**amounts))(KEY, images))
    for image, (turn, high, wide, slant), shift, moved in zip(
        images, drawn, np.asarray(fractions), result, strict=True
    ):
        angle, stretch = np.deg2rad(amounts.get("degrees", 0)) * turn, 1 + amounts.get("scale", 0)
        turning = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        slanting = np.array([[1, 0], [amounts.get("shear", 0) * slant, 1]])
        matrix = turning @ slanting @ np.diag([stretch**high, stretch**wide])
        center = np.array([4, 5.5])
        for channel in range(2):
            expected = scipy.ndimage.affine_transform(
                image[..., channel], matrix, center - matrix @ center + [9, 12] * shift, order=1, mode=mode
            )
            np.testing.assert_allclose(moved[..., channel], expected, atol=1e-5)


def test_affine_without_amounts_is_the_identity():
    assert np.array_equal(jax.jit(augmentation.affine())(KEY, IMAGES), IMAGES)


@pytest.mark.parametrize("amounts", [{"gamma": 0.5}, {"contrast": 0.4}, {"brightness": 0.2}, {"noise": 0.01}])
def test_exposure_changes_gray_values_as_drawn(amounts):
    drawn = np.asarray(jax.random.uniform(KEY, (4, 64), minval=-1.0), np.float64)
    result = np.asarray(jax.jit(augmentation.exposure(**amounts))(KEY, IMAGES.astype(jnp.float32)))
    for image, (gamma, contrast, brightness, noise), changed in zip(np.asarray(IMAGES), drawn.T, result, strict=True):
        values = (image / 255) ** ((1 + amounts.get("gamma", 0)) ** gamma)
        values = values.mean() + (values - values.mean()) * (1 + amounts.get("contrast", 0)) ** contrast
        values += amounts.get("brightness", 0) * brightness
        deviations = 255 * amounts.get("noise", 0) * abs(noise)
        np.testing.assert_allclose(changed, values.clip(0, 1) * 255, atol=1e-2 + 6 * deviations)
