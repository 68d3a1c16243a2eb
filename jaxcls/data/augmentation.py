"""Augmentations of a batch of images, pure functions ``(key, images) -> images`` for the compiled step.

Images are (N, height, width, channels) of any dtype; the random values differ between images.
"""

from collections.abc import Callable
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


def chain(*augmentations: Callable[..., Any]) -> Callable[..., Any]:
    """Composes augmentations of images, or of images with boxes; each gets its own key.

    >>> import jax
    >>> images = jax.numpy.ones((4, 28, 28, 1))
    >>> chain(horizontal_flip, shift(2))(jax.random.key(0), images).shape
    (4, 28, 28, 1)
    """

    def augment(key: jax.Array, *batch: Any) -> Any:
        for index, augmentation in enumerate(augmentations):
            changed = augmentation(jax.random.fold_in(key, index), *batch)
            batch = changed if isinstance(changed, tuple) else (changed,)
        return batch if len(batch) > 1 else batch[0]

    return augment


def inputs_only(augmentation: Callable[[jax.Array, Any], Any]) -> Callable[[jax.Array, Any, Any], tuple[Any, Any]]:
    """Turns ``(key, inputs) -> inputs`` into ``(key, inputs, labels) -> (inputs, labels)``, which keeps the labels.

    >>> import jax
    >>> images, labels = jax.numpy.ones((4, 28, 28, 1)), jax.numpy.arange(4)
    >>> inputs_only(horizontal_flip)(jax.random.key(0), images, labels)[1].tolist()
    [0, 1, 2, 3]
    """
    return lambda key, inputs, labels: (augmentation(key, inputs), labels)


def horizontal_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half.

    >>> import jax
    >>> image = jax.numpy.array([[[[1], [2]]]])
    >>> horizontal_flip(jax.random.key(0), image).ravel().tolist() in ([1, 2], [2, 1])
    True
    """
    chex.assert_rank(images, 4)
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def shift(pixels: int) -> Augmentation:
    """Shifts each image by up to ``pixels`` along both axes, filling with zero.

    >>> import jax
    >>> images = jax.numpy.ones((1, 4, 4, 1))
    >>> float(shift(1)(jax.random.key(0), images).sum()) in (9.0, 12.0, 16.0)
    True
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        _, height, width, _ = images.shape
        padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
        offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

        def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, image.shape[-1]))

        return jax.vmap(crop)(padded, offsets)

    return augment


def affine(
    *, degrees: float = 0.0, scale: float = 0.0, shear: float = 0.0, translate: float = 0.0,
    fill: Literal["zero", "edge"] = "zero",
) -> Augmentation:  # fmt: skip
    """Rotates, scales and shears each image about its center, and moves it, by random amounts.

    Pixels are interpolated linearly.

    Args:
      degrees: the maximum angle, in both directions.
      scale: the maximum change of height and width, independently: 0.1 is from 1 / 1.1 to 1.1.
      shear: the maximum horizontal shift of a row against the row above it, in pixels.
      translate: the maximum shift along both axes, as a fraction of the height and width.
      fill: what pixels from outside the image are: zero, or the nearest pixel of the image's edge. Where images are
        standardized by their own statistics, zeros would change these in training only.

    >>> import jax
    >>> images = jax.numpy.ones((4, 28, 28, 1))
    >>> affine(degrees=10, scale=0.1)(jax.random.key(0), images).shape
    (4, 28, 28, 1)
    """

    mode = {"zero": "constant", "edge": "nearest"}[fill]

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        amounts = jax.random.uniform(key, (images.shape[0], 4), minval=-1.0)
        # By a key of their own, so that the other amounts do not depend on these.
        shifts = jax.random.uniform(
            jax.random.fold_in(key, 1), (images.shape[0], 2), minval=-translate, maxval=translate
        )
        return jax.vmap(warp)(images, amounts, shifts)

    def warp(image: jax.Array, amounts: jax.Array, shifts: jax.Array) -> jax.Array:
        angle = jnp.deg2rad(degrees) * amounts[0]
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        stretch_y, stretch_x = (1 + scale) ** amounts[1], (1 + scale) ** amounts[2]
        height, width, _ = image.shape
        # The source of each pixel of the result, relative to the center.
        y = (jnp.arange(height) - (height - 1) / 2)[:, None] * stretch_y
        x = (jnp.arange(width) - (width - 1) / 2)[None, :] * stretch_x + shear * amounts[3] * y
        rows = cosine * y + sine * x + (height - 1) / 2 + height * shifts[0]
        columns = cosine * x - sine * y + (width - 1) / 2 + width * shifts[1]

        def sample(channel: jax.Array) -> jax.Array:
            return jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1, mode=mode)

        return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)

    return augment


def exposure(*, gamma: float = 0.0, contrast: float = 0.0, brightness: float = 0.0, noise: float = 0.0) -> Augmentation:
    """Changes the gray values, from 0 to 255, of each image by random amounts, as another camera or exposure would.

    Args:
      gamma: the maximum change of the exponent of gray values from 0 to 1: 0.5 is from 1 / 1.5 to 1.5.
      contrast: the maximum change of distances from the mean of the image: 0.5 is from 1 / 1.5 to 1.5.
      brightness: the maximum amount that is added to, or subtracted from, gray values from 0 to 1.

    >>> import jax
    >>> images = jax.numpy.full((1, 2, 2, 1), 100, "uint8")
    >>> 90 < int(exposure(brightness=0.03)(jax.random.key(0), images)[0, 0, 0, 0]) < 110
    True
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        amounts = jax.random.uniform(key, (4, images.shape[0], 1, 1, 1), minval=-1.0)
        values = (jnp.asarray(images, jnp.float32) / 255) ** (1 + gamma) ** amounts[0]
        mean = values.mean(axis=(1, 2, 3), keepdims=True)
        values = mean + (values - mean) * (1 + contrast) ** amounts[1] + brightness * amounts[2]
        if noise:
            values += noise * jnp.abs(amounts[3]) * jax.random.normal(jax.random.fold_in(key, 1), values.shape)
        values = 255 * values.clip(0, 1)
        integral = jnp.issubdtype(images.dtype, jnp.integer)
        return (jnp.round(values) if integral else values).astype(images.dtype)

    return augment


def cutout(size: int) -> Augmentation:
    """Zeroes a square of ``size`` x ``size`` pixels with its center anywhere in the image (DeVries & Taylor 2017).

    >>> import jax
    >>> images = jax.numpy.ones((1, 8, 8, 1))
    >>> float(cutout(2)(jax.random.key(0), images).sum()) >= 60
    True
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        count, height, width, _ = images.shape
        rows, columns = jax.random.split(key)

        def covered(key: jax.Array, length: int) -> jax.Array:
            first = jax.random.randint(key, (count, 1), 0, length) - size // 2
            indices = jnp.arange(length)[None, :]
            return (indices >= first) & (indices < first + size)

        square = covered(rows, height)[:, :, None, None] & covered(columns, width)[:, None, :, None]
        return jnp.where(square, jnp.zeros((), images.dtype), images)

    return augment
