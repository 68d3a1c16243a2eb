"""Two sums of each channel in one pass over images."""

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def channel_sums(a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    """The sums of ``a`` and of ``a * (b - shift)`` over all but the channels: (N, H, W, C) and (C,) to (2, C)."""
    return _each(a, b, shift)


# As in a convolution: vmap takes one after another, and each device sums its own images.


@jax.custom_batching.sequential_vmap
def _each(a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    return _sharded(a, b, shift)


def _kernel(a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((2, a.shape[-1]), jnp.float32)
    return jax.ffi.ffi_call("jaxcls_channel_sums", shape)(a, b, shift)


def _partition(mesh, operands, result):  # type: ignore[no-untyped-def]
    axis = operands[0].sharding.spec[0] if operands[0].sharding.spec else None
    split, whole = NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())

    def summed(a, b, shift):  # type: ignore[no-untyped-def]
        sums = _kernel(a, b, shift)
        return sums if axis is None else jax.lax.psum(sums, axis)

    return mesh, summed, whole, (split, split, whole)


_sharded = custom_partitioning(_kernel)
_sharded.def_partition(partition=_partition, sharding_rule="n h w c, n h w c, d -> k e")
