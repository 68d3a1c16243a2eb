"""The VGG network, and its pooled first convolution against the plain operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls import kernels
from jaxcls.models import functional, vision


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (2, 13, 10, 2), (2, 9, 7, 3), (1, 2, 2, 1)])
def test_pooled_convolution_equals_convolution_and_max_pooling(shape):
    keys = jax.random.split(jax.random.key(0), 3)
    images, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (3, 3, shape[-1], 5))

    def plain(images, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return kernels.max_pool(jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers))

    value, gradients = jax.vjp(kernels.pooled_convolution, images, kernel)
    expected, expected_gradients = jax.vjp(plain, images, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    cotangent = jax.random.normal(keys[2], value.shape)
    for actual, expected in zip(gradients(cotangent), expected_gradients(cotangent), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (12, 10, 3), (5, 6, 4)])
def test_logits_are_float32_and_finite_and_every_parameter_learns(shape, dtype):
    stages = ((4,), (6, 8), (8,))
    model = functional(lambda rngs: vision.VGG(shape, 7, stages=stages, dropout=0.1, dtype=jnp.dtype(dtype), rngs=rngs))
    params, state = model.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(1), (8, *shape))

    def loss(params, key):
        logits, _ = model.apply(params, state, images, key=key)
        assert logits.shape == (8, 7)
        assert logits.dtype == jnp.float32
        return jnp.sum(logits**2)

    assert bool(jnp.isfinite(jax.jit(loss)(params, None)))
    gradient = jax.jit(jax.grad(loss))(params, jax.random.key(2))
    assert all(bool(jnp.isfinite(leaf).all()) and bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient))


def test_every_stage_halves_the_image():
    model = functional(lambda rngs: vision.VGG((28, 28, 1), 10, stages=((4,), (6, 8), (5,)), rngs=rngs))
    shapes = {leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))[0])}
    assert {(3, 3, 1, 4), (3, 3, 4, 6), (3, 3, 6, 8), (3, 3, 8, 5), (3 * 3 * 5, 10)} <= shapes
