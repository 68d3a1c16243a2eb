"""Images on padded canvases: uint8 to float32, of about mean 0 and variance 1 in each channel, 0 where no image is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data.buckets import Buckets, of_canvases
from jaxcls.data.preprocessing import images

# A canvas of its own pays for its compilation if so many of the images fit into it, and not into a smaller one.
_SHARE = 0.1
# Sides of canvases are multiples of this, which is a place of the backbone's last map.
_STEP = 32


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Statistics of training images, without what they are padded with.

    Attributes:
      of_pixels: the shape of a canvas, the mean and the deviation of each channel. Of training images that are grey,
        though they were read in colour, it has one channel; of other images the luma is taken then.
      canvases: the heights and widths that a canvas may be cut to, the smallest first; () where only the whole pays.
    """

    of_pixels: images.Images
    canvases: tuple[tuple[int, int], ...] = ()

    def transform(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``image`` and ``size`` as they are; how an image was scaled to its canvas is nothing that a model takes.

        Raises:
          InputError: the canvases are of another size than those of the training.
        """
        images = inputs["image"]
        if self.of_pixels.shape[-1] == 1:
            images = _grey(images)
        return {"image": self.of_pixels.transform(images), "size": np.asarray(inputs["size"], np.int32)}

    def shapes(self, count: Any) -> dict[str, jax.ShapeDtypeStruct]:
        return {"image": self.of_pixels.shapes(count), "size": jax.ShapeDtypeStruct((count, 2), np.int32)}

    def normalize(self, compact: Mapping[str, jax.Array]) -> jax.Array:
        """``image``, uint8 (N, H, W, channels), and ``size``, int32 (N, 2), to float32 of the shape of the images."""
        pixels, size = self.of_pixels.normalize(compact["image"]), jnp.asarray(compact["size"])
        height, width = pixels.shape[1:3]
        rows = jnp.arange(height)[None, :] < size[:, :1]
        columns = jnp.arange(width)[None, :] < size[:, 1:]
        return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], pixels, 0.0)

    @property
    def buckets(self) -> Buckets | None:
        return of_canvases(self.canvases) if self.canvases else None

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        return self.of_pixels.model_arguments

    def as_record(self) -> dict[str, Any]:
        return self.of_pixels.as_record() | {"kind": "scenes", "canvases": [[*canvas] for canvas in self.canvases]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, {"canvases": [[int, int]]}, "the preprocessor")
        of_pixels = images.Images.from_record(record)
        whole = of_pixels.shape[:2]
        canvases = tuple((height, width) for height, width in record["canvases"])
        if canvases and canvases != (*(one for one in _canvases(whole[0]) if one in canvases), whole):
            raise InputError(f"the canvases of scenes are {canvases}; they are damaged.")
        return cls(of_pixels, canvases)


def fit(inputs: Mapping[str, np.ndarray]) -> Scenes:
    """The statistics of the training images, as :mod:`jaxcls.data.datasets.detection` has them.

    >>> inputs = {"image": np.array([9, 11, 0, 0], np.uint8).reshape(1, 2, 2, 1), "size": np.array([[1, 2]])}
    >>> fit(inputs).normalize(inputs).ravel().tolist()
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
    return Scenes(images.from_histogram(counts, pixels.shape[1:]), _chosen(size, pixels.shape[1]))


def _chosen(sizes: np.ndarray, side: int) -> tuple[tuple[int, int], ...]:
    """The canvases that each suit a share of the images, and the whole one, which suits all; () where it is alone.

    >>> _chosen(np.array([[96, 128], [128, 90], [128, 128], [80, 128]]), 128)
    ((96, 128), (128, 96), (128, 128))
    """
    chosen: list[tuple[int, int]] = []
    left = np.ones(len(sizes), bool)
    for canvas in _canvases(side):
        inside = left & (sizes <= canvas).all(axis=1)
        if inside.mean() >= _SHARE:
            chosen.append(canvas)
            left &= ~inside
    return (*chosen, (side, side)) if chosen else ()


def _canvases(side: int) -> list[tuple[int, int]]:
    """Parts of a square, landscape and portrait, the smallest first: half of it for panoramas, and three quarters,
    which are those of most cameras."""
    shorter = dict.fromkeys(-(-side * quarters // (4 * _STEP)) * _STEP for quarters in (2, 3))
    return [canvas for short in shorter if short < side for canvas in ((short, side), (side, short))]


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
