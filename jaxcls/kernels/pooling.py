"""Max pooling that is fast in XLA's CPU backend."""

import functools

import chex
import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(images: jax.Array, window: int = 2) -> jax.Array:
    """Max pooling with equal window and stride, (N, H, W, C) to (N, H // window, W // window, C).

    Pixels that tie for the maximum share the gradient evenly. Reverse-mode derivatives of any order are supported;
    forward mode is not.

    Args:
      images: (N, H, W, C).
      window: pixels per side.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    chex.assert_rank(images, 4)
    return functools.reduce(jnp.maximum, _pixels(_windows(images, window)))


def _forward(images: jax.Array, window: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = max_pool(images, window)
    return largest, (images, largest)


def _backward(window: int, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array]:
    images, largest = saved
    ties = sum((pixel == largest).astype(cotangent.dtype) for pixel in _pixels(_windows(images, window)))
    share = cotangent / ties
    gradient = jnp.where(_windows(images, window) == _expand(largest), _expand(share), 0)
    count, rows, _, columns, _, channels = gradient.shape
    cropped = gradient.reshape(count, rows * window, columns * window, channels)
    return (jnp.pad(cropped, [(0, size - used) for size, used in zip(images.shape, cropped.shape, strict=True)]),)


max_pool.defvjp(_forward, _backward)


# XLA's CPU backend runs reductions one number at a time, with everything fused into them, such as the ReLU before. The
# maximum of the pixels of a window is vectorized over channels.


def _windows(images: jax.Array, window: int) -> jax.Array:
    """Splits images into windows, (N, rows, window, columns, window, C), without the rest below and to the right."""
    count, height, width, channels = images.shape
    rows, columns = height // window, width // window
    cropped = images[:, : rows * window, : columns * window]
    return cropped.reshape(count, rows, window, columns, window, channels)


def _pixels(windows: jax.Array) -> list[jax.Array]:
    """Returns the first pixel of every window, the second of every window, and so on."""
    size = windows.shape[2]
    return [windows[:, :, row, :, column] for row in range(size) for column in range(size)]


def _expand(pooled: jax.Array) -> jax.Array:
    return pooled[:, :, None, :, None]
