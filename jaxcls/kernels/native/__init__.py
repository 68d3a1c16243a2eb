"""Kernels in C++ for what XLA's CPU backend is slow at; where they cannot be had, pure JAX does the same.

``JAXCLS_NATIVE=0`` leaves them out; ``=1`` makes it an error if they are not there, in place of a slower run.
"""

import contextlib
import contextvars
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxcls._utils.errors import InputError
from jaxcls.kernels.native import library
from jaxcls.kernels.native.channel_sums import channel_sums
from jaxcls.kernels.native.convolution import Movement, convolve, input_gradient, kernel_gradient, output_shape
from jaxcls.kernels.native.onednn import Unavailable
from jaxcls.kernels.native.product import product

__all__ = [
    "Movement",
    "channel_sums",
    "convolve",
    "input_gradient",
    "is_portable",
    "kernel_gradient",
    "portable",
    "product",
    "record",
    "takes",
    "takes_product",
    "takes_sums",
]

_portable = contextvars.ContextVar("portable", default=False)
_CONVOLUTIONS, _PRODUCTS = "convolutions", "products in bfloat16"
# For each operation, what was said to the last one who asked.
_answers: dict[str, str] = {}


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced inside holds no native kernel, and runs where jaxcls is not installed.

    It takes the forms that fit any number of examples, too, so that it computes the very bits that an exported program
    does. A function that was traced before, under ``jax.jit``, is not traced again for the same shapes.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether what is traced now is to be portable."""
    return _portable.get()


def takes(x: jax.Array, kernel: jax.Array, movement: Movement) -> bool:
    """Whether a convolution that is traced now takes the native kernels, if it runs on a CPU.

    Raises:
      InputError: ``JAXCLS_NATIVE`` is 1 and they cannot be had, or it is neither 0 nor 1.
    """
    if not _is_asked_for(x, kernel) or min(min(pair) for pair in movement.padding) < 0:
        return False
    if 0 in output_shape(x.shape, kernel.shape, movement):
        return False
    kernels = _library(_CONVOLUTIONS)
    return kernels is not None and (x.dtype == jnp.float32 or kernels.bfloat16)


def takes_sums(a: jax.Array, b: jax.Array) -> bool:
    """As :func:`takes`, of :func:`channel_sums`."""
    return _is_asked_for(a, b) and _library(_CONVOLUTIONS) is not None


def takes_product(a: jax.Array, b: jax.Array) -> bool:
    """As :func:`takes`, of :func:`product`, where ``a`` is bfloat16. In float32 XLA's own are as fast."""
    if a.dtype != jnp.bfloat16 or not (_is_asked_for(a) and _is_asked_for(b)):
        return False
    kernels = _library(_PRODUCTS)
    if kernels is not None and not kernels.bfloat16_products:
        _answers[_PRODUCTS] = "XLA (this processor has no instructions for them)"
        return False
    return kernels is not None


def _is_asked_for(*arrays: jax.Array) -> bool:
    """Whether the kernels are for such arrays, and for what is traced now."""
    # On other platforms they would be compiled for nothing.
    if _portable.get() or jax.default_backend() != "cpu":
        return False
    if len({array.dtype for array in arrays}) > 1 or arrays[0].dtype not in (jnp.float32, jnp.bfloat16):
        return False
    # An exported program takes any number of images.
    return all(isinstance(size, int) and size > 0 for array in arrays for size in array.shape)


def record() -> dict[str, str]:
    """What the convolutions of this process, and its products in bfloat16, are computed by, if any were traced yet.

    The number of threads belongs to it: sums are split by it, and so their last bits depend on it.
    """
    return dict(_answers)


def _library(operation: str) -> library.Library | None:
    asked = os.environ.get("JAXCLS_NATIVE", "")
    if asked not in ("", "0", "1"):
        raise InputError(f"JAXCLS_NATIVE={asked}: it must be 0 (never) or 1 (or else an error), or not set.")
    if asked == "0":
        _answers[operation] = "XLA (JAXCLS_NATIVE=0)"
        return None
    try:
        kernels = library.load()
    except Unavailable as reason:
        if asked == "1":
            raise InputError(
                f"JAXCLS_NATIVE=1, but there are no native kernels: {reason}. They need a C++ compiler and oneDNN: "
                "pip install 'jaxcls[cpu]'."
            ) from reason
        _answers[operation] = f"XLA ({reason})"
        return None
    _answers[operation] = f"oneDNN {kernels.onednn} on {kernels.threads} threads"
    return kernels
