"""A plain stack of normalised convolutions that reaches the most accuracy for the least arithmetic on small images.

It is a Flax NNX module that takes float images (N, height, width, channels) and returns float32 logits
(N, num_classes). ``dtype`` is that of the computation; parameters are kept in float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import ops

# He et al. 2015, for layers that a ReLU follows.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class VGG(nnx.Module):
    """Convolutions of 3 x 3 with batch normalisation and ReLU (Simonyan & Zisserman 2015, arXiv 1409.1556).

    A maximum over 2 x 2 stands right behind the first convolution of each stage, before its normalisation, which
    then has a quarter of the numbers to go through.

    Args:
      stages: the channels of the convolutions of each stage.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        stages: Sequence[Sequence[int]] = ((16,), (32, 64), (64,)),
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, previous = input_shape
        layers: list[Callable[..., Any]] = []
        for stage in stages:
            for place, features in enumerate(stage):
                pooled = not place and min(height, width) > 1
                layers.append(_Layer(previous, features, pooled=pooled, dtype=dtype, rngs=rngs))
                height, width = (height // 2, width // 2) if pooled else (height, width)
                previous = features
        self.layers = nnx.Sequential(*layers)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(height * width * previous, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = self.layers(images)
        return self.head(self.dropout(features.reshape(features.shape[0], -1)).astype(jnp.float32))


class _Layer(nnx.Module):
    def __init__(self, previous: int, features: int, *, pooled: bool, dtype: Any, rngs: nnx.Rngs):
        # A bias before a normalisation has no effect and a gradient of pure rounding noise: there is none.
        self.conv = nnx.Conv(
            previous, features, (3, 3), use_bias=False, kernel_init=_he_normal, conv_general_dilated=ops.conv,
            dtype=dtype, rngs=rngs,
        )  # fmt: skip
        # The running statistics settle within a few hundred steps, so that a short run evaluates with its own.
        self.norm = nnx.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)
        self.pooled = pooled

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.pooled and x.shape[-1] <= _FEW_CHANNELS:
            kernel = self.conv.kernel[...]
            x = pooled_convolution(x.astype(self.conv.dtype), kernel.astype(self.conv.dtype))
        else:
            x = self.conv(x)
            x = ops.max_pool(x) if self.pooled else x
        return nnx.relu(self.norm(x))


# With so few input channels a convolution has too little arithmetic for each number that it reads and writes.
_FEW_CHANNELS = 3


def pooled_convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The maximum over 2 x 2 of a 3 x 3 convolution with padding, (N, H, W, C) to (N, H // 2, W // 2, features).

    The four results under one maximum see a window of 4 x 4 pixels together. So all of it is one matrix product of
    these windows with four shifted copies of the kernel, at 16 / 9 of the arithmetic, but in half the time on a CPU.

    Args:
      kernel: (3, 3, C, features).

    >>> images, kernel = jnp.arange(16.0).reshape(1, 4, 4, 1), jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    >>> pooled_convolution(images, kernel).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    chex.assert_rank([images, kernel], 4)
    count, height, width, channels = images.shape
    rows, columns, features = height // 2, width // 2, kernel.shape[-1]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = [padded[:, y : y + 2 * rows - 1 : 2, x : x + 2 * columns - 1 : 2] for y in range(4) for x in range(4)]
    windows = jnp.concatenate(pixels, axis=-1).reshape(-1, 16 * channels)
    shifted = [jnp.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0))) for y in range(2) for x in range(2)]
    kernels = jnp.concatenate([copy.reshape(16 * channels, features) for copy in shifted], axis=1)
    return (windows @ kernels).reshape(count, rows, columns, 4, features).max(axis=3)
