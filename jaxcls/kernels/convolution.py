"""Convolutions and max pooling with implementations that are fast on a CPU, above all their gradients."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxcls._utils.fusion_barrier import fusion_barrier
from jaxcls.kernels import native
from jaxcls.kernels.native import ConvGeometry

_NHWC = lax.ConvDimensionNumbers(lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2))


def conv(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """``lax.conv_general_dilated``, but fast on a CPU, including its gradients and inside loops.

    It can replace the ``conv_general_dilated`` of ``flax.nnx.Conv``. On a CPU two-dimensional NHWC convolutions use
    native kernels, or, where these are not available, for convolutions without dilation, dense or depthwise,
    implementations in JAX. Everything else is computed by lax. Reverse-mode derivatives of any order are supported;
    forward mode (``jax.jvp``) only where lax computes.

    >>> from flax import nnx
    >>> layer = nnx.Conv(1, 8, (3, 3), conv_general_dilated=conv, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 28, 28, 1))).shape
    (2, 28, 28, 8)
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    transposed = any(d != 1 for d in lhs_dilation or ())
    if numbers == _NHWC and not transposed and all(value is None for value in options.values()):
        strides = (window_strides[0], window_strides[1])
        dilation = (rhs_dilation[0], rhs_dilation[1]) if rhs_dilation else (1, 1)
        pads = padding
        if isinstance(pads, str):
            window = [(size - 1) * d + 1 for size, d in zip(rhs.shape, dilation, strict=False)]
            pads = lax.padtype_to_pads(lhs.shape[1:3], window, strides, pads)
        (top, bottom), (left, right) = pads
        geometry = ConvGeometry(strides, ((top, bottom), (left, right)), dilation, feature_group_count)
        is_native = native.supports_convolution(lhs, rhs, geometry)
        if is_native or (dilation == (1, 1) and feature_group_count == 1):
            return _conv(lhs, rhs, geometry, is_native)
        is_depthwise = dilation == (1, 1) and feature_group_count == lhs.shape[3] == rhs.shape[3]
        if is_depthwise and min(top, bottom, left, right) >= 0:
            shifted = functools.partial(_shifted_products, geometry=geometry)
            return lax.platform_dependent(lhs, rhs, cpu=shifted, default=_lax_conv(geometry))
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
        feature_group_count, **options,
    )  # fmt: skip


