"""The maximum over windows equals that of a reduction, and a tie divides its gradient evenly."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxcls import kernels


def reduced(images, window):
    count, height, width, channels = images.shape
    rows, columns = height // window, width // window
    whole = images[:, : rows * window, : columns * window]
    return whole.reshape(count, rows, window, columns, window, channels).max(axis=(2, 4))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("window", "shape"), [(2, (2, 6, 8, 3)), (2, (2, 7, 9, 3)), (3, (2, 9, 11, 2))])
def test_value_and_gradient_match_reduce_window(window, shape, dtype):
    # Of three values, so that there are ties.
    images = jax.random.randint(jax.random.key(0), shape, 0, 3).astype(dtype)
    value, pullback = jax.vjp(lambda images: kernels.max_pool(images, window), images)
    expected, expected_pullback = jax.vjp(lambda images: reduced(images, window), images)
    cotangent = jax.random.normal(jax.random.key(1), value.shape, value.dtype)
    chex.assert_trees_all_equal(value, expected)
    chex.assert_trees_all_close(pullback(cotangent), expected_pullback(cotangent), rtol=2**-7)


def test_second_derivatives_match_reduce_window():
    images = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))

    def second(pool):
        first = jax.grad(lambda images: jnp.sum(jnp.sin(pool(images, 2))))
        return jax.grad(lambda images: jnp.sum(first(images) ** 2))(images)

    chex.assert_trees_all_close(second(kernels.max_pool), second(reduced), rtol=1e-5)


def test_overlapping_max_pool_matches_reduce_window():
    images = jax.random.normal(jax.random.key(0), (2, 7, 8, 3))

    def reference(images):
        return nnx.max_pool(images, (3, 3), (2, 2), ((1, 1), (1, 1)))

    value, pullback = jax.vjp(kernels.overlapping_max_pool, images)
    expected, expected_pullback = jax.vjp(reference, images)
    chex.assert_trees_all_equal(value, expected)
    chex.assert_trees_all_close(pullback(value), expected_pullback(value), rtol=1e-6)
