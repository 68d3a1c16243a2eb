"""Batch normalisation with a hand-written gradient, from sums that XLA's CPU backend is fast at."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

# Pixels in one chain of additions at the most: each is an instruction to compile.
_MOST_ADDED = 32


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel by its mean and variance in the batch (Ioffe and Szegedy 2015, arXiv 1502.03167).

    Args:
      x: images (N, H, W, C).
      scale: (C,), as is ``bias``.

    Returns:
      What was normalised, in the type of ``x``; the means and the variances (not corrected for bias), float32 (C,)
      each. The two are for running statistics: no gradient goes through them. Reverse mode differentiates it to any
      order, forward mode not.

    >>> import jax.numpy as jnp
    >>> y, mean, variance = batch_norm(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1), jnp.ones(1), jnp.zeros(1), 0.0)
    >>> y.ravel().tolist(), mean.tolist(), variance.tolist()
    ([-1.0, 1.0], [2.0], [1.0])
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):  # type: ignore[no-untyped-def]
    chex.assert_rank([x, scale, bias], [4, 1, 1])
    precise = _precise(x)
    total, squares = _sum(precise), _sum(jnp.square(precise))
    mean = total / _count(x)
    # Rounding can bring it below zero.
    variance = jnp.maximum(squares / _count(x) - jnp.square(mean), 0)
    inverse = lax.rsqrt(variance + epsilon)
    y = (precise - _over(mean)) * _over(inverse * scale) + _over(bias)
    return (y.astype(x.dtype), mean, variance), (x, scale, bias, mean, inverse)


def _backward(epsilon, saved, cotangents):  # type: ignore[no-untyped-def]
    # The gradient of the inputs is that of the outputs less what changes the mean and the variance. Written so, it
    # takes two sums where the derivative of the two means takes five.
    x, scale, bias, mean, inverse = saved
    cotangent, centred = _precise(cotangents[0]), _precise(x) - _over(mean)
    of_bias, product = _sum(cotangent), _sum(cotangent * centred)
    of_scale = product * inverse
    shared = _over(of_bias / _count(x)) + centred * _over(inverse * of_scale / _count(x))
    of_x = (cotangent - shared) * _over(inverse * scale)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(bias.dtype)


batch_norm.defvjp(_forward, _backward)


def _sum(x: jax.Array) -> jax.Array:
    """The sum of each channel, (N, H, W, C) to (C,).

    XLA's CPU backend runs a reduction over all but the last axis one number at a time. A chain of additions of pixels
    runs over their channels at once, and what is left to reduce is little. With this, training one layer with a ReLU
    takes 2.2 ms against 3.8 with the sums of each image first (two Zen 5 cores, 128 x 28 x 28 x 32), and 0.25 against
    1.4 (128 x 14 x 14 x 64).
    """

    def of_cpu(x):  # type: ignore[no-untyped-def]
        count, height, width, channels = x.shape
        together = max(size for size in range(1, _MOST_ADDED + 1) if height * width % size == 0)
        runs = x.reshape(count, -1, together, channels)
        return functools.reduce(jnp.add, [runs[:, :, place] for place in range(together)]).sum(axis=(0, 1))

    return lax.platform_dependent(x, cpu=of_cpu, default=lambda x: x.sum(axis=(0, 1, 2)))


def _precise(x: jax.Array) -> jax.Array:
    """Half precision is summed, and multiplied, in float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _count(x: jax.Array) -> int:
    return x.size // x.shape[3]


def _over(channels: jax.Array) -> jax.Array:
    return channels[None, None, None]
