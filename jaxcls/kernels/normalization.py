"""Batch normalization that is fast on a CPU, including its gradient, by sums over rows as chains of additions."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxcls.kernels import native

_row_mask: contextvars.ContextVar[jax.Array | None] = contextvars.ContextVar("row_mask", default=None)


@contextlib.contextmanager
def masked_rows(mask: jax.Array) -> Iterator[None]:
    """Batch normalization traced in this context leaves out the rows (N,) of a batch where the mask is False."""
    token = _row_mask.set(mask)
    try:
        yield
    finally:
        _row_mask.reset(token)


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each channel by its mean and variance in the batch (Ioffe and Szegedy 2015, arXiv 1502.03167).

    Rows that :func:`masked_rows` excludes are normalized too, but count nowhere. Reverse-mode derivatives of any order
    are supported; forward mode is not.

    Args:
      x: images (N, H, W, C).
      scale: (C,).
      bias: (C,).
      epsilon: added to the variance.

    Returns:
      The normalized images in the type of ``x``, and the means and biased variances, float32 (C,) each. These are for
      running statistics and have no gradient.

    >>> y, mean, variance = batch_norm(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1), jnp.ones(1), jnp.zeros(1), 0.0)
    >>> y.ravel().tolist(), mean.tolist(), variance.tolist()
    ([-1.0, 1.0], [2.0], [1.0])
    """
    chex.assert_rank([x, scale, bias], [4, 1, 1])
    mask = _row_mask.get()
    # A module may have reshaped its batch, say to one of patches.
    if mask is None or len(mask) != len(x):
        mask = jnp.ones(len(x), bool)
    return _batch_norm(x, scale, bias, mask, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _batch_norm(x, scale, bias, mask, epsilon):  # type: ignore[no-untyped-def]
    return _forward(x, scale, bias, mask, epsilon)[0]


def _forward(x, scale, bias, mask, epsilon):  # type: ignore[no-untyped-def]
    precise, count = _precise(x), _count(x, mask)
    # The variance is computed in one pass as E[(x - s)²] - E[x - s]², which cancels if s is far from the mean. The mean
    # of the center pixels is near enough: (s - mean)² is at most H * W times the variance.
    center = precise[:, x.shape[1] // 2, x.shape[2] // 2]
    shift = lax.stop_gradient(jnp.mean(center, axis=0, where=mask[:, None]))
    total, squares = _sums(x, x, jnp.stack([shift, shift]), mask)
    offset = total / count
    mean = shift + offset
    # Rounding can make it negative.
    variance = jnp.maximum(squares / count - jnp.square(offset), 0)
    inverse = lax.rsqrt(variance + epsilon)
    y = (precise - _expand(mean)) * _expand(inverse * scale) + _expand(bias)
    return (y.astype(x.dtype), mean, variance), (x, scale, bias, mask, mean, inverse)


def _backward(epsilon, saved, cotangents):  # type: ignore[no-untyped-def]
    # In this form the gradient needs two sums in one pass; automatic differentiation needs five, each in its own pass.
    x, scale, bias, mask, mean, inverse = saved
    cotangent, centered, count = _precise(cotangents[0]), _precise(x) - _expand(mean), _count(x, mask)
    d_bias, product = _sums(cotangents[0], x, jnp.stack([jnp.zeros_like(mean), mean]), mask)
    d_scale = product * inverse
    projection = _expand(d_bias / count) + centered * _expand(inverse * d_scale / count)
    d_x = (cotangent - _where(mask, projection)) * _expand(inverse * scale)
    return d_x.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype), None


_batch_norm.defvjp(_forward, _backward)


@jax.custom_vjp
def _sums(a: jax.Array, b: jax.Array, shift: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums ``a - shift[0]`` and ``(a - shift[0]) * (b - shift[1])`` per channel; ``shift[0]`` has no gradient.

    (N, H, W, C), (N, H, W, C), (2, C) and bool (N,) to float32 (C,) each.
    """

    def chained(*arrays):  # type: ignore[no-untyped-def]
        return tuple(map(_chained_sum, _terms(*arrays)))

    def reduced(*arrays):  # type: ignore[no-untyped-def]
        return tuple(array.sum(axis=(0, 1, 2)) for array in _terms(*arrays))

    def natively(*arrays):  # type: ignore[no-untyped-def]
        return tuple(native.channel_sums(*arrays))

    on_cpu = natively if native.supports_channel_sums(a, b) else chained
    return lax.platform_dependent(a, b, shift, mask, cpu=on_cpu, default=reduced)


def _chained_sum(x: jax.Array) -> jax.Array:
    """Sums each channel, (N, H, W, C) to (C,).

    Training one layer with a ReLU takes 2.2 ms instead of 3.8 ms with reductions per image (128 x 28 x 28 x 32, two
    Zen 5 cores), or 0.25 ms instead of 1.4 ms (128 x 14 x 14 x 64).
    """
    count, height, width, channels = x.shape
    images = add_rows(x.reshape(count, height * width, channels), max_rows=32)
    return add_rows(images.reshape(-1, channels), max_rows=32).sum(axis=0)


def _terms(a: jax.Array, b: jax.Array, shift: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    shifted = _where(mask, _precise(a) - _expand(shift[0]))
    return shifted, shifted * _where(mask, _precise(b) - _expand(shift[1]))


def _sums_forward(a, b, shift, mask):  # type: ignore[no-untyped-def]
    sums = _sums(a, b, shift, mask)
    return sums, (a, b, shift, mask, sums[0])


def _sums_backward(saved, cotangents):  # type: ignore[no-untyped-def]
    a, b, shift, mask, total = saved
    plain, product = cotangents
    d_a = _where(mask, _expand(plain) + _expand(product) * (_precise(b) - _expand(shift[1])))
    d_b = _where(mask, _expand(product) * (_precise(a) - _expand(shift[0])))
    return d_a.astype(a.dtype), d_b.astype(b.dtype), jnp.stack([jnp.zeros_like(total), -product * total]), None


_sums.defvjp(_sums_forward, _sums_backward)


def _precise(x: jax.Array) -> jax.Array:
    """Converts half precision to float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _count(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The pixels that count, at least 1."""
    return jnp.maximum(mask.sum() * (x.shape[1] * x.shape[2]), 1)


def _where(mask: jax.Array, images: jax.Array) -> jax.Array:
    return jnp.where(mask[:, None, None, None], images, 0)


def _expand(channels: jax.Array) -> jax.Array:
    return channels[None, None, None]


def add_rows(x: jax.Array, max_rows: int) -> jax.Array:
    """Adds up groups of consecutive rows, (..., rows, features) to (..., groups, features).

    XLA's CPU backend reduces one number at a time, and may first write the operand to memory. A chain of additions
    is vectorized over the features, and fused with the computation of the rows. The few groups are then cheap to sum.

    Args:
      x: (..., rows, features).
      max_rows: rows of a group; the largest divisor of the number of rows up to it is used. Each is one instruction to
        compile.

    >>> add_rows(jnp.arange(6.0).reshape(6, 1), max_rows=4).ravel().tolist()
    [3.0, 12.0]
    """
    *batch, rows, features = x.shape
    size = max(size for size in range(1, max_rows + 1) if rows % size == 0)
    groups = x.reshape(*batch, -1, size, features)
    return functools.reduce(jnp.add, [groups[..., index, :] for index in range(size)])