def pooled_convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A padded 3 x 3 convolution and 2 x 2 max pooling, (N, H, W, C) to (N, H // 2, W // 2, features).

    Args:
      images: (N, H, W, C).
      kernel: (3, 3, C, features).

    >>> images, kernel = jnp.arange(16.0).reshape(1, 4, 4, 1), jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    >>> pooled_convolution(images, kernel).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    # With at least 32 output channels native kernels are faster than the matrix product: a step of a small CNN takes
    # 0.94 of the time, in bfloat16 0.75.
    same = ConvGeometry((1, 1), ((1, 1), (1, 1)))
    is_native = native.supports_convolution(images, kernel, same) and kernel.shape[-1] >= 32
    # With few input channels, a convolution has little arithmetic per number that it reads and writes.
    if images.shape[-1] > 3 or is_native:
        return _conv_then_pool(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=_pooled_product, default=_conv_then_pool)


def _conv_then_pool(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return max_pool(conv(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))


def _pooled_product(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a pooled convolution as one matrix product.

    The four results under one maximum depend on a window of 4 x 4 pixels. These windows are multiplied with four
    shifted copies of the kernel: 16 / 9 of the arithmetic, but half the time on a CPU.
    """
    count, height, width, channels = images.shape
    rows, columns, features = height // 2, width // 2, kernel.shape[-1]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, : 2 * rows + 2, : 2 * columns + 2]
    # Two columns at a time, which are contiguous in memory.
    pairs = padded.reshape(count, rows + 1, 2, columns + 1, 2 * channels)
    pixels = [pairs[:, y : y + rows, row, x : x + columns] for y in range(2) for row in range(2) for x in range(2)]
    windows = jnp.concatenate(pixels, axis=-1).reshape(-1, 16 * channels)
    shifted = [jnp.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0))) for y in range(2) for x in range(2)]
    kernels = jnp.concatenate([copy.reshape(16 * channels, features) for copy in shifted], axis=1)
    return (windows @ kernels).reshape(count, rows, columns, 4, features).max(axis=3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, geometry: ConvGeometry, is_native: bool) -> jax.Array:
    if not is_native:
        return _lax_conv(geometry)(x, kernel)
    natively = functools.partial(native.convolve, geometry=geometry)
    return lax.platform_dependent(x, kernel, cpu=natively, default=_lax_conv(geometry))


def _conv_forward(x, kernel, geometry, is_native):  # type: ignore[no-untyped-def]
    return _conv(x, kernel, geometry, is_native), (x, kernel)


def _conv_backward(geometry, is_native, saved, cotangent):  # type: ignore[no-untyped-def]
    def on_cpu(x, kernel, cotangent):  # type: ignore[no-untyped-def]
        of_x, of_kernel = _input_gradient, _kernel_gradient
        if is_native:
            of_x, of_kernel = native.input_gradient, native.kernel_gradient
        return of_x(cotangent, kernel, x.shape, geometry), of_kernel(x, cotangent, kernel.shape, geometry)

    def by_lax(x, kernel, cotangent):  # type: ignore[no-untyped-def]
        return jax.vjp(_lax_conv(geometry), x, kernel)[1](cotangent)

    return lax.platform_dependent(*saved, cotangent, cpu=on_cpu, default=by_lax)


_conv.defvjp(_conv_forward, _conv_backward)


def _lax_conv(geometry: ConvGeometry) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return functools.partial(
        lax.conv_general_dilated, window_strides=geometry.strides, padding=geometry.padding,
        rhs_dilation=geometry.dilation, dimension_numbers=_NHWC, feature_group_count=geometry.groups,
    )  # fmt: skip


def _shifted_products(x: jax.Array, kernel: jax.Array, geometry: ConvGeometry) -> jax.Array:
    """Computes a depthwise convolution as a sum of shifted images times one number per channel.

    XLA's CPU backend takes ten times as long for a convolution with groups, 25 times as long as native kernels.
    """
    height, width, _, channels = kernel.shape
    padded = jnp.pad(x.astype(jnp.float32), ((0, 0), *geometry.padding, (0, 0)))
    rows, columns = ((padded.shape[1 + axis] - kernel.shape[axis]) // geometry.strides[axis] + 1 for axis in range(2))
    y = jnp.zeros((), jnp.float32)
    for row, column in itertools.product(range(height), range(width)):
        window = padded[:, row :: geometry.strides[0], column :: geometry.strides[1]][:, :rows, :columns]
        y += window * kernel[row, column].reshape(1, 1, 1, channels)
    return y.astype(x.dtype)


# XLA's CPU backend is fast at one layout of a convolution only: NHWC inputs, HWIO kernels and NHWC outputs. lax writes
# gradients as convolutions with permuted dimension numbers, which inside a loop are 25 times slower. These are the same
# convolutions with explicit transpositions.


def _input_gradient(
    cotangent: jax.Array, kernel: jax.Array, shape: tuple[int, ...], geometry: ConvGeometry
) -> jax.Array:
    """Convolves the cotangent, dilated by the strides, with the kernel rotated by 180 degrees."""
    pads = []
    for axis in range(2):
        before = kernel.shape[axis] - 1 - geometry.padding[axis][0]
        dilated = (cotangent.shape[1 + axis] - 1) * geometry.strides[axis] + 1
        pads.append((before, shape[1 + axis] + kernel.shape[axis] - 1 - dilated - before))
    rotated = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        cotangent, rotated, (1, 1), pads, lhs_dilation=geometry.strides, dimension_numbers=_NHWC
    )


def _kernel_gradient(x: jax.Array, cotangent: jax.Array, shape: tuple[int, ...], geometry: ConvGeometry) -> jax.Array:
    """Convolves the inputs with the cotangent, with the batch as channels and the channels as batch."""
    pads = []
    for axis in range(2):
        dilated = (cotangent.shape[1 + axis] - 1) * geometry.strides[axis] + 1
        before = geometry.padding[axis][0]
        pads.append((before, shape[axis] - 1 + dilated - x.shape[1 + axis] - before))
    gradient = lax.conv_general_dilated(
        fusion_barrier(x).transpose(3, 1, 2, 0), fusion_barrier(cotangent).transpose(1, 2, 0, 3), (1, 1), pads,
        rhs_dilation=geometry.strides, dimension_numbers=_NHWC,
    )  # fmt: skip
    return gradient.transpose(1, 2, 0, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(images: jax.Array, window: int = 2) -> jax.Array:
    """Max pooling with equal window and stride, (N, H, W, C) to (N, H // window, W // window, C).

    Pixels that tie for the maximum share the gradient evenly. Reverse-mode derivatives of any order are supported;
    forward mode is not.

    Args:
      images: (N, H, W, C).
      window: pixels per side.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    chex.assert_rank(images, 4)
    return functools.reduce(jnp.maximum, _pixels(_windows(images, window)))


def _pool_forward(images: jax.Array, window: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = max_pool(images, window)
    return largest, (images, largest)


def _pool_backward(window: int, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array]:
    images, largest = saved
    ties = sum((pixel == largest).astype(cotangent.dtype) for pixel in _pixels(_windows(images, window)))
    share = cotangent / ties
    gradient = jnp.where(_windows(images, window) == _pool_expand(largest), _pool_expand(share), 0)
    count, rows, _, columns, _, channels = gradient.shape
    cropped = gradient.reshape(count, rows * window, columns * window, channels)
    return (jnp.pad(cropped, [(0, size - used) for size, used in zip(images.shape, cropped.shape, strict=True)]),)


max_pool.defvjp(_pool_forward, _pool_backward)


def overlapping_max_pool(images: jax.Array) -> jax.Array:
    """Max pooling by windows of 3 x 3 at every second pixel, (N, H, W, C) to (N, H / 2, W / 2, C), rounded up.

    Images are padded by one pixel on each side. Pixels that tie for the maximum share the gradient on a CPU.

    >>> overlapping_max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    chex.assert_rank(images, 4)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))

    # Including the gradient, it takes a quarter of the time of XLA's reduction of windows.
    def shifted(images: jax.Array) -> jax.Array:
        padded = jnp.pad(images, padding, constant_values=-jnp.inf)
        height, width = padded.shape[1] - 2, padded.shape[2] - 2
        windows = (
            padded[:, row : row + height : 2, column : column + width : 2] for row in range(3) for column in range(3)
        )
        return functools.reduce(jnp.maximum, windows)

    def reduced(images: jax.Array) -> jax.Array:
        return lax.reduce_window(images, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)

    return lax.platform_dependent(images, cpu=shifted, default=reduced)


# XLA's CPU backend runs reductions one number at a time, with everything fused into them, such as the ReLU before. The
# maximum of the pixels of a window is vectorized over channels.


def _windows(images: jax.Array, window: int) -> jax.Array:
    """Splits images into windows, (N, rows, window, columns, window, C), without the rest below and to the right."""
    count, height, width, channels = images.shape
    rows, columns = height // window, width // window
    cropped = images[:, : rows * window, : columns * window]
    return cropped.reshape(count, rows, window, columns, window, channels)


def _pixels(windows: jax.Array) -> list[jax.Array]:
    """Returns the first pixel of every window, the second of every window, and so on."""
    size = windows.shape[2]
    return [windows[:, :, row, :, column] for row in range(size) for column in range(size)]


def _pool_expand(pooled: jax.Array) -> jax.Array:
    return pooled[:, :, None, :, None]
