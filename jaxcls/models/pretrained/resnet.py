"""Residual networks (He et al. 2015, arXiv 1512.03385), as transformers and timm have them."""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls._utils.errors import InputError
from jaxcls.models.layers import BatchNorm, Conv
from jaxcls.models.pretrained import options
from jaxcls.models.pretrained.architecture import Architecture

# The blocks of each stage, by the number in timm's names.
_TIMM_DEPTHS = {
    18: [2, 2, 2, 2], 26: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3],
}  # fmt: skip
# The names of layers here and in timm, and those in transformers.
_TRANSFORMERS_NAMES = {
    "conv1": "layer.0.convolution", "bn1": "layer.0.normalization", "conv2": "layer.1.convolution",
    "bn2": "layer.1.normalization", "conv3": "layer.2.convolution", "bn3": "layer.2.normalization",
    "downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization",
}  # fmt: skip


class Sizes(NamedTuple):
    """The sizes and variations of a network.

    Attributes:
      stem: channels of the first convolution.
      widths: channels of the output of each stage.
      depths: blocks of each stage.
      is_bottleneck: whether a block is a 3 x 3 convolution of a quarter of the channels between two 1 x 1 ones, instead
        of two 3 x 3 convolutions.
      strides_first: whether its first convolution has the strides, as in the paper, instead of the 3 x 3 one.
      halves_first: whether the first stage halves height and width, as all others do.
    """

    stem: int
    widths: list[int]
    depths: list[int]
    is_bottleneck: bool
    strides_first: bool = False
    halves_first: bool = False


def architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the network of a config.json of transformers (resnet) or of timm."""
    is_timm = "model_type" not in config
    sizes = _of_timm(config, where) if is_timm else _of_transformers(config, where)
    numbers = [(stage, index) for stage, depth in enumerate(sizes.depths) for index in range(depth)]

    def tensor(name: str) -> str:
        match = re.fullmatch(r"blocks\.(\d+)\.(.*)\.(\w+)", name)
        if match is None:
            stem = name.replace("conv1", "convolution").replace("bn1", "normalization")
            return name if is_timm else f"resnet.embedder.embedder.{stem}"
        block, layer, leaf = match.groups()
        stage, index = numbers[int(block)]
        if is_timm:
            return f"layer{stage + 1}.{index}.{layer}.{leaf}"
        return f"resnet.encoder.stages.{stage}.layers.{index}.{_TRANSFORMERS_NAMES[layer]}.{leaf}"

    return Architecture(
        inputs="images", build=functools.partial(ResNet, sizes), tensor=tensor,
        depth=lambda name: int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0, layers=len(numbers),
        head="fc" if is_timm else "classifier.1",
        canonical=lambda name: f"resnet.{name}" if name.startswith(("embedder.", "encoder.")) else name,
    )  # fmt: skip


def _of_transformers(config: Mapping[str, Any], where: str) -> Sizes:
    defaults = {"num_channels": 3, "downsample_in_bottleneck": False, "downsample_in_first_stage": False}
    supported = {
        "embedding_size": options.SIZE, "hidden_sizes": [options.SIZE], "depths": [options.BLOCKS],
        "layer_type": ("basic", "bottleneck"), "hidden_act": ("relu",), "num_channels": (3,),
        "downsample_in_bottleneck": (False, True), "downsample_in_first_stage": (False, True),
    }  # fmt: skip
    values = options.checked({**defaults, **config}, supported, where)
    widths, depths = values["hidden_sizes"], values["depths"]
    if len(widths) != len(depths):
        raise InputError(f"config.json of {where}: hidden_sizes and depths must have one number for each stage.")
    return Sizes(
        values["embedding_size"], widths, depths, values["layer_type"] == "bottleneck",
        values["downsample_in_bottleneck"], values["downsample_in_first_stage"],
    )  # fmt: skip


def _of_timm(config: Mapping[str, Any], where: str) -> Sizes:
    name = str(config["architecture"])
    number = int(name.removeprefix("resnet")) if re.fullmatch(r"resnet\d{2,3}", name, flags=re.ASCII) else 0
    if number not in _TIMM_DEPTHS:
        raise InputError(
            f"config.json of {where} names the architecture {name!r}; of timm's residual networks jaxcls has "
            f"{', '.join(f'resnet{number}' for number in _TIMM_DEPTHS)}."
        )
    values = options.timm(
        config, {"layers": _TIMM_DEPTHS[number], "channels": [64, 128, 256, 512], "global_pool": "avg"},
        {"layers": [options.BLOCKS] * 4, "channels": [options.SIZE] * 4, "global_pool": ("avg",)}, where,
    )  # fmt: skip
    is_bottleneck = number not in (18, 34)
    return Sizes(
        64, [4 * width if is_bottleneck else width for width in values["channels"]], values["layers"], is_bottleneck
    )


class ResNet(nnx.Module):
    """Maps images (N, H, W, 3) to features (N, features), the means over all pixels after the last block.

    Args:
      sizes: those of the checkpoint.
      dropout: not used; there is none before the classifier.
    """

    def __init__(self, sizes: Sizes, *, dtype: Any = jnp.float32, rngs: nnx.Rngs, dropout: float | None = None):
        self.features = sizes.widths[-1]
        self.conv1 = Conv(
            3, sizes.stem, kernel_size=(7, 7), strides=2, padding=3, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.bn1 = BatchNorm(sizes.stem, dtype=dtype, rngs=rngs)
        blocks, previous = [], sizes.stem
        for stage, (features, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
            for index in range(depth):
                strides = 2 if not index and (stage or sizes.halves_first) else 1
                blocks.append(_Block(previous, features, strides, sizes, dtype=dtype, rngs=rngs))
                previous = features
        self.blocks = nnx.Sequential(*blocks)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        x = kernels.overlapping_max_pool(nnx.relu(self.bn1(self.conv1(images))))
        x = self.blocks(x)
        return x.astype(jnp.float32).mean(axis=(1, 2)).astype(x.dtype)


class _Block(nnx.Module):
    """Two or three convolutions, added to their input or a projection of it."""

    def __init__(self, previous: int, features: int, strides: int, sizes: Sizes, *, dtype: Any, rngs: nnx.Rngs):
        conv = functools.partial(Conv, use_bias=False, dtype=dtype, rngs=rngs)
        norm = functools.partial(BatchNorm, dtype=dtype, rngs=rngs)
        self.is_bottleneck = sizes.is_bottleneck
        if sizes.is_bottleneck:
            narrow = features // 4
            first, second = (strides, 1) if sizes.strides_first else (1, strides)
            self.conv1, self.bn1 = conv(previous, narrow, kernel_size=(1, 1), strides=first), norm(narrow)
            self.conv2, self.bn2 = conv(narrow, narrow, strides=second, padding=1), norm(narrow)
            self.conv3, self.bn3 = conv(narrow, features, kernel_size=(1, 1)), norm(features)
        else:
            self.conv1, self.bn1 = conv(previous, features, strides=strides, padding=1), norm(features)
            self.conv2, self.bn2 = conv(features, features, padding=1), norm(features)
        projected = strides > 1 or previous != features
        shortcut = functools.partial(conv, previous, features, kernel_size=(1, 1), strides=strides, padding=0)
        self.downsample = nnx.Sequential(shortcut(), norm(features)) if projected else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        if self.is_bottleneck:
            y = self.bn3(self.conv3(nnx.relu(y)))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))
