"""The three operations of a convolution on oneDNN; each has the two others as its gradient."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

Shape = tuple[int, ...]


class Movement(NamedTuple):
    """How a kernel moves over images: (of height, of width) each, as in ``lax.conv_general_dilated``."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


# Images are (N, H, W, C), kernels (H, W, C // groups, features). Half precision is summed in float32.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, movement: Movement) -> jax.Array:
    """The convolution of ``x`` with the kernel."""
    return _call("jaxcls_convolution", x, kernel, output_shape(x.shape, kernel.shape, movement), movement)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def input_gradient(cotangent: jax.Array, kernel: jax.Array, shape: Shape, movement: Movement) -> jax.Array:
    """The gradient of the inputs, which have this shape."""
    return _call("jaxcls_convolution_input_gradient", cotangent, kernel, shape, movement)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_gradient(x: jax.Array, cotangent: jax.Array, shape: Shape, movement: Movement) -> jax.Array:
    """The gradient of the kernel, which has this shape."""
    return _call("jaxcls_convolution_kernel_gradient", x, cotangent, shape, movement)


# All three are one sum of products of x, kernel and y, in which one of the three is left open.


def _convolve_backward(movement, saved, of_y):  # type: ignore[no-untyped-def]
    x, kernel = saved
    return input_gradient(of_y, kernel, x.shape, movement), kernel_gradient(x, of_y, kernel.shape, movement)


def _input_gradient_backward(shape, movement, saved, of_x):  # type: ignore[no-untyped-def]
    y, kernel = saved
    return convolve(of_x, kernel, movement), kernel_gradient(of_x, y, kernel.shape, movement)


def _kernel_gradient_backward(shape, movement, saved, of_kernel):  # type: ignore[no-untyped-def]
    x, y = saved
    return input_gradient(y, of_kernel, x.shape, movement), convolve(x, of_kernel, movement)


convolve.defvjp(lambda x, kernel, movement: (convolve(x, kernel, movement), (x, kernel)), _convolve_backward)
input_gradient.defvjp(
    lambda y, kernel, shape, movement: (input_gradient(y, kernel, shape, movement), (y, kernel)),
    _input_gradient_backward,
)
kernel_gradient.defvjp(
    lambda x, y, shape, movement: (kernel_gradient(x, y, shape, movement), (x, y)), _kernel_gradient_backward
)


def output_shape(x: Shape, kernel: Shape, movement: Movement) -> Shape:
    """The shape of the convolution of arrays of these shapes."""
    sides = []
    for axis in range(2):
        covered = (kernel[axis] - 1) * movement.dilation[axis] + 1
        room = x[1 + axis] + sum(movement.padding[axis]) - covered
        sides.append(max(0, room // movement.strides[axis] + 1))
    return (x[0], *sides, kernel[3])


# What stands between a gradient and the kernel, from the outside in: vmap takes one element after another, and where
# the images are split over devices each of them convolves its own.


def _call(target: str, first: jax.Array, second: jax.Array, shape: Shape, movement: Movement) -> jax.Array:
    @jax.custom_batching.sequential_vmap
    def each(first, second):  # type: ignore[no-untyped-def]
        return _sharded(first, second, target, shape, movement)

    return each(first, second)


@functools.partial(custom_partitioning, static_argnums=(2, 3, 4))
def _sharded(first: jax.Array, second: jax.Array, target: str, shape: Shape, movement: Movement) -> jax.Array:
    return _kernel(first, second, target, shape, movement)


def _partition(target, shape, movement, mesh, operands, result):  # type: ignore[no-untyped-def]
    axis = operands[0].sharding.spec[0] if operands[0].sharding.spec else None
    split, whole = NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())

    def of_own_images(first, second):  # type: ignore[no-untyped-def]
        return _kernel(first, second, target, (first.shape[0], *shape[1:]), movement)

    def summed(x, y):  # type: ignore[no-untyped-def]
        gradient = _kernel(x, y, target, shape, movement)
        return gradient if axis is None else jax.lax.psum(gradient, axis)

    if target == "jaxcls_convolution_kernel_gradient":
        return mesh, summed, whole, (split, split)
    return mesh, of_own_images, split, (split, whole)


def _sharding_rule(target, shape, movement, mesh, operands, result):  # type: ignore[no-untyped-def]
    if target == "jaxcls_convolution_kernel_gradient":
        return "n h w c, n p q o -> i j k f"
    return "n h w c, i j k f -> n p q o"


_sharded.def_partition(partition=_partition, sharding_rule=_sharding_rule)


def _kernel(first: jax.Array, second: jax.Array, target: str, shape: Shape, movement: Movement) -> jax.Array:
    (top, bottom), (left, right) = movement.padding
    # In float32, which XLA rounds in the loop that reads it.
    result = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, jnp.float32))(
        first, second,
        strides=np.array(movement.strides, np.int64), dilation=np.array(movement.dilation, np.int64),
        before=np.array([top, left], np.int64), after=np.array([bottom, right], np.int64),
        groups=np.int64(movement.groups),
    )  # fmt: skip
    return result.astype(first.dtype)
