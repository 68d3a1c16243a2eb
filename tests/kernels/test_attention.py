"""Attention equals its definition, in value and gradient, for any mask and any division of the batch into blocks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxcls import kernels

SHAPES = [
    # texts, width, heads, features, and how many tokens each text has
    (3, 7, 2, 4, (7, 4, 1)),
    (2, 5, 1, 3, (5, 0)),
    (1, 1, 2, 1, (1,)),
    # Enough scores that each text is a block by itself.
    (3, 256, 8, 2, (256, 100, 3)),
    # Three blocks of four.
    (12, 181, 4, 2, tuple(range(12))),
]


def by_definition(query, key, value, present):
    scores = jnp.einsum("nqhf,nkhf->nhqk", query, key) / np.sqrt(query.shape[-1])
    scores = jnp.where(present[:, None, None, :], scores, -1e30)
    return jnp.einsum("nhqk,nkhf->nqhf", jax.nn.softmax(scores, axis=-1), value)


def draw(count, width, heads, features, lengths, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(count, width, heads, features)), dtype) for _ in range(4)]
    return arrays, jnp.arange(width)[None] < jnp.array(lengths)[:, None]


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(function, arrays, present):
    *inputs, cotangent = arrays
    outputs, pullback = jax.vjp(lambda *x: function(*x, present), *inputs)
    return outputs, pullback(cotangent)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape[:4])))
def test_value_and_gradients_match_the_definition(shape):
    arrays, present = draw(*shape)
    actual, expected = (
        value_and_gradients(function, arrays, present) for function in (kernels.attention, by_definition)
    )
    chex.assert_tree_all_finite(actual)
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_masked_tokens_have_no_effect_and_no_gradient():
    (query, key, value, cotangent), present = draw(*SHAPES[0])
    padding = ~present[..., None, None]
    other = [jnp.where(padding, 1e4, x) for x in (key, value)]
    outputs, (_, *gradients) = value_and_gradients(kernels.attention, (query, key, value, cotangent), present)
    chex.assert_trees_all_equal(kernels.attention(query, *other, present), outputs)
    for gradient in gradients:
        assert np.all(np.where(padding, gradient, 0) == 0)
        assert np.abs(gradient).max() > 0.1


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
def test_large_scores_stay_finite(scale):
    arrays, present = draw(*SHAPES[0])
    query, *others = arrays
    chex.assert_tree_all_finite(value_and_gradients(kernels.attention, (query * scale, *others), present))


def test_second_derivatives_match_the_definition():
    (query, key, value, _), present = draw(*SHAPES[0])

    def second(function):
        first = jax.grad(lambda query, key: jnp.sum(jnp.sin(function(query, key, value, present))), argnums=1)
        return jax.jit(jax.grad(lambda query, key: jnp.sum(first(query, key) ** 2), argnums=(0, 1)))(query, key)

    chex.assert_trees_all_close(second(kernels.attention), second(by_definition), rtol=1e-3, atol=1e-4)


def test_bfloat16_inputs_give_bfloat16_outputs():
    arrays, present = draw(*SHAPES[0], dtype=jnp.bfloat16)
    actual = value_and_gradients(kernels.attention, arrays, present)
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {np.dtype(jnp.bfloat16)}
    exact = [array.astype(jnp.float32) for array in arrays]
    expected = value_and_gradients(by_definition, exact, present)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x.astype(jnp.float32), actual), expected, atol=0.05)


def test_attention_on_two_devices_matches_one_device():
    arrays, present = draw(*SHAPES[-1])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    placed = jax.device_put((arrays, present), NamedSharding(mesh, PartitionSpec("data")))
    actual, expected = (value_and_gradients(kernels.attention, *arguments) for arguments in (placed, (arrays, present)))
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_cpu_program_never_holds_the_scores_of_the_whole_batch():
    arrays, present = draw(*SHAPES[-1])
    compiled = value_and_gradients.lower(kernels.attention, arrays, present).compile().as_text()
    assert "f32[4,4,181,181]" in compiled
    assert "f32[12,4,181,181]" not in compiled
