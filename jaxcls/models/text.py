"""Text classifiers: a linear model of n-grams, a convolutional network and a transformer encoder.

Each is a Flax NNX module that maps tokens, int32 (N, width) with 0 as padding at the end, to float32 logits
(N, num_classes). The width may be anything up to ``max_length``; the logits of a text do not depend on the amount of
padding. ``dtype`` is the type of the computation; parameters are stored in float32.
"""

import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls.models.layers import Dropout, Linear, he_normal, head

_embedding = nnx.initializers.normal(0.02)
# The bias is part of every text, and an n-gram a small part of few: at one learning rate, the bias would overshoot.
_BIAS = 0.2


class NGramClassifier(nnx.Module):
    """Logistic regression on the TF-IDF weights of hashed n-grams of tokens.

    The weights are those of scikit-learn's ``TfidfVectorizer`` with ``binary=True`` and ``smooth_idf=False``: an n-gram
    that occurs in a text, however often, weighs 1 + log(number of texts / number of texts with it), and the weights of
    a text have L2 norm 1. N-grams are hashed to rows, as in fastText (Joulin et al. 2016, arXiv 1607.01759). An n-gram
    that occurs in no training text weighs 0.

    The document frequencies are part of the model state: training counts them, and they are exact after each epoch.

    Args:
      vocabulary_size: number of token ids.
      max_length: not used; all text models take it.
      orders: length of the longest n-grams, in tokens.
      buckets: number of rows that n-grams of two or more tokens are hashed to; single tokens have their own rows.
        Colliding n-grams share their weights: choose a few times the number of distinct n-grams.
      dropout: rate at which n-grams are dropped.
    """

    def __init__(
        self, num_classes: int, *, vocabulary_size: int, max_length: int, orders: int = 4, buckets: int = 1 << 18,
        dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.vocabulary_size, self.orders, self.buckets = vocabulary_size, orders, buckets
        rows = vocabulary_size + buckets
        # The loss is convex, so any start is as good, and only zero favors no class.
        self.votes = nnx.Embed(rows, num_classes, embedding_init=nnx.initializers.zeros, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.texts = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.texts_with = nnx.BatchStat(jnp.zeros(rows, jnp.int32))
        # train() and eval() set this attribute, as in nnx.BatchNorm.
        self.use_running_average = False

    def __call__(self, tokens: jax.Array) -> jax.Array:
        chex.assert_rank(tokens, 2)
        rows, present = distinct(*self._ngrams(tokens))
        if not self.use_running_average:
            self.texts[...] += len(tokens)
            self.texts_with[...] = self.texts_with[...].at[rows].add(present)
        weight = self._weight(rows, present)
        norm = jnp.sqrt(jnp.maximum(jnp.square(weight).sum(axis=1, keepdims=True), 1))
        votes = self.votes(rows).astype(jnp.float32) * self.dropout(weight / norm)[..., None]
        return votes.sum(axis=1) + _BIAS * self.bias[...][None]

    def contributions(self, tokens: jax.Array) -> jax.Array:
        """Returns the part that each token has in the logits, float32 (N, width, num_classes); the bias is no part.

        Each token of an n-gram has an equal share of its vote, and each occurrence of an n-gram in the text too.
        """
        rows, present = self._ngrams(tokens)
        same = (rows[:, :, None] == rows[:, None, :]) & present[:, None, :]
        occurrences = jnp.maximum(same.sum(axis=2), 1)
        weight = self._weight(rows, present)
        norm = jnp.sqrt(jnp.maximum((jnp.square(weight) / occurrences).sum(axis=1, keepdims=True), 1))
        votes = self.votes(rows).astype(jnp.float32) * (weight / norm / occurrences)[..., None]
        width = tokens.shape[1]
        shares = jnp.zeros((len(tokens), width, votes.shape[-1]))
        for order in range(self.orders):
            of_order = votes[:, order * width : (order + 1) * width] / (order + 1)
            for offset in range(min(order + 1, width)):
                shares = shares.at[:, offset:].add(of_order[:, : width - offset])
        return shares

    def _ngrams(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        return ngram_rows(tokens, self.orders, self.vocabulary_size, self.buckets)

    def _weight(self, rows: jax.Array, present: jax.Array) -> jax.Array:
        texts_with = self.texts_with[...][rows]
        rarity = 1 + jnp.log(self.texts[...] / jnp.maximum(texts_with, 1))
        return jnp.where(present & (texts_with > 0), rarity, 0)


class TextCNN(nnx.Module):
    """Convolutions over windows of several sizes, each followed by ReLU and the maximum over the text.

    Source: Kim 2014, "Convolutional Neural Networks for Sentence Classification" (arXiv 1408.5882), without pretrained
    embeddings.

    Args:
      vocabulary_size: number of token ids.
      max_length: not used; all text models take it.
      embedding: width of the token embeddings.
      windows: window size of each convolution, in tokens.
      channels: output channels of each convolution.
      dropout: rate before the output layer.
    """

    def __init__(
        self, num_classes: int, *, vocabulary_size: int, max_length: int, embedding: int = 96,
        windows: Sequence[int] = (3, 4, 5), channels: int = 64, dropout: float = 0.5, dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.windows = tuple(windows)
        self.embedding = nnx.Embed(
            vocabulary_size, embedding, embedding_init=nnx.initializers.normal(0.1), dtype=dtype, rngs=rngs
        )
        linear = functools.partial(nnx.Linear, kernel_init=he_normal, dtype=dtype, rngs=rngs)
        # A Sequential as a list: nnx.List is not in Flax 0.11, and Flax 0.12 rejects plain lists of modules.
        self.convolutions = nnx.Sequential(*(linear(window * embedding, channels) for window in windows))
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = head(channels * len(windows), num_classes, rngs=rngs, layer=nnx.Linear)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        chex.assert_rank(tokens, 2)
        present = (tokens != 0)[..., None]
        embedded = self.embedding(tokens) * present
        # As matrix products of windows: XLA's CPU backend is slow at one-dimensional convolutions.
        features = [
            (nnx.relu(convolve(_windows(embedded, window))) * present).max(axis=1)
            for window, convolve in zip(self.windows, self.convolutions.layers, strict=True)
        ]
        return self.head(self.dropout(jnp.concatenate(features, axis=-1).astype(jnp.float32)))


class Transformer(nnx.Module):
    """A transformer encoder (Vaswani et al. 2017, arXiv 1706.03762) with mean pooling.

    It has pre-layer normalization (Xiong et al. 2020, arXiv 2002.04745) and learned position embeddings.

    Args:
      vocabulary_size: number of token ids.
      max_length: number of positions.
      features: width of the residual stream; the feed-forward layers are four times as wide.
      layers: number of blocks.
      heads: attention heads per block.
      dropout: rate after the embedding, after each attention and feed-forward layer, and before the output layer.
    """

    def __init__(
        self, num_classes: int, *, vocabulary_size: int, max_length: int, features: int = 128, layers: int = 2,
        heads: int = 4, dropout: float = 0.1, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.embedding = nnx.Embed(vocabulary_size, features, embedding_init=_embedding, dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(max_length, features, embedding_init=_embedding, dtype=dtype, rngs=rngs)
        block = functools.partial(_Block, features, heads, dropout=dropout, dtype=dtype, rngs=rngs)
        self.blocks = nnx.Sequential(*(block() for _ in range(layers)))
        self.norm = nnx.LayerNorm(features, dtype=dtype, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.head = head(features, num_classes, rngs=rngs, layer=nnx.Linear)

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
        self.dropout = Dropout(dropout, rngs=rngs)

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        x = x + self.dropout(self.attention(self.norm1(x), present))
        return x + self.dropout(self.narrow(nnx.gelu(self.widen(self.norm2(x)))))


class _Attention(nnx.Module):
    """Multi-head self-attention without biases: a bias of the keys would shift all scores of a query equally."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        # Queries, keys and values in one product, which is faster than three.
        self.inward = Linear(features, 3 * features, use_bias=False, dtype=dtype, rngs=rngs)
        self.outward = Linear(features, features, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        projections = jnp.split(self.inward(x), 3, axis=-1)
        query, key, value = (projection.reshape(*x.shape[:2], self.heads, -1) for projection in projections)
        return self.outward(kernels.attention(query, key, value, present).reshape(x.shape))


def ngram_rows(tokens: jax.Array, orders: int, vocabulary_size: int, buckets: int) -> tuple[jax.Array, jax.Array]:
    """Returns the table rows of all n-grams of one to ``orders`` tokens of each text.

    Args:
      tokens: int32 (N, width), 0 is padding.
      orders: length of the longest n-grams.
      vocabulary_size: rows 0 to ``vocabulary_size - 1`` are single tokens.
      buckets: number of rows after these, to which longer n-grams are hashed.

    Returns:
      The rows, int32 (N, width * orders), and a bool mask of the same shape, False where an n-gram would include
      padding.

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
        # A polynomial of the tokens modulo 2^32, evaluated at the golden ratio times 2^32.
        code = code * jnp.uint32(0x9E3779B1) + token.astype(jnp.uint32)
        rows.append(vocabulary_size + (_mixed(code) % buckets).astype(jnp.int32) if order else tokens)
        present.append(present[-1] & (token != 0))
    return jnp.concatenate(rows, axis=1), jnp.concatenate(present[1:], axis=1)


def distinct(rows: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the distinct present rows of each text in ascending order, padded with 0, and a mask of the valid ones.

    Args:
      rows: int32 (N, n-grams).
      present: bool of the same shape.

    Returns:
      The rows and the mask, both in the shape of ``rows``.

    >>> rows, first = distinct(jnp.array([[7, 5, 7, 9]]), jnp.array([[True, True, True, False]]))
    >>> rows[first].tolist()
    [5, 7]
    """
    last = jnp.iinfo(rows.dtype).max
    ordered = jnp.sort(jnp.where(present, rows, last), axis=1)
    first = (ordered != last) & (ordered != jnp.pad(ordered, ((0, 0), (1, 0)), constant_values=-1)[:, :-1])
    return jnp.where(first, ordered, 0), first


def _mixed(code: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: every input bit affects every output bit."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        code = (code ^ (code >> shift)) * jnp.uint32(factor)
    return code ^ (code >> 16)


def _windows(x: jax.Array, size: int) -> jax.Array:
    """Concatenates each element with the ``size - 1`` after it: (N, width, features) to (N, width, size * features)."""
    padded = jnp.pad(x, ((0, 0), (0, size - 1), (0, 0)))
    return jnp.concatenate([padded[:, offset : offset + x.shape[1]] for offset in range(size)], axis=-1)
