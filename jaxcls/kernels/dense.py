"""Dense layers and dropout with implementations that are fast on a CPU, above all their gradients."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcls.kernels import native


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, *, dtype: Any = None) -> jax.Array:
    """Returns ``x @ kernel + bias``.

    Args:
      x: (..., inputs).
      kernel: (inputs, outputs).
      bias: (outputs,), or None.
      dtype: type of the computation and of the result; by default that of ``x``.

    >>> linear(jnp.ones((2, 3)), jnp.ones((3, 1)), jnp.array([0.5])).tolist()
    [[3.5], [3.5]]
    """
    x = x.astype(dtype or x.dtype)
    if native.supports_product(x, kernel):
        y = _native_product(x, kernel)
        return (y if bias is None else add_bias(y, bias.astype(y.dtype))).astype(x.dtype)
    kernel, bias = kernel.astype(x.dtype), None if bias is None else bias.astype(x.dtype)
    # Exported programs accept any number of rows, and have no gradients. For few rows XLA's own gradients are faster:
    # an MLP with a batch of 128 takes 0.75 to 0.83 of the time.
    if not all(isinstance(size, int) for size in x.shape) or math.prod(x.shape[:-1]) < 1024:
        y = dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
    y = _product(x, kernel)
    return y if bias is None else add_bias(y, bias)


def dot_general(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, **options: Any) -> jax.Array:
    """``lax.dot_general``, but with native kernels for dense layers in bfloat16 on a CPU that has instructions for
    them.

    It can replace the ``dot_general`` of ``flax.nnx.Linear``. In float32 XLA is as fast as any alternative on each
    platform: on a CPU 110 to 160 of 170 GFLOP/s in the layers of the image models and their gradients (two Zen 3
    cores); products of transposed copies are no faster. In bfloat16 XLA computes in float32, but native kernels reach
    570 to 1,030 GFLOP/s, where oneDNN reaches 290 to 510 in float32 (two Zen 5 cores).

    >>> from flax import nnx
    >>> layer = nnx.Linear(3, 2, dot_general=dot_general, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 3))).shape
    (4, 2)
    """
    is_dense = dimension_numbers == (((lhs.ndim - 1,), (0,)), ((), ())) and rhs.ndim == 2 and lhs.dtype == rhs.dtype
    if is_dense and all(value is None for value in options.values()) and native.supports_product(lhs, rhs):
        return _native_product(lhs, rhs).astype(lhs.dtype)
    return lax.dot_general(lhs, rhs, dimension_numbers, **options)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns ``x + bias``, where the shape of the bias is that of the last axes of ``x``.

    >>> jax.grad(lambda bias: add_bias(jnp.zeros((4, 3)), bias).sum())(jnp.ones(3)).tolist()
    [4.0, 4.0, 4.0]
    """
    return x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


def _add_bias_backward(bias, cotangent):  # type: ignore[no-untyped-def]
    rows = cotangent.reshape(-1, bias.size)
    # XLA's CPU backend sums over rows in windows, or fused with the computation of the rows, on one thread and one
    # column after another: 9 ms for 8192 rows of 512; as a product 1.7 ms.
    total = lax.platform_dependent(rows, cpu=_sum_rows, default=lambda rows: rows.sum(axis=0))
    return cotangent, total.reshape(bias.shape)


def _sum_rows(rows: jax.Array) -> jax.Array:
    precise = jnp.promote_types(rows.dtype, jnp.float32)
    total = jnp.matmul(jnp.ones(len(rows), rows.dtype), rows, preferred_element_type=precise)
    return total.astype(rows.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), bias), _add_bias_backward)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _product_backward(saved, cotangent):  # type: ignore[no-untyped-def]
    x, kernel = saved
    rows, cotangents = x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])
    gradient = lax.platform_dependent(rows, cotangents, cpu=_transposed_product, default=lambda x, y: x.T @ y)
    return cotangent @ kernel.T, gradient


def _transposed_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns ``x.T @ y`` by transposing the narrower of the two.

    XLA's CPU backend copies the transposed operand, and slowly recomputes the operations fused with it: 44 ms for 8192
    rows of 512 from a GELU, where the product takes 8.
    """
    if x.shape[1] <= y.shape[1]:
        return x.T @ y
    return lax.optimization_barrier(y.T @ x).T


_product.defvjp(lambda x, kernel: (_product(x, kernel), (x, kernel)), _product_backward)


@jax.custom_vjp
def _native_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The float32 product of (..., inputs) and (inputs, outputs), rounded to bfloat16.

    A kernel in float32 is rounded once for the forward and backward pass; its gradient is not rounded.
    """
    return _native_forward(x, kernel)[0]


def _native_forward(x, kernel):  # type: ignore[no-untyped-def]
    rounded = kernel.astype(jnp.bfloat16)
    y = native.product(x.reshape(-1, x.shape[-1]), rounded)
    return y.reshape(*x.shape[:-1], kernel.shape[1]), (x, rounded, jnp.zeros(0, kernel.dtype))


def _native_backward(saved, cotangent):  # type: ignore[no-untyped-def]
    x, rounded, like = saved
    cotangents = cotangent.reshape(-1, cotangent.shape[-1]).astype(jnp.bfloat16)
    x_gradient = native.product(cotangents, rounded, (False, True)).reshape(x.shape)
    kernel_gradient = native.product(x.reshape(-1, x.shape[-1]), cotangents, (True, False))
    return x_gradient.astype(x.dtype), kernel_gradient.astype(like.dtype)


_native_product.defvjp(_native_forward, _native_backward)


def dropout(key: jax.Array, x: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Sets elements to 0 with probability ``rate`` and scales the others so that the expected value is unchanged.

    The rate is rounded to a multiple of 2^-16. On a CPU, where random bits are the cost of dropout, it takes a third of
    the time of ``flax.nnx.Dropout``.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".

    Args:
      key: a random key; the result depends on it alone, not on the platform or the number of devices.
      x: an array of at least one axis.
      rate: 0 to 1; one that is traced is less than 1.

    >>> x = dropout(jax.random.key(0), jnp.ones((1000, 100)), rate=0.25)
    >>> round(float((x == 0).mean()), 2), round(float(x.max()), 4)
    (0.25, 1.3333)
    """
    keep_threshold: Any = round((1 - rate) * 65536)
    if not isinstance(keep_threshold, jax.Array) and keep_threshold == 0:
        return jnp.zeros_like(x)
    *shape, features = x.shape
    words = jax.random.bits(key, (*shape, (features + 1) // 2), jnp.uint32)
    bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(*shape, -1)[..., :features]
    # Not bits < keep_threshold, since 65536 is not a uint16.
    scale = 65536 / keep_threshold
    if isinstance(scale, jax.Array):
        scale = scale.astype(x.dtype)
    return jnp.where(bits <= jnp.uint16(keep_threshold - 1), x * scale, 0)
