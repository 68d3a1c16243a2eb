"""The leaves of a state: their paths, their types, and a hash of the bits of each."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcls._utils.errors import InputError

PyTree = Any


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


def check_storable(leaves: Mapping[str, Any]) -> None:
    """Raises InputError for a leaf that a checkpoint would not preserve."""
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


def types_and_hashes(leaves: Mapping[str, jax.Array]) -> dict[str, list[Any]]:
    """Returns [type, hash] of every leaf, by path."""
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
