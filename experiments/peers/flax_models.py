"""The models as plain Flax NNX modules, without jaxcls."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from peers import workloads


def build(model: str, rngs: nnx.Rngs) -> nnx.Module:
    return {"mlp": _MLP, "cnn": _CNN, "resnet": _ResNet, "transformer": _Transformer}[model](rngs)


class _MLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        first, second = workloads.HIDDEN
        self.linear1 = nnx.Linear(28 * 28, first, rngs=rngs)
        self.linear2 = nnx.Linear(first, second, rngs=rngs)
        self.head = nnx.Linear(second, workloads.ARTICLES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.linear1(images.reshape(len(images), -1)))
        return self.head(nnx.relu(self.linear2(x)))


class _CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        first, second = workloads.CHANNELS
        self.conv1 = nnx.Conv(1, first, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(first, second, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(7 * 7 * second, workloads.DENSE, rngs=rngs)
        self.head = nnx.Linear(workloads.DENSE, workloads.ARTICLES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.conv1(images)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        return self.head(nnx.relu(self.dense(x.reshape(len(x), -1))))


class _ResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        previous = workloads.WIDTHS[0]
        self.stem = nnx.Conv(1, previous, (3, 3), use_bias=False, rngs=rngs)
        blocks = []
        for stage, width in enumerate(workloads.WIDTHS):
            blocks.append(_ResidualBlock(previous, width, 2 if stage else 1, rngs))
            previous = width
        self.blocks = nnx.Sequential(*blocks)
        self.norm = _batch_norm(previous, rngs)
        self.head = nnx.Linear(previous, workloads.ARTICLES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.norm(self.blocks(self.stem(images)))).mean((1, 2)))


class _ResidualBlock(nnx.Module):
    def __init__(self, previous: int, width: int, stride: int, rngs: nnx.Rngs):
        self.norm1, self.norm2 = _batch_norm(previous, rngs), _batch_norm(width, rngs)
        self.conv1 = nnx.Conv(previous, width, (3, 3), stride, use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(width, width, (3, 3), use_bias=False, rngs=rngs)
        self.shortcut = (
            nnx.Conv(previous, width, (1, 1), stride, use_bias=False, rngs=rngs) if previous != width else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        activated = nnx.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(nnx.relu(self.norm2(self.conv1(activated))))


def _batch_norm(channels: int, rngs: nnx.Rngs) -> Any:
    return nnx.BatchNorm(
        channels, momentum=workloads.BATCH_NORM_MOMENTUM, epsilon=workloads.BATCH_NORM_EPSILON, rngs=rngs
    )


class _Transformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        width = workloads.FEATURES
        self.tokens = nnx.Embed(workloads.VOCABULARY, width, rngs=rngs)
        self.positions = nnx.Embed(workloads.LENGTH, width, rngs=rngs)
        # Flax 0.11 has no nnx.List, and 0.12 refuses plain lists of layers.
        self.layers = nnx.Sequential(*(_Layer(rngs) for _ in range(workloads.LAYERS)))
        self.norm = _layer_norm(rngs)
        self.dropout = nnx.Dropout(workloads.DROPOUT, rngs=rngs)
        self.head = nnx.Linear(width, workloads.SENTIMENTS, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        present = tokens != 0
        x = self.dropout(self.tokens(tokens) + self.positions(jnp.arange(workloads.LENGTH))[None])
        for layer in self.layers.layers:
            x = layer(x, present)
        x = self.norm(x) * present[..., None]
        average = x.sum(1) / jnp.maximum(present.sum(1, keepdims=True), 1)
        return self.head(self.dropout(average))


class _Layer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        width = workloads.FEATURES
        self.norm1, self.norm2 = _layer_norm(rngs), _layer_norm(rngs)
        self.attention = nnx.MultiHeadAttention(workloads.HEADS, width, use_bias=False, decode=False, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(workloads.DROPOUT, rngs=rngs)

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        x = x + self.dropout(self.attention(self.norm1(x), mask=present[:, None, None, :]))
        return x + self.dropout(self.narrow(nnx.gelu(self.widen(self.norm2(x)))))


def _layer_norm(rngs: nnx.Rngs) -> Any:
    return nnx.LayerNorm(workloads.FEATURES, epsilon=workloads.LAYER_NORM_EPSILON, rngs=rngs)
