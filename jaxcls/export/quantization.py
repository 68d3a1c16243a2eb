"""Weights in 8 bits, for an export of a quarter of the size.

An array of weights with two axes and 1,024 numbers or more becomes int8 and float32 scales, one for each output (index
of the last axis), or of an embedding one for each row. A weight is the product of the two, off by half a scale at most.
Biases and statistics remain float32, and large arrays of counts are stored in as few bytes as they need. The model
computes in its own type, with the products: the loss in accuracy is that of the rounded weights alone, and any runtime
runs them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls.export.exportable import Exportable, PyTree

# Of smaller arrays, nothing is saved.
_LEAST_SIZE = 1024
# A scale takes the bytes of four weights, too many for shorter rows.
_LEAST_ROW = 32
_LARGEST = 127


class Scaled(NamedTuple):
    """An array as the product of values of a smaller type and a scale of its type, which broadcasts to its shape."""

    values: Any
    scale: Any


def quantized(exportable: Exportable) -> Exportable:
    """Returns the same model with weights in 8 bits."""
    weights = jax.tree.map_with_path(_quantized, exportable.weights)

    def prediction_step(params: PyTree, model_state: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        return exportable.prediction_step(restored(params), restored(model_state), inputs)

    return exportable._replace(weights=weights, prediction_step=prediction_step)


def restored(weights: PyTree) -> PyTree:
    """Returns the weights, where what was quantized is its product."""

    def product(leaf: Any) -> Any:
        return jnp.asarray(leaf.values, leaf.scale.dtype) * leaf.scale if isinstance(leaf, Scaled) else leaf

    return jax.tree.map(product, weights, is_leaf=lambda leaf: isinstance(leaf, Scaled))


def _quantized(path: Any, leaf: Any) -> Any:
    weights = np.asarray(leaf)
    if weights.dtype == np.int32 and weights.size >= _LEAST_SIZE and weights.min() >= 0:
        return Scaled(weights.astype(np.min_scalar_type(weights.max())), np.ones((1,) * weights.ndim, np.int32))
    if weights.dtype != np.float32 or weights.ndim < 2 or weights.size < _LEAST_SIZE:
        return leaf
    name = jax.tree_util.keystr(path[-1:], simple=True)
    axis = 0 if name == "embedding" and weights.shape[-1] >= _LEAST_ROW else weights.ndim - 1
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    # Weights that are all 0 have any scale.
    scale = np.where(largest > 0, largest, 1) / np.float32(_LARGEST)
    return Scaled(np.rint(weights / scale).astype(np.int8), scale.astype(np.float32))
