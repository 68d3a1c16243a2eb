"""The processes that train together: who they are, what they agree on, and arrays that they share.

Each process runs the same program. What one of them alone could decide, such as to stop or to save, they agree on, at
the same point of the program: who waits for a computation that another one does not start waits forever. The first of
them writes all files and prints all lines.

In a process that trains alone, nothing here costs anything.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcls._utils.errors import InputError, listed

PyTree = Any


def count() -> int:
    """Returns the number of processes."""
    return jax.process_count()


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def agreed(*flags: bool) -> tuple[bool, ...]:
    """Returns, for each flag, whether any process has it; all processes call this at the same point.

    >>> agreed(True, False)
    (True, False)
    """
    if count() == 1:
        return flags
    return tuple(np.any(_gathered(np.array(flags)), axis=0).tolist())


def compare(values: Mapping[str, Any]) -> None:
    """Refuses, in every process, values that differ between processes.

    Args:
      values: JSON values by the name that the user knows them by, such as checksums by file. Nested names are joined.

    Raises:
      InputError: names what differs, and in which process.
    """
    if count() == 1:
        return
    mine = json.dumps(_flat(values), sort_keys=True, default=str).encode()
    # Arrays of one shape, which a collective needs.
    length = int(_gathered(np.array(len(mine))).max())
    texts = _gathered(np.frombuffer(mine.ljust(length), np.uint8))
    records: list[dict[str, Any]] = [json.loads(bytes(text)) for text in texts]
    for process, record in enumerate(records):
        names = [name for name in {**records[0], **record} if records[0].get(name) != record.get(name)]
        if names:
            raise InputError(
                f"process {process} of {count()} differs from process 0 in {listed(sorted(names))}; give all processes "
                "the same command and the same files."
            )


# Of a process: JAX agrees on one of them.
_POLLS = itertools.count(1)


def preemption() -> Callable[[], bool]:
    """Returns whether SIGTERM arrived in any process, to be polled at the same points: JAX's own agreement.

    For a program that called ``jax.distributed.initialize``; commands handle signals themselves.
    """
    if count() == 1 or not getattr(jax.config, "jax_enable_preemption_service", True):
        return lambda: False
    from jax.experimental import multihost_utils

    return lambda: multihost_utils.reached_preemption_sync_point(next(_POLLS))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}: ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _gathered(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    gathered: np.ndarray = multihost_utils.process_allgather(array)
    return gathered


def put(tree: PyTree, sharding: jax.sharding.Sharding | None) -> PyTree:
    """Puts host arrays, the same in every process, on the devices: each process the shares of its own devices.

    ``jax.device_put`` compares them between processes, which hangs where threads of two processes do so in another
    order.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__), tree)


def local_rows(sharding: jax.sharding.Sharding | None, count: int) -> slice | np.ndarray:
    """Returns which of the rows of a batch the devices of this process compute: an index of its first axis."""
    if sharding is None or sharding.is_fully_addressable:
        return slice(None)
    shares = sharding.addressable_devices_indices_map((count,)).values()
    parts = {index[0].indices(count)[:2] for index in shares if index is not None}
    return np.concatenate([np.arange(*part) for part in sorted(parts)])


def assemble(tree: PyTree, sharding: jax.sharding.Sharding | None, shape: tuple[int, ...]) -> PyTree:
    """Makes arrays whose first axes have this shape from the rows of each process; see :func:`local_rows`."""
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def assembled(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, leaf, (*shape, *leaf.shape[len(shape) :]))

    return jax.tree.map(assembled, tree)


def whole(tree: PyTree) -> PyTree:
    """Returns arrays on the host, whole in every process; all processes call this at the same point.

    >>> whole({"a": jax.numpy.arange(2)})
    {'a': array([0, 1], dtype=int32)}
    """

    def fetched(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            from jax.experimental import multihost_utils

            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(fetched, tree)
