"""Vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929), and the same networks trained in other ways.

These are DeiT (Touvron et al. 2020, arXiv 2012.12877; 2022, arXiv 2204.07118) and DINOv2 (Oquab et al. 2023, arXiv
2304.07193), with or without registers (Darcet et al. 2023, arXiv 2309.16588).
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcls import kernels
from jaxcls._utils.errors import InputError
from jaxcls.models.layers import Conv, Dropout, Linear
from jaxcls.models.pretrained import options
from jaxcls.models.pretrained.architecture import Architecture

# In timm's names: features, blocks and attention heads.
_TIMM_SIZES = {
    "tiny": (192, 12, 3), "small": (384, 12, 6), "medium": (512, 12, 8), "base": (768, 12, 12),
    "large": (1024, 24, 16), "huge": (1280, 32, 16),
}  # fmt: skip
_TIMM_NAME = re.compile(
    rf"(vit|deit3?)_({'|'.join(_TIMM_SIZES)})_patch(\d+)_(?:\d+|(dinov2)|(reg4_dinov2))", flags=re.ASCII
)
# The names of layers here and in timm, and those in transformers.
_TRANSFORMERS_NAMES = {
    r"^(cls_token|distillation_token)": r"embeddings.\1",
    r"^pos_embed": "embeddings.position_embeddings",
    r"^reg_token": "embeddings.register_tokens",
    r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"^norm\.": "layernorm.",
    r"^blocks\.": "encoder.layer.",
    r"\.attn\.proj": ".attention.output.dense",
    r"\.attn\.": ".attention.attention.",
    r"\.ls(\d)\.gamma": r".layer_scale\1.lambda1",
}
_BEFORE_DINOV2 = {
    r"\.norm1": ".layernorm_before",
    r"\.norm2": ".layernorm_after",
    r"\.mlp\.fc1": ".intermediate.dense",
    r"\.mlp\.fc2": ".output.dense",
}


class Sizes(NamedTuple):
    """The sizes and variations of a network.

    Attributes:
      hidden: width of the feed-forward layers.
      image: height and width of the images that the position embeddings are for.
      patch: pixels of a side of a patch.
      epsilon: of layer normalization.
      bias: whether the projections to queries, keys and values have biases.
      joined: whether these are one layer.
      is_distilled: whether there is a token of distillation, whose output is not used.
      registers: number of tokens without position embeddings.
      embeds_class: whether the first token has a position embedding.
      layer_scale: whether the outputs of layers are scaled before they are added (arXiv 2103.17239).
      with_mean: whether the features are those of the first token and the mean of the patches.
      antialias: whether position embeddings are smoothed before they are interpolated to fewer patches.
      dropout: rate after the embeddings and after each attention and feed-forward layer.
    """

    features: int
    blocks: int
    heads: int
    hidden: int
    image: tuple[int, int]
    patch: int
    epsilon: float
    bias: bool = True
    joined: bool = False
    is_distilled: bool = False
    registers: int = 0
    embeds_class: bool = True
    layer_scale: bool = False
    with_mean: bool = False
    antialias: bool = False
    dropout: float = 0.0


def architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the network of a config.json of transformers (vit, deit and dinov2) or of timm."""
    family = config.get("model_type")
    is_timm = family is None
    sizes = _of_timm(config, where) if is_timm else _of_transformers(config, where)
    if sizes.features % sizes.heads:
        raise InputError(f"config.json of {where}: {sizes.heads} heads do not divide {sizes.features} features evenly.")
    if min(sizes.image) < sizes.patch:
        raise InputError(f"config.json of {where}: patches of {sizes.patch} pixels exceed the image of {sizes.image}.")
    prefix = "" if is_timm else f"{family}."
    renamed = {} if is_timm else _TRANSFORMERS_NAMES
    if family in ("vit", "deit"):
        renamed = _TRANSFORMERS_NAMES | _BEFORE_DINOV2

    def tensor(name: str) -> str:
        for pattern, replacement in renamed.items():
            name = re.sub(pattern, replacement, name)
        return prefix + name

    def depth(name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return sizes.blocks if name.startswith("norm.") else 0

    def canonical(name: str) -> str:
        return prefix + name if name.startswith(("embeddings.", "encoder.", "layernorm.", "pooler.")) else name

    return Architecture(
        inputs="images", build=functools.partial(VisionTransformer, sizes), tensor=tensor, depth=depth,
        layers=sizes.blocks, head="head" if is_timm else "classifier", canonical=canonical,
        other=rf"{prefix}(pooler\..*|embeddings\.mask_token)|(cls|distillation)_classifier\..*",
    )  # fmt: skip


def _of_transformers(config: Mapping[str, Any], where: str) -> Sizes:
    family = config["model_type"]
    is_dinov2, has_registers = family.startswith("dinov2"), family == "dinov2_with_registers"
    # What files can leave out.
    defaults = {"num_channels": 3, "qkv_bias": True, "use_swiglu_ffn": False}
    supported: dict[str, Any] = {
        "hidden_size": options.SIZE, "num_hidden_layers": options.BLOCKS, "num_attention_heads": options.SIZE,
        "image_size": options.SIZE, "patch_size": options.SIZE, "num_channels": (3,), "hidden_act": ("gelu",),
        "layer_norm_eps": float, "hidden_dropout_prob": float, "qkv_bias": (True, False),
    }  # fmt: skip
    if is_dinov2:
        supported |= {"mlp_ratio": range(1, 100), "use_swiglu_ffn": (False,)}
    else:
        supported["intermediate_size"] = options.SIZE
    if has_registers:
        supported["num_register_tokens"] = range(1, 100)
    values = options.checked({**defaults, **config}, supported, where)
    return Sizes(
        features=values["hidden_size"],
        blocks=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        hidden=values["hidden_size"] * values["mlp_ratio"] if is_dinov2 else values["intermediate_size"],
        image=(values["image_size"], values["image_size"]),
        patch=values["patch_size"],
        epsilon=values["layer_norm_eps"],
        bias=values["qkv_bias"],
        is_distilled=family == "deit",
        registers=values.get("num_register_tokens", 0),
        layer_scale=is_dinov2,
        with_mean=is_dinov2,
        antialias=has_registers,
        dropout=values["hidden_dropout_prob"],
    )


def _of_timm(config: Mapping[str, Any], where: str) -> Sizes:
    match = _TIMM_NAME.fullmatch(str(config["architecture"]))
    if match is None:
        raise InputError(
            f"config.json of {where} names the architecture {config['architecture']!r}; of timm's vision transformers "
            "jaxcls has those such as vit_tiny_patch16_224, deit_small_patch16_224, deit3_base_patch16_224, "
            "vit_small_patch14_dinov2 and vit_small_patch14_reg4_dinov2."
        )
    family, size, patch, dinov2, reg4_dinov2 = match.groups()
    features, blocks, heads = _TIMM_SIZES[size]
    defaults = {"patch_size": int(patch), "embed_dim": features, "depth": blocks, "num_heads": heads}
    supported = {
        "patch_size": options.SIZE, "embed_dim": options.SIZE, "depth": options.BLOCKS, "num_heads": options.SIZE,
        "img_size": [options.SIZE, options.SIZE], "global_pool": ("token",), "dynamic_img_size": (False, True),
    }  # fmt: skip
    values = options.timm(config, {"global_pool": "token", "dynamic_img_size": True, **defaults}, supported, where)
    height, width = values["img_size"]
    return Sizes(
        features=values["embed_dim"],
        blocks=values["depth"],
        heads=values["num_heads"],
        hidden=4 * values["embed_dim"],
        image=(height, width),
        patch=values["patch_size"],
        epsilon=1e-6,
        joined=True,
        registers=4 if reg4_dinov2 else 0,
        embeds_class=not (reg4_dinov2 or family == "deit3"),
        layer_scale=bool(dinov2 or reg4_dinov2 or family == "deit3"),
        antialias=True,
    )


class VisionTransformer(nnx.Module):
    """Maps images (N, H, W, 3) to features (N, features), those of the first token after the last normalization.

    Images may have any size: for other ones than in training, the position embeddings are interpolated. Training drops
    neither attention weights nor whole blocks.

    Args:
      sizes: those of the checkpoint.
      dropout: another rate than ``sizes.dropout``.
    """

    def __init__(self, sizes: Sizes, *, dtype: Any = jnp.float32, rngs: nnx.Rngs, dropout: float | None = None):
        features = sizes.features
        self.sizes = sizes._replace(dropout=sizes.dropout if dropout is None else dropout)
        self.features = 2 * features if sizes.with_mean else features
        self.grid = (sizes.image[0] // sizes.patch, sizes.image[1] // sizes.patch)

        def tokens(count: int) -> nnx.Param[jax.Array]:
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, count, features)))

        self.cls_token = tokens(1)
        self.distillation_token = tokens(1) if sizes.is_distilled else None
        self.reg_token = tokens(sizes.registers) if sizes.registers else None
        self.pos_embed = tokens(sizes.embeds_class + sizes.is_distilled + self.grid[0] * self.grid[1])
        self.patch_embed = _PatchEmbedding(sizes, dtype=dtype, rngs=rngs)
        self.dropout = Dropout(self.sizes.dropout, rngs=rngs)
        self.blocks = nnx.Sequential(*(_Block(self.sizes, dtype=dtype, rngs=rngs) for _ in range(sizes.blocks)))
        self.norm = nnx.LayerNorm(features, epsilon=sizes.epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        chex.assert_rank(images, 4)
        patches = self.patch_embed(images)
        tokens = [self.cls_token[...]]
        if self.distillation_token is not None:
            tokens.append(self.distillation_token[...])
        positions = self.pos_embed[...]
        counted = positions.shape[1] - self.grid[0] * self.grid[1]
        if counted:
            tokens = [jnp.concatenate(tokens, axis=1) + positions[:, :counted]]
        if self.reg_token is not None:
            tokens.append(self.reg_token[...])
        grid = positions[0, counted:].reshape(*self.grid, -1)
        added = resized(grid, patches.shape[1], patches.shape[2], antialias=self.sizes.antialias)
        patches = kernels.add_bias(patches, added.astype(patches.dtype))
        first = jnp.concatenate(tokens, axis=1).astype(patches.dtype)
        first = jnp.broadcast_to(first, (patches.shape[0], *first.shape[1:]))
        x = jnp.concatenate([first, patches.reshape(patches.shape[0], -1, patches.shape[3])], axis=1)
        x = self.norm(self.blocks(self.dropout(x)))
        if not self.sizes.with_mean:
            return x[:, 0]
        return jnp.concatenate([x[:, 0], x[:, first.shape[1] :].mean(axis=1)], axis=-1)


class _PatchEmbedding(nnx.Module):
    def __init__(self, sizes: Sizes, *, dtype: Any, rngs: nnx.Rngs):
        self.proj = Conv(
            3, sizes.features, kernel_size=(sizes.patch, sizes.patch), strides=sizes.patch, padding=0, dtype=dtype,
            rngs=rngs,
        )  # fmt: skip

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.proj(images)


class _Block(nnx.Module):
    def __init__(self, sizes: Sizes, *, dtype: Any, rngs: nnx.Rngs):
        norm = functools.partial(nnx.LayerNorm, sizes.features, epsilon=sizes.epsilon, dtype=dtype, rngs=rngs)
        self.norm1, self.norm2 = norm(), norm()
        self.attn = _Attention(sizes, dtype=dtype, rngs=rngs)
        self.mlp = _FeedForward(sizes, dtype=dtype, rngs=rngs)
        self.ls1 = _Scale(sizes.features) if sizes.layer_scale else None
        self.ls2 = _Scale(sizes.features) if sizes.layer_scale else None
        self.dropout = Dropout(sizes.dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.dropout(self.attn(self.norm1(x)))
        x = x + (y if self.ls1 is None else self.ls1(y))
        y = self.dropout(self.mlp(self.norm2(x)))
        return x + (y if self.ls2 is None else self.ls2(y))


class _Attention(nnx.Module):
    def __init__(self, sizes: Sizes, *, dtype: Any, rngs: nnx.Rngs):
        linear = functools.partial(Linear, sizes.features, dtype=dtype, rngs=rngs)
        self.heads = sizes.heads
        self.qkv = linear(3 * sizes.features, use_bias=sizes.bias) if sizes.joined else None
        if not sizes.joined:
            self.query, self.key, self.value = (linear(sizes.features, use_bias=sizes.bias) for _ in range(3))
        self.proj = linear(sizes.features)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.qkv is None:
            projections = [self.query(x), self.key(x), self.value(x)]
        else:
            projections = jnp.split(self.qkv(x), 3, axis=-1)
        query, key, value = (projection.reshape(*x.shape[:2], self.heads, -1) for projection in projections)
        everything = jnp.ones(x.shape[:2], bool)
        return self.proj(kernels.attention(query, key, value, everything).reshape(x.shape))


class _FeedForward(nnx.Module):
    def __init__(self, sizes: Sizes, *, dtype: Any, rngs: nnx.Rngs):
        self.fc1 = Linear(sizes.features, sizes.hidden, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(sizes.hidden, sizes.features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class _Scale(nnx.Module):
    def __init__(self, features: int):
        self.gamma = nnx.Param(jnp.ones(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)[None, None]


def resized(grid: jax.Array, height: int, width: int, *, antialias: bool) -> jax.Array:
    """Returns a grid (rows, columns, features) with another number of rows and columns, by bicubic interpolation.

    With ``antialias`` as in Pillow, otherwise as in PyTorch, where the bicubic kernel has another parameter.
    """
    rows, columns, features = grid.shape
    if (height, width) == (rows, columns):
        return grid
    if antialias:
        return jax.image.resize(grid, (height, width, features), "cubic")
    return jnp.einsum("ir,jc,rcf->ijf", _bicubic(rows, height), _bicubic(columns, width), grid)


def _bicubic(old: int, new: int) -> np.ndarray:
    """Returns the weights of ``old`` samples in ``new`` ones, (new, old) (Keys 1981, with the parameter -0.75)."""
    position = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old), np.float32)
    for offset in range(-1, 3):
        index = np.floor(position).astype(int) + offset
        distance = np.abs(position - index)
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        np.add.at(weights, (np.arange(new), index.clip(0, old - 1)), np.where(distance <= 1, near, far))
    return weights
