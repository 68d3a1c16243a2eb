"""Networks of inverted residual blocks, with timm's names of layers. EfficientNet and MobileNet are tables of sizes."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls.models.layers import BatchNorm, Conv
from jaxcls.models.pretrained import options
from jaxcls.models.pretrained.architecture import Architecture

Activation = Callable[[jax.Array], jax.Array]


class Squeeze(NamedTuple):
    """Squeeze-and-excitation (Hu et al. 2017, arXiv 1709.01507): its hidden channels and two activations."""

    channels: int
    activation: Activation
    gate: Activation


class Block(NamedTuple):
    """The sizes of a block.

    Attributes:
      kernel: of the depthwise convolution; 0 for a block that is one 1 x 1 convolution.
      strides: of the depthwise convolution.
      expanded: channels of the depthwise convolution; 0 for those of the input, without a convolution before it.
      channels: of the output.
      activation: after each convolution but the last.
      squeeze: squeeze-and-excitation before the last convolution.
    """

    kernel: int
    strides: int
    expanded: int
    channels: int
    activation: Activation
    squeeze: Squeeze | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a network.

    Attributes:
      stem: channels of the first convolution.
      stages: the blocks, by stage.
      features: channels of the last convolution.
      pools_first: whether pooling precedes the last convolution, which then has a bias and no normalization.
      activation: after the first and the last convolution.
      same_padding: whether padding is TensorFlow's, with an odd pixel below and on the right.
      epsilon: of batch normalization.
      drop_path: rate at which training leaves out a block, from 0 for the first nearly to this for the last.
    """

    stem: int
    stages: Sequence[Sequence[Block]]
    features: int
    pools_first: bool = False
    activation: Activation
    same_padding: bool
    epsilon: float
    drop_path: float


class _Layers:
    """The layers of one network, and what all of them share."""

    def __init__(self, sizes: Sizes, dtype: Any, rngs: nnx.Rngs):
        self.same_padding = sizes.same_padding
        self.rngs = rngs
        self.pointwise = functools.partial(Conv, kernel_size=(1, 1), use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = functools.partial(BatchNorm, epsilon=sizes.epsilon, dtype=dtype, rngs=rngs)

    def conv(self, previous: int, channels: int, kernel: int, strides: int, groups: int = 1) -> Conv:
        padding = "SAME" if self.same_padding else kernel // 2
        return self.pointwise(
            previous, channels, kernel_size=(kernel, kernel), strides=strides, padding=padding, groups=groups
        )

    def drop_path(self, previous: int, block: Block, rate: float) -> nnx.Dropout | None:
        """Stochastic depth (Huang et al. 2016, arXiv 1603.09382) of a block that is added to its input, else None."""
        # Dropout of the whole block for an image.
        dropout = nnx.Dropout(rate, broadcast_dims=(1, 2, 3), rngs=self.rngs)
        return dropout if block.strides == 1 and previous == block.channels else None


class SqueezeExcitation(nnx.Module):
    """Scales each channel by a function of the means of all channels."""

    def __init__(self, channels: int, sizes: Squeeze, layers: _Layers):
        self.conv_reduce = layers.pointwise(channels, sizes.channels, use_bias=True)
        self.conv_expand = layers.pointwise(sizes.channels, channels, use_bias=True)
        self.activation, self.gate = sizes.activation, sizes.gate

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gate(self.conv_expand(self.activation(self.conv_reduce(_mean(x)))))


class Pointwise(nnx.Module):
    """A 1 x 1 convolution."""

    def __init__(self, previous: int, block: Block, rate: float, layers: _Layers):
        self.conv, self.bn1 = layers.pointwise(previous, block.channels), layers.norm(block.channels)
        self.activation = block.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.bn1(self.conv(x)))


