"""Normalisation: mean 0 and variance 1 in each channel, by the training images alone."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from jaxcls.data.preprocessing import from_record
from jaxcls.data.preprocessing import images as preprocessor


def images_of(seed, shape, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape, np.uint8)


# More than the rounding of the statistics changes what is normalised, in deviations or as a share.
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
def test_each_channel_is_standardised_as_in_float64(seed, count, channels, low, width):
    images = images_of(seed, (count, 5, 3, channels), low, low + width)
    images[..., 0] //= 2  # the channels differ
    mean, deviation = float64_statistics(images)
    normalised = np.asarray(preprocessor.fit(images).normalize(images))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised, (images - mean) / deviation, rtol=ROUNDED, atol=ROUNDED)


def test_the_statistics_are_those_of_the_training_images_only():
    train, test = images_of(0, (20, 4, 4, 3), 0, 100), images_of(1, (6, 4, 4, 3), 100, 256)
    normalise = preprocessor.fit(train).normalize
    mean, deviation = float64_statistics(train)
    expected = (test - mean) / deviation
    np.testing.assert_allclose(normalise(test), expected, rtol=ROUNDED, atol=ROUNDED)
    # An image does not depend on those that it is normalised with.
    np.testing.assert_allclose(jax.jit(normalise)(test[:1]), normalise(test)[:1], rtol=1e-6)


def test_other_examples_of_the_same_kind_have_the_same_statistics():
    """Each is another program to compile."""
    images = np.minimum(images_of(2, (4000, 28, 28, 1)), images_of(3, (4000, 1, 1, 1)))
    rng = np.random.default_rng(4)
    fitted = [preprocessor.fit(images[rng.permutation(4000)[:3800]]) for _ in range(12)]
    exact = [images[rng.permutation(4000)[:3800]].mean() for _ in range(12)]
    assert len(set(exact)) == 12
    assert len(set(fitted)) <= 3


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_images_of_one_grey_stay_finite(grey):
    train = np.full((3, 4, 4, 2), grey, np.uint8)
    train[..., 1] = images_of(0, (3, 4, 4))
    normalise = preprocessor.fit(train).normalize
    np.testing.assert_array_equal(normalise(train)[..., 0], 0)
    assert np.isfinite(normalise(images_of(1, (2, 4, 4, 2)))).all()


def test_the_sums_of_many_bright_images_do_not_overflow():
    # Stands for any large set: the sum of squares is beyond 2**32.
    images = np.full((100, 32, 32, 1), 255, np.uint8)
    images[::2] = 254
    mean, deviation = float64_statistics(images)
    scale = max(deviation[0], 1.0)
    np.testing.assert_allclose(preprocessor.fit(images).normalize(images), (images - mean) / scale, rtol=1e-5)


def test_the_record_gives_the_statistics_back():
    fitted = preprocessor.fit(images_of(0, (20, 4, 5, 3)))
    assert from_record(json.loads(json.dumps(fitted.as_record()))) == fitted
    assert fitted.model_arguments == {"input_shape": (4, 5, 3)}
