"""Batches of a fixed size: in the shuffled order of an epoch for training, in the original order for evaluation.

Examples may be on the device, or in host memory and on disk, from where chunks are sent ahead. Batches of padded
examples are cropped to a few sizes, the buckets, to save computing on padding.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxcls._utils import processes
from jaxcls._utils.errors import InputError
from jaxcls.data import rows as data_rows

PyTree = Any
Size = tuple[int, ...]
# ``(order, first) -> chunks``: the batches of an epoch from index ``first`` on, stacked in chunks, on the device.
# ``order`` is a permutation of the rows.
Feed: TypeAlias = Callable[[jax.Array, int], Iterator["Batch"]]

# Chunks that are prepared or on the device while it computes on another one. With one, a single late gather makes the
# device wait; more take memory and gain nothing.
AHEAD = 2


class Batch(NamedTuple):
    """The examples of one step.

    Attributes:
      inputs: an array or a tree of arrays, (N, ...).
      labels: (N,) or (N, L); for a model with several outputs, a dict of them.
      mask: bool (N,), False for the padding of an epoch's last batch.
      sample_weight: float32 (N,), 1 by default; a dict if each output has its own.
    """

    inputs: PyTree
    labels: PyTree
    mask: jax.Array
    sample_weight: PyTree


class Examples(NamedTuple):
    """A whole set of examples, with the axes of a :class:`Batch`; arrays, or :class:`jaxcls.data.rows.Rows`."""

    inputs: PyTree
    labels: Any
    sample_weight: Any

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.labels)[0])


def examples(inputs: PyTree, labels: Any, sample_weight: Any = None) -> Examples:
    """Returns examples, with weight 1 by default.

    >>> len(examples(np.zeros((3, 2)), np.zeros(3, np.int32)).sample_weight)
    3
    """
    count = len(jax.tree.leaves(labels)[0])
    return Examples(inputs, labels, np.ones(count, np.float32) if sample_weight is None else sample_weight)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns the number of batches of ``count`` examples; the last one may be padded.

    >>> steps_per_epoch(1000, 128)
    8
    """
    return -(-count // batch_size)


def chunk_length(steps: int, most: int) -> int:
    """Chooses the number of steps per dispatch that wastes the least at the end of an epoch.

    All dispatches run the same compiled program, hence the same number of steps; steps beyond the end of the epoch are
    computed and discarded. Of the lengths from ``most`` down to half of it, the longest with the fewest such steps.

    >>> chunk_length(422, 50)
    47
    >>> chunk_length(3, 50)
    3
    """
    if steps <= most:
        return steps
    return min(range(most, most // 2, -1), key=lambda length: -steps % length)


def batch_rows(order: Any, first: Any, *, batch_size: int, length: int, padding: int = 0) -> tuple[Any, Any]:
    """Returns the rows and the mask of the batches ``first`` to ``first + length`` of an epoch.

    Both have shape (length, batch_size + padding). The last batch is padded with examples from the beginning of the
    epoch, which are real, for the sake of batch statistics, and masked, so they do not count. Batches past the end are
    all masked. The padding of every batch, with which devices share it equally, is masked too. NumPy in, NumPy out.

    >>> rows, mask = batch_rows(np.array([2, 0, 1]), 1, batch_size=2, length=2)
    >>> rows.tolist(), mask.tolist()
    ([[1, 2], [0, 1]], [[True, False], [False, False]])
    """
    columns = np.arange(batch_size + padding)[None, :]
    indices = (first + np.arange(length))[:, None] * batch_size + columns
    mask = indices < len(order)
    return order[indices % len(order)], mask & (columns < batch_size) if padding else mask


def take(data: Examples, rows: Any, mask: Any) -> Batch:
    """Returns the batch of these rows.

    >>> take(examples(np.arange(6).reshape(3, 2), np.arange(3)), np.array([2, 0]), np.ones(2, bool)).labels
    array([2, 0])
    """
    inputs, labels, sample_weight = jax.tree.map(lambda array: array[rows], tuple(data))
    return Batch(inputs, labels, mask, sample_weight)


def copies(data: Examples, batch_size: int) -> Batch:
    """Returns a batch of copies of the first example, for its shapes."""
    return take(data, np.zeros(batch_size, np.int32), np.ones(batch_size, bool))


def device_feed(
    data: Examples,
    *,
    batch_size: int,
    length: int,
    padding: int = 0,
    sharding: jax.sharding.NamedSharding | None = None,
) -> Feed:
    """Returns chunks of ``length`` batches of examples that are in device memory, where one program gathers them.

    A chunk is a Batch with a leading axis, (length, batch_size + padding, ...).

    Args:
      padding: see :func:`batch_rows`.
      sharding: of a batch, (batch_size + padding, ...), over several devices.

    >>> feed = device_feed(jax.device_put(examples(np.arange(6), np.zeros(6))), batch_size=2, length=2)
    >>> [chunk.inputs.tolist() for chunk in feed(jax.numpy.array([5, 4, 3, 2, 1, 0]), 1)]
    [[[3, 2], [1, 0]]]
    """

    gather = _gather(batch_size, length, padding, sharding)

    def feed(order: jax.Array, first: int) -> Iterator[Batch]:
        for start in range(first, steps_per_epoch(len(data), batch_size), length):
            # Unknown labels are NaN, which is no error of the gather's.
            with jax.debug_nans(False):
                chunk = gather(data, order, np.int32(start))
            yield chunk

    return feed


# Cached, so that the trainings of a process share the compiled program.
@functools.cache
def _gather(
    batch_size: int, length: int, padding: int, sharding: jax.sharding.NamedSharding | None
) -> Callable[..., Batch]:
    def gather(data: Examples, order: jax.Array, first: jax.Array) -> Batch:
        return take(data, *batch_rows(order, first, batch_size=batch_size, length=length, padding=padding))

    return jax.jit(gather, out_shardings=chunk_sharding(sharding))


def chunk_sharding(sharding: jax.sharding.NamedSharding | None) -> jax.sharding.NamedSharding | None:
    """Returns the sharding of a chunk of batches with this sharding."""
    if sharding is None:
        return None
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(None, *sharding.spec))


def host_feed(
    data: Examples,
    *,
    batch_size: int,
    length: int,
    padding: int = 0,
    sharding: jax.sharding.NamedSharding | None = None,
) -> Feed:
    """Returns the same chunks, bit for bit, as :func:`device_feed`, from examples on the host.

    Threads gather them and send them to the device in order, at most two ahead of the one in use. The arrays may be
    memory-mapped files, or :class:`jaxcls.data.rows.Rows`.

    >>> feed = host_feed(Examples(np.arange(6), np.zeros(6), np.ones(6)), batch_size=2, length=2)
    >>> [chunk.inputs.tolist() for chunk in feed(jax.numpy.array([5, 4, 3, 2, 1, 0]), 1)]
    [[[3, 2], [1, 0]]]
    """
    # Takes half a second to import, and only streaming needs it.
    import grain

    def feed(order: jax.Array, first: int) -> Iterator[Batch]:
        rows = np.asarray(order)

        def chunk(start: int) -> Batch:
            share = processes.local_rows(sharding, batch_size + padding)
            chunk = gather_chunk(data, rows, start, batch_size, length, padding, share)
            return processes.assemble(chunk, chunk_sharding(sharding), (length, batch_size + padding))

        # A chunk is a function of its first batch, so the iterator has no state to save.
        starts = grain.MapDataset.range(first, steps_per_epoch(len(data), batch_size), length)
        options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        chunks = iter(starts.map(chunk).to_iter_dataset(options))
        try:
            yield from chunks
        except InputError as error:
            # Without what Grain appends.
            raise InputError(str(error).partition("\n----")[0]) from error
        finally:
            chunks.close()

    return feed


def gather_chunk(
    data: Examples,
    order: np.ndarray,
    first: int,
    batch_size: int,
    length: int,
    padding: int = 0,
    share: Any = slice(None),
) -> Batch:
    """Gathers the chunk of ``length`` batches from index ``first`` on, on the host.

    Args:
      padding: see :func:`batch_rows`.
      share: the indices within each batch that are gathered, such as those of this process.
    """
    rows, mask = batch_rows(order, first, batch_size=batch_size, length=length, padding=padding)
    rows, mask = rows[:, share], mask[:, share]
    inputs, labels, sample_weight = data_rows.take(tuple(data), rows)
    return Batch(inputs, labels, mask, sample_weight)


# Sizes of batches of few examples.
FEW = (1, 8, 64)


def prediction_batch_size(count: int, most: int) -> int:
    """Returns the size of the batches in which this many examples are predicted: of few, one that is hardly padded.

    >>> [prediction_batch_size(count, 500) for count in (1, 2, 50, 65, 1000)]
    [1, 8, 64, 500, 500]
    """
    return next((size for size in FEW if count <= size < most), most)


def padded_batches(inputs: PyTree, batch_size: int) -> Iterator[PyTree]:
    """Yields batches of host inputs in their order, the last one padded with its own first example.

    >>> [batch.tolist() for batch in padded_batches(np.array([5, 6, 7]), 2)]
    [[5, 6], [7, 7]]
    """
    count = len(jax.tree.leaves(inputs)[0])
    for first in range(0, count, batch_size):
        rows = np.arange(first, first + batch_size)
        yield data_rows.take(inputs, np.where(rows < count, rows, first))


class Buckets(NamedTuple):
    """The sizes of batches along the padded axes.

    Attributes:
      sizes: the cheapest first; the last one fits every example.
      extents: ``inputs -> (N, axes)``, the size of each example without padding; NumPy for NumPy inputs.
      cut: ``(inputs, size) -> inputs``, cropped to the size.
    """

    sizes: tuple[Size, ...]
    extents: Callable[[PyTree], Any]
    cut: Callable[[PyTree, Size], PyTree]

    def indices(self, inputs: PyTree) -> Any:
        """Returns, for each example, the index of the first size that fits it, int32 (N,).

        >>> sequence_buckets((2, 4)).indices(np.array([[5, 0, 0, 0], [5, 0, 7, 0]])).tolist()
        [0, 1]
        """
        return self._first_fit(self.extents(inputs))

    def common_index(self, inputs: PyTree) -> Any:
        """Returns the index of the first size that fits all examples together, a scalar.

        >>> sizes = np.array([[60, 30], [30, 60]])
        >>> buckets = canvas_buckets(((64, 32), (32, 64), (64, 64)))
        >>> buckets.indices({"size": sizes}).tolist(), int(buckets.common_index({"size": sizes}))
        ([0, 1], 2)
        """
        return self._first_fit(self.extents(inputs).max(axis=0)[None, :])[0]

    def _first_fit(self, extents: Any) -> Any:
        fits = (extents[:, None, :] <= np.array(self.sizes)[None]).all(axis=2)
        return fits.argmax(axis=1).astype(np.int32)


def sequence_buckets(widths: tuple[int, ...], padding: int = 0) -> Buckets:
    """Returns the buckets of token ids (N, width), with padding at the end, for ascending widths."""

    def lengths(tokens: Any) -> Any:
        if isinstance(tokens, data_rows.Rows):
            source: Any = tokens.source  # it knows them
            return source.lengths[tokens.index][:, None]
        # The argmax of booleans needs an eighth of the memory of a maximum of indices.
        real = tokens != padding
        return (real.any(axis=1) * (tokens.shape[1] - real[:, ::-1].argmax(axis=1)))[:, None]

    def cut(tokens: Any, size: Size) -> Any:
        if isinstance(tokens, data_rows.Rows):
            return tokens.mapped(lambda read: read[:, : size[0]], size, tokens.dtype)
        return tokens[:, : size[0]]

    return Buckets(tuple((width,) for width in widths), lengths, cut)


def canvas_buckets(sizes: tuple[tuple[int, int], ...]) -> Buckets:
    """Returns the buckets of images at the top left of canvases, for canvases of these (height, width).

    Inputs are a dict of ``image`` (N, H, W, C) and ``size`` (N, 2), the height and width of the images.
    """

    def cut(inputs: PyTree, size: Size) -> PyTree:
        return inputs | {"image": inputs["image"][:, : size[0], : size[1]]}

    return Buckets(sizes, lambda inputs: inputs["size"], cut)
