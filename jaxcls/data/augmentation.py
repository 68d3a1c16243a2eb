"""Augmentations of a batch of images, each a pure function ``(key, images) -> images`` for the compiled step.

Images are (N, height, width, channels) of any dtype; every image draws for itself.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


def chain(*augmentations: Augmentation) -> Augmentation:
    """One augmentation after the other, each with a key of its own.

    >>> import jax
    >>> images = jax.numpy.ones((4, 28, 28, 1))
    >>> chain(horizontal_flip, shift(2))(jax.random.key(0), images).shape
    (4, 28, 28, 1)
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        for place, augmentation in enumerate(augmentations):
            images = augmentation(jax.random.fold_in(key, place), images)
        return images

    return augment


def inputs_only(augmentation: Callable[[jax.Array, Any], Any]) -> Callable[[jax.Array, Any, Any], tuple[Any, Any]]:
    """An augmentation that leaves labels as they are, in the form that a training step takes.

    That is ``(key, inputs, labels) -> (inputs, labels)``.

    >>> import jax
    >>> images, labels = jax.numpy.ones((4, 28, 28, 1)), jax.numpy.arange(4)
    >>> inputs_only(horizontal_flip)(jax.random.key(0), images, labels)[1].tolist()
    [0, 1, 2, 3]
    """
    return lambda key, inputs, labels: (augmentation(key, inputs), labels)


def horizontal_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images, left to right.

    >>> import jax
    >>> image = jax.numpy.array([[[[1], [2]]]])
    >>> horizontal_flip(jax.random.key(0), image).ravel().tolist() in ([1, 2], [2, 1])
    True
    """
    chex.assert_rank(images, 4)
    flip = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def shift(pixels: int) -> Augmentation:
    """Moves each image by up to ``pixels`` in both directions; what comes in from outside is zero.

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


def affine(*, degrees: float = 0.0, scale: float = 0.0, shear: float = 0.0) -> Augmentation:
    """Turns, stretches and slants each image about its centre, each by a share of what is given, to either side.

    Pixels are interpolated linearly; what comes in from outside is zero.

    Args:
      degrees: the largest angle.
      scale: the largest change of size, of height and width apart: 0.1 is from 1 / 1.1 to 1.1.
      shear: the most that a row moves against the one above it, in pixels.

    >>> import jax
    >>> images = jax.numpy.ones((4, 28, 28, 1))
    >>> affine(degrees=10, scale=0.1)(jax.random.key(0), images).shape
    (4, 28, 28, 1)
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        amounts = jax.random.uniform(key, (images.shape[0], 4), minval=-1.0)
        return jax.vmap(warp)(images, amounts)

    def warp(image: jax.Array, amounts: jax.Array) -> jax.Array:
        angle = jnp.deg2rad(degrees) * amounts[0]
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        stretch_y, stretch_x = (1 + scale) ** amounts[1], (1 + scale) ** amounts[2]
        height, width, _ = image.shape
        # Where each pixel of the result comes from, (row, column) about the centre.
        y = (jnp.arange(height) - (height - 1) / 2)[:, None] * stretch_y
        x = (jnp.arange(width) - (width - 1) / 2)[None, :] * stretch_x + shear * amounts[3] * y
        rows = cosine * y + sine * x + (height - 1) / 2
        columns = cosine * x - sine * y + (width - 1) / 2

        def sample(channel: jax.Array) -> jax.Array:
            return jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1, mode="constant")

        return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)

    return augment


def cutout(size: int) -> Augmentation:
    """Blackens a square of ``size`` pixels whose centre is anywhere in the image (DeVries & Taylor 2017).

    >>> import jax
    >>> images = jax.numpy.ones((1, 8, 8, 1))
    >>> float(cutout(2)(jax.random.key(0), images).sum()) >= 60
    True
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        count, height, width, _ = images.shape
        rows, columns = jax.random.split(key)

        def hit(key: jax.Array, length: int) -> jax.Array:
            first = jax.random.randint(key, (count, 1), 0, length) - size // 2
            places = jnp.arange(length)[None, :]
            return (places >= first) & (places < first + size)

        inside = hit(rows, height)[:, :, None, None] & hit(columns, width)[:, None, :, None]
        return jnp.where(inside, jnp.zeros((), images.dtype), images)

    return augment
