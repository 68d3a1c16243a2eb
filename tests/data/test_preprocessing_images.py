"""Image preprocessing: mean 0 and variance 1 per channel, by statistics of the training images."""

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from jaxcls.data.preprocessing import from_record
from jaxcls.data.preprocessing import images as preprocessor


def random_images(seed, shape, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape, np.uint8)


# Tolerance for the rounding of the statistics.
ROUNDED = 1 / 100


def float64_statistics(images):
    values = images.astype(np.float64)
    return values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 9),
    channels=st.integers(1, 4),
    low=st.integers(0, 200),
    width=st.integers(10, 56),
)
@hypothesis.settings(max_examples=25)
def test_each_channel_is_standardized_as_in_float64(seed, count, channels, low, width):
    images = random_images(seed, (count, 5, 3, channels), low, low + width)
    images[..., 0] //= 2  # the channels differ
    mean, deviation = float64_statistics(images)
    normalized = np.asarray(preprocessor.fit(images).normalize(images))
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, (images - mean) / deviation, rtol=ROUNDED, atol=ROUNDED)


def test_statistics_come_from_the_training_images_only():
    train, test = random_images(0, (20, 4, 4, 3), 0, 100), random_images(1, (6, 4, 4, 3), 100, 256)
    normalize = preprocessor.fit(train).normalize
    mean, deviation = float64_statistics(train)
    expected = (test - mean) / deviation
    np.testing.assert_allclose(normalize(test), expected, rtol=ROUNDED, atol=ROUNDED)
    # An image does not depend on the other images of its batch.
    np.testing.assert_allclose(jax.jit(normalize)(test[:1]), normalize(test)[:1], rtol=1e-6)


def test_similar_training_sets_mostly_share_statistics_and_so_a_compilation():
    images = np.minimum(random_images(2, (4000, 28, 28, 1)), random_images(3, (4000, 1, 1, 1)))
    rng = np.random.default_rng(4)
    fitted = [preprocessor.fit(images[rng.permutation(4000)[:3800]]) for _ in range(12)]
    exact = [images[rng.permutation(4000)[:3800]].mean() for _ in range(12)]
    assert len(set(exact)) == 12
    assert len(set(fitted)) <= 3


@pytest.mark.parametrize("gray", [0, 7, 255])
def test_a_constant_channel_stays_finite(gray):
    train = np.full((3, 4, 4, 2), gray, np.uint8)
    train[..., 1] = random_images(0, (3, 4, 4))
    normalize = preprocessor.fit(train).normalize
    np.testing.assert_array_equal(normalize(train)[..., 0], 0)
    assert np.isfinite(normalize(random_images(1, (2, 4, 4, 2)))).all()


def test_sums_of_squares_beyond_32_bits_do_not_overflow():
    images = np.full((100, 32, 32, 1), 255, np.uint8)
    images[::2] = 254
    mean, deviation = float64_statistics(images)
    scale = max(deviation[0], 1.0)
    np.testing.assert_allclose(preprocessor.fit(images).normalize(images), (images - mean) / scale, rtol=1e-5)


def test_an_image_is_standardized_by_its_own_statistics_whatever_its_exposure():
    images = random_images(0, (5, 9, 8, 3), 50, 100)
    fitted = preprocessor.fit(images, per_image=True)
    mean, deviation = (getattr(np, name)(images, axis=(1, 2, 3), keepdims=True) for name in ("mean", "std"))
    np.testing.assert_allclose(fitted.normalize(images), (images - mean) / deviation, atol=ROUNDED)
    np.testing.assert_allclose(fitted.normalize(2 * images + 7), fitted.normalize(images), atol=ROUNDED)
    np.testing.assert_array_equal(fitted.normalize(np.full_like(images, 9)), 0)
    # A pretrained encoder takes gray images in three channels.
    gray = dataclasses.replace(fitted, shape=(9, 8, 1)).normalize(images[..., :1])
    assert gray.shape == (5, 9, 8, 3)


@pytest.mark.parametrize("per_image", [False, True])
def test_record_round_trips_through_json(per_image):
    fitted = preprocessor.fit(random_images(0, (20, 4, 5, 3)), per_image=per_image)
    assert from_record(json.loads(json.dumps(fitted.as_record()))) == fitted
    assert fitted.model_arguments == {"input_shape": (4, 5, 3)}
