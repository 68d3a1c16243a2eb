"""From arrays to batches of one fixed size: in the order of an epoch for training, as they stand for evaluation."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

PyTree = Any
# ``(order, first) -> chunks``: the batches of an epoch from number ``first`` on, several stacked in a chunk, on the
# device. ``order`` holds the rows of the examples.
Feed: TypeAlias = Callable[[jax.Array, int], Iterator["Batch"]]


class Batch(NamedTuple):
    """Examples that go through one step together.

    Attributes:
      inputs: an array or a tree of arrays, (N, ...).
      labels: (N,) or (N, L); of a model with several outputs, a dict of them.
      mask: (N,) bool, False on the padding of an epoch's last batch.
      sample_weight: (N,) float32, 1 unless the data gives others; a dict of them where each output has its own.
    """

    inputs: PyTree
    labels: PyTree
    mask: jax.Array
    sample_weight: PyTree


class Examples(NamedTuple):
    """A whole set of examples, the axes as in :class:`Batch`."""

    inputs: PyTree
    labels: Any
    sample_weight: Any

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.labels)[0])


def examples(inputs: PyTree, labels: Any, sample_weight: Any = None) -> Examples:
    """Examples with weight 1 where no others are given.

    >>> len(examples(np.zeros((3, 2)), np.zeros(3, np.int32)).sample_weight)
    3
    """
    count = len(jax.tree.leaves(labels)[0])
    return Examples(inputs, labels, np.ones(count, np.float32) if sample_weight is None else sample_weight)


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


def batch_rows(order: Any, first: Any, *, batch_size: int, length: int) -> tuple[Any, Any]:
    """The rows of the batches ``first`` to ``first + length`` of an epoch, and their mask.

    Both are (length, batch_size). The tail of the epoch is filled with examples from its beginning, which are
    real (statistics over the batch stay those of real data) and masked (they count nowhere). Batches past the
    end are masked whole. On the host, if ``order`` is a NumPy array.

    >>> rows, mask = batch_rows(np.array([2, 0, 1]), 1, batch_size=2, length=2)
    >>> rows.tolist(), mask.tolist()
    ([[1, 2], [0, 1]], [[True, False], [False, False]])
    """
    places = (first + np.arange(length))[:, None] * batch_size + np.arange(batch_size)[None, :]
    return order[places % len(order)], places < len(order)


def take(data: Examples, rows: Any, mask: Any) -> Batch:
    """The batch of the given rows.

    >>> take(examples(np.arange(6).reshape(3, 2), np.arange(3)), np.array([2, 0]), np.ones(2, bool)).labels
    array([2, 0])
    """
    inputs, labels, sample_weight = jax.tree.map(lambda array: array[rows], tuple(data))
    return Batch(inputs, labels, mask, sample_weight)


def resident(
    data: Examples, *, batch_size: int, length: int, sharding: jax.sharding.NamedSharding | None = None
) -> Feed:
    """Chunks of ``length`` batches of examples that live on the device; they are gathered there.

    A chunk is a Batch with one axis more, (length, batch_size, ...). One compiled program gathers them all.

    Args:
      sharding: how a batch, (batch_size, ...), lies on several devices.

    >>> feed = resident(jax.device_put(examples(np.arange(6), np.zeros(6))), batch_size=2, length=2)
    >>> [chunk.inputs.tolist() for chunk in feed(jax.numpy.array([5, 4, 3, 2, 1, 0]), 1)]
    [[[3, 2], [1, 0]]]
    """

    @functools.partial(jax.jit, out_shardings=of_chunks(sharding))
    def gather(data: Examples, order: jax.Array, first: jax.Array) -> Batch:
        return take(data, *batch_rows(order, first, batch_size=batch_size, length=length))

    def feed(order: jax.Array, first: int) -> Iterator[Batch]:
        for place in range(first, steps_per_epoch(len(data), batch_size), length):
            yield gather(data, order, np.int32(place))

    return feed


def of_chunks(sharding: jax.sharding.NamedSharding | None) -> jax.sharding.NamedSharding | None:
    """How a chunk lies on several devices where each of its batches lies by ``sharding``."""
    if sharding is None:
        return None
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(None, *sharding.spec))


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
