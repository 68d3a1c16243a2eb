"""Tabular classifiers: a linear model, and a multilayer perceptron with embeddings of numbers and categories.

Each is a Flax NNX module that maps the features of :mod:`jaxcls.data.preprocessing.tables` to float32 logits (N,
num_classes). The features are a dict: "numeric", standardized numbers, float32 (N, F); "missing", 1 where a number of a
flagged column is missing, float32 (N, M); "categories", category indices with 0 for unknown ones, int32 (N, C); and for
texts "ngrams", vectors of the n-grams that occur, float32 (N, K). ``dtype`` is the type of the computation; parameters
are stored in float32.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcls import kernels

Table = Mapping[str, jax.Array]

# He et al. 2015 for layers followed by a ReLU, LeCun et al. 1998 for the last one; the fan-in is that of one member.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal", batch_axis=0)
_lecun_normal = nnx.initializers.lecun_normal(batch_axis=0)


class TabularLinear(nnx.Module):
    """A linear model of the numbers and the one-hot categories; with cross-entropy, logistic regression.

    Args:
      bins: bin edges of each numeric column; only their number is used.
      flags: number of columns of "missing".
      cardinalities: number of indices of each category column, the unknown one included.
      ngrams: number of n-grams of texts.
      dropout: rate at which features are dropped.
    """

    def __init__(
        self, num_classes: int, *, bins: Sequence[Sequence[float]], flags: int, cardinalities: Sequence[int],
        ngrams: int = 0, dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.cardinalities = tuple(cardinalities)
        self.ngrams = ngrams
        width = len(bins) + flags + sum(cardinalities) - len(cardinalities) + ngrams
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        # The loss is convex, so any start is as good, and only zero favors no class.
        zeros = nnx.initializers.zeros
        self.head = nnx.Linear(
            width, num_classes, kernel_init=zeros, dot_general=kernels.dot_general, dtype=dtype, rngs=rngs
        )

    def __call__(self, table: Table) -> jax.Array:
        # Index 0, an unknown category, becomes zeros.
        one_hot = [
            jax.nn.one_hot(table["categories"][:, column] - 1, cardinality - 1)
            for column, cardinality in enumerate(self.cardinalities)
        ]
        texts = [table["ngrams"]] if self.ngrams else []
        features = jnp.concatenate([table["numeric"], table["missing"], *one_hot, *texts], axis=1)
        return self.head(self.dropout(features)).astype(jnp.float32)


class TabularMLP(nnx.Module):
    """A multilayer perceptron on piecewise linear encodings of numbers and embeddings of categories, or an ensemble.

    The encoding is :class:`PiecewiseLinear`, with quantiles of the training rows as bin edges. The standardized numbers
    are inputs too, for values outside the range of the training rows.

    With several members the model is an ensemble, whose output is their mean. In training, row i of a batch is that of
    member i modulo their number, so that training takes no longer than that of one member. The expected gradient is
    that of the mean of the members' losses, for any loss: with the loss of the mean, each member would learn only the
    residual of the others. See Gorishniy et al. 2024, "TabM" (arXiv 2410.24210).

    Args:
      bins: bin edges of each numeric column; fewer than two give no bin.
      flags: number of columns of "missing".
      cardinalities: number of indices of each category column, the unknown one included.
      hidden: widths of the hidden layers.
      members: number of perceptrons; they share the category embeddings.
      embedding: width of the category embeddings.
      ngrams: number of n-grams of texts, which vote linearly next to the perceptron (Cheng et al. 2016, "Wide & Deep
        Learning", arXiv 1606.07792).
      dropout: rate after each hidden layer.
    """

    def __init__(
        self, num_classes: int, *, bins: Sequence[Sequence[float]], flags: int, cardinalities: Sequence[int],
        hidden: Sequence[int] = (128,), members: int = 1, embedding: int = 8, ngrams: int = 0,
        dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.members = members
        self.bins = PiecewiseLinear(bins)
        # Arrays without elements cannot be saved.
        self.embeddings = _Embeddings(cardinalities, embedding, dtype=dtype, rngs=rngs) if cardinalities else None
        width = sum(max(len(edges), 1) for edges in bins) + flags + embedding * len(cardinalities)
        layers: list[Callable[..., Any]] = []
        for features in hidden:
            # Normalization cancels a bias before it, whose gradient would be rounding noise: there is none.
            layers += [_MemberLinear(members, width, features, _he_normal, dtype=dtype, rngs=rngs)]
            layers += [nnx.LayerNorm(features, dtype=dtype, rngs=rngs), nnx.relu]
            layers += [nnx.Dropout(dropout, rngs=rngs)] if dropout else []
            width = features
        self.hidden = nnx.Sequential(*layers)
        self.head = _MemberLinear(members, width, num_classes, _lecun_normal, dtype=jnp.float32, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.votes = nnx.Param(jnp.zeros((ngrams, num_classes))) if ngrams else None
        # train() and eval() set this attribute, as in nnx.Dropout.
        self.deterministic = False

    def __call__(self, table: Table) -> jax.Array:
        parts = [table["numeric"], self.bins(table["numeric"]), table["missing"]]
        parts += [] if self.embeddings is None else [self.embeddings(table["categories"])]
        features = jnp.concatenate(parts, axis=1)
        if self.deterministic:
            each = jnp.broadcast_to(features, (self.members, *features.shape))
            logits = self._logits(each).mean(axis=0)
        else:
            filled = jnp.pad(features, ((0, -len(features) % self.members), (0, 0)))
            dealt = filled.reshape(-1, self.members, features.shape[1]).swapaxes(0, 1)
            logits = self._logits(dealt).swapaxes(0, 1).reshape(len(filled), -1)[: len(features)]
        logits += self.bias[...][None]
        return logits if self.votes is None else logits + table["ngrams"] @ self.votes[...]

    def _logits(self, rows: jax.Array) -> jax.Array:
        return self.head(self.hidden(rows).astype(jnp.float32))


class _MemberLinear(nnx.Module):
    """One linear layer per member, without bias: (members, N, inputs) to (members, N, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int, initializer: Any, *, dtype: Any, rngs: nnx.Rngs):
        self.kernel = nnx.Param(initializer(rngs.params(), (members, inputs, outputs)))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum("mni,mio->mno", x.astype(self.dtype), self.kernel[...].astype(self.dtype))


class Constant(nnx.Variable[Any]):
    """A NumPy array that training does not change, as part of the model state: no program contains its values."""


class PiecewiseLinear(nnx.Module):
    """Encodes numbers by their position within each bin of their column: (N, F) to (N, total number of bins).

    The position is -1 below the bin, 1 above it and linear in between. It is divided by the square root of the number
    of bins of the column, so that the variance of a column is about that of one standardized number, for any number
    of bins. A bin without width is unused: it does not count and encodes 0.

    Source: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning" (arXiv 2203.05556),
    equation 1, which uses 0 and 1 instead of -1 and 1, and does not clip at the outer edges.

    Args:
      edges: bin edges of each column, ascending; fewer than two give no bin.

    >>> encode = PiecewiseLinear([[0.0, 1.0, 2.0, 3.0, 4.0]])
    >>> encode(jnp.array([[0.5], [3.0]])).tolist()
    [[0.0, -0.5, -0.5, -0.5], [0.5, 0.5, 0.5, -0.5]]
    """

    def __init__(self, edges: Sequence[Sequence[float]]):
        self.columns = tuple(column for column, each in enumerate(edges) for _ in each[1:])
        pairs = [pair for each in edges for pair in itertools.pairwise(each)]
        low, high = np.array(pairs, np.float32).reshape(-1, 2).T
        is_used = high > low
        counts = np.bincount(self.columns, is_used, len(edges))[list(self.columns)]
        scale = np.where(is_used, np.maximum(counts, 1) ** -0.5, 0)
        # Finite, since 0 times infinity is NaN.
        steepness = 1 / np.maximum(high - low, np.finfo(np.float32).tiny)
        bins = np.stack([low, steepness, scale]).astype(np.float32)
        # Arrays without elements cannot be saved.
        self.bins = Constant(bins) if self.columns else None

    def __call__(self, numeric: jax.Array) -> jax.Array:
        if self.bins is None:
            return jnp.zeros((len(numeric), 0))
        low, steepness, scale = self.bins[...][:, None]
        position = jnp.clip((numeric[:, np.array(self.columns)] - low) * steepness, 0, 1)
        return (2 * position - 1) * scale


class _Embeddings(nnx.Module):
    """Embeddings of category columns, zero for unknown categories: (N, C) to (N, C * features)."""

    def __init__(self, cardinalities: Sequence[int], features: int, *, dtype: Any, rngs: nnx.Rngs):
        # One table for all columns needs one gather; a column's rows start where those of the column before end.
        *starts, size = itertools.accumulate(cardinalities, initial=0)
        self.starts = tuple(starts)
        self.table = nnx.Embed(size, features, embedding_init=nnx.initializers.normal(1.0), dtype=dtype, rngs=rngs)

    def __call__(self, categories: jax.Array) -> jax.Array:
        embedded = self.table(categories + np.array(self.starts, np.int32)[None])
        return (embedded * (categories > 0)[..., None]).reshape(categories.shape[0], -1)
