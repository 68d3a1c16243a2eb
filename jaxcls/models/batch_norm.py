"""The layer of batch normalisation that models of images share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels


class BatchNorm(nnx.BatchNorm):
    """``flax.nnx.BatchNorm`` of images (N, H, W, C) by :func:`jaxcls.kernels.batch_norm`: the same variables and results.

    >>> layer = BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 4, 4, 3))).shape
    (2, 4, 4, 3)
    """

    def __init__(self, features: int, *, momentum: float, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        super().__init__(features, momentum=momentum, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.use_running_average:
            return super().__call__(x)
        assert self.scale is not None
        assert self.bias is not None
        y, mean, variance = kernels.batch_norm(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance
        return y
