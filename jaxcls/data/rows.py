"""Rows that are read when they are used, in place of an array: data on disk, or in files that must be decoded.

A leaf of inputs, labels or weights is a NumPy array, which may be memory-mapped, or :class:`Rows`. The functions here
take trees of both.
"""

import dataclasses
import math
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol, Self

import jax
import numpy as np

PyTree = Any

# Data of fewer bytes is read at once: checked, compared and described exactly, and kept in memory.
SMALL = 1 << 28
_BLOCK_BYTES = 1 << 24
# About how much of a memory-mapped file is in the memory of the process.
_RESIDENT_BYTES = 1 << 28


class Source(Protocol):
    """Examples with random access, such as a table on disk or a list of files.

    Attributes:
      sample: the rows, ascending, that statistics are computed of and that are checked before training, where reading
        all takes long; None for all.
    """

    sample: np.ndarray | None

    def read(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        """Returns these rows of each column, (n, ...); any integers below the length, in any order.

        Several threads call it at once.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A column of a source, all rows or some, in place of an array; nothing is read before it is indexed.

    Attributes:
      source: of all rows.
      row_shape, dtype: of a row.
      index: the rows of the source, int64 (N,).
      column: of what the source reads.
      function: of the rows that were read, (n, ...); it returns as many.

    >>> rows = Rows(Stored(np.array([5, 6, 7])), (), np.dtype(int), np.arange(3))
    >>> rows.shape, int(rows[1]), rows[:2], np.asarray(rows.select([2, 0])), select(np.array([5, 6]), [1])
    ((3,), 6, array([5, 6]), array([7, 5]), array([6]))
    """

    source: Source
    row_shape: tuple[int, ...]
    dtype: np.dtype
    index: np.ndarray
    column: int = 0
    function: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> Any:
        """Reads rows: one, a slice, a mask, or an array of integers of any shape; or indexes an array of all."""
        if isinstance(rows, tuple):
            return self[rows[0]][rows[1:]] if isinstance(rows[0], Integral) else np.asarray(self)[rows]
        index = self.index[rows]
        # Of one number, the number itself.
        return self.of(self.source.read(np.ravel(index))).reshape((*np.shape(index), *self.row_shape))[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        everything: np.ndarray = self[:]
        return everything if dtype is None else everything.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[Any]:
        for block in blocks(self):
            yield from block

    def of(self, read: Sequence[np.ndarray]) -> np.ndarray:
        """Returns this column of what the source has read."""
        values = read[self.column]
        return values if self.function is None else self.function(values)

    def select(self, rows: Any) -> Self:
        """Returns some rows, by integers or by a mask; reads nothing."""
        return dataclasses.replace(self, index=self.index[rows])

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], row_shape: tuple[int, ...], dtype: Any) -> Self:
        """Returns the rows, to which ``function`` is applied when they are read."""
        earlier = self.function
        both = function if earlier is None else lambda read: function(earlier(read))
        return dataclasses.replace(self, function=both, row_shape=row_shape, dtype=np.dtype(dtype))

    def sample(self) -> Self:
        """Returns the rows that statistics are computed of; see :class:`Source`."""
        return self if self.source.sample is None else self.select(self.sampled())

    def sampled(self) -> np.ndarray:
        """Returns which rows these are; at least one."""
        chosen = np.flatnonzero(np.isin(self.index, self.source.sample))  # type: ignore[arg-type]
        return chosen if len(chosen) else np.arange(1)


