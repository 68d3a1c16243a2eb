"""Sums over rows as chains of additions, which XLA's CPU backend is fast at."""

import functools

import jax
import jax.numpy as jnp


def add_rows(x: jax.Array, most: int) -> jax.Array:
    """Adds up rows that stand together, (..., rows, features) to (..., fewer rows, features).

    A reduction XLA's CPU backend runs one number at a time, and may write to memory first what it reduces. A chain of
    additions runs over the features of a row at once, in one loop with all that the numbers are computed from. What is
    left to sum is little.

    Args:
      most: rows in one chain; the largest divisor of their number up to it is taken. Each is an instruction to compile.

    >>> add_rows(jnp.arange(6.0).reshape(6, 1), most=4).ravel().tolist()
    [3.0, 12.0]
    """
    *before, rows, features = x.shape
    together = max(size for size in range(1, most + 1) if rows % size == 0)
    chains = x.reshape(*before, -1, together, features)
    return functools.reduce(jnp.add, [chains[..., place, :] for place in range(together)])
