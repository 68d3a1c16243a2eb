"""Augmentations of images with boxes, each a pure function ``(key, inputs, labels) -> (inputs, labels)`` of a batch.

Inputs hold ``image``, (N, H, W, channels) of any dtype, and ``size``, int32 (N, 2), the height and width of what of the
canvas is image, at its top left; the rest stays black. Labels hold ``boxes``, float32 (N, M, 4), x1, y1, x2, y2 in
pixels of the canvas; ``classes``, int32 (N, M), -1 where there is no object; and ``crowd``, bool (N, M). Every image
draws for itself.
"""

from collections.abc import Callable
from typing import TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np

Arrays: TypeAlias = dict[str, jax.Array]
Augmentation: TypeAlias = Callable[[jax.Array, Arrays, Arrays], tuple[Arrays, Arrays]]


def chain(*augmentations: Augmentation) -> Augmentation:
    """One augmentation after the other, each with a key of its own.

    >>> import jax
    >>> inputs = {"image": jnp.ones((2, 8, 8, 1)), "size": jnp.full((2, 2), 8)}
    >>> labels = {"boxes": jnp.array([[[0, 0, 4, 4.0]]] * 2), "classes": jnp.zeros((2, 1), int)}
    >>> chain(horizontal_flip, jitter())(jax.random.key(0), inputs, labels)[0]["image"].shape
    (2, 8, 8, 1)
    """

    def augment(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
        for place, augmentation in enumerate(augmentations):
            inputs, labels = augmentation(jax.random.fold_in(key, place), inputs, labels)
        return inputs, labels

    return augment


def horizontal_flip(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
    """Mirrors half of the images with their boxes, left to right.

    >>> import jax
    >>> inputs = {"image": jnp.arange(4).reshape(1, 1, 4, 1), "size": jnp.array([[1, 3]])}
    >>> labels = {"boxes": jnp.array([[[0, 0, 1, 1.0]]]), "classes": jnp.zeros((1, 1), int)}
    >>> mirrored, moved = horizontal_flip(jax.random.key(1), inputs, labels)
    >>> mirrored["image"].ravel().tolist(), moved["boxes"].ravel().tolist()  # the last column is no image
    ([2, 1, 0, 3], [2.0, 0.0, 3.0, 1.0])
    """
    images, boxes = inputs["image"], labels["boxes"]
    chex.assert_rank([images, boxes], [4, 3])
    flip = jax.random.bernoulli(key, shape=(len(images), 1))
    width = inputs["size"][:, 1:]
    columns = jnp.arange(images.shape[2])[None, :]
    source = jnp.where(flip & (columns < width), width - 1 - columns, columns)
    mirrored = jnp.take_along_axis(images, source[:, None, :, None], axis=2)
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    moved = jnp.stack([width - x2, y1, width - x1, y2], axis=-1).astype(boxes.dtype)
    real = (labels["classes"] >= 0) & flip
    return inputs | {"image": mirrored}, labels | {"boxes": jnp.where(real[..., None], moved, boxes)}


def scale_and_crop(*, least: float = 0.8, most: float = 1.25, visible: float = 0.3) -> Augmentation:
    """Makes each image smaller or larger, and cuts from what is larger than the canvas a window at random.

    What is smaller stands at the top left. Boxes are cut with the image; an object of whose box less than `visible` is
    left is dropped, as it is by random_crop_image of TensorFlow's Object Detection API. Pixels are interpolated
    linearly, and averaged where the image gets smaller.

    Source: the scale jittering of Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for
    Instance Segmentation", arXiv 2012.07177, whose range is 0.1 to 2.

    Args:
      least, most: the factors that are drawn from, evenly in their logarithm.
      visible: a share of the area of a box.

    >>> import jax
    >>> inputs = {"image": jnp.ones((1, 8, 8, 1)), "size": jnp.full((1, 2), 8)}
    >>> boxes, classes = jnp.array([[[2, 2, 4, 6.0]]]), jnp.zeros((1, 1), int)
    >>> labels = {"boxes": boxes, "classes": classes, "crowd": classes > 0}
    >>> smaller, moved = scale_and_crop(least=0.5, most=0.5)(jax.random.key(0), inputs, labels)
    >>> smaller["size"].tolist(), moved["boxes"].ravel().tolist()
    ([[4, 4]], [1.0, 1.0, 2.0, 3.0])
    """

    def augment(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
        images, boxes, size = inputs["image"], labels["boxes"], inputs["size"]
        chex.assert_rank([images, boxes], [4, 3])
        count, canvas = len(images), np.array(images.shape[1:3])[None, :]
        of_factor, of_place = jax.random.split(key)
        exponent = jax.random.uniform(of_factor, (count, 1))
        factor = least * (most / least) ** exponent
        scaled = jnp.maximum(jnp.round(size * factor), 1.0)
        # The factors of the two axes are those that give whole pixels.
        factors = scaled / size
        offset = jnp.floor(jax.random.uniform(of_place, (count, 2)) * (jnp.maximum(scaled - canvas, 0.0) + 1))
        kept = jnp.minimum(scaled, canvas)
        pixels = jnp.concatenate([images.astype(jnp.float32), _inside(size, images).astype(jnp.float32)], axis=-1)
        warped = jax.vmap(_warped)(pixels, factors, -offset)
        # By how much of each is image: its edge must not be mixed with the black beside it.
        warped = warped[..., :-1] / jnp.maximum(warped[..., -1:], 1e-3)
        warped = _as(jnp.where(_inside(kept, images), warped, 0.0), images.dtype)

        # (height, width) to x1, y1, x2, y2.
        axes = jnp.array([1, 0, 1, 0])
        moved = boxes * factors[:, None, axes] - offset[:, None, axes]
        clipped = jnp.clip(moved, 0.0, kept[:, None, axes])
        area, left = (jnp.prod(some[..., 2:] - some[..., :2], axis=-1) for some in (moved, clipped))
        stays = (labels["classes"] >= 0) & (left > 0) & (left >= visible * area)
        cut = {
            "boxes": jnp.where(stays[..., None], clipped, 0.0).astype(boxes.dtype),
            "classes": jnp.where(stays, labels["classes"], -1),
            "crowd": labels["crowd"] & stays,
        }
        return inputs | {"image": warped, "size": kept.astype(size.dtype)}, labels | cut

    return augment


def jitter(*, brightness: float = 0.15, contrast: float = 0.2) -> Augmentation:
    """Makes each image brighter or darker, and its contrast higher or lower; boxes stay.

    Args:
      brightness: the largest change, as a share of the range from 0 to 255.
      contrast: the largest change about the mean of the image: 0.2 is from 1 / 1.2 to 1.2.

    >>> import jax
    >>> inputs = {"image": jnp.full((1, 2, 2, 1), 100, jnp.uint8), "size": jnp.array([[2, 1]])}
    >>> changed = jitter(brightness=0.1)(jax.random.key(0), inputs, {})[0]["image"][0, :, :, 0]
    >>> bool(abs(int(changed[0, 0]) - 100) <= 26), changed[:, 1].tolist()  # the second column is no image
    (True, [0, 0])
    """

    def augment(key: jax.Array, inputs: Arrays, labels: Arrays) -> tuple[Arrays, Arrays]:
        images = inputs["image"]
        chex.assert_rank(images, 4)
        count = len(images)
        amounts = jax.random.uniform(key, (2, count, 1, 1, 1), minval=-1.0)
        inside = _inside(inputs["size"], images)
        pixels = jnp.where(inside, images.astype(jnp.float32), 0.0)
        area = jnp.prod(inputs["size"], axis=1).reshape(count, 1, 1, 1)
        mean = jnp.sum(pixels, axis=(1, 2, 3), keepdims=True) / (area * images.shape[-1])
        changed = (pixels - mean) * (1 + contrast) ** amounts[0] + mean + 255 * brightness * amounts[1]
        changed = jnp.where(inside, jnp.clip(changed, 0.0, 255.0), 0.0)
        return inputs | {"image": _as(changed, images.dtype)}, labels

    return augment


def _warped(image: jax.Array, factors: jax.Array, translation: jax.Array) -> jax.Array:
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), factors, translation, method="linear", antialias=True
    )


def _as(pixels: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rounded, where pixels are whole numbers."""
    return jnp.round(pixels).astype(dtype) if jnp.issubdtype(dtype, jnp.integer) else pixels.astype(dtype)


def _inside(size: jax.Array, images: jax.Array) -> jax.Array:
    """Which pixels of the canvases are image, (N, H, W, 1)."""
    rows, columns = (jnp.arange(images.shape[1 + axis])[None, :] < size[:, axis, None] for axis in (0, 1))
    return (rows[:, :, None] & columns[:, None, :])[..., None]
