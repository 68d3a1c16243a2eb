"""Buckets: the few sizes that batches of padded examples are cut to, so that little padding is computed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

PyTree = Any
Size = tuple[int, ...]


class Buckets(NamedTuple):
    """The sizes that batches may have along the axes on which examples are padded.

    Attributes:
      sizes: the cheapest first; the last one holds every example.
      extents: ``inputs -> (N, axes)``, how much of each example is not padding. NumPy arrays stay on the host.
      cut: ``(inputs, size) -> inputs`` without what lies beyond.
    """

    sizes: tuple[Size, ...]
    extents: Callable[[PyTree], Any]
    cut: Callable[[PyTree, Size], PyTree]

    def of_each(self, inputs: PyTree) -> Any:
        """For each example the number of the first size that holds it, (N,) int32.

        >>> of_sequences((2, 4)).of_each(np.array([[5, 0, 0, 0], [5, 0, 7, 0]])).tolist()
        [0, 1]
        """
        return self._first(self.extents(inputs))

    def of_all(self, inputs: PyTree) -> Any:
        """The number of the first size that holds them all, a scalar; no size of one of them need do so.

        >>> sizes = np.array([[60, 30], [30, 60]])
        >>> buckets = of_canvases(((64, 32), (32, 64), (64, 64)))
        >>> buckets.of_each({"size": sizes}).tolist(), int(buckets.of_all({"size": sizes}))
        ([0, 1], 2)
        """
        return self._first(self.extents(inputs).max(axis=0)[None, :])[0]

    def _first(self, extents: Any) -> Any:
        holds = (extents[:, None, :] <= np.array(self.sizes)[None]).all(axis=2)
        return holds.argmax(axis=1).astype(np.int32)


def of_sequences(widths: tuple[int, ...]) -> Buckets:
    """Of integers (N, width), padded with 0 at the end; the widths ascend."""
    return Buckets(tuple((width,) for width in widths), _lengths, lambda tokens, size: tokens[:, : size[0]])


def of_canvases(sizes: tuple[tuple[int, int], ...]) -> Buckets:
    """Of images at the top left of canvases, a dict of them, ``image`` (N, H, W, C), and of their heights and widths,
    ``size`` (N, 2). Sizes are heights and widths, too."""

    def cut(inputs: PyTree, size: Size) -> PyTree:
        return inputs | {"image": inputs["image"][:, : size[0], : size[1]]}

    return Buckets(sizes, lambda inputs: inputs["size"], cut)


def _lengths(tokens: Any) -> Any:
    # Of numbers in place of booleans the largest would be sought, in eight times the memory.
    real = tokens != 0
    return (real.any(axis=1) * (tokens.shape[1] - real[:, ::-1].argmax(axis=1)))[:, None]
