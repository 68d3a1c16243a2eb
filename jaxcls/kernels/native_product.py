"""Matrix products in bfloat16 where there are native kernels: by them on a CPU, by lax on every other platform."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxcls.kernels import native
from jaxcls.kernels.native.product import Transposed


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def native_product(a: jax.Array, b: jax.Array, transposed: Transposed = (False, False)) -> jax.Array:
    """A product that :func:`jaxcls.kernels.native.takes_product` said yes to; see :func:`jaxcls.kernels.native.product`.

    Reverse mode differentiates it to any order. Gradients have the types of the factors.
    """
    natively = functools.partial(native.product, transposed=transposed)
    return lax.platform_dependent(a, b, cpu=natively, default=functools.partial(_of_lax, transposed=transposed))


def _of_lax(a: jax.Array, b: jax.Array, *, transposed: Transposed) -> jax.Array:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    a, b = a.mT if transposed[0] else a, b.mT if transposed[1] else b
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _backward(transposed, saved, cotangent):  # type: ignore[no-untyped-def]
    a, b = saved
    # Rounded here, in the loop that it comes from.
    cotangent = cotangent.astype(jnp.bfloat16)
    of_rows, of_columns = transposed
    if of_rows:
        of_a = native_product(b, cotangent, (of_columns, True))
    else:
        of_a = native_product(cotangent, b, (False, not of_columns))
    if of_columns:
        of_b = native_product(cotangent, a, (True, of_rows))
    else:
        of_b = native_product(a, cotangent, (not of_rows, False))
    return of_a.astype(a.dtype), of_b.astype(b.dtype)


native_product.defvjp(lambda a, b, transposed: (native_product(a, b, transposed), (a, b)), _backward)


@jax.custom_vjp
def dense_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """That of a dense layer, (..., inputs) by (inputs, outputs) to float32; as :func:`native_product`.

    A kernel of float32 is rounded once for both directions, and its gradient is not.
    """
    return _dense_forward(x, kernel)[0]


def _dense_forward(x, kernel):  # type: ignore[no-untyped-def]
    rounded = kernel.astype(jnp.bfloat16)
    y = native_product(x.reshape(-1, x.shape[-1]), rounded)
    return y.reshape(*x.shape[:-1], kernel.shape[1]), (x, rounded, jnp.zeros(0, kernel.dtype))


def _dense_backward(saved, cotangent):  # type: ignore[no-untyped-def]
    x, rounded, like = saved
    slopes = cotangent.reshape(-1, cotangent.shape[-1]).astype(jnp.bfloat16)
    of_x = native_product(slopes, rounded, (False, True)).reshape(x.shape)
    of_kernel = native_product(x.reshape(-1, x.shape[-1]), slopes, (True, False))
    return of_x.astype(x.dtype), of_kernel.astype(like.dtype)


dense_product.defvjp(_dense_forward, _dense_backward)
