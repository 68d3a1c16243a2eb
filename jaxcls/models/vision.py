"""Image classifiers: a multilayer perceptron, a small convolutional network, and the ResNet family.

Each is a Flax NNX module that takes float images (N, height, width, channels) and returns float32 logits
(N, num_classes). ``dtype`` is that of the computation; parameters are kept in float32.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls.models.batch_norm import BatchNorm
from jaxcls.models.convolution import Conv, PooledConv, he_normal
from jaxcls.models.dense import Linear


class MLP(nnx.Module):
    """A multilayer perceptron on the flattened pixels."""

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        layers: list[Callable[..., Any]] = []
        width = functools.reduce(lambda a, b: a * b, input_shape)
        for features in hidden:
            layers += [Linear(width, features, kernel_init=he_normal, dtype=dtype, rngs=rngs), nnx.relu]
            layers += [nnx.Dropout(dropout, rngs=rngs)] if dropout else []
            width = features
        self.hidden = nnx.Sequential(*layers)
        self.head = Linear(width, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        return self.head(self.hidden(images.reshape(images.shape[0], -1)).astype(jnp.float32))


class CNN(nnx.Module):
    """Convolutions of 3 x 3 with ReLU, each followed by a maximum over 2 x 2, and one dense layer.

    Args:
      channels: of each convolution. Larger images get further ones of the last of these, until no more than 8 pixels
        are left a side; else nearly all parameters of the network would stand in the dense layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        dense: int = 256,
        dropout: float = 0.5,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, previous = input_shape
        further = max(0, math.ceil(math.log2(min(height, width) / 8)) - len(channels))
        layers: list[Callable[..., Any]] = []
        for features in [*channels, *[channels[-1]] * further]:
            if min(height, width) > 1:
                layers.append(PooledConv(previous, features, dtype=dtype, rngs=rngs))
                height, width = height // 2, width // 2
            else:
                layers.append(Conv(previous, features, dtype=dtype, rngs=rngs))
            layers.append(nnx.relu)
            previous = features
        self.features = nnx.Sequential(*layers)
        self.dense = Linear(height * width * previous, dense, kernel_init=he_normal, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = Linear(dense, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = self.features(images)
        hidden = nnx.relu(self.dense(features.reshape(features.shape[0], -1)))
        return self.head(self.dropout(hidden).astype(jnp.float32))


class ResNet(nnx.Module):
    """A residual network with pre-activation (He et al. 2016, arXiv 1603.05027).

    Images of 96 pixels a side or more are brought to a quarter first, as in the networks for ImageNet (He et al.
    2015, arXiv 1512.03385): by a convolution of 7 x 7 at every second pixel and a maximum over 2 x 2.

    Args:
      widths: channels of each stage; every stage but the first halves height and width.
      blocks: residual blocks a stage. Depth is ``2 * len(widths) * blocks + 2``.
      pooled_stem: halves height and width after the first convolution. Wide stages on few pixels reach twice
        the share of a CPU that narrow ones on many do.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        widths: Sequence[int] = (32, 64, 128),
        blocks: int = 1,
        pooled_stem: bool = False,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        large = min(input_shape[:2]) >= 96
        first: dict[str, Any] = {"kernel_size": (7, 7), "strides": 2} if large else {}
        self.stem = Conv(input_shape[-1], widths[0], use_bias=False, dtype=dtype, rngs=rngs, **first)
        layers: list[Callable[..., Any]] = [kernels.max_pool] if pooled_stem or large else []
        previous = widths[0]
        for stage, features in enumerate(widths):
            for block in range(blocks):
                strides = 2 if stage and not block else 1
                layers.append(ResidualBlock(previous, features, strides, dtype=dtype, rngs=rngs))
                previous = features
        self.stages = nnx.Sequential(*layers)
        self.norm = BatchNorm(previous, momentum=MOMENTUM, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = Linear(previous, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = nnx.relu(self.norm(self.stages(self.stem(images))))
        pooled = features.astype(jnp.float32).mean(axis=(1, 2))
        return self.head(self.dropout(pooled))


class ResidualBlock(nnx.Module):
    def __init__(self, previous: int, features: int, strides: int, *, dtype: Any, rngs: nnx.Rngs):
        norm = functools.partial(BatchNorm, momentum=MOMENTUM, dtype=dtype, rngs=rngs)
        # A bias before a normalisation has no effect and a gradient of pure rounding noise: there is none.
        conv = functools.partial(Conv, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1, self.norm2 = norm(previous), norm(features)
        self.conv1 = conv(previous, features, strides=strides)
        self.conv2 = conv(features, features)
        self.shortcut = (
            conv(previous, features, kernel_size=(1, 1), strides=strides)
            if strides > 1 or previous != features
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        activated = nnx.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(nnx.relu(self.norm2(self.conv1(activated))))


# The running statistics settle within a few hundred steps, so that a short run evaluates with its own.
MOMENTUM = 0.9
