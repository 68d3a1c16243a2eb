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

from jaxcls import kernels
from jaxcls.models.batch_norm import BatchNorm
from jaxcls.models.convolution import Conv, PooledConv


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
        self.head = nnx.Linear(height * width * previous, num_classes, dot_general=kernels.dot_general, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = self.layers(images)
        return self.head(self.dropout(features.reshape(features.shape[0], -1)).astype(jnp.float32))


class _Layer(nnx.Module):
    def __init__(self, previous: int, features: int, *, pooled: bool, dtype: Any, rngs: nnx.Rngs):
        # A bias before a normalisation has no effect and a gradient of pure rounding noise: there is none.
        convolution = PooledConv if pooled else Conv
        self.conv = convolution(previous, features, use_bias=False, dtype=dtype, rngs=rngs)
        # The running statistics settle within a few hundred steps, so that a short run evaluates with its own.
        self.norm = BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x)))
