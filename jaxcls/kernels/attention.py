"""Attention in blocks that fit into the cache of a CPU."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxcls.kernels import native

# Number of scores of a block: 2 MB of float32. The scores of a whole batch of long texts do not fit into the cache, and
# moving them takes most of the time. For 32 texts of 256 tokens and 4 heads, blocks take half the time of
# jax.nn.dot_product_attention, and 0.7 of it including the gradient, which recomputes the scores.
_BLOCK_SCORES = 1 << 19
# Finite, so that texts of padding alone have equal weights instead of NaN, as in jax.nn.dot_product_attention.
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def attention(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array) -> jax.Array:
    """Scaled dot-product attention with a padding mask (Vaswani et al. 2017, arXiv 1706.03762).

    The same as ``jax.nn.dot_product_attention``, but fast on a CPU. Reverse-mode derivatives of any order are
    supported.

    Args:
      query: (N, width, heads, features).
      key: the same shape.
      value: the same shape.
      present: bool (N, width), False for padding. In a text of padding alone all tokens have equal weights.

    Returns:
      (N, width, heads, features), in the type of the query.

    >>> x = jnp.ones((1, 3, 2, 4)) * jnp.array([1.0, 3.0, 99.0])[None, :, None, None]
    >>> attention(jnp.zeros_like(x), x, x, jnp.array([[True, True, False]]))[0, :, 0, 0].tolist()
    [2.0, 2.0, 2.0]
    """
    chex.assert_rank([query, key, value, present], [4, 4, 4, 2])
    chex.assert_type(present, bool)
    # In an exported program the number of texts, and so the size of the blocks, is unknown.
    if native.is_portable() or not isinstance(query.shape[0], int):
        return _plain(query, key, value, present)
    return lax.platform_dependent(query, key, value, present, cpu=_blockwise, default=_plain)


def _plain(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, mask=present[:, None, None, :])


@jax.custom_vjp
def _blockwise(query: jax.Array, key: jax.Array, value: jax.Array, present: jax.Array) -> jax.Array:
    return _forward(query, key, value, present)[0]


def _forward(query, key, value, present):  # type: ignore[no-untyped-def]
    outputs, *statistics = _map_blocks(_block_forward, query, key, value, present)
    return outputs, (query, key, value, present, outputs, *statistics)


def _backward(saved, cotangent):  # type: ignore[no-untyped-def]
    return *_map_blocks(_block_backward, *saved, cotangent), None


_blockwise.defvjp(_forward, _backward)


def _map_blocks(function, *arrays):  # type: ignore[no-untyped-def]
    """Maps ``function`` over the largest equal blocks of examples with at most ``_BLOCK_SCORES`` scores."""
    count, width, heads, _ = arrays[0].shape
    max_size = max(1, _BLOCK_SCORES // (heads * width * width))
    size = max(divisor for divisor in range(1, count + 1) if count % divisor == 0 and divisor <= max_size)
    blocks = [array.reshape(count // size, size, *array.shape[1:]) for array in arrays]
    results = lax.map(lambda block: function(*block), blocks)
    return [result.reshape(count, *result.shape[2:]) for result in results]


# Arrays in the shape of the scores are never transposed, since XLA's CPU backend copies transposed operands; only the
# smaller ones are. The barriers keep XLA from moving these transpositions to the scores.


def _block_forward(query, key, value, present):  # type: ignore[no-untyped-def]
    dtype = _product_dtype(query, key)
    scores = _scores(query, key, present, dtype)
    largest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    share = 1 / weights.sum(axis=-1, keepdims=True)
    outputs = _matmul(weights, _heads_first(value, dtype)) * share
    return outputs.swapaxes(1, 2).astype(query.dtype), largest, share


def _block_backward(query, key, value, present, outputs, largest, share, cotangent):  # type: ignore[no-untyped-def]
    dtype = _product_dtype(query, key)
    weights = jnp.exp(_scores(query, key, present, dtype) - largest) * share
    row_sum = (_heads_first(cotangent) * _heads_first(outputs)).sum(axis=-1, keepdims=True)
    d_scores = weights * (_matmul(_heads_first(cotangent, dtype), _features_first(value, dtype)) - row_sum)
    # Otherwise queries and keys of a text of padding alone would have a gradient.
    d_scores = jnp.where(present[:, None, None, :], d_scores, 0)
    weights, d_scores = lax.optimization_barrier((weights.astype(dtype), d_scores.astype(dtype)))
    scale = query.shape[-1] ** -0.5
    d_query = _matmul(d_scores, _heads_first(key, dtype) * scale).swapaxes(1, 2)
    d_key = _matmul(_features_first(query, dtype) * scale, d_scores).transpose(0, 3, 1, 2)
    d_value = _matmul(_features_first(cotangent, dtype), weights).transpose(0, 3, 1, 2)
    return d_query.astype(query.dtype), d_key.astype(key.dtype), d_value.astype(value.dtype)


def _scores(query: jax.Array, key: jax.Array, present: jax.Array, dtype: Any) -> jax.Array:
    scores = _matmul(_heads_first(query, dtype) * query.shape[-1] ** -0.5, _features_first(key, dtype))
    return jnp.where(present[:, None, None, :], scores, _MASKED)


def _product_dtype(query: jax.Array, key: jax.Array) -> Any:
    """The type of the factors of products: without native kernels, XLA's CPU backend computes bfloat16 in float32."""
    return jnp.bfloat16 if native.supports_product(query, key) else jnp.float32


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the float32 product of two arrays, both cast to the type of the second one."""
    return native.product(a.astype(b.dtype), b) if b.dtype == jnp.bfloat16 else jnp.matmul(a, b)


def _heads_first(x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """(N, width, heads, features) to (N, heads, width, features)."""
    return lax.optimization_barrier(x.astype(dtype).transpose(0, 2, 1, 3))


def _features_first(x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """(N, width, heads, features) to (N, heads, features, width)."""
    return lax.optimization_barrier(x.astype(dtype).transpose(0, 2, 3, 1))
