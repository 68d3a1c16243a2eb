"""Training examples that stay on the host: what a step takes of them comes to the device ahead of its use."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxcls.data.batching import Batch, Examples, Feed, batch_rows, of_chunks, steps_per_epoch

# Chunks that are under way or on the device already while it computes with another one. With one, a gather that is
# late once makes the device wait; with more, memory is held and nothing is won.
AHEAD = 2

# Of the memory that is free on a device: the rest is for activations, gradients and what the compiler needs.
_SHARE = 0.5


def fits(data: Examples, devices: Sequence[Any]) -> bool:
    """Whether the examples may live on each of the devices: they take at most half of what is free there.

    The memory of a CPU is the host's, which holds them already.

    >>> fits(Examples(np.zeros((2, 3)), np.zeros(2), np.zeros(2)), jax.devices("cpu"))
    True
    """
    size = sum(array.nbytes for array in jax.tree.leaves(tuple(data)))
    statistics = [device.memory_stats() for device in devices if device.platform != "cpu"]
    # Some allocators keep none, or not these.
    known = [held for held in statistics if held and "bytes_limit" in held]
    return all(size <= _SHARE * (held["bytes_limit"] - held["bytes_in_use"]) for held in known)


def streamed(
    data: Examples, *, batch_size: int, length: int, sharding: jax.sharding.NamedSharding | None = None
) -> Feed:
    """As :func:`jaxcls.data.batching.resident`, the same chunks of the same bits, of examples on the host.

    Threads gather them and send them to the device, in their order: besides the chunk that is computed with, there
    are never more than two. The arrays may be memory-mapped files.

    >>> feed = streamed(Examples(np.arange(6), np.zeros(6), np.ones(6)), batch_size=2, length=2)
    >>> [chunk.inputs.tolist() for chunk in feed(jax.numpy.array([5, 4, 3, 2, 1, 0]), 1)]
    [[[3, 2], [1, 0]]]
    """
    # Only who streams needs it, and it takes half a second to import.
    import grain

    # A view without the class: what is taken of a memory map would be one as well.
    data = jax.tree.map(np.asarray, data)

    def feed(order: jax.Array, first: int) -> Iterator[Batch]:
        rows = np.asarray(order)

        def chunk(place: int) -> Batch:
            return jax.device_put(gathered(data, rows, place, batch_size, length), of_chunks(sharding))

        # An epoch goes on by the number of a batch, so the iterator has no state that must be kept.
        places = grain.MapDataset.range(first, steps_per_epoch(len(data), batch_size), length)
        options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        chunks = iter(places.map(chunk).to_iter_dataset(options))
        try:
            yield from chunks
        finally:
            chunks.close()

    return feed


def gathered(data: Examples, order: np.ndarray, first: int, batch_size: int, length: int) -> Batch:
    """The chunk of the batches from ``first`` on, on the host."""
    rows, mask = batch_rows(order, first, batch_size=batch_size, length=length)
    # np.take copies whole rows, which indexing does not.
    inputs, labels, sample_weight = jax.tree.map(lambda array: np.take(array, rows, axis=0), tuple(data))
    return Batch(inputs, labels, mask, sample_weight)
