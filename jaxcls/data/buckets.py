"""Buckets: the few sizes that batches of padded examples are cropped to, to save computing on padding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

PyTree = Any
Size = tuple[int, ...]


class Buckets(NamedTuple):
    """The sizes of batches along the padded axes.

    Attributes:
      sizes: the cheapest first; the last one fits every example.
      extents: ``inputs -> (N, axes)``, the size of each example without padding; NumPy for NumPy inputs.
      cut: ``(inputs, size) -> inputs``, cropped to the size.
    """

    sizes: tuple[Size, ...]
    extents: Callable[[PyTree], Any]
    cut: Callable[[PyTree, Size], PyTree]

    def indices(self, inputs: PyTree) -> Any:
        """Returns, for each example, the index of the first size that fits it, int32 (N,).

        >>> sequence_buckets((2, 4)).indices(np.array([[5, 0, 0, 0], [5, 0, 7, 0]])).tolist()
        [0, 1]
        """
        return self._first_fit(self.extents(inputs))

    def common_index(self, inputs: PyTree) -> Any:
        """Returns the index of the first size that fits all examples together, a scalar.

        >>> sizes = np.array([[60, 30], [30, 60]])
        >>> buckets = canvas_buckets(((64, 32), (32, 64), (64, 64)))
        >>> buckets.indices({"size": sizes}).tolist(), int(buckets.common_index({"size": sizes}))
        ([0, 1], 2)
        """
        return self._first_fit(self.extents(inputs).max(axis=0)[None, :])[0]

    def _first_fit(self, extents: Any) -> Any:
        fits = (extents[:, None, :] <= np.array(self.sizes)[None]).all(axis=2)
        return fits.argmax(axis=1).astype(np.int32)


def sequence_buckets(widths: tuple[int, ...]) -> Buckets:
    """Returns the buckets of token ids (N, width), padded with 0 at the end, for ascending widths."""
    return Buckets(tuple((width,) for width in widths), _lengths, lambda tokens, size: tokens[:, : size[0]])


def canvas_buckets(sizes: tuple[tuple[int, int], ...]) -> Buckets:
    """Returns the buckets of images at the top left of canvases, for canvases of these (height, width).

    Inputs are a dict of ``image`` (N, H, W, C) and ``size`` (N, 2), the height and width of the images.
    """

    def cut(inputs: PyTree, size: Size) -> PyTree:
        return inputs | {"image": inputs["image"][:, : size[0], : size[1]]}

    return Buckets(sizes, lambda inputs: inputs["size"], cut)


def _lengths(tokens: Any) -> Any:
    # The argmax of booleans needs an eighth of the memory of a maximum of indices.
    real = tokens != 0
    return (real.any(axis=1) * (tokens.shape[1] - real[:, ::-1].argmax(axis=1)))[:, None]
