"""Classifiers of tables: a linear one, and a multilayer perceptron with embeddings of numbers and of categories.

Each is a Flax NNX module that takes what :mod:`jaxcls.data.preprocessing.tables` gives, "numeric" float32 (N, F),
"missing" float32 (N, M) and "categories" int32 (N, C), and returns float32 logits (N, num_classes). ``dtype`` is that
of the computation; parameters are kept in float32.
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

# He et al. 2015, for layers that a ReLU follows, and LeCun et al. 1998, for the last one; for each member by itself.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal", batch_axis=0)
_lecun_normal = nnx.initializers.lecun_normal(batch_axis=0)


class Linear(nnx.Module):
    """A linear model of the scaled numbers and of the categories: logistic regression, with cross-entropy.

    Args:
      bins: the edges of the bins of each column of numbers; a linear model takes them as they are.
      flags: how many columns of numbers are flagged where one is missing.
      cardinalities: how many indices each column of categories has.
      dropout: the rate at which columns are left out.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        bins: Sequence[Sequence[float]],
        flags: int,
        cardinalities: Sequence[int],
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.cardinalities = tuple(cardinalities)
        width = len(bins) + flags + sum(cardinalities) - len(cardinalities)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        # The loss is convex, so zero is as good a start as any, and the one that favours no class.
        self.head = nnx.Linear(
            width,
            num_classes,
            kernel_init=nnx.initializers.zeros,
            dot_general=kernels.dot_general,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, table: Table) -> jax.Array:
        # Index 0, an unknown word, is a row of zeros.
        words = [
            jax.nn.one_hot(table["categories"][:, column] - 1, cardinality - 1)
            for column, cardinality in enumerate(self.cardinalities)
        ]
        features = jnp.concatenate([table["numeric"], table["missing"], *words], axis=1)
        return self.head(self.dropout(features)).astype(jnp.float32)


class MLP(nnx.Module):
    """A multilayer perceptron on encodings of the numbers and embeddings of the categories, or several of them.

    The numbers are encoded piecewise linearly, PLE of Gorishniy et al. 2022, "On Embeddings for Numerical Features in
    Tabular Deep Learning" (arXiv 2203.05556), with quantiles of the training rows as edges. The scaled numbers stand
    beside their encodings, for what lies beyond the training rows.

    Several perceptrons are an ensemble in one model, in which each learns from its own errors, not from those of their
    average, as Gorishniy et al. 2024, "TabM" (arXiv 2410.24210), found that it must.

    Args:
      bins: the edges of the bins of each column of numbers; fewer than two give no bin.
      flags: how many columns of numbers are flagged where one is missing.
      cardinalities: how many indices each column of categories has.
      hidden: the widths of the layers.
      members: how many perceptrons there are; they share the embeddings of categories.
      embedding: the width of the embedding of a category.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        bins: Sequence[Sequence[float]],
        flags: int,
        cardinalities: Sequence[int],
        hidden: Sequence[int] = (128,),
        members: int = 1,
        embedding: int = 8,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.members = members
        self.bins = tuple(tuple(edges) for edges in bins)
        # Without categories there is no table of them: an array without elements could not be saved.
        self.embeddings = _Embeddings(cardinalities, embedding, dtype=dtype, rngs=rngs) if cardinalities else None
        width = sum(max(len(edges), 1) for edges in bins) + flags + embedding * len(cardinalities)
        layers: list[Callable[..., Any]] = []
        for features in hidden:
            # A bias before a normalisation has no effect and a gradient of pure rounding noise: there is none.
            layers += [_Kernels(members, width, features, _he_normal, dtype=dtype, rngs=rngs)]
            layers += [nnx.LayerNorm(features, dtype=dtype, rngs=rngs), nnx.relu]
            layers += [nnx.Dropout(dropout, rngs=rngs)] if dropout else []
            width = features
        self.hidden = nnx.Sequential(*layers)
        self.head = _Kernels(members, width, num_classes, _lecun_normal, dtype=jnp.float32, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.joined = _Joined(rngs=rngs)

    def __call__(self, table: Table) -> jax.Array:
        features = [table["numeric"], piecewise_linear(table["numeric"], self.bins), table["missing"]]
        features += [] if self.embeddings is None else [self.embeddings(table["categories"])]
        each = jnp.repeat(jnp.concatenate(features, axis=1)[:, None], self.members, axis=1)
        return self.joined(self.head(self.hidden(each).astype(jnp.float32))) + self.bias[...][None]


class _Kernels(nnx.Module):
    """A linear layer of its own for each member, (N, members, inputs) to (N, members, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int, initializer: Any, *, dtype: Any, rngs: nnx.Rngs):
        self.kernel = nnx.Param(initializer(rngs.params(), (members, inputs, outputs)))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum("nmi,mio->nmo", x.astype(self.dtype), self.kernel[...].astype(self.dtype))


class _Joined(nnx.Module):
    """(N, members, outputs) to (N, outputs): the mean of the members; in training one of them, drawn for each example.

    In the mean over draws, the gradient is then that of the mean of the members' losses, whatever the loss; that of
    the loss of their mean would teach each only what the others leave over.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        # As in nnx.Dropout: this name is what train() and eval() of the whole model set.
        self.deterministic = False
        self.rngs = rngs["dropout"].fork()

    def __call__(self, outputs: jax.Array) -> jax.Array:
        rows, members, _ = outputs.shape
        if self.deterministic or members == 1:
            return outputs.mean(axis=1)
        drawn = jax.random.randint(self.rngs(), (rows, 1, 1), 0, members)
        return jnp.take_along_axis(outputs, drawn, axis=1)[:, 0]


def piecewise_linear(numeric: jax.Array, bins: Sequence[Sequence[float]]) -> jax.Array:
    """How far each number has come through each bin of its column, (N, F) to (N, number of bins).

    From -1, below the bin, to 1, above it, divided by the root of the number of the column's bins: so a column counts
    about as much as a standardised number, however many bins it has.

    >>> piecewise_linear(jnp.array([[0.5], [3.0]]), [[0.0, 1.0, 2.0, 3.0, 4.0]]).tolist()
    [[0.0, -0.5, -0.5, -0.5], [0.5, 0.5, 0.5, -0.5]]
    """
    counts = [max(len(edges) - 1, 0) for edges in bins]
    sides = [pair for edges in bins for pair in itertools.pairwise(edges)]
    low, high = np.array(sides, np.float32).reshape(-1, 2).T[:, None]
    scale = np.repeat([max(count, 1) ** -0.5 for count in counts], counts).astype(np.float32)
    passed = jnp.clip((numeric[:, np.repeat(np.arange(len(bins)), counts)] - low) / (high - low), 0, 1)
    return (2 * passed - 1) * scale[None]


class _Embeddings(nnx.Module):
    """Embeddings of columns of categories, (N, C) to (N, C * features). That of an unknown word is 0."""

    def __init__(self, cardinalities: Sequence[int], features: int, *, dtype: Any, rngs: nnx.Rngs):
        # One table for all columns, so one gather: the rows of a column begin where those of the last one end.
        *starts, size = itertools.accumulate(cardinalities, initial=0)
        self.starts = tuple(starts)
        self.table = nnx.Embed(size, features, embedding_init=nnx.initializers.normal(1.0), dtype=dtype, rngs=rngs)

    def __call__(self, categories: jax.Array) -> jax.Array:
        embedded = self.table(categories + np.array(self.starts, np.int32)[None])
        return (embedded * (categories > 0)[..., None]).reshape(categories.shape[0], -1)
