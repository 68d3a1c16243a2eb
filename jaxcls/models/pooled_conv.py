"""The layer of a convolution with a maximum behind it that models of images share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import ops

# He et al. 2015, for layers that a ReLU follows.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class PooledConv(nnx.Conv):
    """A padded convolution of 3 x 3 and the maximum over 2 x 2 of it, by :func:`jaxcls.ops.pooled_convolution`.

    The bias is added to the maximum, and a ReLU belongs behind it: both give what they would give before it, from a
    quarter of the numbers.

    >>> layer = PooledConv(1, 4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 8, 8, 1))).shape
    (2, 4, 4, 4)
    """

    def __init__(
        self, previous: int, features: int, *, use_bias: bool = True, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        super().__init__(
            previous, features, (3, 3), use_bias=use_bias, kernel_init=_he_normal, dtype=dtype, rngs=rngs
        )  # fmt: skip

    def __call__(self, images: jax.Array) -> jax.Array:  # type: ignore[override]
        pooled = ops.pooled_convolution(images.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return pooled if self.bias is None else ops.add_bias(pooled, self.bias[...].astype(self.dtype))