class Stored:
    """Arrays of one length as a source, such as memory-mapped files."""

    sample: np.ndarray | None = None

    def __init__(self, *columns: np.ndarray):
        # What is taken of a np.memmap would be one as well.
        self._columns = [np.asarray(column) for column in columns]
        self._pages = Pages(*columns)

    def read(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        taken = [np.take(column, rows, axis=0) for column in self._columns]
        self._pages.count(len(rows))
        return taken


class Pages:
    """Counts rows that are read of memory-mapped files, and returns their pages to the system from time to time.

    They remain in the system's cache of files, but do not count as memory of the process.
    """

    def __init__(self, *arrays: np.ndarray):
        self._maps: list[Any] = [mapped for array in arrays if (mapped := getattr(array, "_mmap", None)) is not None]
        self._row_bytes = sum(max(mmap.PAGESIZE, array[:1].nbytes) for array in arrays)
        self._bytes = 0

    def count(self, rows: int) -> None:
        self._bytes += rows * self._row_bytes
        if self._bytes > _RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._bytes = 0
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)


def columns(source: Source, *shapes: Any, count: int) -> tuple[Rows, ...]:
    """Returns the columns of a source, all rows.

    Args:
      shapes: of a row of each column, with ``shape`` and ``dtype``.
      count: the number of rows.
    """
    index = np.arange(count)
    return tuple(
        Rows(source, tuple(row.shape), np.dtype(row.dtype), index, column) for column, row in enumerate(shapes)
    )


def take(tree: PyTree, rows: np.ndarray | slice) -> PyTree:
    """Reads these rows of each leaf, a slice or integers of any shape; the columns of a source at once."""
    read: dict[tuple[int, bytes], Sequence[np.ndarray]] = {}

    def taken(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, Rows):
            # np.take copies whole rows; indexing does not.
            return leaf[rows] if isinstance(rows, slice) else np.take(leaf, rows, axis=0)
        index = leaf.index[rows]
        key = (id(leaf.source), index.tobytes())
        if key not in read:
            read[key] = leaf.source.read(np.ravel(index))
        return leaf.of(read[key]).reshape((*np.shape(index), *leaf.row_shape))

    return jax.tree.map(taken, tree)


def select(tree: PyTree, rows: Any) -> PyTree:
    """Returns these rows of each leaf, by integers or by a mask: of an array a copy, of :class:`Rows` a view."""
    if tree is None or isinstance(tree, tuple):
        return tree and tuple(select(part, rows) for part in tree)
    if hasattr(tree, "select"):  # Rows, or a table on disk
        return tree.select(rows)
    if isinstance(tree, Mapping):  # in the order of its names, which jax.tree.map does not keep
        return {name: select(part, rows) for name, part in tree.items()}
    return tree[rows]


def in_memory(tree: PyTree) -> PyTree:
    """Reads all :class:`Rows` into arrays."""
    return jax.tree.map(lambda leaf: leaf[:] if isinstance(leaf, Rows) else leaf, tree)


def sample(tree: PyTree) -> PyTree:
    """Returns the rows of each leaf that statistics are computed of; see :class:`Source`."""
    return jax.tree.map(lambda leaf: leaf.sample() if isinstance(leaf, Rows) else leaf, tree)


def is_sampled(tree: PyTree) -> bool:
    """Whether reading all rows would take long; see :class:`Source`."""
    return sampled(tree) is not None


def sampled(tree: PyTree) -> np.ndarray | None:
    """Returns the rows of the first sample of a leaf, or None if reading all rows would not take long."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Rows) and leaf.source.sample is not None]
    return leaves[0].sampled() if leaves else None


def window(tree: PyTree) -> int | None:
    """How far ahead of its turn a row can be read where that is limited at first: a source may have a ``window``."""
    windows = [getattr(leaf.source, "window", None) for leaf in jax.tree.leaves(tree) if isinstance(leaf, Rows)]
    return next(filter(None, windows), None)


def blocks(tree: PyTree) -> Iterator[PyTree]:
    """Yields all rows in their order, a few megabytes at a time; the columns of a source are read at once.

    >>> [block.tolist() for block in blocks(np.arange(3))]
    [[0, 1, 2]]
    """
    leaves = jax.tree.leaves(tree)
    count = len(leaves[0])
    size = max(1, _BLOCK_BYTES * count // max(1, sum(leaf.nbytes for leaf in leaves)))
    for first in range(0, count, size):
        yield take(tree, slice(first, first + size))
