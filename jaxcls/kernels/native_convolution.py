"""Convolution where there are native kernels: by them on a CPU, by lax on every other platform."""

import functools

import jax
from jax import lax

from jaxcls.kernels import native

_NHWC = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def native_conv(x: jax.Array, kernel: jax.Array, movement: native.Movement) -> jax.Array:
    """A convolution that :func:`jaxcls.kernels.native.takes` said yes to. Reverse mode differentiates it to any order."""
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(native.convolve, movement=movement), default=_of_lax(movement)
    )


def _forward(x, kernel, movement):  # type: ignore[no-untyped-def]
    return native_conv(x, kernel, movement), (x, kernel)


def _backward(movement, saved, cotangent):  # type: ignore[no-untyped-def]
    def natively(x, kernel, cotangent):  # type: ignore[no-untyped-def]
        return (
            native.input_gradient(cotangent, kernel, x.shape, movement),
            native.kernel_gradient(x, cotangent, kernel.shape, movement),
        )

    def of_lax(x, kernel, cotangent):  # type: ignore[no-untyped-def]
        return jax.vjp(_of_lax(movement), x, kernel)[1](cotangent)

    return lax.platform_dependent(*saved, cotangent, cpu=natively, default=of_lax)


native_conv.defvjp(_forward, _backward)


def _of_lax(movement: native.Movement):  # type: ignore[no-untyped-def]
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=movement.strides,
        padding=movement.padding,
        rhs_dilation=movement.dilation,
        dimension_numbers=_NHWC,
        feature_group_count=movement.groups,
    )
