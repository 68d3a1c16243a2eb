"""Image preprocessing: uint8 pixels to float32 with mean 0 and variance 1 per channel of the training images.

Or with mean 0 and variance 1 of each image, which then does not show how it was exposed. Images of several sizes are on
padded canvases. The padding does not count, and becomes 0.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Buckets, canvas_buckets
from jaxcls.data.formats import pixels as decoding
from jaxcls.data.rows import Rows, blocks, sample


@dataclasses.dataclass(frozen=True)
class ImagePreprocessor:
    """Statistics of the training images.

    Attributes:
      shape: (height, width, channels).
      mean: per channel.
      deviation: the standard deviation per channel.
      white: the integer that is white when an image file of more than 8 bits is decoded.
      per_image: whether pixels are standardized by the mean and deviation of their own image over all channels, not by
        those of the training images.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    white: int = decoding.DEEP_WHITE
    per_image: bool = False

    buckets: Buckets | None = dataclasses.field(default=None, init=False, repr=False)

    def transform(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the images unchanged, uint8 (N, height, width, channels).

        Raises:
          InputError: their shape is not that of the training images.
        """
        if inputs.shape[1:] != self.shape:
            raise InputError(f"images have shape {inputs.shape[1:]}; the training images have {self.shape}.")
        return inputs

    def shapes(self, count: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *self.shape), np.uint8)

    def normalize(self, compact: jax.Array) -> jax.Array:
        """Returns float32 (N, height, width, channels)."""
        pixels = jnp.asarray(compact, jnp.float32)
        if self.per_image:
            centered = pixels - pixels.mean((1, 2, 3), keepdims=True)
            # The added 1 keeps constant images finite.
            standard = centered * jax.lax.rsqrt(jnp.square(centered).mean((1, 2, 3), keepdims=True) + 1)
            return jnp.broadcast_to(standard, (*standard.shape[:3], max(standard.shape[3], len(self.mean))))
        mean = np.asarray(self.mean, np.float32).reshape(1, 1, 1, -1)
        scale = np.asarray(1 / np.array(self.deviation), np.float32).reshape(1, 1, 1, -1)
        return (pixels - mean) * scale

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        return {"input_shape": self.shape}

    @property
    def program(self) -> Self:
        return self

    def as_record(self) -> dict[str, Any]:
        record = {"type": "images", "shape": [*self.shape], "mean": [*self.mean], "deviation": [*self.deviation]}
        others = {"white": self.white} if self.white != decoding.DEEP_WHITE else {}
        return record | others | ({"per_image": True} if self.per_image else {})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        white = record.get("white", decoding.DEEP_WHITE)
        schema = {"shape": [int, int, int], "mean": [float], "deviation": [float], "white?": int, "per_image?": bool}
        schemas.check(record, schema, "the preprocessor")
        height, width, channels = shape = record["shape"]
        # Those of a pretrained encoder have three channels, and turn gray images into color.
        complete = len(record["mean"]) == len(record["deviation"]) and min(record["deviation"], default=0) > 0
        complete = complete and (len(record["mean"]) == channels or (len(record["mean"]), channels) == (3, 1))
        if not 1 <= white <= decoding.DEEP_WHITE or min(shape) < 1 or math.prod(shape) > 1 << 28 or not complete:
            raise InputError(f"the preprocessor of images of shape {shape} is damaged.")
        per_image = record.get("per_image", False)
        return cls((height, width, channels), tuple(record["mean"]), tuple(record["deviation"]), white, per_image)


def fit(images: np.ndarray | Rows, *, per_image: bool = False) -> ImagePreprocessor:
    """Computes the statistics of training images, uint8 (N, height, width, channels), or of a sample of many.

    Args:
      per_image: see :class:`ImagePreprocessor`.

    >>> fitted = fit(np.array([0, 254], np.uint8).reshape(2, 1, 1, 1))
    >>> fitted.normalize(np.array([0, 254], np.uint8).reshape(2, 1, 1, 1)).ravel().tolist()
    [-1.0, 1.0]
    """
    # From a histogram: exact in integers, and without a float copy of all images.
    fitted = _from_histogram(_histogram(sample(images)), images.shape[1:])
    return dataclasses.replace(fitted, per_image=per_image)


@dataclasses.dataclass(frozen=True)
class DetectionPreprocessor:
    """Statistics of the training images without their padding.

    Attributes:
      pixels: the canvas shape and the statistics. It has one channel if the training images are gray though read in
        color; other images are then converted to luma.
      canvases: the (height, width) that a canvas may be cropped to, smallest first; () for the whole canvas only.
    """

    pixels: ImagePreprocessor
    canvases: tuple[tuple[int, int], ...] = ()

    def transform(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps ``image`` and ``size``; a model does not need the scale of an image on its canvas.

        Raises:
          InputError: the canvases have another size than in training.
        """
        image = inputs["image"]
        if image.shape[-1] > self.pixels.shape[-1] == 1:
            gray = (*image.shape[1:3], 1)
            in_memory = isinstance(image, np.ndarray)
            image = decoding.to_gray(image) if in_memory else image.mapped(decoding.to_gray, gray, image.dtype)
        return {"image": self.pixels.transform(image), "size": np.asarray(inputs["size"], np.int32)}

    def shapes(self, count: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {"image": self.pixels.shapes(count), "size": jax.ShapeDtypeStruct((count, 2), np.int32)}

    def normalize(self, compact: Mapping[str, jax.Array]) -> jax.Array:
        """Turns ``image``, uint8 (N, H, W, channels), and ``size``, int32 (N, 2), into float32 (N, H, W, channels)."""
        pixels, size = self.pixels.normalize(compact["image"]), jnp.asarray(compact["size"])
        return jnp.where(image_mask(size, pixels.shape[1:3]), pixels, 0.0)

    @property
    def buckets(self) -> Buckets | None:
        return canvas_buckets(self.canvases) if self.canvases else None

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        return self.pixels.model_arguments

    @property
    def program(self) -> Self:
        return self

    def as_record(self) -> dict[str, Any]:
        return self.pixels.as_record() | {"type": "detection", "canvases": [[*canvas] for canvas in self.canvases]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, {"canvases": [[int, int]]}, "the preprocessor")
        pixels = ImagePreprocessor.from_record(record)
        whole = pixels.shape[:2]
        canvases = tuple((height, width) for height, width in record["canvases"])
        if canvases and canvases != (*(canvas for canvas in _canvas_candidates(whole[0]) if canvas in canvases), whole):
            raise InputError(f"the preprocessor is damaged: its canvases are {canvases}.")
        return cls(pixels, canvases)


def image_mask(size: jax.Array, canvas: tuple[int, ...]) -> jax.Array:
    """Marks the pixels of canvases that belong to their images, bool (N, H, W, 1).

    >>> image_mask(jnp.array([[1, 2]]), (2, 3))[0, :, :, 0].tolist()
    [[True, True, False], [False, False, False]]
    """
    rows = jnp.arange(canvas[0])[None, :] < size[:, :1]
    columns = jnp.arange(canvas[1])[None, :] < size[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def fit_canvases(inputs: Mapping[str, np.ndarray]) -> DetectionPreprocessor:
    """Computes the statistics of training inputs, in the layout of :mod:`jaxcls.data.datasets.object_detection`.

    >>> inputs = {"image": np.array([9, 11, 0, 0], np.uint8).reshape(1, 2, 2, 1), "size": np.array([[1, 2]])}
    >>> fit_canvases(inputs).normalize(inputs).ravel().tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    pixels, size = inputs["image"], np.asarray(inputs["size"], np.int64)
    count, height, width, channels = pixels.shape
    if all((block == block[..., :1]).all() for block in blocks(pixels)):
        channels = 1
    counts = _histogram(pixels, channels)
    # The padding is 0.
    counts[:, 0] -= height * width * count - int(size.prod(axis=1).sum())
    if (counts < 0).any():
        raise InputError("the padding of the canvases is not 0.")
    return DetectionPreprocessor(_from_histogram(counts, (height, width, channels)), _choose_canvases(size, height))


def _histogram(images: np.ndarray | Rows, channels: int | None = None) -> np.ndarray:
    """Counts the pixel values of each channel, or of the first ones, int64 (channels, 256).

    >>> _histogram(np.array([0, 255, 255], np.uint8).reshape(1, 3, 1, 1))[0, [0, 255]].tolist()
    [1, 2]
    """
    # In small chunks, since bincount first converts to 8-byte integers: 0.06 s for 57,000 images of 28 x 28, against
    # 0.5 s at once.
    counts = np.zeros((channels or images.shape[-1], 256), np.int64)
    rows = max(1, (1 << 15) // math.prod(images.shape[1:]))
    for block in blocks(images):
        for first in range(0, len(block), rows):
            for channel, count in enumerate(counts):
                count += np.bincount(block[first : first + rows, ..., channel].ravel(), minlength=256)
    return counts


def _from_histogram(counts: np.ndarray, shape: tuple[int, ...]) -> ImagePreprocessor:
    """Computes the statistics of images of this shape from the counts of their pixel values, int64 (channels, 256).

    They are rounded by at most 1/128 of a standard deviation: compiled programs contain them, so runs on slightly
    different training examples, such as those of another seed, mostly share a compilation.

    >>> _from_histogram(np.eye(1, 256, 7, dtype=np.int64), (2, 2, 1)).mean
    (7.0,)
    """
    values = np.arange(256)
    mean = counts @ values / counts.sum(axis=1)
    variance = counts @ values**2 / counts.sum(axis=1) - mean**2
    deviation = np.sqrt(np.maximum(variance, 1.0))  # finite for constant images
    step = 2.0 ** np.floor(np.log2(deviation / 64))
    mean, deviation = np.round(mean / step) * step, np.round(deviation / step) * step
    height, width, channels = shape
    return ImagePreprocessor((height, width, channels), tuple(mean.tolist()), tuple(deviation.tolist()))


def _choose_canvases(sizes: np.ndarray, side: int) -> tuple[tuple[int, int], ...]:
    """Chooses the canvases that fit enough of the images, and the whole one last; () if only the whole one does.

    >>> _choose_canvases(np.array([[96, 128], [128, 90], [128, 128], [80, 128]]), 128)
    ((96, 128), (128, 96), (128, 128))
    """
    chosen: list[tuple[int, int]] = []
    remaining = np.ones(len(sizes), bool)
    for canvas in _canvas_candidates(side):
        fits = remaining & (sizes <= canvas).all(axis=1)
        # Else it is not worth its compilation.
        if fits.mean() >= 0.1:
            chosen.append(canvas)
            remaining &= ~fits
    return (*chosen, (side, side)) if chosen else ()


def _canvas_candidates(side: int) -> list[tuple[int, int]]:
    """Half of a square, for panoramas, and three quarters, the aspect ratio of most cameras, in both orientations."""
    # Sides are multiples of the stride of the backbone's last feature map, 32.
    shorter = dict.fromkeys(-(-side * quarters // (4 * 32)) * 32 for quarters in (2, 3))
    return [canvas for short in shorter if short < side for canvas in ((short, side), (side, short))]
