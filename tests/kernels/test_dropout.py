"""Dropout has the right rate and expected value, independent elements, and depends on the key alone."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls import kernels

SHAPE = (512, 2048)
COUNT = SHAPE[0] * SHAPE[1]


@functools.cache
def drawn(rate, seed=0):
    return np.asarray(jax.jit(lambda key: kernels.dropout(key, jnp.ones(SHAPE), rate))(jax.random.key(seed)))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_rate_and_expected_value(rate):
    values = drawn(rate)
    remaining = values[values != 0]
    # Five standard deviations of a binomial share.
    assert abs((values == 0).mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / COUNT) + 2**-17
    probability = round((1 - rate) * 65536) / 65536
    np.testing.assert_allclose(remaining * probability, 1, rtol=1e-6)
    assert len(remaining) == COUNT or rate > 0


@pytest.mark.parametrize("distance", [1, 2, 3, 1024, 2048])
def test_elements_are_independent(distance):
    mask = (drawn(0.3) == 0).ravel() - 0.3
    correlation = (mask[distance:] * mask[:-distance]).mean() / (0.3 * 0.7)
    assert abs(correlation) < 5 / np.sqrt(COUNT)


def test_every_column_has_the_same_rate():
    shares = (drawn(0.3) == 0).mean(axis=0)
    deviations = (shares - 0.3) / np.sqrt(0.3 * 0.7 / SHAPE[0])
    # The chi-squared statistic of 2048 columns: 2048, give or take 64.
    assert abs((deviations**2).sum() - 2048) < 5 * 64


def test_dropped_elements_are_determined_by_the_key():
    np.testing.assert_array_equal(drawn(0.3), drawn.__wrapped__(0.3))
    differing = (drawn(0.3) == 0) != (drawn(0.3, seed=1) == 0)
    assert abs(differing.mean() - 2 * 0.3 * 0.7) < 5e-3


@pytest.mark.parametrize("shape", [(4, 5), (1,), (2, 3, 8)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_gradient_is_scaled_and_masked_like_the_value(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)

    @jax.jit
    def value_and_gradient(x):
        value, pullback = jax.vjp(lambda x: kernels.dropout(jax.random.key(2), x, 0.5), x)
        return value, pullback(x)[0], jnp.where(value == 0, 0, 2 * x)

    value, gradient, expected = value_and_gradient(x)
    chex.assert_shape(value, shape)
    chex.assert_type(value, dtype)
    chex.assert_trees_all_equal(gradient, value)
    chex.assert_trees_all_equal(value, expected)
