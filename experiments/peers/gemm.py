"""The peak rate of the machine: square float32 matrix products by the fastest libraries."""

import importlib.util
import time
from collections.abc import Callable

import numpy as np

SIDE = 2048


def products() -> list[Callable[[], float]]:
    """Functions that measure one product each, in operations per second: NumPy, XLA, and PyTorch if installed."""
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty_like(left)
    measured = [lambda: _timed(lambda: np.matmul(left, right, out=out))]
    import jax

    arrays = jax.device_put((left, right))
    multiply = jax.jit(jax.numpy.matmul)
    multiply(*arrays).block_until_ready()
    measured.append(lambda: _timed(lambda: multiply(*arrays).block_until_ready()))
    if importlib.util.find_spec("torch"):
        import torch

        tensors = [torch.from_numpy(array) for array in (left, right)]
        result = torch.from_numpy(out)
        measured.append(lambda: _timed(lambda: torch.matmul(*tensors, out=result)))
    return measured


def _timed(product: Callable[[], object]) -> float:
    began = time.perf_counter()
    product()
    return 2 * SIDE**3 / (time.perf_counter() - began)
