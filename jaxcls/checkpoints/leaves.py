"""The leaves of a state: their paths, their types, and a hash of the bits of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxcls._utils.errors import InputError

PyTree = Any


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves of a state, or of its shapes; InputError where a checkpoint could not tell them by their paths."""
    pairs = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    leaves = dict(pairs)
    if not leaves:
        raise InputError("the state of a checkpoint has no leaves; give a pytree of jax arrays.")
    if len(leaves) < len(pairs):
        raise InputError("two leaves of the state have the same path; a checkpoint tells leaves by their paths.")
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise InputError(
                f"leaf {path} of the state is a {type(leaf).__name__}; make it a jax array, by jnp.asarray."
            )
    return leaves


def check_storable(leaves: dict[str, Any]) -> None:
    """Raises InputError where a leaf would not come back as it is."""
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array):
            raise InputError(f"leaf {path} of the state is a shape without values; give the array.")
        if leaf.size == 0:
            raise InputError(f"leaf {path} of the state has shape {leaf.shape}: an empty array cannot be saved.")
        if getattr(leaf, "weak_type", False):  # keys have none
            raise InputError(
                f"leaf {path} of the state is weakly typed, which a checkpoint would lose (and a resumed run "
                f"would promote otherwise); give it a type: jnp.asarray(x, jnp.{leaf.dtype})."
            )


def check_same_model(path: Path, saved: dict[str, list[Any]], like: dict[str, Any]) -> None:
    """Raises InputError, with the leaves that differ, where a saved state has others than `like`."""
    have = {name: spec for name, (spec, _) in saved.items()}
    want = {name: _spec(leaf) for name, leaf in like.items()}
    differing = [name for name in {**have, **want} if have.get(name) != want.get(name)]
    if differing:
        lines = [f"\n  {n}: saved {have.get(n, 'nothing')}, now {want.get(n, 'nothing')}" for n in differing[:10]]
        more = f"\n  and {len(differing) - 10} more" if len(differing) > 10 else ""
        raise InputError(
            f"checkpoint {path} is of another model or optimizer ({len(differing)} leaves differ); use the "
            f"settings that it was saved with, or another directory.{''.join(lines)}{more}"
        )


def abstract_leaf(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
    """What is asked of a leaf that is read: its type, and where it goes to."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        sharding.shard_shape(leaf.shape)
    except ValueError as error:
        raise InputError(f"leaf {name} of the state does not fit the sharding asked for: {error}") from error
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def described(leaves: Mapping[str, jax.Array]) -> dict[str, list[Any]]:
    """The type and the hash of every leaf, by path."""
    hashes = jax.device_get([fingerprint(leaf) for leaf in leaves.values()])
    return {path: [_spec(leaf), int(h)] for (path, leaf), h in zip(leaves.items(), hashes, strict=True)}


@jax.jit
def fingerprint(x: jax.Array) -> jax.Array:
    """A hash of the bits of an array: the sum, modulo 2^32, of a hash of every element and its position.

    An integer sum is the same in any order, thus on any sharding. An element is hashed one to one, by the
    finalizer of MurmurHash3, so whatever happens to a single element changes the sum; without it, two flipped
    signs cancel. Jitted by the leaf, not by the tree: parameters and their moments share a compilation.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    # An 8-byte type becomes two words, along a new last axis.
    word = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
    # The position in row-major order, from an iota for each axis: flattening would gather a sharded array.
    position = jnp.uint32(0)
    for axis, size in enumerate(words.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    h = words + position * jnp.uint32(0x9E3779B9)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(h ^ (h >> 16), dtype=jnp.uint32)


def _spec(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
