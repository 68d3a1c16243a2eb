"""Kernels in C++ for operations that XLA's CPU backend is slow at. The fallback is JAX.

``JAXCLS_NATIVE=0`` disables them; with ``JAXCLS_NATIVE=1`` it is an error if they are not available.
"""

import contextlib
import contextvars
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxcls._utils.errors import InputError
from jaxcls.kernels.native import library, ops
from jaxcls.kernels.native.library import Unavailable
from jaxcls.kernels.native.ops import ConvGeometry, channel_sums, convolve, input_gradient, kernel_gradient, product

__all__ = [
    "ConvGeometry", "channel_sums", "convolve", "input_gradient", "is_portable", "kernel_gradient", "portable",
    "product", "record", "supports_channel_sums", "supports_convolution", "supports_product",
]  # fmt: skip

_portable = contextvars.ContextVar("portable", default=False)
_CONVOLUTIONS, _PRODUCTS = "convolutions", "products in bfloat16"
# The implementation of each operation that was traced.
_backends: dict[str, str] = {}


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Functions traced inside this context contain no native kernels, and run where jaxcls is not installed.

    They use the implementations for a variable number of examples, and so compute the same bits as exported programs.
    Functions that ``jax.jit`` has already traced for the same shapes are not traced again.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Returns whether functions are currently traced without native kernels, see :func:`portable`."""
    return _portable.get()


def supports_convolution(x: jax.Array, kernel: jax.Array, geometry: ConvGeometry) -> bool:
    """Returns whether native kernels compute a convolution that is being traced, if it runs on a CPU.

    Raises:
      InputError: ``JAXCLS_NATIVE`` is 1 and they are not available, or it is neither 0 nor 1.
    """
    if not _supports(x, kernel) or min(min(pair) for pair in geometry.padding) < 0:
        return False
    if 0 in ops.output_shape(x.shape, kernel.shape, geometry):
        return False
    kernels = _library(_CONVOLUTIONS)
    return kernels is not None and (x.dtype == jnp.float32 or kernels.bfloat16)


def supports_channel_sums(a: jax.Array, b: jax.Array) -> bool:
    """Like :func:`supports_convolution`, for :func:`channel_sums`."""
    return _supports(a, b) and _library(_CONVOLUTIONS) is not None


def supports_product(a: jax.Array, b: jax.Array) -> bool:
    """Like :func:`supports_convolution`, for :func:`product` of a bfloat16 ``a``; in float32 XLA is as fast."""
    if a.dtype != jnp.bfloat16 or not (_supports(a) and _supports(b)):
        return False
    kernels = _library(_PRODUCTS)
    if kernels is not None and not kernels.bfloat16_products:
        _backends[_PRODUCTS] = "XLA (this processor has no instructions for them)"
        return False
    return kernels is not None


def _supports(*arrays: jax.Array) -> bool:
    # For other platforms the library would be compiled in vain.
    if _portable.get() or jax.default_backend() != "cpu":
        return False
    if len({array.dtype for array in arrays}) > 1 or arrays[0].dtype not in (jnp.float32, jnp.bfloat16):
        return False
    # Exported programs have a symbolic batch size.
    return all(isinstance(size, int) and size > 0 for array in arrays for size in array.shape)


def record() -> dict[str, str]:
    """Returns the implementations of the convolutions and bfloat16 products that this process has traced.

    It includes the number of threads, since sums are divided among them, so that their last bits depend on it.
    """
    return dict(_backends)


def _library(operation: str) -> library.Library | None:
    setting = os.environ.get("JAXCLS_NATIVE", "")
    if setting not in ("", "0", "1"):
        raise InputError(f"JAXCLS_NATIVE={setting}: it must be 0 (disabled), 1 (required) or unset.")
    if setting == "0":
        _backends[operation] = "XLA (JAXCLS_NATIVE=0)"
        return None
    try:
        kernels = library.load()
    except Unavailable as reason:
        if setting == "1":
            raise InputError(
                f"JAXCLS_NATIVE=1, but there are no native kernels: {reason}. They need a C++ compiler and oneDNN: "
                "pip install 'jaxcls[cpu]'."
            ) from reason
        _backends[operation] = f"XLA ({reason})"
        return None
    _backends[operation] = f"oneDNN {kernels.onednn} on {kernels.threads} threads"
    return kernels
