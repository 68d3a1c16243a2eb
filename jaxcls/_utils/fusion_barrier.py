"""A value that XLA keeps apart: what reads it is not fused with what makes it."""

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def fusion_barrier(x: jax.Array) -> jax.Array:
    """The array as it is, written to memory before anything reads it.

    XLA's CPU backend fuses a transposition with the elementwise work before it, and then reads these inputs in the
    order of its output, a cache line for each number: 6 ms in place of 2.3 for 128 x 28 x 28 x 32 (two Zen 5 cores).
    ``lax.optimization_barrier`` is no help, since that backend drops it before it fuses; a call that is not inlined
    stays one. Derivatives go through, to any order. For the branch of a CPU in ``lax.platform_dependent``.

    >>> import jax.numpy as jnp
    >>> fusion_barrier(jnp.arange(3)).tolist()
    [0, 1, 2]
    """
    with set_xla_metadata(inlineable="false"):
        return _same(x)


@jax.jit
def _same(x: jax.Array) -> jax.Array:
    return x
