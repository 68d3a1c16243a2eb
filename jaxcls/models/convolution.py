"""The layers of convolution that models of images share."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels

# He et al. 2015, for layers that a ReLU follows.
he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class Conv(nnx.Conv):
    """``flax.nnx.Conv`` of images (N, H, W, C), by :func:`jaxcls.kernels.conv` and :func:`jaxcls.kernels.add_bias`: the same
    variables and results.

    >>> layer = Conv(3, 8, strides=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 9, 9, 3))).shape
    (2, 5, 5, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: Sequence[int] = (3, 3),
        strides: int = 1,
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, kernel_size, strides, use_bias=use_bias, kernel_init=he_normal,
            conv_general_dilated=kernels.conv, dtype=dtype, rngs=rngs,
        )  # fmt: skip

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        assert isinstance(self.strides, int)
        kernel = self.kernel[...].astype(self.dtype)
        strides = (self.strides, self.strides)
        y = kernels.conv(x.astype(self.dtype), kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        # Flax adds it by broadcasting; the sum that is the gradient of that takes XLA's CPU backend as long as a
        # convolution.
        return y if self.bias is None else kernels.add_bias(y, self.bias[...].astype(self.dtype))


class PooledConv(nnx.Conv):
    """A padded convolution of 3 x 3 and the maximum over 2 x 2 of it, by :func:`jaxcls.kernels.pooled_convolution`.

    The bias is added to the maximum, and a ReLU belongs behind it: both give what they would give before it, from a
    quarter of the numbers.

    >>> layer = PooledConv(1, 4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 8, 8, 1))).shape
    (2, 4, 4, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, (3, 3), use_bias=use_bias, kernel_init=he_normal, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        y = kernels.pooled_convolution(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return y if self.bias is None else kernels.add_bias(y, self.bias[...].astype(self.dtype))
