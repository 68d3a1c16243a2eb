"""From inputs as they were read to what a model takes, with statistics of the training examples only.

One file a kind of input. What was fitted is a plain JSON record, which travels with a run.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from jaxcls._utils.errors import InputError
from jaxcls.data.buckets import Buckets

PyTree = Any


class Preprocessor(Protocol):
    """What was fitted on the training inputs; it is the same for every example, and knows no labels."""

    def transform(self, inputs: PyTree) -> PyTree:
        """On the host, once: inputs as they were read to compact arrays, a tree of them with one first axis."""

    def shapes(self, count: Any) -> PyTree:
        """What :meth:`transform` gives of so many inputs, as :class:`jax.ShapeDtypeStruct`."""

    def normalize(self, compact: PyTree) -> PyTree:
        """In the compiled step: a batch of compact arrays, augmented or not, to what the model takes."""

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """What a model must know of its inputs to be built, by the names of its arguments."""

    @property
    def buckets(self) -> Buckets | None:
        """The sizes that batches of compact arrays may be cut to; None where these are not padded."""

    def as_record(self) -> dict[str, Any]:
        """All of it, as plain JSON values; 'kind' names the file of this package that reads it back."""


def from_record(record: Mapping[str, Any]) -> Preprocessor:
    """Reads back what :meth:`Preprocessor.as_record` wrote.

    Raises:
      InputError: it is no such record; whoever hands on a run may have changed it.

    >>> import numpy as np
    >>> from jaxcls.data.preprocessing import images
    >>> fitted = images.fit(np.zeros((1, 2, 2, 1), np.uint8))
    >>> from_record(fitted.as_record()) == fitted
    True
    """
    # Only the kind that is asked for is imported: a tokenizer is no business of images.
    match record["kind"]:
        case "images":
            from jaxcls.data.preprocessing import images

            return images.Images.from_record(record)
        case "scenes":
            from jaxcls.data.preprocessing import detection

            return detection.Scenes.from_record(record)
        case "tables":
            from jaxcls.data.preprocessing import tables

            return tables.Tables.from_record(record)
        case "texts":
            from jaxcls.data.preprocessing import texts

            return texts.Texts.from_record(record)
        case kind:
            raise InputError(f"unknown kind of preprocessor {kind!r}; it is images, scenes, tables or texts.")
