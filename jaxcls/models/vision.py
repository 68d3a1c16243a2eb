"""Image classifiers: a multilayer perceptron, a small CNN, VGG and ResNet.

Each is a Flax NNX module that maps float images (N, height, width, channels) to float32 logits (N, num_classes).
``dtype`` is the type of the computation; parameters are stored in float32.
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
from jaxcls.models.layers import BatchNorm, Conv, Linear, PooledConv, he_normal, head


class MLP(nnx.Module):
    """A multilayer perceptron with ReLU on the flattened pixels.

    Args:
      input_shape: (height, width, channels).
      hidden: widths of the hidden layers.
      dropout: rate after each hidden layer.

    >>> MLP((8, 8, 1), 3, hidden=(16,), rngs=nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
    (2, 3)
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, *, hidden: Sequence[int] = (512, 256),
        dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        layers: list[Callable[..., Any]] = []
        width = math.prod(input_shape)
        for features in hidden:
            layers += [Linear(width, features, kernel_init=he_normal, dtype=dtype, rngs=rngs), nnx.relu]
            layers += [nnx.Dropout(dropout, rngs=rngs)] if dropout else []
            width = features
        self.hidden = nnx.Sequential(*layers)
        self.head = head(width, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        return self.head(self.hidden(images.reshape(images.shape[0], -1)).astype(jnp.float32))


class CNN(nnx.Module):
    """3 x 3 convolutions with ReLU, each followed by 2 x 2 max pooling, and one hidden dense layer.

    Args:
      input_shape: (height, width, channels).
      channels: output channels of each convolution. Large images get additional convolutions as wide as the last one,
        until at most 8 pixels per side remain; otherwise the dense layer would hold nearly all parameters.
      dense: width of the hidden dense layer.
      dropout: rate before the output layer.

    >>> CNN((8, 8, 1), 3, channels=(4,), dense=16, rngs=nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
    (2, 3)
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, *, channels: Sequence[int] = (32, 64, 128),
        dense: int = 256, dropout: float = 0.5, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        height, width, previous = input_shape
        additional = max(0, math.ceil(math.log2(min(height, width) / 8)) - len(channels))
        layers: list[Callable[..., Any]] = []
        for features in [*channels, *[channels[-1]] * additional]:
            pooled = min(height, width) > 1
            layers += [(PooledConv if pooled else Conv)(previous, features, dtype=dtype, rngs=rngs), nnx.relu]
            height, width = (height // 2, width // 2) if pooled else (height, width)
            previous = features
        self.features = nnx.Sequential(*layers)
        self.dense = Linear(height * width * previous, dense, kernel_init=he_normal, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = head(dense, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = self.features(images)
        hidden = nnx.relu(self.dense(features.reshape(features.shape[0], -1)))
        return self.head(self.dropout(hidden).astype(jnp.float32))


class VGG(nnx.Module):
    """3 x 3 convolutions with batch normalization and ReLU (Simonyan and Zisserman 2015, arXiv 1409.1556).

    Unlike in the paper, the 2 x 2 max pooling of a stage follows its first convolution, before the normalization, which
    then has a quarter of the elements to process. On small images it has the highest accuracy for its cost.

    Args:
      input_shape: (height, width, channels).
      stages: for each stage, the output channels of its convolutions.
      dropout: rate before the output layer.

    >>> VGG((8, 8, 1), 3, stages=((4,), (8, 8)), rngs=nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
    (2, 3)
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, *,
        stages: Sequence[Sequence[int]] = ((16,), (32, 64), (64,)), dropout: float = 0.0, dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        height, width, previous = input_shape
        layers: list[Callable[..., Any]] = []
        for stage in stages:
            for index, features in enumerate(stage):
                pooled = not index and min(height, width) > 1
                layers.append(_NormalizedConv(previous, features, pooled=pooled, dtype=dtype, rngs=rngs))
                height, width = (height // 2, width // 2) if pooled else (height, width)
                previous = features
        self.layers = nnx.Sequential(*layers)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(height * width * previous, num_classes, dot_general=kernels.dot_general, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = self.layers(images)
        return self.head(self.dropout(features.reshape(features.shape[0], -1)).astype(jnp.float32))


class _NormalizedConv(nnx.Module):
    def __init__(self, previous: int, features: int, *, pooled: bool, dtype: Any, rngs: nnx.Rngs):
        # Normalization cancels a bias before it, whose gradient would be rounding noise: there is none.
        self.conv = (PooledConv if pooled else Conv)(previous, features, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x)))


class ResNet(nnx.Module):
    """A residual network with pre-activation (He et al. 2016, arXiv 1603.05027) and global average pooling.

    Images of at least 96 pixels per side are first reduced to a quarter of height and width, as in the networks for
    ImageNet (He et al. 2015, arXiv 1512.03385): by a 7 x 7 convolution with stride 2 and 2 x 2 max pooling.

    Args:
      input_shape: (height, width, channels).
      widths: channels of each stage; every stage but the first halves height and width.
      blocks: residual blocks per stage. The depth is ``2 * len(widths) * blocks + 2``.
      pooled_stem: halve height and width after the first convolution. Wide stages on few pixels reach twice the share
        of a CPU's peak performance that narrow stages on many pixels reach.
      dropout: rate before the output layer.

    >>> ResNet((8, 8, 1), 3, widths=(4, 8), rngs=nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
    (2, 3)
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, *, widths: Sequence[int] = (32, 64, 128), blocks: int = 1,
        pooled_stem: bool = False, dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        large = min(input_shape[:2]) >= 96
        stem: dict[str, Any] = {"kernel_size": (7, 7), "strides": 2} if large else {}
        self.stem = Conv(input_shape[-1], widths[0], use_bias=False, dtype=dtype, rngs=rngs, **stem)
        layers: list[Callable[..., Any]] = [kernels.max_pool] if pooled_stem or large else []
        previous = widths[0]
        for stage, features in enumerate(widths):
            layers += residual_stage(previous, features, blocks, halve=stage > 0, dtype=dtype, rngs=rngs)
            previous = features
        self.stages = nnx.Sequential(*layers)
        self.norm = BatchNorm(previous, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = head(previous, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        features = nnx.relu(self.norm(self.stages(self.stem(images))))
        pooled = features.astype(jnp.float32).mean(axis=(1, 2))
        return self.head(self.dropout(pooled))


class ResidualBlock(nnx.Module):
    """Two 3 x 3 convolutions, each after batch normalization and ReLU, added to their input (arXiv 1603.05027).

    Maps (N, H, W, previous) to (N, H / strides, W / strides, features), rounded up.
    """

    def __init__(self, previous: int, features: int, strides: int, *, dtype: Any, rngs: nnx.Rngs):
        norm = functools.partial(BatchNorm, dtype=dtype, rngs=rngs)
        # Normalization cancels a bias before it, whose gradient would be rounding noise: there is none.
        conv = functools.partial(Conv, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1, self.norm2 = norm(previous), norm(features)
        self.conv1, self.conv2 = conv(previous, features, strides=strides), conv(features, features)
        projected = strides > 1 or previous != features
        self.shortcut = conv(previous, features, kernel_size=(1, 1), strides=strides) if projected else None

    def __call__(self, x: jax.Array) -> jax.Array:
        activated = nnx.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(nnx.relu(self.norm2(self.conv1(activated))))


def residual_stage(
    previous: int, features: int, blocks: int, *, halve: bool, dtype: Any, rngs: nnx.Rngs
) -> list[ResidualBlock]:
    """Builds the residual blocks of one stage; the first of them halves height and width if ``halve``."""
    return [
        ResidualBlock(features if block else previous, features, 1 if block or not halve else 2, dtype=dtype, rngs=rngs)
        for block in range(blocks)
    ]