class DepthwiseSeparable(nnx.Module):
    """A depthwise and a 1 x 1 convolution (arXiv 1704.04861), added to the input if it has the same shape."""

    def __init__(self, previous: int, block: Block, rate: float, layers: _Layers):
        self.conv_dw = layers.conv(previous, previous, block.kernel, block.strides, previous)
        self.bn1 = layers.norm(previous)
        self.se = SqueezeExcitation(previous, block.squeeze, layers) if block.squeeze else None
        self.conv_pw, self.bn2 = layers.pointwise(previous, block.channels), layers.norm(block.channels)
        self.drop_path = layers.drop_path(previous, block, rate)
        self.activation = block.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activation(self.bn1(self.conv_dw(x)))
        y = y if self.se is None else self.se(y)
        return _add(x, self.bn2(self.conv_pw(y)), self.drop_path)


class InvertedResidual(nnx.Module):
    """A 1 x 1 convolution to more channels, a depthwise one and one to few channels (arXiv 1801.04381)."""

    def __init__(self, previous: int, block: Block, rate: float, layers: _Layers):
        self.conv_pw, self.bn1 = layers.pointwise(previous, block.expanded), layers.norm(block.expanded)
        self.conv_dw = layers.conv(block.expanded, block.expanded, block.kernel, block.strides, block.expanded)
        self.bn2 = layers.norm(block.expanded)
        self.se = SqueezeExcitation(block.expanded, block.squeeze, layers) if block.squeeze else None
        self.conv_pwl, self.bn3 = layers.pointwise(block.expanded, block.channels), layers.norm(block.channels)
        self.drop_path = layers.drop_path(previous, block, rate)
        self.activation = block.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activation(self.bn1(self.conv_pw(x)))
        y = self.activation(self.bn2(self.conv_dw(y)))
        y = y if self.se is None else self.se(y)
        return _add(x, self.bn3(self.conv_pwl(y)), self.drop_path)


def _add(x: jax.Array, y: jax.Array, drop_path: nnx.Dropout | None) -> jax.Array:
    return y if drop_path is None else x + drop_path(y)


class Network(nnx.Module):
    """A convolution, blocks, a 1 x 1 convolution and global pooling: images (N, H, W, 3) to (N, features)."""

    def __init__(self, sizes: Sizes, *, dtype: Any = jnp.float32, rngs: nnx.Rngs, dropout: float | None = None):
        layers = _Layers(sizes, dtype, rngs)
        self.conv_stem, self.bn1 = layers.conv(3, sizes.stem, 3, 2), layers.norm(sizes.stem)
        blocks: list[nnx.Module] = []
        previous, count = sizes.stem, sum(map(len, sizes.stages))
        for block in (block for stage in sizes.stages for block in stage):
            layer = (InvertedResidual if block.expanded else DepthwiseSeparable) if block.kernel else Pointwise
            rate = (sizes.drop_path if dropout is None else dropout) * len(blocks) / count
            blocks.append(layer(previous, block, rate, layers))
            previous = block.channels
        self.blocks = nnx.Sequential(*blocks)
        self.conv_head = layers.pointwise(previous, sizes.features, use_bias=sizes.pools_first)
        self.bn2 = None if sizes.pools_first else layers.norm(sizes.features)
        self.activation, self.features = sizes.activation, sizes.features

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.blocks(self.activation(self.bn1(self.conv_stem(images))))
        if self.bn2 is not None:
            return _mean(self.activation(self.bn2(self.conv_head(x))))[:, 0, 0]
        return self.activation(self.conv_head(_mean(x)))[:, 0, 0]


def _mean(x: jax.Array) -> jax.Array:
    return x.mean(axis=(1, 2), keepdims=True, dtype=jnp.float32).astype(x.dtype)


