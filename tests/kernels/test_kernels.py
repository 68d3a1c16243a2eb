"""The platform's convolution equals lax's own, in value, gradient and gradient of the gradient."""

import chex
import jax
import jax.numpy as jnp
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
    x = jax.random.normal(jax.random.key(0), (3, height, width, channels), dtype)
    groups = 4 if channels == 4 else 1
    kernel = jax.random.normal(jax.random.key(1), (*window, channels // groups, 4), dtype)

    def with_shape(conv):
        return lambda x, kernel: conv(x, kernel, strides, padding, dimension_numbers=NHWC, feature_group_count=groups)

    return with_shape(kernels.conv), with_shape(lax.conv_general_dilated), x, kernel


@pytest.mark.parametrize(
    ("shape", "channels"), [(shape, channels) for shape in SHAPES for channels in (1, 2)] + [(SHAPES[2], 4)]
)
def test_value_and_gradients_match_lax(shape, channels):
    ours, reference, x, kernel = pair(shape, channels)
    value, pullback = jax.vjp(ours, x, kernel)
    expected, expected_pullback = jax.vjp(reference, x, kernel)
    cotangent = jax.random.normal(jax.random.key(2), value.shape)
    chex.assert_trees_all_close(value, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(pullback(cotangent), expected_pullback(cotangent), rtol=1e-4, atol=1e-4)


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
    value, pullback = jax.vjp(ours, x, kernel)
    gradients = pullback(jnp.ones_like(value))
    exact = [array.astype(jnp.float32) for array in (x, kernel)]
    expected, expected_pullback = jax.vjp(reference, *exact)
    assert {array.dtype for array in (value, *gradients)} == {jnp.dtype(jnp.bfloat16)}
    for array, oracle in zip((value, *gradients), (expected, *expected_pullback(jnp.ones_like(expected))), strict=True):
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
