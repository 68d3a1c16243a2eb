"""Counts test examples that are also training examples: on these, a model may have memorized the answer."""

import collections
import hashlib
import itertools
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

PyTree = Any


def shared(train_inputs: PyTree, test_inputs: PyTree) -> int:
    """Counts the test examples that are also training examples, by content.

    Inputs are as in :class:`jaxcls.data.dataset.Split`. Rows of a table are equal if all columns are; missing numbers
    equal each other. A repeated test example counts each time.

    >>> shared(np.array(["a", "b"], object), np.array(["b", "c", "b"], object))
    2
    """
    tested = collections.Counter(_contents(test_inputs))
    return sum(tested[content] for content in {content for content in _contents(train_inputs) if content in tested})


def _contents(inputs: PyTree) -> Iterator[Hashable]:
    """Yields a small value for each example, equal for equal examples."""
    if isinstance(inputs, dict) and "image" in inputs:
        # Images on canvases; a model does not see their scale.
        return _contents(inputs["image"])
    if isinstance(inputs, dict):
        return itertools.chain.from_iterable(map(_rows, _pieces(inputs)))
    if inputs.dtype.kind in "OU":
        return iter(inputs)
    return (hashlib.blake2b(example.tobytes(), digest_size=16).digest() for example in inputs)


def _pieces(table: dict[str, np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yields the columns, in the order of their names, a few rows at a time: they are copied."""
    for first in range(0, len(next(iter(table.values()))), 1 << 16):
        yield [column[first : first + (1 << 16)] for _, column in sorted(table.items())]


def _rows(columns: list[np.ndarray]) -> Iterator[Hashable]:
    contents: list[Any] = [column for column in columns if column.dtype.kind in "OU"]
    numbers = [column for column in columns if column.dtype.kind not in "OU"]
    if numbers:
        # Equal rows get equal bytes: -0 becomes 0, and NaN one of its many bit patterns.
        table = np.stack(numbers, axis=1).astype(np.float64) + 0.0
        table[np.isnan(table)] = np.nan
        contents.append(_contents(table))
    return zip(*contents, strict=True)
