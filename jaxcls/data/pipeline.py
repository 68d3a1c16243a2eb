"""From arrays to batches of one fixed size: shuffled on the device for training, in order for evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


class Batch(NamedTuple):
    """Examples that go through one step together.

    Attributes:
      inputs: an array or a tree of arrays, (N, ...).
      labels: (N,) or (N, L).
      mask: (N,) bool, False on the padding of an epoch's last batch.
      weights: (N,) float32, 1 unless the data gives others.
    """

    inputs: PyTree
    labels: jax.Array
    mask: jax.Array
    weights: jax.Array


class Examples(NamedTuple):
    """A whole set of examples, the axes as in :class:`Batch`."""

    inputs: PyTree
    labels: Any
    weights: Any

    def __len__(self) -> int:
        return len(self.labels)


def examples(inputs: PyTree, labels: Any, weights: Any = None) -> Examples:
    """Examples with weight 1 where no others are given.

    >>> len(examples(np.zeros((3, 2)), np.zeros(3, np.int32)).weights)
    3
    """
    return Examples(inputs, labels, np.ones(len(labels), np.float32) if weights is None else weights)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches that hold ``count`` examples; the last one may be padded.

    >>> steps_per_epoch(1000, 128)
    8
    """
    return -(-count // batch_size)


def chunk_length(steps: int, most: int) -> int:
    """The number of steps to run in one dispatch, such that the last dispatch of an epoch wastes least.

    Every dispatch runs the same compiled program, hence the same number of steps; those beyond the end of the
    epoch are computed and thrown away. Of the lengths up to ``most``, not below half of it, the one with the
    fewest such steps is taken, the longest of several.

    >>> chunk_length(422, 50)
    47
    >>> chunk_length(3, 50)
    3
    """
    if steps <= most:
        return steps
    return min(range(most, most // 2, -1), key=lambda length: -steps % length)


def batch_rows(order: jax.Array, first: jax.Array, *, batch_size: int, length: int) -> tuple[jax.Array, jax.Array]:
    """The rows of the batches ``first`` to ``first + length`` of an epoch, and their mask.

    Both are (length, batch_size). The tail of the epoch is filled with examples from its beginning, which are
    real (statistics over the batch stay those of real data) and masked (they count nowhere). Batches past the
    end are masked whole.

    >>> rows, mask = batch_rows(jnp.array([2, 0, 1]), 1, batch_size=2, length=2)
    >>> rows.tolist(), mask.tolist()
    ([[1, 2], [0, 1]], [[True, False], [False, False]])
    """
    places = (first + jnp.arange(length))[:, None] * batch_size + jnp.arange(batch_size)[None, :]
    return order[places % len(order)], places < len(order)


def bucket_of(tokens: Any, widths: Sequence[int]) -> jax.Array:
    """For each sequence, the number of the first of the ascending ``widths`` that holds it, (N,) int32.

    Args:
      tokens: (N, width) integers, padded with 0 at the end.

    >>> bucket_of(np.array([[5, 0, 0, 0], [5, 0, 7, 0]]), (2, 4)).tolist()
    [0, 1]
    """
    tokens = jnp.asarray(tokens)
    lengths = jnp.max(jnp.where(tokens != 0, jnp.arange(1, tokens.shape[1] + 1)[None, :], 0), axis=1)
    return jnp.searchsorted(jnp.asarray(widths), lengths).astype(jnp.int32)


def take(data: Examples, rows: Any, mask: Any) -> Batch:
    """The batch of the given rows.

    >>> take(examples(np.arange(6).reshape(3, 2), np.arange(3)), np.array([2, 0]), np.ones(2, bool)).labels
    array([2, 0])
    """
    inputs, labels, weights = jax.tree.map(lambda array: array[rows], tuple(data))
    return Batch(inputs, labels, mask, weights)


def in_order(inputs: PyTree, batch_size: int) -> Iterator[PyTree]:
    """Batches of the host's inputs in their order, the last one filled up with an example of its own.

    >>> [batch.tolist() for batch in in_order(np.array([5, 6, 7]), 2)]
    [[5, 6], [7, 7]]
    """
    count = len(jax.tree.leaves(inputs)[0])
    for first in range(0, count, batch_size):
        rows = np.arange(first, first + batch_size)
        rows = np.where(rows < count, rows, first)
        yield jax.tree.map(lambda array, rows=rows: array[rows], inputs)
