"""Augmentations of images with boxes: pure functions ``(key, inputs, labels) -> (inputs, labels)``.

Inputs hold ``image``, (N, H, W, channels) of any dtype, and ``size``, int32 (N, 2), the height and width of the image
at the top left of its canvas; the padding is 0. Labels hold ``boxes``, float32 (N, M, 4), x1, y1, x2, y2 in pixels of
the canvas; ``classes``, int32 (N, M), -1 for padding; and ``crowd``, bool (N, M). The random values differ between
images. Compose them with :func:`jaxcls.data.augmentation.chain`.
"""

from collections.abc import Callable
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxcls.data.preprocessing.images import image_mask

Arrays: TypeAlias = dict[str, jax.Array]
Augmentation: TypeAlias = Callable[[jax.Array, Arrays, Arrays], tuple[Arrays, Arrays]]


def horizontal_flip(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
    """Mirrors each image and its boxes left to right with probability one half.

    >>> import jax
    >>> inputs = {"image": jnp.arange(4).reshape(1, 1, 4, 1), "size": jnp.array([[1, 3]])}
    >>> labels = {"boxes": jnp.array([[[0, 0, 1, 1.0]]]), "classes": jnp.zeros((1, 1), int)}
    >>> mirrored, moved = horizontal_flip(jax.random.key(1), inputs, labels)
    >>> mirrored["image"].ravel().tolist(), moved["boxes"].ravel().tolist()  # the last column is padding
    ([2, 1, 0, 3], [2.0, 0.0, 3.0, 1.0])
    """
    return _flip(key, inputs, labels, axis=2)


def vertical_flip(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
    """Mirrors each image and its boxes top to bottom with probability one half."""
    return _flip(key, inputs, labels, axis=1)


def _flip(key: jax.Array, inputs: Arrays, labels: Arrays, *, axis: int) -> tuple[Arrays, Arrays]:
    images, boxes = inputs["image"], labels["boxes"]
    chex.assert_rank([images, boxes], [4, 3])
    flip = jax.random.bernoulli(key, shape=(len(images), 1))
    length = inputs["size"][:, axis - 1 : axis]
    position = jnp.arange(images.shape[axis])[None, :]
    source = jnp.where(flip & (position < length), length - 1 - position, position)
    mirrored = jnp.take_along_axis(images, jnp.expand_dims(source, (3 - axis, 3)), axis=axis)
    low, high = (0, 2) if axis == 2 else (1, 3)
    moved = boxes.at[..., low].set(length - boxes[..., high]).at[..., high].set(length - boxes[..., low])
    moves = (labels["classes"] >= 0) & flip
    return inputs | {"image": mirrored}, labels | {"boxes": jnp.where(moves[..., None], moved, boxes)}


def scale_and_crop(*, min_scale: float = 0.8, max_scale: float = 1.25, min_visible: float = 0.3) -> Augmentation:
    """Scales each image, and crops a random window of the canvas size from a larger one.

    A smaller image is at the top left of its canvas. Boxes are cropped with the image; an object is dropped if less
    than `min_visible` of its box remains, as by random_crop_image of TensorFlow's Object Detection API. Pixels are
    interpolated linearly, with antialiasing.

    Source: the scale jittering of Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for
    Instance Segmentation", arXiv 2012.07177, with a range of 0.1 to 2.

    Args:
      min_scale, max_scale: the range of the scale, which is log-uniform.
      min_visible: a fraction of the area of a box.

    >>> import jax
    >>> inputs = {"image": jnp.ones((1, 8, 8, 1)), "size": jnp.full((1, 2), 8)}
    >>> boxes, classes = jnp.array([[[2, 2, 4, 6.0]]]), jnp.zeros((1, 1), int)
    >>> labels = {"boxes": boxes, "classes": classes, "crowd": classes > 0}
    >>> smaller, moved = scale_and_crop(min_scale=0.5, max_scale=0.5)(jax.random.key(0), inputs, labels)
    >>> smaller["size"].tolist(), moved["boxes"].ravel().tolist()
    ([[4, 4]], [1.0, 1.0, 2.0, 3.0])
    """

    def augment(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
        images, boxes, size = inputs["image"], labels["boxes"], inputs["size"]
        chex.assert_rank([images, boxes], [4, 3])
        count, canvas = len(images), np.array(images.shape[1:3])[None, :]
        scale_key, offset_key = jax.random.split(key)
        exponent = jax.random.uniform(scale_key, (count, 1))
        scale = min_scale * (max_scale / min_scale) ** exponent
        scaled = jnp.maximum(jnp.round(size * scale), 1.0)
        # Exact for whole pixels, so they differ slightly between the axes.
        scales = scaled / size
        offset = jnp.floor(jax.random.uniform(offset_key, (count, 2)) * (jnp.maximum(scaled - canvas, 0.0) + 1))
        cropped = jnp.minimum(scaled, canvas)
        mask = image_mask(size, images.shape[1:3]).astype(jnp.float32)
        warped = jax.vmap(_warp)(jnp.concatenate([images.astype(jnp.float32), mask], axis=-1), scales, -offset)
        # Divides by the warped mask, or the edges of the image would be mixed with the padding.
        warped = warped[..., :-1] / jnp.maximum(warped[..., -1:], 1e-3)
        warped = _cast(jnp.where(image_mask(cropped, images.shape[1:3]), warped, 0.0), images.dtype)

        # From (height, width) to x1, y1, x2, y2.
        axes = jnp.array([1, 0, 1, 0])
        moved = boxes * scales[:, None, axes] - offset[:, None, axes]
        clipped = jnp.clip(moved, 0.0, cropped[:, None, axes])
        area, visible = (jnp.prod(corners[..., 2:] - corners[..., :2], axis=-1) for corners in (moved, clipped))
        stays = (labels["classes"] >= 0) & (visible > 0) & (visible >= min_visible * area)
        objects = {
            "boxes": jnp.where(stays[..., None], clipped, 0.0).astype(boxes.dtype),
            "classes": jnp.where(stays, labels["classes"], -1),
            "crowd": labels["crowd"] & stays,
        }
        return inputs | {"image": warped, "size": cropped.astype(size.dtype)}, labels | objects

    return augment


def color_jitter(*, brightness: float = 0.15, contrast: float = 0.2) -> Augmentation:
    """Changes the brightness and contrast of each image; boxes stay.

    Args:
      brightness: the maximum change, as a fraction of the range from 0 to 255.
      contrast: the maximum change about the mean of the image: 0.2 is from 1 / 1.2 to 1.2.

    >>> import jax
    >>> inputs = {"image": jnp.full((1, 2, 2, 1), 100, jnp.uint8), "size": jnp.array([[2, 1]])}
    >>> changed = color_jitter(brightness=0.1)(jax.random.key(0), inputs, {})[0]["image"][0, :, :, 0]
    >>> bool(abs(int(changed[0, 0]) - 100) <= 26), changed[:, 1].tolist()  # the second column is padding
    (True, [0, 0])
    """

    def augment(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
        images = inputs["image"]
        chex.assert_rank(images, 4)
        count = len(images)
        amounts = jax.random.uniform(key, (2, count, 1, 1, 1), minval=-1.0)
        mask = image_mask(inputs["size"], images.shape[1:3])
        pixels = jnp.where(mask, images.astype(jnp.float32), 0.0)
        area = jnp.prod(inputs["size"], axis=1).reshape(count, 1, 1, 1)
        mean = jnp.sum(pixels, axis=(1, 2, 3), keepdims=True) / (area * images.shape[-1])
        changed = (pixels - mean) * (1 + contrast) ** amounts[0] + mean + 255 * brightness * amounts[1]
        changed = jnp.where(mask, jnp.clip(changed, 0.0, 255.0), 0.0)
        return inputs | {"image": _cast(changed, images.dtype)}, labels

    return augment


def _warp(image: jax.Array, scales: jax.Array, translation: jax.Array) -> jax.Array:
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), scales, translation, method="linear", antialias=True
    )


def _cast(pixels: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Casts pixels, rounding to integer types."""
    return jnp.round(pixels).astype(dtype) if jnp.issubdtype(dtype, jnp.integer) else pixels.astype(dtype)
