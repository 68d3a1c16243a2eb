"""Whatever a person holds their examples in, as arrays on the host."""

import concurrent.futures
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Examples, examples

PyTree = Any

_FORMS = (
    "Examples are a tuple (inputs, labels) or (inputs, labels, sample_weight) of arrays or dicts of arrays; or something "
    "with __len__ and __getitem__ whose items are such tuples of one example, or dicts with 'inputs', 'labels' and "
    "perhaps 'sample_weight'."
)


def as_examples(data: Any) -> Examples:
    """The examples as arrays: float32 where they were float64, int32 where they were int64.

    Args:
      data: a tuple ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of arrays or dicts of arrays, a
        :class:`jaxcls.data.batching.Examples`, or anything with ``__len__`` and ``__getitem__`` (a list, a
        ``grain.MapDataset``, a data source of TFDS) whose items are such tuples of one example, or dicts with
        'inputs', 'labels' and perhaps 'sample_weight'. Items of TFDS are split by the supervised keys of their data set.
        It is read once, by threads, into memory.

    Raises:
      InputError: it is none of these, or its arrays are not of one length.

    >>> as_examples([(np.zeros(2), 1), (np.ones(2), 0)]).labels
    array([1, 0], dtype=int32)
    """
    parts = data if isinstance(data, tuple) else _read(data)
    if not 2 <= len(parts) <= 3:
        raise InputError(f"a tuple of {len(parts)} was given. {_FORMS}")
    inputs, labels, *sample_weight = (as_arrays(part) for part in parts)
    _check_lengths((inputs, labels, *sample_weight))
    return examples(
        inputs, labels, *(jax.tree.map(lambda leaf: leaf.astype(np.float32), part) for part in sample_weight)
    )


def as_arrays(part: PyTree) -> PyTree:
    """Inputs, labels or sample_weight alone, in the types that :func:`as_examples` gives them; a list becomes an array."""
    return jax.tree.map(_narrowed, part, is_leaf=lambda node: isinstance(node, list))


def _narrowed(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "biuf":
        raise InputError(f"an array of {array.dtype} was given; examples are numbers. {_FORMS}")
    # What jax would do with them in silence.
    narrow = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}.get(array.dtype.name)
    return array if narrow is None else array.astype(narrow)


def _read(source: Any) -> tuple[PyTree, ...]:
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__") or isinstance(source, Mapping | np.ndarray):
        streams = " Of a stream, give the data set that it reads (grain.MapDataset, tfds.data_source)."
        raise InputError(f"{type(source).__name__} holds no examples that can be read by number. {_FORMS}{streams}")
    count = len(source)
    if not count:
        raise InputError(f"{type(source).__name__} is empty; there must be an example.")
    first: Any = as_arrays(_parts(source, source[0]))
    structure: Any = jax.tree.structure(first)
    columns = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape), leaf.dtype), first)

    def read(number: int) -> None:
        example = as_arrays(_parts(source, source[number]))
        if jax.tree.structure(example) != structure:
            raise InputError(f"example {number} has not the same parts as example 0.")
        for column, leaf in zip(jax.tree.leaves(columns), jax.tree.leaves(example), strict=True):
            if leaf.shape != column.shape[1:]:
                raise InputError(
                    f"example {number} holds an array of {leaf.shape}, example 0 one of {column.shape[1:]}."
                )
            column[number] = leaf

    # Most sources decode, or wait for a disk.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for _ in threads.map(read, range(count)):
            pass
    return columns


def _parts(source: Any, item: Any) -> tuple[PyTree, ...]:
    """Inputs, labels and perhaps sample_weight of one item."""
    if isinstance(item, tuple | list) and len(item) in (2, 3):
        return tuple(item)
    supervised = getattr(getattr(source, "dataset_info", None), "supervised_keys", None)
    if supervised is not None and isinstance(item, Mapping):
        return tuple(item[key] for key in supervised)
    if isinstance(item, Mapping) and {"inputs", "labels"} <= item.keys() <= {"inputs", "labels", "sample_weight"}:
        return tuple(item[key] for key in ("inputs", "labels", "sample_weight") if key in item)
    keys = f" with the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
    raise InputError(f"an item of {type(source).__name__} is a {type(item).__name__}{keys}. {_FORMS}")


def _check_lengths(parts: tuple[PyTree, ...]) -> None:
    named = dict(zip(("inputs", "labels", "sample_weight"), parts, strict=False))
    lengths = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape[:1]
        for path, leaf in jax.tree.leaves_with_path(named)
    }
    if len(set(lengths.values())) != 1 or () in lengths.values() or (0,) in lengths.values():
        shown = ", ".join(f"{name} {length[0] if length else 'one number'}" for name, length in lengths.items())
        raise InputError(f"examples must be as many in every array, and one at least; they are: {shown or 'none'}.")
