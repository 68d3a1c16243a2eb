"""Images on padded canvases: uint8 to float32 of mean 0 and variance 1 in each channel, and 0 where no image is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls.data.preparation import images
from jaxcls.errors import InputError


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Statistics of training images, without what they are padded with.

    Attributes:
      of_pixels: the shape of a canvas, the mean and the deviation of each channel. Of training images that are grey,
        though they were read in colour, it has one channel; of other images the luma is taken then.
    """

    of_pixels: images.Images

    widths: tuple[int, ...] = dataclasses.field(default=(), init=False, repr=False)

    def encode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``image`` and ``size`` as they are; how an image was scaled to its canvas is nothing that a model takes.

        Raises:
          InputError: the canvases are of another size than those of the training.
        """
        images = inputs["image"]
        if self.of_pixels.shape[-1] == 1:
            images = _grey(images)
        return {"image": self.of_pixels.encode(images), "size": np.asarray(inputs["size"], np.int32)}

    def shapes(self, count: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {"image": self.of_pixels.shapes(count), "size": jax.ShapeDtypeStruct((count, 2), np.int32)}

    def normalise(self, compact: Mapping[str, jax.Array]) -> jax.Array:
        """``image``, uint8 (N, S, S, channels), and ``size``, int32 (N, 2), to float32 of the shape of the images."""
        pixels, size = self.of_pixels.normalise(compact["image"]), jnp.asarray(compact["size"])
        height, width, _ = self.of_pixels.shape
        rows = jnp.arange(height)[None, :] < size[:, :1]
        columns = jnp.arange(width)[None, :] < size[:, 1:]
        return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], pixels, 0.0)

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        return self.of_pixels.model_arguments

    def as_record(self) -> dict[str, Any]:
        return self.of_pixels.as_record() | {"kind": "scenes"}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return cls(images.Images.from_record(record))


def fit(inputs: Mapping[str, np.ndarray]) -> Scenes:
    """The statistics of the training images, as :mod:`jaxcls.data.detection_sets` has them.

    >>> inputs = {"image": np.array([9, 11, 0, 0], np.uint8).reshape(1, 2, 2, 1), "size": np.array([[1, 2]])}
    >>> fit(inputs).normalise(inputs).ravel().tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    pixels, size = inputs["image"], np.asarray(inputs["size"], np.int64)
    if all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in range(1, pixels.shape[-1])):
        pixels = pixels[..., :1]
    counts = images.histogram(pixels)
    # What images are padded with is 0.
    counts[:, 0] -= pixels.shape[1] * pixels.shape[2] * len(pixels) - int(size.prod(axis=1).sum())
    if (counts < 0).any():
        raise InputError("the canvases hold something else than 0 beside their images.")
    return Scenes(images.from_histogram(counts, pixels.shape[1:]))


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 1 or 3) to (N, S, S, 1): the luma of ITU-R BT.601, which of grey images is what they are."""
    if images.shape[-1] == 1:
        return images
    # Few at a time: the products take four times the memory.
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    weights = np.array([299, 587, 114], np.uint32)
    for row, image in enumerate(images):
        grey[row, ..., 0] = (image @ weights + 500) // 1000
    return grey
