"""Two sums per channel in one pass over images."""

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning

from jaxcls.kernels.native.convolution import batch_sharding, sum_over


def channel_sums(a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    """Sums ``a - shift[0]`` and ``(a - shift[0]) * (b - shift[1])`` per channel.

    (N, H, W, C), (N, H, W, C) and float32 (2, C) to float32 (2, C).
    """
    return _vmappable(a, b, shift)


# As in a convolution, vmap runs one call after another, and each device sums its own images.


@jax.custom_batching.sequential_vmap
def _vmappable(a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    return _sharded(a, b, shift)


def _kernel(a: jax.Array, b: jax.Array, shift: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((2, a.shape[-1]), jnp.float32)
    return jax.ffi.ffi_call("jaxcls_channel_sums", shape)(a, b, shift)


def _partition(mesh, operands, result):  # type: ignore[no-untyped-def]
    axis, split, whole = batch_sharding(mesh, operands)
    return mesh, lambda *arrays: sum_over(axis, _kernel(*arrays)), whole, (split, split, whole)


_sharded = custom_partitioning(_kernel)
_sharded.def_partition(partition=_partition, sharding_rule="n h w c, n h w c, s d -> k e")
