"""The dense layer that models share."""

import jax
from flax import nnx

from jaxcls import kernels


class Linear(nnx.Linear):
    """``flax.nnx.Linear`` by :func:`jaxcls.kernels.linear`: the same variables and results.

    >>> import jax.numpy as jnp
    >>> Linear(3, 2, rngs=nnx.Rngs(0))(jnp.ones((4, 3))).shape
    (4, 2)
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        bias = None if self.bias is None else self.bias[...]
        return kernels.linear(x, self.kernel[...], bias, dtype=self.dtype)
