"""Convolution layers match those of Flax."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxcls.models.layers import Conv, PooledConv, he_normal


@pytest.mark.parametrize(
    "options",
    [
        {}, {"strides": 2, "padding": 1, "groups": 4}, {"use_bias": False}, {"kernel_size": (7, 7), "strides": 2},
        {"dtype": jnp.bfloat16},
    ],
)  # fmt: skip
def test_conv_matches_flax_in_variables_values_and_gradients(options):
    ours = Conv(4, 8, rngs=nnx.Rngs(0), **options)
    # In half precision Flax's own gradient of a bias is off by a tenth, so the oracle computes in float32.
    flax_options = {"kernel_size": (3, 3), "kernel_init": he_normal} | options | {"dtype": jnp.float32}
    flax_options["feature_group_count"] = flax_options.pop("groups", 1)
    flax = nnx.Conv(4, 8, **flax_options, rngs=nnx.Rngs(0))
    params = nnx.state(flax, nnx.Param)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(ours, nnx.Param)), nnx.to_pure_dict(params))
    if "bias" in params:
        params["bias"][...] = jnp.arange(8.0)
    x = jax.random.normal(jax.random.key(0), (4, 9, 9, 4))

    def value_and_gradient(module):
        graph = nnx.graphdef(module)

        def loss(params):
            y = nnx.merge(graph, params)(x)
            return jnp.sum(y.astype(jnp.float32) ** 2), y

        (_, y), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return y, nnx.to_pure_dict(gradient)

    (y, gradient), (expected, expected_gradient) = value_and_gradient(ours), value_and_gradient(flax)
    assert y.dtype == options.get("dtype", jnp.float32)
    precision = 1e-5 if y.dtype == jnp.float32 else 2e-2
    for one, other in zip(jax.tree.leaves((y, gradient)), jax.tree.leaves((expected, expected_gradient)), strict=True):
        # Relative to the largest element, since each element is a sum with cancellation.
        chex.assert_trees_all_close(one.astype(jnp.float32), other, rtol=0, atol=precision * jnp.abs(other).max())


@pytest.mark.parametrize("channels", [1, 8])
def test_pooled_conv_equals_max_pooling_after_bias_and_relu(channels):
    ours = PooledConv(channels, 6, rngs=nnx.Rngs(0))
    flax = nnx.Conv(channels, 6, (3, 3), kernel_init=he_normal, rngs=nnx.Rngs(0))
    params = {"kernel": flax.kernel[...], "bias": jnp.linspace(-1, 1, 6)}
    chex.assert_trees_all_equal(ours.kernel[...], params["kernel"])
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, channels))

    def value_and_gradient(module, pooled):
        graph = nnx.graphdef(module)

        @jax.jit
        def value_and_gradients(params):
            y, pullback = jax.vjp(lambda params: pooled(nnx.merge(graph, params)(x)), params)
            return y, pullback(jnp.cos(y))

        return value_and_gradients(params)

    def relu_and_pool(y):
        return nnx.max_pool(nnx.relu(y), (2, 2), (2, 2))

    expected = value_and_gradient(flax, relu_and_pool)
    chex.assert_trees_all_close(value_and_gradient(ours, nnx.relu), expected, rtol=1e-4, atol=1e-4)
