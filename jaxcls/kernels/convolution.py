"""Convolution in forms that XLA's CPU backend is fast at, its gradients above all."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from jaxcls._utils.fusion_barrier import fusion_barrier
from jaxcls.kernels import native
from jaxcls.kernels.native_convolution import native_conv

_NHWC = lax.ConvDimensionNumbers(lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2))
_Padding = tuple[tuple[int, int], tuple[int, int]]


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
    """``lax.conv_general_dilated``, fast on a CPU as well: its gradients too, and inside a loop.

    Takes the place of the ``conv_general_dilated`` of ``flax.nnx.Conv``. Two-dimensional NHWC convolutions take native
    kernels there; without these, or without dilation and groups, the forms of this file; everything else is lax's own.
    Reverse mode differentiates it to any order; forward mode (``jax.jvp``) is for lax's own alone.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = nnx.Conv(1, 8, (3, 3), conv_general_dilated=conv, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 28, 28, 1))).shape
    (2, 28, 28, 8)
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    spread = any(d != 1 for d in lhs_dilation or ())
    if numbers == _NHWC and not spread and all(value is None for value in options.values()):
        strides = (window_strides[0], window_strides[1])
        dilation = (rhs_dilation[0], rhs_dilation[1]) if rhs_dilation else (1, 1)
        pads = padding
        if isinstance(pads, str):
            covered = [(size - 1) * d + 1 for size, d in zip(rhs.shape, dilation, strict=False)]
            pads = lax.padtype_to_pads(lhs.shape[1:3], covered, strides, pads)
        (top, bottom), (left, right) = pads
        movement = native.Movement(strides, ((top, bottom), (left, right)), dilation, feature_group_count)
        if native.takes(lhs, rhs, movement):
            return native_conv(lhs, rhs, movement)
        if dilation == (1, 1) and feature_group_count == 1:
            return _conv(lhs, rhs, movement.strides, movement.padding)
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
        feature_group_count, **options,
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: _Padding) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


def _conv_forward(x, kernel, strides, padding):  # type: ignore[no-untyped-def]
    return _conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides, padding, saved, cotangent):  # type: ignore[no-untyped-def]
    x, kernel = saved

    def of_lax(x, kernel, cotangent):  # type: ignore[no-untyped-def]
        plain = functools.partial(
            lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=_NHWC
        )
        return jax.vjp(plain, x, kernel)[1](cotangent)

    def of_cpu(x, kernel, cotangent):  # type: ignore[no-untyped-def]
        return (
            _input_gradient(x, kernel, cotangent, strides, padding),
            _kernel_gradient(x, kernel, cotangent, strides, padding),
        )

    return lax.platform_dependent(x, kernel, cotangent, cpu=of_cpu, default=of_lax)


_conv.defvjp(_conv_forward, _conv_backward)


# XLA's CPU backend is fast for one layout of a convolution only: NHWC inputs, HWIO kernels, NHWC outputs. lax
# writes the gradients as convolutions with permuted dimension numbers, which inside a loop take a path that is
# 25 times slower; here the same convolutions stand with the permutations spelled out.


def _input_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, strides: tuple[int, int], padding: _Padding
) -> jax.Array:
    """The cotangent, spread out by the strides, convolved with the kernel turned by 180 degrees."""
    pads = []
    for axis in range(2):
        before = kernel.shape[axis] - 1 - padding[axis][0]
        spread = (cotangent.shape[1 + axis] - 1) * strides[axis] + 1
        after = x.shape[1 + axis] + kernel.shape[axis] - 1 - spread - before
        pads.append((before, after))
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(cotangent, turned, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_NHWC)


def _kernel_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, strides: tuple[int, int], padding: _Padding
) -> jax.Array:
    """The inputs convolved with the cotangent: channels take the place of the batch, the batch of channels."""
    pads = []
    for axis in range(2):
        spread = (cotangent.shape[1 + axis] - 1) * strides[axis] + 1
        after = kernel.shape[axis] - 1 + spread - x.shape[1 + axis] - padding[axis][0]
        pads.append((padding[axis][0], after))
    gradient = lax.conv_general_dilated(
        fusion_barrier(x).transpose(3, 1, 2, 0), fusion_barrier(cotangent).transpose(1, 2, 0, 3), (1, 1), pads,
        rhs_dilation=strides, dimension_numbers=_NHWC,
    )  # fmt: skip
    return gradient.transpose(1, 2, 0, 3)
