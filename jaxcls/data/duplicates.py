"""Examples that stand in two parts of a data set: what was learned by heart is not predicted."""

import hashlib
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

PyTree = Any


def shared(train_inputs: PyTree, test_inputs: PyTree) -> int:
    """How many test examples stand in the training examples too, by content.

    Inputs are as in :class:`jaxcls.data.dataset.Split`. Rows of a table are the same if every column is; a missing
    number is like another one. An example that the test holds twice counts twice.

    >>> shared(np.array(["a", "b"], object), np.array(["b", "c", "b"], object))
    2
    """
    known = set(_contents(train_inputs))
    return sum(content in known for content in _contents(test_inputs))


def _contents(inputs: PyTree) -> Iterator[Hashable]:
    """Something for each example that is equal for equal examples, and small."""
    if isinstance(inputs, dict) and "image" in inputs:
        # Images on canvases: the scale does not tell apart what a model would see.
        return _contents(inputs["image"])
    if isinstance(inputs, dict):
        words = [column for _, column in sorted(inputs.items()) if column.dtype.kind in "OU"]
        numbers = [column for _, column in sorted(inputs.items()) if column.dtype.kind not in "OU"]
        return zip(*words, *([_contents(_table(numbers))] if numbers else []), strict=True)
    if inputs.dtype.kind in "OU":
        return iter(inputs)
    return (hashlib.blake2b(example.tobytes(), digest_size=16).digest() for example in inputs)


def _table(columns: list[np.ndarray]) -> np.ndarray:
    """Columns of numbers as rows that have the same bytes where they are the same."""
    table = np.stack(columns, axis=1).astype(np.float64) + 0.0  # -0 becomes 0
    table[np.isnan(table)] = np.nan  # one of the many bit patterns of NaN
    return table
