"""The dense layer equals the plain product and sum, in value, gradient and gradient of the gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls import kernels

# Wider inputs than outputs and the other way around: each takes its own form of the kernel's gradient.
SHAPES = [((1030, 5), 3), ((1030, 3), 5), ((6, 5), 3), ((2, 4, 3), 5), ((2, 600, 5), 3), ((2, 600, 3), 5), ((4,), 4)]


def plain(x, kernel, bias):
    return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def draw(shape, outputs):
    rng = np.random.default_rng(0)
    return [rng.normal(size=size).astype(np.float32) for size in (shape, (shape[-1], outputs), (outputs,))]


@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_value_and_gradients_match_the_plain_product(shape, outputs):
    def value_and_gradients(function, arrays):
        value, pullback = jax.vjp(function, *arrays)
        return value, pullback(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))

    both = jax.jit(lambda *arrays: [value_and_gradients(function, arrays) for function in (kernels.linear, plain)])
    (value, gradients), (expected, expected_gradients) = both(*draw(shape, outputs))
    chex.assert_trees_all_close(value, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "outputs"), SHAPES[:2])
def test_second_derivatives_match_the_plain_product(shape, outputs):
    arrays = draw(shape, outputs)

    def second(function):
        first = jax.grad(lambda *arrays: jnp.sum(jnp.sin(function(*arrays))), argnums=1)
        return jax.jit(jax.grad(lambda *arrays: jnp.sum(first(*arrays) ** 2), argnums=(0, 1, 2)))(*arrays)

    # The largest are about 1,000.
    chex.assert_trees_all_close(second(kernels.linear), second(plain), rtol=1e-4, atol=1e-3)


def test_missing_bias_equals_zero_bias():
    x, kernel, bias = draw((6, 5), 3)
    chex.assert_trees_all_equal(kernels.linear(x, kernel), kernels.linear(x, kernel, np.zeros_like(bias)))


def test_a_bias_may_have_several_axes():
    x, bias = jnp.ones((2, 3, 4)), jnp.arange(12.0).reshape(3, 4)
    value, pullback = jax.vjp(kernels.add_bias, x, bias)
    chex.assert_trees_all_equal(value, x + bias[None])
    chex.assert_trees_all_equal(pullback(value), (value, value.sum(axis=0)))


def test_bfloat16_bias_gradient_is_accumulated_in_float32():
    # One after another in half precision they would stop at 256.
    gradient = jax.grad(lambda bias: jnp.sum(kernels.add_bias(jnp.zeros((4096, 3), jnp.bfloat16), bias)))
    assert gradient(jnp.zeros(3, jnp.bfloat16)).tolist() == [4096.0] * 3
