"""Preprocessing: from inputs as read to model inputs, with statistics of the training examples only.

One module per type of input. A fitted preprocessor is a plain JSON record, which is saved with a run.
"""

import pkgutil
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from jaxcls._utils.errors import unknown_name
from jaxcls.data.batching import Buckets

PyTree = Any

# The type in a record -> the module and the class.
_CLASSES = {
    "images": "images:ImagePreprocessor",
    "detection": "images:DetectionPreprocessor",
    "tables": "tables:TablePreprocessor",
    "texts": "texts:TextPreprocessor",
    "ensemble": "ensemble:EnsemblePreprocessor",
}


class Preprocessor(Protocol):
    """What was fitted on the training inputs; it treats every example the same and does not see labels."""

    def transform(self, inputs: PyTree) -> PyTree:
        """Runs once on the host: turns inputs as read into compact arrays, a tree with a common first axis."""

    def shapes(self, count: Any) -> PyTree:
        """Returns the :class:`jax.ShapeDtypeStruct` of the compact arrays of `count` inputs."""

    def normalize(self, compact: PyTree) -> PyTree:
        """Runs inside the compiled step: turns a batch of compact arrays, augmented or not, into model inputs."""

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """The arguments of a model's constructor that depend on its inputs."""

    @property
    def program(self) -> Hashable:
        """What compiled programs contain of it: where it is equal, as between most folds, one program serves all."""

    @property
    def buckets(self) -> Buckets | None:
        """The sizes that batches of compact arrays may be cropped to; None for inputs without padding."""

    def as_record(self) -> dict[str, Any]:
        """Returns plain JSON values, of which 'type' names the preprocessor; see :func:`from_record`."""


def from_record(record: Mapping[str, Any]) -> Preprocessor:
    """Reads what :meth:`Preprocessor.as_record` returned.

    Raises:
      InputError: the record is damaged.

    >>> import numpy as np
    >>> from jaxcls.data.preprocessing import images
    >>> fitted = images.fit(np.zeros((1, 2, 2, 1), np.uint8))
    >>> from_record(fitted.as_record()) == fitted
    True
    """
    name = record["type"]
    if name not in _CLASSES:
        raise unknown_name("preprocessor", name, _CLASSES)
    # Imports only the module that is needed: images do not need a tokenizer.
    fitted: Preprocessor = pkgutil.resolve_name(f"{__name__}.{_CLASSES[name]}").from_record(record)
    return fitted
