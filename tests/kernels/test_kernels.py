"""The platform's convolution equals lax's own, in value, gradient and gradient of the gradient."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxcls import kernels
from jaxcls.kernels import native

NHWC = ("NHWC", "HWIO", "NHWC")
SHAPES = [
    # height, width, kernel, strides, padding
    (7, 9, (3, 3), (1, 1), "SAME"),
    (8, 6, (3, 3), (2, 2), "SAME"),
    (7, 9, (3, 3), (2, 2), "SAME"),
    (8, 7, (1, 1), (2, 2), "SAME"),
    (9, 8, (5, 2), (1, 3), "VALID"),
    (10, 10, (4, 4), (3, 3), "VALID"),
    (6, 6, (3, 3), (1, 1), [(2, 0), (1, 3)]),
    (9, 9, (3, 3), (1, 2), [(-1, 0), (0, -2)]),
]


@pytest.fixture(autouse=True)
def _pure():
    """Tests pure JAX; test_native.py tests the native kernels."""
    with native.portable():
        yield


def pair(shape, channels, dtype=jnp.float32):
    """Four channels are depthwise: each output channel depends on one input channel."""
    height, width, window, strides, padding = shape
    groups = 4 if channels == 4 else 1
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, height, width, channels)), dtype)
    kernel = jnp.asarray(rng.normal(size=(*window, channels // groups, 4)), dtype)

    def with_shape(conv):
        return lambda x, kernel: conv(x, kernel, strides, padding, dimension_numbers=NHWC, feature_group_count=groups)

    return with_shape(kernels.conv), with_shape(lax.conv_general_dilated), x, kernel


@pytest.mark.parametrize(
    ("shape", "channels"), [(shape, channels) for shape in SHAPES for channels in (1, 2)] + [(SHAPES[2], 4)]
)
def test_value_and_gradients_match_lax(shape, channels):
    ours, reference, x, kernel = pair(shape, channels)

    def value_and_gradients(conv, x, kernel):
        value, pullback = jax.vjp(conv, x, kernel)
        return value, pullback(jnp.cos(jnp.arange(value.size)).reshape(value.shape))

    # One program instead of dozens of operations, each of which would be compiled.
    both = jax.jit(lambda *arguments: [value_and_gradients(conv, *arguments) for conv in (ours, reference)])
    (value, gradients), (expected, expected_gradients) = both(x, kernel)
    chex.assert_trees_all_close(value, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", SHAPES[1:2])
def test_second_derivatives_match_lax(shape, channels):
    ours, reference, x, kernel = pair(shape, channels)

    def second(f):
        first = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(f(x, kernel))), argnums=1)
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(first(x, kernel) ** 2), argnums=(0, 1)))(x, kernel)

    chex.assert_trees_all_close(second(ours), second(reference), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_half_precision_is_summed_in_float32(channels):
    ours, reference, x, kernel = pair(SHAPES[0], channels, jnp.bfloat16)

    def value_and_gradients(conv, x, kernel):
        value, pullback = jax.vjp(conv, x, kernel)
        return value, *pullback(jnp.ones_like(value))

    half = jax.jit(functools.partial(value_and_gradients, ours))(x, kernel)
    exact = [array.astype(jnp.float32) for array in (x, kernel)]
    expected = jax.jit(functools.partial(value_and_gradients, reference))(*exact)
    assert {array.dtype for array in half} == {jnp.dtype(jnp.bfloat16)}
    for array, oracle in zip(half, expected, strict=True):
        # Rounded once, to 8 bits.
        chex.assert_trees_all_close(array.astype(jnp.float32), oracle, rtol=2**-8, atol=1e-5)


def test_flax_layer_uses_the_custom_gradients():
    layer = nnx.Conv(1, 4, (3, 3), conv_general_dilated=kernels.conv, rngs=nnx.Rngs(0))
    assert "custom_vjp" in str(jax.make_jaxpr(layer)(jnp.ones((2, 8, 8, 1))))


@pytest.mark.parametrize("options", [{"feature_group_count": 2}, {"kernel_dilation": 2}])
def test_other_options_fall_back_to_lax(options):
    def outputs(conv):
        layer = nnx.Conv(2, 4, (3, 3), **options, conv_general_dilated=conv, rngs=nnx.Rngs(0))
        return layer(jax.random.normal(jax.random.key(3), (2, 8, 8, 2)))

    chex.assert_trees_all_equal(outputs(kernels.conv), outputs(lax.conv_general_dilated))
