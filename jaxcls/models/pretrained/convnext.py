"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545) and ConvNeXt V2 (Woo et al. 2023, arXiv 2301.00808)."""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.layers import Conv, Linear
from jaxcls.models.pretrained import options
from jaxcls.models.pretrained.architecture import Architecture

# In timm's names: channels of the first stage, which each stage doubles, and blocks of each stage.
_TIMM_SIZES = {
    "atto": (40, [2, 2, 6, 2]), "femto": (48, [2, 2, 6, 2]), "pico": (64, [2, 2, 6, 2]), "nano": (80, [2, 2, 8, 2]),
    "tiny": (96, [3, 3, 9, 3]), "small": (96, [3, 3, 27, 3]), "base": (128, [3, 3, 27, 3]),
    "large": (192, [3, 3, 27, 3]), "xlarge": (256, [3, 3, 27, 3]), "huge": (352, [3, 3, 27, 3]),
}  # fmt: skip
# The names of layers here and in timm, and those in transformers.
_TRANSFORMERS_NAMES = {
    "stem.0": "embeddings.patch_embeddings", "stem.1": "embeddings.layernorm", "head.norm": "layernorm",
    "downsample.0": "downsampling_layer.0", "downsample.1": "downsampling_layer.1", "conv_dw": "dwconv",
    "norm": "layernorm", "mlp.fc1": "pwconv1", "mlp.grn": "grn", "mlp.fc2": "pwconv2",
}  # fmt: skip


class Sizes(NamedTuple):
    """The sizes and variations of a network.

    Attributes:
      widths: channels of each stage.
      depths: blocks of each stage.
      is_v2: whether blocks have global response normalization, and no layer scale.
      conv_mlp: whether the dense layers of blocks have the shape of 1 x 1 convolutions.
      axes: number of axes of the parameters of global response normalization.
      patch: pixels of a side of the first convolution, which are also its strides.
      epsilon: of the last layer normalization.
      drop_path: rate at which training leaves out the last block, growing linearly from 0 at the first.
    """

    widths: list[int]
    depths: list[int]
    is_v2: bool
    conv_mlp: bool = False
    axes: int = 1
    patch: int = 4
    epsilon: float = 1e-6
    drop_path: float = 0.0


def architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the network of a config.json of transformers (convnext and convnextv2) or of timm."""
    family = config.get("model_type")
    sizes = _of_timm(config, where) if family is None else _of_transformers(config, where)
    numbers = [(stage, index) for stage, depth in enumerate(sizes.depths) for index in range(depth)]

    def tensor(name: str) -> str:
        match = re.fullmatch(r"blocks\.(\d+)\.(.*?)\.?(\w+)", name)
        if match is None:
            layer, leaf = name.rsplit(".", 1)
            return name if family is None else f"{family}.{_TRANSFORMERS_NAMES[layer]}.{leaf}"
        block, layer, leaf = match.groups()
        stage, index = numbers[int(block)]
        if family is None:
            inner = "" if layer.startswith("downsample") else f"blocks.{index}."
            return f"stages.{stage}.{inner}{name.split('.', 2)[2]}"
        inner = "" if layer.startswith("downsample") else f"layers.{index}."
        last = "layer_scale_parameter" if leaf == "gamma" else f"{_TRANSFORMERS_NAMES[layer]}.{leaf}"
        return f"{family}.encoder.stages.{stage}.{inner}{last}"

    def depth(name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith("stem.") else len(numbers)

    def canonical(name: str) -> str:
        return f"{family}.{name}" if name.startswith(("embeddings.", "encoder.", "layernorm.")) else name

    return Architecture(
        inputs="images", build=functools.partial(ConvNeXt, sizes), tensor=tensor, depth=depth, layers=len(numbers),
        head="head.fc" if family is None else "classifier", canonical=canonical,
    )  # fmt: skip


def _of_transformers(config: Mapping[str, Any], where: str) -> Sizes:
    defaults = {"num_channels": 3, "patch_size": 4, "layer_norm_eps": 1e-12, "drop_path_rate": 0.0}
    supported = {
        "hidden_sizes": [options.SIZE], "depths": [options.BLOCKS], "hidden_act": ("gelu",), "num_channels": (3,),
        "patch_size": range(1, 100), "layer_norm_eps": float, "drop_path_rate": float,
    }  # fmt: skip
    values = options.checked({**defaults, **config}, supported, where)
    if len(values["hidden_sizes"]) != len(values["depths"]):
        raise InputError(f"config.json of {where}: hidden_sizes and depths must have one number for each stage.")
    return Sizes(
        values["hidden_sizes"], values["depths"], config["model_type"] == "convnextv2", axes=4,
        patch=values["patch_size"], epsilon=values["layer_norm_eps"], drop_path=values["drop_path_rate"],
    )  # fmt: skip


def _of_timm(config: Mapping[str, Any], where: str) -> Sizes:
    name = str(config["architecture"])
    family, _, size = name.partition("_")
    if family not in ("convnext", "convnextv2") or size not in _TIMM_SIZES:
        raise InputError(
            f"config.json of {where} names the architecture {name!r}; of ConvNeXt jaxcls has convnext_tiny and "
            f"convnextv2_tiny, and instead of tiny {', '.join(_TIMM_SIZES)}."
        )
    width, depths = _TIMM_SIZES[size]
    defaults = {"dims": [width << stage for stage in range(4)], "depths": depths, "global_pool": "avg"}
    supported = {"dims": [options.SIZE], "depths": [options.BLOCKS], "global_pool": ("avg",), "drop_path_rate": float}
    values = options.timm(config, defaults, supported, where)
    if len(values["dims"]) != len(values["depths"]):
        raise InputError(f"config.json of {where}: dims and depths must have one number for each stage.")
    return Sizes(
        values["dims"], values["depths"], family == "convnextv2", conv_mlp=size in ("atto", "femto", "pico", "nano"),
        drop_path=values["drop_path_rate"],
    )  # fmt: skip


class ConvNeXt(nnx.Module):
    """Maps images (N, H, W, 3) to features (N, features), the normalized means over all pixels after the last block.

    Args:
      sizes: those of the checkpoint.
      dropout: another rate than ``sizes.drop_path``.
    """

    def __init__(self, sizes: Sizes, *, dtype: Any = jnp.float32, rngs: nnx.Rngs, dropout: float | None = None):
        self.features = sizes.widths[-1]
        self.stem = nnx.Sequential(
            _patches(3, sizes.widths[0], sizes.patch, dtype=dtype, rngs=rngs),
            nnx.LayerNorm(sizes.widths[0], epsilon=1e-6, dtype=dtype, rngs=rngs),
        )
        last_rate = sizes.drop_path if dropout is None else dropout
        blocks: list[_Block] = []
        for stage, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
            for index in range(depth):
                previous = sizes.widths[stage - 1] if stage and not index else None
                rate = last_rate * len(blocks) / max(1, sum(sizes.depths) - 1)
                blocks.append(_Block(previous, width, sizes, drop_path=rate, dtype=dtype, rngs=rngs))
        self.blocks = nnx.Sequential(*blocks)
        self.head = _Norm(self.features, sizes.epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        x = self.blocks(self.stem(images))
        return self.head(x.astype(jnp.float32).mean(axis=(1, 2)))


class _Norm(nnx.Module):
    def __init__(self, features: int, epsilon: float, *, dtype: Any, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(features, epsilon=epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(x)


def _patches(previous: int, width: int, side: int, *, dtype: Any, rngs: nnx.Rngs) -> Conv:
    return Conv(previous, width, kernel_size=(side, side), strides=side, padding=0, dtype=dtype, rngs=rngs)


class _Block(nnx.Module):
    """A depthwise convolution and two dense layers.

    Before them, the first block of a stage halves height and width of ``previous`` channels.
    """

    def __init__(self, previous: int | None, width: int, sizes: Sizes, *, drop_path: float, dtype: Any, rngs: nnx.Rngs):
        norm = functools.partial(nnx.LayerNorm, epsilon=1e-6, dtype=dtype, rngs=rngs)
        self.downsample = (
            None if previous is None
            else nnx.Sequential(norm(previous), _patches(previous, width, 2, dtype=dtype, rngs=rngs))
        )  # fmt: skip
        self.conv_dw = Conv(width, width, kernel_size=(7, 7), padding=3, groups=width, dtype=dtype, rngs=rngs)
        self.norm = norm(width)
        self.mlp = _FeedForward(width, sizes, dtype=dtype, rngs=rngs)
        self.gamma = None if sizes.is_v2 else nnx.Param(jnp.full(width, 1e-6))
        # Stochastic depth (Huang et al. 2016, arXiv 1603.09382): dropout of the whole block for an image.
        self.drop_path = nnx.Dropout(drop_path, broadcast_dims=(1, 2, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.downsample is None else self.downsample(x)
        y = self.mlp(self.norm(self.conv_dw(x)))
        if self.gamma is not None:
            y = y * self.gamma[...].astype(y.dtype)[None, None, None]
        return x + self.drop_path(y)


class _FeedForward(nnx.Module):
    def __init__(self, width: int, sizes: Sizes, *, dtype: Any, rngs: nnx.Rngs):
        dense = functools.partial(Conv, kernel_size=(1, 1)) if sizes.conv_mlp else Linear
        self.fc1 = dense(width, 4 * width, dtype=dtype, rngs=rngs)
        self.grn = _ResponseNorm(4 * width, sizes.axes) if sizes.is_v2 else None
        self.fc2 = dense(4 * width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.gelu(self.fc1(x), approximate=False)
        return self.fc2(y if self.grn is None else self.grn(y))


class _ResponseNorm(nnx.Module):
    """Global response normalization: scales each channel by its norm over all pixels, relative to other channels."""

    def __init__(self, channels: int, axes: int):
        shape = (*(axes - 1) * [1], channels)
        self.scale, self.bias = nnx.Param(jnp.zeros(shape)), nnx.Param(jnp.zeros(shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        squares = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        # The derivative of the root at 0 is infinite.
        norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        share = norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)
        scale = 1 + self.scale[...].reshape(1, 1, 1, -1) * share
        return x * scale.astype(x.dtype) + self.bias[...].reshape(1, 1, 1, -1).astype(x.dtype)
