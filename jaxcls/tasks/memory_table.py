"""The memory that training takes on each device of a mesh, from its compiled step, which is not run."""

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxcls.data.batching import chunk_sharding, copies
from jaxcls.tasks import build
from jaxcls.training import mesh
from jaxcls.training.settings import Settings

PyTree = Any


def describe(user_settings: Settings, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Returns the bytes on each device by what takes them, and those of all devices together where they are divided.

    Activations are those of the program for this kind of devices: XLA fuses and orders operations for each in its own
    way.

    Raises:
      InputError: something given is wrong, or the mesh is not of the devices that there are.
    """
    built = build.build(user_settings, say=say)
    experiment, devices = built.experiment, mesh.make(user_settings.mesh)
    step_size = experiment.step_size(built.settings.batch_size)
    padding = mesh.padding(step_size, devices, step_size // built.settings.batch_size)
    split = chunk_sharding(mesh.shardings(devices)[1])
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype, sharding=split),
        copies(built.train, step_size + padding),
    )
    state = mesh.placed(devices, experiment.state_shapes)
    train_chunk: Any = experiment.train_chunk
    analysis = train_chunk.lower(state, batch).compile().memory_analysis()
    parts = {"parameters": state.params, "model state": state.model_state, "optimizer state": state.opt_state}
    parts["batch"] = batch
    result: dict[str, Any] = {
        "mesh": dict(devices.shape),
        "batch_size": step_size,
        "bytes": {name: _bytes(tree, divided=True) for name, tree in parts.items()},
        "undivided": {name: _bytes(tree, divided=False) for name, tree in parts.items()},
    }
    result["bytes"]["activations and gradients"] = analysis.temp_size_in_bytes
    result["bytes"]["training examples"] = sum(leaf.nbytes for leaf in jax.tree.leaves(tuple(built.train)))
    return result


def lines(described: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the rows of a table of :func:`describe`."""
    count = math.prod(described["mesh"].values())
    rows: list[tuple[str, ...]] = [(f"bytes on each of {count} devices" if count > 1 else "bytes", "", "of all")]
    for name, size in described["bytes"].items():
        whole = described["undivided"].get(name)
        rows.append((name, f"{size:,}", "" if whole is None else f"{whole:,}"))
    rows.append(("together", f"{sum(described['bytes'].values()):,}", ""))
    return rows


def _bytes(tree: PyTree, *, divided: bool) -> int:
    def size(leaf: Any) -> int:
        shape = leaf.sharding.shard_shape(leaf.shape) if divided else leaf.shape
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))
