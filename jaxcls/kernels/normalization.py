"""Batch normalisation with a hand-written gradient, from sums that XLA's CPU backend is fast at."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxcls.kernels import native
from jaxcls.kernels.accumulation import add_rows


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
    total, squares = _sums(x, x, jnp.zeros(x.shape[3], precise.dtype))
    mean = total / _count(x)
    # Rounding can bring it below zero.
    variance = jnp.maximum(squares / _count(x) - jnp.square(mean), 0)
    inverse = lax.rsqrt(variance + epsilon)
    y = (precise - _over(mean)) * _over(inverse * scale) + _over(bias)
    return (y.astype(x.dtype), mean, variance), (x, scale, bias, mean, inverse)


def _backward(epsilon, saved, cotangents):  # type: ignore[no-untyped-def]
    # The gradient of the inputs is that of the outputs less what changes the mean and the variance. Written so, it
    # takes two sums, in one pass, where the derivative of the two means takes five, in one pass each.
    x, scale, bias, mean, inverse = saved
    cotangent, centred = _precise(cotangents[0]), _precise(x) - _over(mean)
    of_bias, product = _sums(cotangents[0], x, mean)
    of_scale = product * inverse
    shared = _over(of_bias / _count(x)) + centred * _over(inverse * of_scale / _count(x))
    of_x = (cotangent - shared) * _over(inverse * scale)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(bias.dtype)


batch_norm.defvjp(_forward, _backward)


@jax.custom_vjp
def _sums(a: jax.Array, b: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums of each channel, (N, H, W, C) to float32 (C,), of ``a`` and of ``a * (b - shift)``."""

    def of_cpu(*arrays):  # type: ignore[no-untyped-def]
        return tuple(map(_sum_in_chains, _terms(*arrays)))

    def of_lax(*arrays):  # type: ignore[no-untyped-def]
        return tuple(array.sum(axis=(0, 1, 2)) for array in _terms(*arrays))

    def natively(*arrays):  # type: ignore[no-untyped-def]
        return tuple(native.channel_sums(*arrays))

    fastest = natively if native.takes_sums(a, b) else of_cpu
    return lax.platform_dependent(a, b, shift, cpu=fastest, default=of_lax)


def _sum_in_chains(x: jax.Array) -> jax.Array:
    """The sum of each channel, (N, H, W, C) to (C,).

    With chains, training one layer with a ReLU takes 2.2 ms against 3.8 with the sums of each image first (two Zen 5
    cores, 128 x 28 x 28 x 32), and 0.25 against 1.4 (128 x 14 x 14 x 64).
    """
    count, height, width, channels = x.shape
    of_images = add_rows(x.reshape(count, height * width, channels), most=32)
    return add_rows(of_images.reshape(-1, channels), most=32).sum(axis=0)


def _terms(a: jax.Array, b: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _precise(a), _precise(a) * (_precise(b) - _over(shift))


def _sums_forward(a, b, shift):  # type: ignore[no-untyped-def]
    sums = _sums(a, b, shift)
    return sums, (a, b, shift, sums[0])


def _sums_backward(saved, cotangents):  # type: ignore[no-untyped-def]
    a, b, shift, total = saved
    plain, product = cotangents
    of_a = _over(plain) + _over(product) * (_precise(b) - _over(shift))
    of_b = _over(product) * _precise(a)
    return of_a.astype(a.dtype), of_b.astype(b.dtype), -product * total


_sums.defvjp(_sums_forward, _sums_backward)


def _precise(x: jax.Array) -> jax.Array:
    """Half precision is summed, and multiplied, in float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _count(x: jax.Array) -> int:
    return x.size // x.shape[3]


def _over(channels: jax.Array) -> jax.Array:
    return channels[None, None, None]
