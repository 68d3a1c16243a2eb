"""Training from examples in host memory or in memory-mapped files, with chunks sent to the device in advance."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxcls.data.batching import Batch, Examples, Feed, batch_rows, chunk_sharding, steps_per_epoch

# Chunks that are prepared or on the device while it computes on another one. With one, a single late gather makes the
# device wait; more take memory and gain nothing.
AHEAD = 2

# The fraction of free device memory that examples may take; activations, gradients and the compiler need the rest.
_MEMORY_FRACTION = 0.5


def fits(data: Examples, devices: Sequence[Any]) -> bool:
    """Returns whether the examples take at most half of the free memory of each device.

    They always fit on CPU devices, whose memory is the host's.

    >>> fits(Examples(np.zeros((2, 3)), np.zeros(2), np.zeros(2)), jax.devices("cpu"))
    True
    """
    size = sum(array.nbytes for array in jax.tree.leaves(tuple(data)))
    statistics = [device.memory_stats() for device in devices if device.platform != "cpu"]
    # Some allocators have no statistics, or not these.
    known = [stats for stats in statistics if stats and "bytes_limit" in stats]
    return all(size <= _MEMORY_FRACTION * (stats["bytes_limit"] - stats["bytes_in_use"]) for stats in known)


def host_feed(
    data: Examples, *, batch_size: int, length: int, sharding: jax.sharding.NamedSharding | None = None
) -> Feed:
    """Returns the same chunks, bit for bit, as :func:`jaxcls.data.batching.device_feed`, from examples on the host.

    Threads gather them and send them to the device in order, at most two ahead of the one in use. The arrays may be
    memory-mapped files.

    >>> feed = host_feed(Examples(np.arange(6), np.zeros(6), np.ones(6)), batch_size=2, length=2)
    >>> [chunk.inputs.tolist() for chunk in feed(jax.numpy.array([5, 4, 3, 2, 1, 0]), 1)]
    [[[3, 2], [1, 0]]]
    """
    # Takes half a second to import, and only streaming needs it.
    import grain

    # As plain arrays: what is taken from a np.memmap would be one as well.
    data = jax.tree.map(np.asarray, data)

    def feed(order: jax.Array, first: int) -> Iterator[Batch]:
        rows = np.asarray(order)

        def chunk(start: int) -> Batch:
            return jax.device_put(gather_chunk(data, rows, start, batch_size, length), chunk_sharding(sharding))

        # A chunk is a function of its first batch, so the iterator has no state to save.
        starts = grain.MapDataset.range(first, steps_per_epoch(len(data), batch_size), length)
        options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        chunks = iter(starts.map(chunk).to_iter_dataset(options))
        try:
            yield from chunks
        finally:
            chunks.close()

    return feed


def gather_chunk(data: Examples, order: np.ndarray, first: int, batch_size: int, length: int) -> Batch:
    """Gathers the chunk of ``length`` batches from index ``first`` on, on the host."""
    rows, mask = batch_rows(order, first, batch_size=batch_size, length=length)
    # np.take copies whole rows; indexing does not.
    inputs, labels, sample_weight = jax.tree.map(lambda array: np.take(array, rows, axis=0), tuple(data))
    return Batch(inputs, labels, mask, sample_weight)
