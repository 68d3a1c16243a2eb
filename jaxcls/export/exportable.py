"""What is exported: a prediction step, its weights, and what a reader of the export needs to know."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls.data.batching import Buckets
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.models.pretrained import PretrainedModel

PyTree = Any


class Exportable(NamedTuple):
    """A trained model, ready to be exported in any format.

    Attributes:
      record: what a reader of the export needs to know, as JSON values: the names of "task" and "model"; "problem",
        "class_names" and "thresholds", each a dict if there are several outputs; "synthetic" and "data", the provenance
        of the training data; "dtype", of the computation; "calibration", the "scale" and "bias" of logits, or None.
      weights: "params" and "model_state".
      prediction_step: ``(params, model_state, inputs) -> (scores, outputs)`` of a batch of input arrays.
      input_shapes: ``count -> `` the shapes of that many input arrays, as :class:`jax.ShapeDtypeStruct`.
      batch_size: examples per step.
      preprocessor: raw inputs -> input arrays; None if inputs are arrays.
      buckets: the sizes of padded inputs, each of which has a program of its own.
      pretrained: the model, if its first weights were those of a checkpoint.
    """

    record: dict[str, Any]
    weights: PyTree
    prediction_step: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    input_shapes: Callable[[Any], PyTree]
    batch_size: int
    preprocessor: Preprocessor | None = None
    buckets: Buckets | None = None
    pretrained: PretrainedModel | None = None

    def scores(self, weights: PyTree, inputs: PyTree) -> PyTree:
        """Returns the scores of a batch of input arrays, with weights like :attr:`weights`."""
        return self.prediction_step(weights["params"], weights["model_state"], inputs)[0]


def named_arrays(weights: PyTree) -> dict[str, np.ndarray]:
    """Returns the arrays of a tree by path, such as "params/head/kernel", in the order of the leaves."""
    leaves, _ = jax.tree.flatten_with_path(weights)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
