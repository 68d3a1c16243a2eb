"""Text classifiers: n-grams that vote, a convolutional network, and a transformer encoder.

Each is a Flax NNX module that takes tokens, int32 (N, width), in which 0 is padding and stands at the end, and returns
float32 logits (N, num_classes). The width may be any up to max_length, and the logits of a text do not depend on how
much padding follows it. ``dtype`` is that of the computation; parameters are kept in float32.
"""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls.models.dense import Linear

# He et al. 2015, for layers that a ReLU follows.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
_embedding = nnx.initializers.normal(0.02)


class NGrams(nnx.Module):
    """Each n-gram of tokens has a vote for each class; those of a text are summed, the rarer ones counting more.

    This is logistic regression on TF-IDF (Jones 1972; scikit-learn's ``TfidfVectorizer`` with ``binary=True`` and
    ``smooth_idf=False``): what counts is which n-grams a text has, not how often; each weighs 1 + log of how many texts
    there are to one that has it, and the vector of the weights is brought to length 1. N-grams are hashed to rows, as
    in fastText (Joulin et al. 2016, arXiv 1607.01759). With a small vocabulary of pieces of words, they are pieces,
    words and phrases at once. An n-gram that no training text had has no weight.

    The texts that have an n-gram are counted while training; after each epoch the shares are those of the training
    texts.

    Args:
      orders: the longest n-grams.
      buckets: the rows of the table that n-grams of two tokens and more share, by their hash; single tokens have rows
        of their own. N-grams that meet in a row disturb each other: give a few times as many as there are.
      dropout: the rate at which n-grams are left out.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        vocabulary_size: int,
        max_length: int,
        orders: int = 4,
        buckets: int = 1 << 18,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.vocabulary_size, self.orders, self.buckets = vocabulary_size, orders, buckets
        rows = vocabulary_size + buckets
        # The loss is convex, so zero is as good a start as any, and the one that favours no class.
        self.votes = nnx.Embed(rows, num_classes, embedding_init=nnx.initializers.zeros, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.texts = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.texts_with = nnx.BatchStat(jnp.zeros(rows, jnp.int32))
        # As in nnx.BatchNorm: train() and eval() change it.
        self.use_running_average = False

    def __call__(self, tokens: jax.Array) -> jax.Array:
        chex.assert_rank(tokens, 2)
        rows, present = distinct(*ngram_rows(tokens, self.orders, self.vocabulary_size, self.buckets))
        if not self.use_running_average:
            self.texts[...] += len(tokens)
            self.texts_with[...] = self.texts_with[...].at[rows].add(present)
        texts_with = self.texts_with[...][rows]
        rarity = 1 + jnp.log(self.texts[...] / jnp.maximum(texts_with, 1))
        weight = jnp.where(present & (texts_with > 0), rarity, 0)
        norm = jnp.sqrt(jnp.maximum(jnp.square(weight).sum(axis=1, keepdims=True), 1))
        votes = self.votes(rows).astype(jnp.float32) * self.dropout(weight / norm)[..., None]
        return votes.sum(axis=1) + self.bias[...][None]


class CNN(nnx.Module):
    """Convolutions over windows of several sizes, each followed by its maximum over the text.

    Source: Kim 2014, "Convolutional Neural Networks for Sentence Classification" (arXiv 1408.5882), from scratch.

    Args:
      embedding: the width of a token's embedding.
      windows: the tokens that a convolution sees at once.
      channels: of each convolution.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        vocabulary_size: int,
        max_length: int,
        embedding: int = 96,
        windows: Sequence[int] = (3, 4, 5),
        channels: int = 64,
        dropout: float = 0.5,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.windows = tuple(windows)
        self.embedding = nnx.Embed(
            vocabulary_size, embedding, embedding_init=nnx.initializers.normal(0.1), dtype=dtype, rngs=rngs
        )
        # To hold layers: nnx.List is not in Flax 0.11, and a plain list is refused by 0.12.
        self.convolutions = nnx.Sequential(
            *(
                nnx.Linear(window * embedding, channels, kernel_init=_he_normal, dtype=dtype, rngs=rngs)
                for window in windows
            )
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(channels * len(windows), num_classes, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        chex.assert_rank(tokens, 2)
        present = (tokens != 0)[..., None]
        embedded = self.embedding(tokens) * present
        # As matrix products of the windows, which XLA's CPU backend takes in its stride, unlike convolutions in 1-D.
        features = [
            (nnx.relu(convolve(_shifted(embedded, window))) * present).max(axis=1)
            for window, convolve in zip(self.windows, self.convolutions.layers, strict=True)
        ]
        return self.head(self.dropout(jnp.concatenate(features, axis=-1).astype(jnp.float32)))


class Transformer(nnx.Module):
    """A transformer encoder (Vaswani et al. 2017, arXiv 1706.03762) with the average of its outputs as features.

    Norms stand before the layers (Xiong et al. 2020, arXiv 2002.04745), and positions are learned.

    Args:
      features: the width of the stream.
      layers: blocks of attention and a perceptron of four times that width.
      heads: of each attention.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        vocabulary_size: int,
        max_length: int,
        features: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.embedding = nnx.Embed(vocabulary_size, features, embedding_init=_embedding, dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(max_length, features, embedding_init=_embedding, dtype=dtype, rngs=rngs)
        self.blocks = nnx.Sequential(
            *(_Block(features, heads, dropout=dropout, dtype=dtype, rngs=rngs) for _ in range(layers))
        )
        self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.dropout = _Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(features, num_classes, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        chex.assert_rank(tokens, 2)
        present = tokens != 0
        positions = self.positions(jnp.arange(tokens.shape[1]))
        x = self.dropout(kernels.add_bias(self.embedding(tokens), positions))
        for block in self.blocks.layers:
            x = block(x, present)
        x = self.norm(x).astype(jnp.float32) * present[..., None]
        average = x.sum(axis=1) / jnp.maximum(present.sum(axis=1, keepdims=True), 1)
        return self.head(self.dropout(average))


class _Block(nnx.Module):
    def __init__(self, features: int, heads: int, *, dropout: float, dtype: Any, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.attention = _Attention(features, heads, dtype=dtype, rngs=rngs)
        self.norm2 = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.widen = Linear(features, 4 * features, dtype=dtype, rngs=rngs)
        self.narrow = Linear(4 * features, features, dtype=dtype, rngs=rngs)
        self.dropout = _Dropout(dropout, rngs=rngs)

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        x = x + self.dropout(self.attention(self.norm1(x), present))
        return x + self.dropout(self.narrow(nnx.gelu(self.widen(self.norm2(x)))))


class _Attention(nnx.Module):
    """Multi-head self-attention without biases: that of the keys moves all scores of a query alike."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        # Unlabeled, keys and values in one product, which is faster than three.
        self.inward = Linear(features, 3 * features, use_bias=False, dtype=dtype, rngs=rngs)
        self.outward = Linear(features, features, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        parts = jnp.split(self.inward(x), 3, axis=-1)
        query, key, value = (part.reshape(*x.shape[:2], self.heads, -1) for part in parts)
        return self.outward(kernels.attention(query, key, value, present).reshape(x.shape))


class _Dropout(nnx.Module):
    """``nnx.Dropout``, from fewer random bits."""

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        self.rate = rate
        # As in nnx.Dropout: this name is what train() and eval() of the whole model set.
        self.deterministic = False
        self.rngs = rngs["dropout"].fork()

    def __call__(self, x: jax.Array) -> jax.Array:
        return x if self.deterministic or not self.rate else kernels.dropout(self.rngs(), x, self.rate)


def ngram_rows(tokens: jax.Array, orders: int, vocabulary_size: int, buckets: int) -> tuple[jax.Array, jax.Array]:
    """The rows of a table in which the n-grams of one to ``orders`` tokens are looked up.

    Returns:
      rows: int32 (N, width * orders). Single tokens have the rows of their numbers, longer n-grams those that follow,
        by their hash.
      present: bool of the same shape, False where an n-gram would reach into the padding.

    >>> rows, present = ngram_rows(jnp.array([[3, 5, 0]]), orders=2, vocabulary_size=10, buckets=4)
    >>> rows[present].tolist()[:2], int(present.sum())
    ([3, 5], 3)
    """
    width = tokens.shape[1]
    following = jnp.pad(tokens, ((0, 0), (0, orders - 1)))
    code = jnp.zeros(tokens.shape, jnp.uint32)
    rows, present = [], [tokens != 0]
    for order in range(orders):
        token = following[:, order : order + width]
        # A polynomial of the tokens modulo 2^32, over the golden ratio.
        code = code * jnp.uint32(0x9E3779B1) + token.astype(jnp.uint32)
        rows.append(vocabulary_size + (_mixed(code) % buckets).astype(jnp.int32) if order else tokens)
        present.append(present[-1] & (token != 0))
    return jnp.concatenate(rows, axis=1), jnp.concatenate(present[1:], axis=1)


def distinct(rows: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each row number of a text once, in ascending order, and which places hold one; int32 and bool, (N, places).

    >>> rows, first = distinct(jnp.array([[7, 5, 7, 9]]), jnp.array([[True, True, True, False]]))
    >>> rows[first].tolist()
    [5, 7]
    """
    last = jnp.iinfo(rows.dtype).max
    ordered = jnp.sort(jnp.where(present, rows, last), axis=1)
    first = (ordered != last) & (ordered != jnp.pad(ordered, ((0, 0), (1, 0)), constant_values=-1)[:, :-1])
    return jnp.where(first, ordered, 0), first


def _mixed(code: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: every bit of the code moves every bit of the result."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        code = (code ^ (code >> shift)) * jnp.uint32(factor)
    return code ^ (code >> 16)


def _shifted(x: jax.Array, window: int) -> jax.Array:
    """The window of each place and those after it, (N, width, features) to (N, width, window * features)."""
    padded = jnp.pad(x, ((0, 0), (0, window - 1), (0, 0)))
    return jnp.concatenate([padded[:, place : place + x.shape[1]] for place in range(window)], axis=-1)
