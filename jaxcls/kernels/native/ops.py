"""The operations of the native library: convolutions and products in bfloat16 by oneDNN, and sums per channel."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

Shape = tuple[int, ...]
# Which of the two factors of a product are stored transposed.
Transposed = tuple[bool, bool]


class ConvGeometry(NamedTuple):
    """The parameters of a convolution besides its arrays, for height and width, as in ``lax.conv_general_dilated``."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


# The three operations of a convolution; the gradient of each consists of the other two. Images are (N, H, W, C),
# kernels (H, W, C // groups, features). Half precision is accumulated in float32.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, geometry: ConvGeometry) -> jax.Array:
    """Returns the convolution of ``x`` with the kernel."""
    return _call("jaxcls_convolution", x, kernel, output_shape(x.shape, kernel.shape, geometry), geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def input_gradient(cotangent: jax.Array, kernel: jax.Array, shape: Shape, geometry: ConvGeometry) -> jax.Array:
    """Returns the gradient of the inputs, in their ``shape``."""
    return _call("jaxcls_convolution_input_gradient", cotangent, kernel, shape, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_gradient(x: jax.Array, cotangent: jax.Array, shape: Shape, geometry: ConvGeometry) -> jax.Array:
    """Returns the gradient of the kernel, in its ``shape``."""
    return _call("jaxcls_convolution_kernel_gradient", x, cotangent, shape, geometry)


# All three are derivatives of one trilinear function of x, kernel and y: the sum of y times the convolution.


def _convolve_backward(geometry, saved, d_y):  # type: ignore[no-untyped-def]
    x, kernel = saved
    return input_gradient(d_y, kernel, x.shape, geometry), kernel_gradient(x, d_y, kernel.shape, geometry)


def _input_gradient_backward(shape, geometry, saved, d_x):  # type: ignore[no-untyped-def]
    y, kernel = saved
    return convolve(d_x, kernel, geometry), kernel_gradient(d_x, y, kernel.shape, geometry)


def _kernel_gradient_backward(shape, geometry, saved, d_kernel):  # type: ignore[no-untyped-def]
    x, y = saved
    return input_gradient(y, d_kernel, x.shape, geometry), convolve(x, d_kernel, geometry)


def _saving_arrays(operation: Any) -> Any:
    return lambda first, second, *static: (operation(first, second, *static), (first, second))


convolve.defvjp(_saving_arrays(convolve), _convolve_backward)
input_gradient.defvjp(_saving_arrays(input_gradient), _input_gradient_backward)
kernel_gradient.defvjp(_saving_arrays(kernel_gradient), _kernel_gradient_backward)


def output_shape(x: Shape, kernel: Shape, geometry: ConvGeometry) -> Shape:
    """Returns the shape of the convolution of arrays of these shapes."""
    sides = []
    for axis in range(2):
        window = (kernel[axis] - 1) * geometry.dilation[axis] + 1
        span = x[1 + axis] + sum(geometry.padding[axis]) - window
        sides.append(max(0, span // geometry.strides[axis] + 1))
    return (x[0], *sides, kernel[3])


# Around each kernel: vmap runs one call after another, and where images are sharded each device convolves its own.


def _call(target: str, first: jax.Array, second: jax.Array, shape: Shape, geometry: ConvGeometry) -> jax.Array:
    call = functools.partial(_sharded_convolution, target=target, shape=shape, geometry=geometry)
    return jax.custom_batching.sequential_vmap(call)(first, second)


def _convolution_kernel(
    first: jax.Array, second: jax.Array, target: str, shape: Shape, geometry: ConvGeometry
) -> jax.Array:
    (top, bottom), (left, right) = geometry.padding
    # The result is float32, which XLA rounds in the loop that reads it.
    result = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, jnp.float32))(
        first, second,
        strides=np.array(geometry.strides, np.int64), dilation=np.array(geometry.dilation, np.int64),
        before=np.array([top, left], np.int64), after=np.array([bottom, right], np.int64),
        groups=np.int64(geometry.groups),
    )  # fmt: skip
    return result.astype(first.dtype)


def _partition_convolution(target, shape, geometry, mesh, operands, result):  # type: ignore[no-untyped-def]
    axis, split, whole = _batch_sharding(mesh, operands)

    def local(first, second):  # type: ignore[no-untyped-def]
        return _convolution_kernel(first, second, target, (first.shape[0], *shape[1:]), geometry)

    def summed(x, y):  # type: ignore[no-untyped-def]
        return _sum_over(axis, _convolution_kernel(x, y, target, shape, geometry))

    if target == "jaxcls_convolution_kernel_gradient":
        return mesh, summed, whole, (split, split)
    return mesh, local, split, (split, whole)


def _convolution_rule(target, shape, geometry, mesh, operands, result):  # type: ignore[no-untyped-def]
    if target == "jaxcls_convolution_kernel_gradient":
        return "n h w c, n p q o -> i j k f"
    return "n h w c, i j k f -> n p q o"


_sharded_convolution = custom_partitioning(_convolution_kernel, static_argnums=(2, 3, 4))
_sharded_convolution.def_partition(partition=_partition_convolution, sharding_rule=_convolution_rule)


def channel_sums(a: jax.Array, b: jax.Array, shift: jax.Array, mask: jax.Array) -> jax.Array:
    """Sums ``a - shift[0]`` and ``(a - shift[0]) * (b - shift[1])`` per channel, over the images of the mask.

    (N, H, W, C), (N, H, W, C), float32 (2, C) and bool (N,) to float32 (2, C).
    """
    return jax.custom_batching.sequential_vmap(_sharded_sums)(a, b, shift, mask)


def _sums_kernel(a: jax.Array, b: jax.Array, shift: jax.Array, mask: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((2, a.shape[-1]), jnp.float32)
    return jax.ffi.ffi_call("jaxcls_channel_sums", shape)(a, b, shift, mask)


def _partition_sums(mesh, operands, result):  # type: ignore[no-untyped-def]
    axis, split, whole = _batch_sharding(mesh, operands)
    return mesh, lambda *arrays: _sum_over(axis, _sums_kernel(*arrays)), whole, (split, split, whole, split)


_sharded_sums = custom_partitioning(_sums_kernel)
_sharded_sums.def_partition(partition=_partition_sums, sharding_rule="n h w c, n h w c, s d, n -> k e")


def _batch_sharding(mesh: Any, operands: Any) -> tuple[Any, NamedSharding, NamedSharding]:
    """Returns the mesh axis over which images are sharded, if any, the sharding of images, and full replication."""
    spec = operands[0].sharding.spec
    axis = spec[0] if spec else None
    return axis, NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())


def _sum_over(axis: Any, x: jax.Array) -> jax.Array:
    """Sums over the devices of a mesh axis, if there is one."""
    return x if axis is None else lax.psum(x, axis)


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


def _product_backward(transposed, saved, cotangent):  # type: ignore[no-untyped-def]
    a, b = saved
    # Rounded here to be fused with the computation of the cotangent.
    cotangent = cotangent.astype(jnp.bfloat16)
    a_transposed, b_transposed = transposed
    d_a = (b, cotangent, (b_transposed, True)) if a_transposed else (cotangent, b, (False, not b_transposed))
    d_b = (cotangent, a, (True, a_transposed)) if b_transposed else (a, cotangent, (not a_transposed, False))
    return product(*d_a).astype(a.dtype), product(*d_b).astype(b.dtype)


product.defvjp(lambda a, b, transposed: (product(a, b, transposed), (a, b)), _product_backward)


def _lax_product(a: jax.Array, b: jax.Array, *, transposed: Transposed) -> jax.Array:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    a, b = a.mT if transposed[0] else a, b.mT if transposed[1] else b
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _native_product(a: jax.Array, b: jax.Array, *, transposed: Transposed) -> jax.Array:
    # vmap adds a batch axis.
    vmappable = jax.custom_batching.custom_vmap(functools.partial(_sharded_product, transposed=transposed))

    @vmappable.def_vmap
    def _batched(size, is_batched, a, b):  # type: ignore[no-untyped-def]
        a, b = (
            array if batched else jnp.broadcast_to(array[None], (size, *array.shape))
            for array, batched in zip((a, b), is_batched, strict=True)
        )
        return vmappable(a, b), True

    return vmappable(a, b)


def _product_kernel(a: jax.Array, b: jax.Array, transposed: Transposed) -> jax.Array:
    *pairs, rows, inner = a.shape
    rows = inner if transposed[0] else rows
    columns = b.shape[-2 if transposed[1] else -1]
    count = math.prod(pairs)
    result = jax.ffi.ffi_call("jaxcls_product", jax.ShapeDtypeStruct((count, rows, columns), jnp.float32))(
        a.reshape(count, *a.shape[-2:]), b.reshape(count, *b.shape[-2:]),
        a_transposed=transposed[0], b_transposed=transposed[1],
    )  # fmt: skip
    return result.reshape(*pairs, rows, columns)


def _partition_product(transposed, mesh, operands, result):  # type: ignore[no-untyped-def]
    # Each device has a share of the pairs, the rows, the columns, or the inner dimension.
    a, b = (
        (*operand.sharding.spec, *[None] * (len(operand.shape) - len(operand.sharding.spec))) for operand in operands
    )
    rows, inner = a[-2:][::-1] if transposed[0] else a[-2:]
    columns = b[-2 if transposed[1] else -1]
    # What shards a dimension is a leaf, several leaves or None, which is no leaf: no axis may shard two dimensions.
    columns = None if {*jax.tree.leaves(a)} & {*jax.tree.leaves(columns)} else columns

    def sharding(*axes):  # type: ignore[no-untyped-def]
        return NamedSharding(mesh, PartitionSpec(*a[:-2], *axes))

    def local(a, b):  # type: ignore[no-untyped-def]
        return _sum_over(inner, _product_kernel(a, b, transposed))

    first = sharding(inner, rows) if transposed[0] else sharding(rows, inner)
    second = sharding(columns, inner) if transposed[1] else sharding(inner, columns)
    return mesh, local, sharding(rows, columns), (first, second)


def _product_rule(transposed, mesh, operands, result):  # type: ignore[no-untyped-def]
    pairs = " ".join(f"p{index}" for index in range(len(operands[0].shape) - 2))
    first, second = "k m" if transposed[0] else "m k", "n k" if transposed[1] else "k n"
    return f"{pairs} {first}, {pairs} {second} -> {pairs} m n"


_sharded_product = custom_partitioning(_product_kernel, static_argnums=(2,))
_sharded_product.def_partition(partition=_partition_product, sharding_rule=_product_rule)
