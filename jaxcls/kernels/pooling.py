"""Pooling, in the form that XLA's CPU backend is fast at."""

import functools

import chex
import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(images: jax.Array, window: int = 2) -> jax.Array:
    """The maximum over windows that do not overlap, (N, H, W, C) to (N, H // window, W // window, C).

    A tie divides its gradient evenly. Reverse mode differentiates it to any order, forward mode not.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    chex.assert_rank(images, 4)
    return functools.reduce(jnp.maximum, _places(_windows(images, window)))


def _forward(images: jax.Array, window: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = max_pool(images, window)
    return largest, (images, largest)


def _backward(window: int, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array]:
    images, largest = saved
    ties = sum((place == largest).astype(cotangent.dtype) for place in _places(_windows(images, window)))
    share = cotangent / ties
    spread = jnp.where(_windows(images, window) == _over(largest), _over(share), 0)
    count, rows, _, columns, _, channels = spread.shape
    whole = spread.reshape(count, rows * window, columns * window, channels)
    over = [(0, size - used) for size, used in zip(images.shape, whole.shape, strict=True)]
    return (jnp.pad(whole, over),)


max_pool.defvjp(_forward, _backward)


# XLA's CPU backend runs a reduction one number at a time, and whatever is fused into it, such as the ReLU before. A
# maximum of the places of a window runs over the channels of a pixel at once.


def _windows(images: jax.Array, window: int) -> jax.Array:
    """(N, rows, window, columns, window, C), without what is left over below and to the right."""
    count, height, width, channels = images.shape
    rows, columns = height // window, width // window
    whole = images[:, : rows * window, : columns * window]
    return whole.reshape(count, rows, window, columns, window, channels)


def _places(windows: jax.Array) -> list[jax.Array]:
    """The first pixel of every window, the second of every window, and so on."""
    size = windows.shape[2]
    return [windows[:, :, row, :, column] for row in range(size) for column in range(size)]


def _over(pooled: jax.Array) -> jax.Array:
    return pooled[:, :, None, :, None]
