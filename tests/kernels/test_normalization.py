"""Batch normalization equals that of Flax, in value, gradient, gradient of the gradient and running statistics."""

import contextlib
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcls import kernels
from jaxcls.kernels import native
from jaxcls.models.layers import BatchNorm

SHAPE = (6, 5, 4, 3)


@pytest.fixture(autouse=True, params=["native", "pure"])
def _form(request):
    """With the native sums, where there are such, and without."""
    with native.portable() if request.param == "pure" else contextlib.nullcontext():
        yield


def arrays(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, scale, bias, cotangent = (
        rng.normal(size=size).astype(np.float32) for size in (SHAPE, SHAPE[3:], SHAPE[3:], SHAPE)
    )
    return jnp.asarray(2 * x + 1, dtype), 1 + scale, bias, jnp.asarray(cotangent, dtype)


def reference(x, scale, bias):
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * scale[None, None, None] + bias[None, None, None]


def ours(x, scale, bias):
    return kernels.batch_norm(x, scale, bias)[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2**-7)])
def test_value_and_gradients_match_the_formula(dtype, tolerance):
    x, scale, bias, cotangent = arrays(dtype)

    def value_and_gradients(function, x):
        value, pullback = jax.vjp(function, x, scale, bias)
        return [value, *pullback(cotangent.astype(value.dtype))]

    results = jax.jit(functools.partial(value_and_gradients, ours))(x)
    assert [array.dtype for array in results] == [dtype, dtype, jnp.float32, jnp.float32]
    oracles = jax.jit(functools.partial(value_and_gradients, reference))(x.astype(jnp.float32))
    chex.assert_trees_all_close(
        [array.astype(jnp.float32) for array in results], oracles, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("mean", [100, 1000, 3000, -3000])
def test_channels_far_from_zero_are_normalized_as_in_float64(mean):
    x = np.random.default_rng(0).normal(mean, 1, (16, 12, 12, 8)).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    value, _, variance = kernels.batch_norm(jnp.asarray(x), jnp.ones(8), jnp.zeros(8))
    np.testing.assert_allclose(value, expected, atol=3e-4)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-5)


def test_second_derivatives_match_the_formula():
    *inputs, cotangent = arrays()

    def second(f):
        first = jax.grad(lambda *inputs: jnp.sum(jnp.sin(f(*inputs)) * cotangent), argnums=(0, 1))
        return jax.jit(
            jax.grad(lambda *inputs: sum(jnp.sum(jnp.sin(part)) for part in first(*inputs)), argnums=(0, 1, 2))
        )

    chex.assert_trees_all_close(second(ours)(*inputs), second(reference)(*inputs), rtol=1e-4, atol=1e-4)


def test_batch_statistics_are_right_and_carry_no_gradient():
    x, scale, bias, _ = arrays()
    _, mean, variance = kernels.batch_norm(x, scale, bias)
    chex.assert_trees_all_close((mean, variance), (x.mean((0, 1, 2)), x.var((0, 1, 2))), rtol=1e-5)
    gradient = jax.grad(lambda x: sum(part.sum() for part in kernels.batch_norm(x, scale, bias)[1:]))(x)
    assert not gradient.any()


def test_masked_rows_count_nowhere():
    x, scale, bias, cotangent = arrays()
    counted = jnp.array([True, False, True, True, False, True])
    cotangent = jnp.where(counted[:, None, None, None], cotangent, 0)

    def everything(x, cotangent):
        (y, *statistics), pullback = jax.vjp(kernels.batch_norm, x, scale, bias)
        return y, statistics, pullback((cotangent, *map(jnp.zeros_like, statistics)))

    with kernels.masked_rows(counted):
        y, statistics, (d_x, *gradients) = everything(1000 * x.at[counted].set(x[counted] / 1000), cotangent)
    expected_y, expected_statistics, (expected_d_x, *expected_gradients) = everything(x[counted], cotangent[counted])
    chex.assert_trees_all_close(
        (y[counted], statistics, d_x[counted], gradients),
        (expected_y, expected_statistics, expected_d_x, expected_gradients),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    assert not d_x[~counted].any()


def test_constant_channel_becomes_its_bias():
    value = ours(jnp.full((4, 3, 3, 1), 1e3), jnp.ones(1), jnp.full(1, 0.5))
    chex.assert_trees_all_close(value, jnp.full((4, 3, 3, 1), 0.5), atol=1e-3)


def test_layer_matches_flax_in_variables_and_results():
    x, *_ = arrays()
    layers = [kind(3, momentum=0.9, dtype=jnp.float32, rngs=nnx.Rngs(0)) for kind in (BatchNorm, nnx.BatchNorm)]
    for training in (True, True, False):
        for layer in layers:
            layer.train() if training else layer.eval()
        outputs = [layer(x) for layer in layers]
        chex.assert_trees_all_close(*outputs, rtol=1e-5, atol=1e-5)
        chex.assert_trees_all_close(*(nnx.to_pure_dict(nnx.state(layer)) for layer in layers), rtol=1e-5, atol=1e-6)
