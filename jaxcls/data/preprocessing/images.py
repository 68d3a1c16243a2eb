"""Images: uint8 to float32 of about mean 0 and variance 1 in each channel of the training images."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data.buckets import Buckets

# As images are decoded to 1024 pixels a side at the most, and those of files are of any size.
_MOST_PIXELS = 1 << 28
_FORM = {"shape": [int, int, int], "mean": [float], "deviation": [float]}


@dataclasses.dataclass(frozen=True)
class Images:
    """Statistics of training images.

    Attributes:
      shape: (height, width, channels).
      mean, deviation: of each channel.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    buckets: Buckets | None = dataclasses.field(default=None, init=False, repr=False)

    def transform(self, inputs: np.ndarray) -> np.ndarray:
        """Images are compact as they are.

        Raises:
          InputError: they are of another size than the training images.
        """
        if inputs.shape[1:] != self.shape:
            raise InputError(f"images have shape {inputs.shape[1:]}; those of the training have {self.shape}.")
        return inputs

    def shapes(self, count: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *self.shape), np.uint8)

    def normalize(self, compact: jax.Array) -> jax.Array:
        """uint8 (N, height, width, channels) to float32 of the same shape."""
        mean, scale = (
            np.asarray(values, np.float32).reshape(1, 1, 1, -1) for values in (self.mean, 1 / np.array(self.deviation))
        )
        return (jnp.asarray(compact, jnp.float32) - mean) * scale

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        return {"input_shape": self.shape}

    def as_record(self) -> dict[str, Any]:
        return {"kind": "images", "shape": [*self.shape], "mean": [*self.mean], "deviation": [*self.deviation]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, _FORM, "the preprocessor")
        height, width, channels = shape = record["shape"]
        values = len(record["mean"]) == len(record["deviation"]) == channels and min(record["deviation"]) > 0
        if min(shape) < 1 or math.prod(shape) > _MOST_PIXELS or not values:
            raise InputError(f"the preprocessor of images of shape {shape} is damaged.")
        return cls((height, width, channels), tuple(record["mean"]), tuple(record["deviation"]))


def fit(images: np.ndarray) -> Images:
    """The statistics of the training images, uint8 (N, height, width, channels).

    >>> fitted = fit(np.array([0, 254], np.uint8).reshape(2, 1, 1, 1))
    >>> fitted.normalize(np.array([0, 254], np.uint8).reshape(2, 1, 1, 1)).ravel().tolist()
    [-1.0, 1.0]
    """
    # From a histogram: exact in integers, and without a float copy of the whole set.
    return from_histogram(histogram(images), images.shape[1:])


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each channel has each value, int64 (channels, 256).

    >>> histogram(np.array([0, 255, 255], np.uint8).reshape(1, 3, 1, 1))[0, [0, 255]].tolist()
    [1, 2]
    """
    # Of few pixels at a time, since bincount makes integers of 8 bytes of them first: 0.06 s for 57,000 images of
    # 28 x 28, and at once 0.5 s.
    counts = np.zeros((images.shape[-1], 256), np.int64)
    rows = max(1, (1 << 15) // images[0].size)
    for first in range(0, len(images), rows):
        for channel, count in enumerate(counts):
            count += np.bincount(images[first : first + rows, ..., channel].ravel(), minlength=256)
    return counts


def from_histogram(counts: np.ndarray, shape: tuple[int, ...]) -> Images:
    """The statistics of images of this shape whose values occur so often, int64 (channels, 256).

    They are rounded, by 1/128 of a deviation at the most: the compiled programs hold them, and one that was compiled
    for other examples of the same kind, such as those that another seed trains on, is most often the same then.

    >>> from_histogram(np.eye(1, 256, 7, dtype=np.int64), (2, 2, 1)).mean
    (7.0,)
    """
    values = np.arange(256)
    mean = counts @ values / counts.sum(axis=1)
    variance = counts @ values**2 / counts.sum(axis=1) - mean**2
    deviation = np.sqrt(np.maximum(variance, 1.0))  # an image of one grey stays finite
    step = 2.0 ** np.floor(np.log2(deviation / 64))
    mean, deviation = (np.round(numbers / step) * step for numbers in (mean, deviation))
    height, width, channels = shape
    return Images((height, width, channels), tuple(mean.tolist()), tuple(deviation.tolist()))
