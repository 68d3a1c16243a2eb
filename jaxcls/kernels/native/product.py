"""Matrix products in bfloat16: by oneDNN on a CPU, by lax on other platforms."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from jaxcls.kernels.native.convolution import sum_over

# Which of the two factors are stored transposed.
Transposed = tuple[bool, bool]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(a: jax.Array, b: jax.Array, transposed: Transposed = (False, False)) -> jax.Array:
    """Returns the products of pairs of matrices, rounded to bfloat16: (..., M, K) and (..., K, N) to float32 (..., M,
    N).

    Only for arrays that :func:`jaxcls.kernels.native.supports_product` accepts. Reverse-mode derivatives of any order
    are supported; gradients have the types of the factors.

    Args:
      a: float32 or bfloat16.
      b: float32 or bfloat16.
      transposed: whether ``a`` is (..., K, M), and whether ``b`` is (..., N, K).
    """
    on_cpu = functools.partial(_native_product, transposed=transposed)
    return lax.platform_dependent(a, b, cpu=on_cpu, default=functools.partial(_lax_product, transposed=transposed))


def _backward(transposed, saved, cotangent):  # type: ignore[no-untyped-def]
    a, b = saved
    # Rounded here to be fused with the computation of the cotangent.
    cotangent = cotangent.astype(jnp.bfloat16)
    a_transposed, b_transposed = transposed
    if a_transposed:
        d_a = product(b, cotangent, (b_transposed, True))
    else:
        d_a = product(cotangent, b, (False, not b_transposed))
    if b_transposed:
        d_b = product(cotangent, a, (True, a_transposed))
    else:
        d_b = product(a, cotangent, (not a_transposed, False))
    return d_a.astype(a.dtype), d_b.astype(b.dtype)


product.defvjp(lambda a, b, transposed: (product(a, b, transposed), (a, b)), _backward)


def _lax_product(a: jax.Array, b: jax.Array, *, transposed: Transposed) -> jax.Array:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    a, b = a.mT if transposed[0] else a, b.mT if transposed[1] else b
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _native_product(a: jax.Array, b: jax.Array, *, transposed: Transposed) -> jax.Array:
    # vmap adds a batch axis.
    @jax.custom_batching.custom_vmap
    def vmappable(a, b):  # type: ignore[no-untyped-def]
        return _sharded(a, b, transposed)

    @vmappable.def_vmap
    def _batched(size, is_batched, a, b):  # type: ignore[no-untyped-def]
        a, b = (
            array if batched else jnp.broadcast_to(array[None], (size, *array.shape))
            for array, batched in zip((a, b), is_batched, strict=True)
        )
        return vmappable(a, b), True

    return vmappable(a, b)


def _kernel(a: jax.Array, b: jax.Array, transposed: Transposed) -> jax.Array:
    *pairs, rows, inner = a.shape
    rows = inner if transposed[0] else rows
    columns = b.shape[-2 if transposed[1] else -1]
    count = math.prod(pairs)
    result = jax.ffi.ffi_call("jaxcls_product", jax.ShapeDtypeStruct((count, rows, columns), jnp.float32))(
        a.reshape(count, *a.shape[-2:]), b.reshape(count, *b.shape[-2:]),
        a_transposed=transposed[0], b_transposed=transposed[1],
    )  # fmt: skip
    return result.reshape(*pairs, rows, columns)


def _partition(transposed, mesh, operands, result):  # type: ignore[no-untyped-def]
    # Each device has a share of the pairs, the rows, the columns, or the inner dimension.
    a, b = (_axes(operand) for operand in operands)
    rows, inner = a[-2:][::-1] if transposed[0] else a[-2:]
    columns = b[-2 if transposed[1] else -1]
    used = {name for axes in a for name in _names(axes)}
    columns = None if used & set(_names(columns)) else columns

    def sharding(*axes):  # type: ignore[no-untyped-def]
        return NamedSharding(mesh, PartitionSpec(*a[:-2], *axes))

    def local(a, b):  # type: ignore[no-untyped-def]
        return sum_over(inner, _kernel(a, b, transposed))

    first = sharding(inner, rows) if transposed[0] else sharding(rows, inner)
    second = sharding(columns, inner) if transposed[1] else sharding(inner, columns)
    return mesh, local, sharding(rows, columns), (first, second)


def _axes(operand):  # type: ignore[no-untyped-def]
    spec = tuple(operand.sharding.spec)
    return (*spec, *[None] * (len(operand.shape) - len(spec)))


def _names(axes):  # type: ignore[no-untyped-def]
    if axes is None:
        return ()
    return axes if isinstance(axes, tuple) else (axes,)


def _sharding_rule(transposed, mesh, operands, result):  # type: ignore[no-untyped-def]
    pairs = " ".join(f"p{index}" for index in range(len(operands[0].shape) - 2))
    first, second = "k m" if transposed[0] else "m k", "n k" if transposed[1] else "k n"
    return f"{pairs} {first}, {pairs} {second} -> {pairs} m n"


_sharded = custom_partitioning(_kernel, static_argnums=(2,))
_sharded.def_partition(partition=_partition, sharding_rule=_sharding_rule)
