"""The content of a checkpoint: the leaves of a state, and the record of them, JSON text with its digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints.directory import Damaged

PyTree = Any

# The length of a SHA-256 checksum, which says nothing in a message.
_CHECKSUM = 64

_SCHEMA = {
    "step": int,
    "leaves": {str: [str, int]},
    "metadata": {str: schemas.ANYTHING},
    "metrics": {str: schemas.NUMBER},
    "identity": {str: schemas.ANYTHING},
}


class Record(NamedTuple):
    """What is saved with a state.

    Attributes:
      leaves: [type, hash] of each leaf, by path.
      metadata, metrics: the arguments of ``save``.
      identity: that of the run.
    """

    step: int
    leaves: dict[str, list[Any]]
    metadata: dict[str, Any]
    metrics: dict[str, float]
    identity: dict[str, Any]


def pack(record: Record) -> dict[str, str]:
    """Returns the record as text with its digest, so that a flipped bit in the record is noticed as well.

    Raises:
      InputError: a value is not JSON, or a metric is not a number.
    """
    try:
        metrics = {name: float(value) for name, value in record.metrics.items()}
        text = json.dumps(record._replace(metrics=metrics)._asdict())
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata must be JSON values, and metrics numbers: {error}.") from error
    return {"record": text, "sha256": _sha256(text)}


def unpack(step: int, packed: Mapping[str, Any] | None) -> Record:
    """Returns the record that :func:`pack` packed.

    Raises:
      Damaged: it was changed, or is the record of another step.
    """
    # Orbax returns None where its own file is no longer JSON.
    match packed:
        case {"record": str(text), "sha256": digest} if digest == _sha256(text):
            try:
                fields = schemas.parse(text, _SCHEMA, "its record")
            except InputError as error:  # with a valid digest: somebody changed the record on purpose
                raise Damaged(str(error)) from error
        case _:
            raise Damaged("its record is not the one that was saved")
    record = Record(*(fields[name] for name in Record._fields))
    if record.step != step:
        raise Damaged("it is a checkpoint of another step")
    return record


def check_compatible(path: Path, record: Record, identity: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
    """Raises InputError if the checkpoint is of another run or model, with the settings or leaves that differ."""
    # First the settings, which explain why leaves differ. Another release may have other settings.
    names = [
        name for name in sorted(record.identity.keys() & identity.keys()) if record.identity[name] != identity[name]
    ]
    if names:
        values = {name: f"saved {record.identity[name]!r}, now {identity[name]!r}" for name in names}
        values |= {name: "differs" for name in names if len(str(identity[name])) == _CHECKSUM}
        lines = [f"\n  {name}: {value}" for name, value in values.items()]
        raise InputError(
            f"checkpoint {path} is of another run; give the settings and the data that it was saved with, or another "
            f"directory.{''.join(lines)}"
        )
    saved = {name: kind for name, (kind, _) in record.leaves.items()}
    now = {name: type_of(leaf) for name, leaf in leaves.items()}
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if names:
        lines = [f"\n  {n}: saved {saved.get(n, 'nothing')}, now {now.get(n, 'nothing')}" for n in names[:10]]
        more = f"\n  and {len(names) - 10} more" if len(names) > 10 else ""
        raise InputError(
            f"checkpoint {path} is of another model or optimizer ({len(names)} leaves differ); use the "
            f"settings that it was saved with, or another directory.{''.join(lines)}{more}"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a state, or of its shapes, by their paths.

    Raises:
      InputError: there are no leaves, two have the same path, or one is not a jax array or shape.
    """
    pairs = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    leaves = dict(pairs)
    if not leaves:
        raise InputError("the state of a checkpoint has no leaves; give a pytree of jax arrays.")
    if len(leaves) < len(pairs):
        raise InputError("two leaves of the state have the same path, by which a checkpoint identifies leaves.")
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise InputError(f"leaf {path} of the state is a {type(leaf).__name__}; convert it with jnp.asarray.")
    return leaves


def type_of(leaf: Any) -> str:
    """Returns the dtype and shape of a leaf as text.

    >>> type_of(jnp.zeros((2, 3)))
    'float32[2, 3]'
    """
    return f"{leaf.dtype}{list(leaf.shape)}"


def abstract_leaf(path: str, leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape, dtype and sharding with which a leaf is loaded; the default is the first device."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        sharding.shard_shape(leaf.shape)
    except ValueError as error:
        raise InputError(f"leaf {path} of the state does not fit the requested sharding: {error}") from error
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def hashed(leaves: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns [type, hash] of every leaf, by path.

    Raises:
      InputError: a checkpoint would not preserve a leaf.
    """
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array):
            raise InputError(f"leaf {path} of the state is a shape without values; give the array.")
        if leaf.size == 0:
            raise InputError(f"leaf {path} of the state has shape {leaf.shape}: an empty array cannot be saved.")
        if getattr(leaf, "weak_type", False):  # a key has no such attribute
            raise InputError(
                f"leaf {path} of the state is weakly typed, which a checkpoint would lose (and a resumed run "
                f"would promote otherwise); give it a type: jnp.asarray(x, jnp.{leaf.dtype})."
            )
    hashes = jax.device_get([fingerprint(leaf) for leaf in leaves.values()])
    return {path: [type_of(leaf), int(h)] for (path, leaf), h in zip(leaves.items(), hashes, strict=True)}


@jax.jit
def fingerprint(x: jax.Array) -> jax.Array:
    """Returns a hash of the bits of an array: the sum, modulo 2^32, of a hash of every element and its position.

    An integer sum is the same in any order, thus with any sharding. The hash of an element is one-to-one (the
    finalizer of MurmurHash3), so every change of a single element changes the sum; without it, two flipped
    signs would cancel. Jitted per leaf, not per tree: parameters and their moments share a compilation.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    # An 8-byte type becomes two words, along a new last axis.
    word = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
    # The position in row-major order, from an iota per axis: flattening would gather a sharded array.
    position = jnp.uint32(0)
    for axis, size in enumerate(words.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    h = words + position * jnp.uint32(0x9E3779B9)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(h ^ (h >> 16), dtype=jnp.uint32)
