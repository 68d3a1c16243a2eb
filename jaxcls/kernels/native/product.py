"""Products of matrices in bfloat16 on oneDNN, of many pairs at once."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

# Which of the two factors lie in memory transposed.
Transposed = tuple[bool, bool]


def product(a: jax.Array, b: jax.Array, transposed: Transposed = (False, False)) -> jax.Array:
    """Each pair's product: (..., M, K) and (..., K, N) to float32 (..., M, N), of numbers rounded to bfloat16.

    Args:
      a, b: float32 or bfloat16.
      transposed: whether ``a`` is given as (..., K, M), and whether ``b`` as (..., N, K).
    """
    return _mapped(transposed)(a, b)


def _mapped(transposed: Transposed):  # type: ignore[no-untyped-def]
    # What vmap maps over are more pairs.
    @jax.custom_batching.custom_vmap
    def pairs(a, b):  # type: ignore[no-untyped-def]
        return _sharded(a, b, transposed)

    @pairs.def_vmap
    def _more_pairs(size, batched, a, b):  # type: ignore[no-untyped-def]
        a, b = (
            array if is_batched else jnp.broadcast_to(array[None], (size, *array.shape))
            for array, is_batched in zip((a, b), batched, strict=True)
        )
        return pairs(a, b), True

    return pairs


@functools.partial(custom_partitioning, static_argnums=(2,))
def _sharded(a: jax.Array, b: jax.Array, transposed: Transposed) -> jax.Array:
    return _kernel(a, b, transposed)


def _partition(transposed, mesh, operands, result):  # type: ignore[no-untyped-def]
    # Each device has its share of the pairs, of the rows, of the columns, or of what is summed over.
    a, b = (_axes(operand) for operand in operands)
    rows, inner = a[-2:][::-1] if transposed[0] else a[-2:]
    columns = b[-2 if transposed[1] else -1]
    taken = {axis for axes in (*a,) for axis in _names(axes)}
    columns = None if taken & set(_names(columns)) else columns
    pairs = a[:-2]

    def placed(*axes):  # type: ignore[no-untyped-def]
        return NamedSharding(mesh, PartitionSpec(*pairs, *axes))

    def of_own(a, b):  # type: ignore[no-untyped-def]
        part = _kernel(a, b, transposed)
        return part if inner is None else jax.lax.psum(part, inner)

    first = placed(inner, rows) if transposed[0] else placed(rows, inner)
    second = placed(columns, inner) if transposed[1] else placed(inner, columns)
    return mesh, of_own, placed(rows, columns), (first, second)


def _axes(operand):  # type: ignore[no-untyped-def]
    spec = tuple(operand.sharding.spec)
    return (*spec, *[None] * (len(operand.shape) - len(spec)))


def _names(axes):  # type: ignore[no-untyped-def]
    if axes is None:
        return ()
    return axes if isinstance(axes, tuple) else (axes,)


def _sharding_rule(transposed, mesh, operands, result):  # type: ignore[no-untyped-def]
    pairs = [f"p{place}" for place in range(len(operands[0].shape) - 2)]
    first = ["k", "m"] if transposed[0] else ["m", "k"]
    second = ["n", "k"] if transposed[1] else ["k", "n"]
    return f"{' '.join([*pairs, *first])}, {' '.join([*pairs, *second])} -> {' '.join([*pairs, 'm', 'n'])}"


_sharded.def_partition(partition=_partition, sharding_rule=_sharding_rule)


def _kernel(a: jax.Array, b: jax.Array, transposed: Transposed) -> jax.Array:
    *pairs, rows, inner = a.shape
    rows = inner if transposed[0] else rows
    columns = b.shape[-2 if transposed[1] else -1]
    flat = math.prod(pairs)
    result = jax.ffi.ffi_call("jaxcls_product", jax.ShapeDtypeStruct((flat, rows, columns), jnp.float32))(
        a.reshape(flat, *a.shape[-2:]), b.reshape(flat, *b.shape[-2:]),
        a_transposed=transposed[0], b_transposed=transposed[1],
    )  # fmt: skip
    return result.reshape(*pairs, rows, columns)