class Row(NamedTuple):
    """A row of a paper's table: blocks of the same sizes, except that only the first has ``strides``.

    Attributes:
      kernel, strides, channels: as in :class:`Block`, but ``channels`` before it is scaled.
      expansion: channels of the depthwise convolution, in multiples of those of the input; 1 for none before it.
      repeats: the number of blocks, before it is scaled.
      squeeze: whether the blocks have squeeze-and-excitation.
      activation: as in :class:`Block`.
    """

    kernel: int
    strides: int
    expansion: float
    channels: int
    repeats: int
    squeeze: bool
    activation: Activation


def scaled(
    table: Sequence[Sequence[Row]], stem: int, *, width: float = 1.0, depth: float = 1.0, fixed_ends: bool = False,
    squeeze: Callable[[int, int], Squeeze],
) -> list[list[Block]]:  # fmt: skip
    """Returns the blocks of each stage of a table.

    Args:
      table: the rows of each stage.
      stem: channels of the convolution before the first block.
      width: multiplies the channels.
      depth: multiplies the repeats.
      fixed_ends: do not multiply the repeats of the first and the last stage.
      squeeze: ``(channels of the input, channels of the depthwise convolution) -> sizes of squeeze-and-excitation``.
    """
    stages, previous = [], stem
    for stage, rows in enumerate(table):
        blocks = []
        for row in rows:
            fixed = fixed_ends and stage in (0, len(table) - 1)
            for index in range(row.repeats if fixed else math.ceil(row.repeats * depth)):
                expanded = rounded(previous * row.expansion) if row.expansion > 1 else 0
                channels, strides = rounded(row.channels * width), 1 if index else row.strides
                hidden = squeeze(previous, expanded or previous) if row.squeeze else None
                blocks.append(Block(row.kernel, strides, expanded, channels, row.activation, hidden))
                previous = channels
        stages.append(blocks)
    return stages


def rounded(channels: float) -> int:
    """Returns the nearest multiple of 8 that is at least 0.9 of a number of channels.

    >>> rounded(1), rounded(19), rounded(20)
    (8, 24, 24)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def arguments(config: Mapping[str, Any], where: str, *, width: float, depth: float) -> dict[str, Any]:
    """Returns timm's arguments for a network, with the factors of channels and repeats that are those of its name.

    Raises:
      InputError: an argument in "model_args" of config.json is not supported.
    """
    is_tensorflow = str(config["architecture"]).startswith("tf_")
    defaults = {
        "channel_multiplier": width, "depth_multiplier": depth, "num_features": 0, "global_pool": "avg",
        "pad_type": "same" if is_tensorflow else "", "bn_eps": 1e-3 if is_tensorflow else 1e-5,
    }  # fmt: skip
    supported = {
        "channel_multiplier": options.Between(0.01, 10), "depth_multiplier": options.Between(0.01, 10),
        "num_features": range(1 << 16), "global_pool": ("avg",), "pad_type": ("same", ""), "bn_eps": float,
    }  # fmt: skip
    return options.timm(config, defaults, supported, where)


def architecture(arguments: Mapping[str, Any], *, features: int, **sizes: Any) -> Architecture:
    """Returns the architecture of a network with timm's names of tensors.

    Args:
      arguments: from :func:`arguments`.
      features: of the name; the argument num_features can replace them.
      sizes: the other sizes that the arguments do not determine.
    """
    of_network = Sizes(
        features=arguments["num_features"] or features, same_padding=arguments["pad_type"] == "same",
        epsilon=arguments["bn_eps"], drop_path=arguments["drop_path_rate"], **sizes,
    )  # fmt: skip
    numbers = [f"{stage}.{index}" for stage, blocks in enumerate(of_network.stages) for index in range(len(blocks))]

    def tensor(name: str) -> str:
        return re.sub(r"^blocks\.(\d+)", lambda match: f"blocks.{numbers[int(match[1])]}", name)

    def depth(name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("conv_stem.", "bn1.")) else len(numbers)

    return Architecture(
        inputs="images", build=functools.partial(Network, of_network), tensor=tensor, depth=depth, layers=len(numbers),
        head="classifier",
    )  # fmt: skip
