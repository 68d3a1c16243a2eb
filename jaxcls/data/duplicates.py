"""Counts test examples that are also training examples: on these, a model may have memorized the answer."""

import collections
import hashlib
import itertools
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

from jaxcls._utils.array_cache import cached_record
from jaxcls.data.formats.stored_tables import StoredColumn, StoredTable
from jaxcls.data.rows import is_sampled

PyTree = Any
_STORED = (StoredTable, StoredColumn)


def shared(train_inputs: PyTree, test_inputs: PyTree) -> int:
    """Counts the test examples that are also training examples, by content.

    Inputs are as in :class:`jaxcls.data.dataset.Split`. Rows of a table are equal if all columns are; missing numbers
    equal each other. A repeated test example counts each time. Examples that take long to read are not compared.

    >>> shared(np.array(["a", "b"], object), np.array(["b", "c", "b"], object))
    2
    """
    if isinstance(train_inputs, _STORED) or isinstance(test_inputs, _STORED):
        key = [one.key() if isinstance(one, _STORED) else None for one in (train_inputs, test_inputs)]
        if None in key:
            return _shared_hashes(train_inputs, test_inputs)
        count: int = cached_record("duplicates", ["2", *key], lambda: _shared_hashes(train_inputs, test_inputs))
        return count
    if is_sampled((train_inputs, test_inputs)):
        return 0
    tested = collections.Counter(_contents(test_inputs))
    return sum(tested[content] for content in {content for content in _contents(train_inputs) if content in tested})


def _shared_hashes(train_inputs: PyTree, test_inputs: PyTree) -> int:
    train, test = (np.concatenate([*map(_hashes, _blocks(one))]) for one in (train_inputs, test_inputs))
    return int(np.isin(test, train).sum())


def _blocks(inputs: PyTree) -> Iterator[list[np.ndarray]]:
    """Yields columns in the order of their names, a few rows at a time."""
    if isinstance(inputs, StoredTable):
        return ([column for _, column in sorted(block.items())] for block in inputs.blocks())
    if isinstance(inputs, dict):
        return _pieces(inputs)
    return ([block] for block in (inputs.blocks() if isinstance(inputs, StoredColumn) else [inputs]))


def _hashes(block: list[np.ndarray]) -> np.ndarray:
    """A hash of each row, uint64 (N,): of ten million, two different ones are equal once in 400,000 tables."""
    total = np.zeros(len(block[0]), np.uint64)
    for column in block:
        if column.dtype == object:
            known = {word: int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest())
                     for word in {*column}}  # fmt: skip
            bits = np.array([known[word] for word in column], np.uint64)
        else:
            bits = np.where(np.isnan(column), np.nan, column.astype(np.float64) + 0.0).view(np.uint64)
        total = (total ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(32)
    return total


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
