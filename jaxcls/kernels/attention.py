"""Attention, in blocks that stay in the cache of a CPU."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxcls.kernels import native
from jaxcls.kernels.native_product import native_product

# Scores that are computed at once: 2 MB of float32. All scores of a batch of long texts do not fit into a cache, and
# then most of the time goes into moving them. At 32 texts of 256 tokens and 4 heads blocks take half of the plain
# form's time, and 0.7 of it with the gradient, for which the scores are computed again.
_SCORES = 1 << 19
# Finite, so that a text of padding alone has equal weights instead of NaN, as in jax.nn.dot_product_attention.
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def attention(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762) over the tokens that are present.

    ``jax.nn.dot_product_attention``, in a form that is fast on a CPU as well. Reverse mode differentiates it to any
    order.

    Args:
      query, key, value: (N, width, heads, features).
      present: bool (N, width), False where a token is padding, which no token attends to. Where none is present all
        have the same weight.

    Returns:
      (N, width, heads, features), in the type of the query.

    >>> x = jnp.ones((1, 3, 2, 4)) * jnp.array([1.0, 3.0, 99.0])[None, :, None, None]
    >>> attention(jnp.zeros_like(x), x, x, jnp.array([[True, True, False]]))[0, :, 0, 0].tolist()
    [2.0, 2.0, 2.0]
    """
    chex.assert_rank([query, key, value, present], [4, 4, 4, 2])
    chex.assert_type(present, bool)
    # An exported program takes any number of texts: how they divide into blocks is not known.
    if native.is_portable() or not isinstance(query.shape[0], int):
        return _plain(query, key, value, present)
    return lax.platform_dependent(query, key, value, present, cpu=_in_blocks, default=_plain)


def _plain(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, mask=present[:, None, None, :])


@jax.custom_vjp
def _in_blocks(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array) -> jax.Array:
    return _forward(query, key, value, present)[0]


def _forward(query, key, value, present):  # type: ignore[no-untyped-def]
    outputs, *statistics = _over_blocks(_block_forward, query, key, value, present)
    return outputs, (query, key, value, present, outputs, *statistics)


def _backward(saved, cotangent):  # type: ignore[no-untyped-def]
    return *_over_blocks(_block_backward, *saved, cotangent), None


_in_blocks.defvjp(_forward, _backward)


def _over_blocks(function, *arrays):  # type: ignore[no-untyped-def]
    """Maps ``function`` over blocks of examples; the largest that divide them evenly and have few enough scores."""
    count, width, heads, _ = arrays[0].shape
    fitting = max(1, _SCORES // (heads * width * width))
    size = max(divisor for divisor in range(1, count + 1) if count % divisor == 0 and divisor <= fitting)
    blocks = [array.reshape(count // size, size, *array.shape[1:]) for array in arrays]
    results = lax.map(lambda block: function(*block), blocks)
    return [result.reshape(count, *result.shape[2:]) for result in results]


# The scores, and what has their shape, are never transposed: XLA's CPU backend copies a transposed operand, and here
# only the small ones are. The barriers keep it from moving those transpositions to the scores.


def _block_forward(query, key, value, present):  # type: ignore[no-untyped-def]
    dtype = _products_in(query, key)
    scores = _scores(query, key, present, dtype)
    largest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    share = 1 / weights.sum(axis=-1, keepdims=True)
    outputs = _matmul(weights, _heads_first(value, dtype)) * share
    return outputs.swapaxes(1, 2).astype(query.dtype), largest, share


def _block_backward(query, key, value, present, outputs, largest, share, cotangent):  # type: ignore[no-untyped-def]
    dtype = _products_in(query, key)
    weights = jnp.exp(_scores(query, key, present, dtype) - largest) * share
    slope = (_heads_first(cotangent) * _heads_first(outputs)).sum(axis=-1, keepdims=True)
    of_scores = weights * (_matmul(_heads_first(cotangent, dtype), _features_first(value, dtype)) - slope)
    # Without this a text of padding alone would teach its queries and keys.
    of_scores = jnp.where(present[:, None, None, :], of_scores, 0)
    weights, of_scores = lax.optimization_barrier((weights.astype(dtype), of_scores.astype(dtype)))
    scale = query.shape[-1] ** -0.5
    of_query = _matmul(of_scores, _heads_first(key, dtype) * scale).swapaxes(1, 2)
    of_key = _matmul(_features_first(query, dtype) * scale, of_scores).transpose(0, 3, 1, 2)
    of_value = _matmul(_features_first(cotangent, dtype), weights).transpose(0, 3, 1, 2)
    return of_query.astype(query.dtype), of_key.astype(key.dtype), of_value.astype(value.dtype)


def _scores(query: jax.Array, key: jax.Array, present: jax.Array, dtype: Any) -> jax.Array:
    scores = _matmul(_heads_first(query, dtype) * query.shape[-1] ** -0.5, _features_first(key, dtype))
    return jnp.where(present[:, None, None, :], scores, _MASKED)


def _products_in(query: jax.Array, key: jax.Array) -> Any:
    """XLA's CPU backend computes products of bfloat16 in float32, so numbers are given to it as such."""
    return jnp.bfloat16 if native.takes_product(query, key) else jnp.float32


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """In float32, of factors that are the type of the second one."""
    return native_product(a.astype(b.dtype), b) if b.dtype == jnp.bfloat16 else jnp.matmul(a, b)


def _heads_first(x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """(N, width, heads, features) to (N, heads, width, features)."""
    return lax.optimization_barrier(x.astype(dtype).transpose(0, 2, 1, 3))


def _features_first(x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """(N, width, heads, features) to (N, heads, features, width)."""
    return lax.optimization_barrier(x.astype(dtype).transpose(0, 2, 3, 1))
