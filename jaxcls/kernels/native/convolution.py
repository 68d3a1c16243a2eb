"""The three operations of a convolution on oneDNN; the gradient of each consists of the other two."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

Shape = tuple[int, ...]


class ConvGeometry(NamedTuple):
    """The parameters of a convolution besides its arrays, for height and width, as in ``lax.conv_general_dilated``."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


# Images are (N, H, W, C), kernels (H, W, C // groups, features). Half precision is accumulated in float32.


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
    @jax.custom_batching.sequential_vmap
    def vmappable(first, second):  # type: ignore[no-untyped-def]
        return _sharded(first, second, target, shape, geometry)

    return vmappable(first, second)


def _kernel(first: jax.Array, second: jax.Array, target: str, shape: Shape, geometry: ConvGeometry) -> jax.Array:
    (top, bottom), (left, right) = geometry.padding
    # The result is float32, which XLA rounds in the loop that reads it.
    result = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, jnp.float32))(
        first, second,
        strides=np.array(geometry.strides, np.int64), dilation=np.array(geometry.dilation, np.int64),
        before=np.array([top, left], np.int64), after=np.array([bottom, right], np.int64),
        groups=np.int64(geometry.groups),
    )  # fmt: skip
    return result.astype(first.dtype)


def _partition(target, shape, geometry, mesh, operands, result):  # type: ignore[no-untyped-def]
    axis, split, whole = batch_sharding(mesh, operands)

    def local(first, second):  # type: ignore[no-untyped-def]
        return _kernel(first, second, target, (first.shape[0], *shape[1:]), geometry)

    def summed(x, y):  # type: ignore[no-untyped-def]
        return sum_over(axis, _kernel(x, y, target, shape, geometry))

    if target == "jaxcls_convolution_kernel_gradient":
        return mesh, summed, whole, (split, split)
    return mesh, local, split, (split, whole)


def _sharding_rule(target, shape, geometry, mesh, operands, result):  # type: ignore[no-untyped-def]
    if target == "jaxcls_convolution_kernel_gradient":
        return "n h w c, n p q o -> i j k f"
    return "n h w c, i j k f -> n p q o"


_sharded = custom_partitioning(_kernel, static_argnums=(2, 3, 4))
_sharded.def_partition(partition=_partition, sharding_rule=_sharding_rule)


def batch_sharding(mesh: Any, operands: Any) -> tuple[Any, NamedSharding, NamedSharding]:
    """Returns the mesh axis over which images are sharded, if any, the sharding of images, and full replication."""
    spec = operands[0].sharding.spec
    axis = spec[0] if spec else None
    return axis, NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())


def sum_over(axis: Any, x: jax.Array) -> jax.Array:
    """Sums over the devices of a mesh axis, if there is one."""
    return x if axis is None else jax.lax.psum(x, axis)
