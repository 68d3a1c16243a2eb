"""User-supplied examples in common containers, as arrays on the host."""

import concurrent.futures
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Examples, examples
from jaxcls.data.dataset import Unlabeled

PyTree = Any

_NAMES = ("inputs", "labels", "sample_weight")
_EXPECTED = (
    "Examples are a tuple (inputs, labels) or (inputs, labels, sample_weight) of arrays or dicts of arrays; or an "
    "object with __len__ and __getitem__ whose items are such tuples for one example, or dicts with 'inputs', 'labels' "
    "and optionally 'sample_weight'."
)


def as_examples(data: Any) -> Examples:
    """Converts data to arrays, with float32 for float64 and int32 for int64.

    Args:
      data: a tuple ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of arrays or dicts of arrays; a
        :class:`jaxcls.data.batching.Examples`; or an object with ``__len__`` and ``__getitem__`` (a list, a
        ``grain.MapDataset``, a TFDS data source) whose items are such tuples for one example, or dicts with 'inputs',
        'labels' and optionally 'sample_weight'. Items of TFDS are split by the supervised keys of their data set.
        Objects are read once into memory, in parallel threads.

    Raises:
      InputError: the data has another form, or its arrays differ in length.

    >>> as_examples([(np.zeros(2), 1), (np.ones(2), 0)]).labels
    array([1, 0], dtype=int32)
    """
    parts = data if isinstance(data, tuple) else _read_items(data)
    if not 2 <= len(parts) <= 3:
        raise InputError(f"the data is a tuple of length {len(parts)}. {_EXPECTED}")
    inputs, labels, *sample_weight = (as_arrays(part) for part in parts)
    _check_lengths((inputs, labels, *sample_weight))
    return examples(
        inputs, labels, *(jax.tree.map(lambda leaf: leaf.astype(np.float32), part) for part in sample_weight)
    )


def as_arrays(values: PyTree) -> PyTree:
    """Converts inputs, labels or sample_weight alone, as :func:`as_examples` does; a list becomes an array."""
    return jax.tree.map(_as_array, values, is_leaf=lambda node: isinstance(node, list))


def _as_array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "biuf":
        raise InputError(f"an array has dtype {array.dtype}; examples are numbers. {_EXPECTED}")
    # As JAX would convert them silently.
    narrow = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}.get(array.dtype.name)
    return array if narrow is None else array.astype(narrow)


def _read_items(source: Any) -> tuple[PyTree, ...]:
    name = type(source).__name__
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__") or isinstance(source, Mapping | np.ndarray):
        hint = " Instead of a stream, give the data set that it reads (grain.MapDataset, tfds.data_source)."
        raise InputError(f"{name} does not give access to examples by index. {_EXPECTED}{hint}")
    count = len(source)
    if not count:
        raise InputError(f"{name} is empty; at least one example is needed.")
    first: Any = as_arrays(_item_parts(source, source[0]))
    structure: Any = jax.tree.structure(first)
    columns = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape), leaf.dtype), first)

    def read(index: int) -> None:
        example = as_arrays(_item_parts(source, source[index]))
        if jax.tree.structure(example) != structure:
            raise InputError(f"example {index} has another structure than example 0.")
        for column, leaf in zip(jax.tree.leaves(columns), jax.tree.leaves(example), strict=True):
            if leaf.shape != column.shape[1:]:
                raise InputError(
                    f"example {index} has an array of shape {leaf.shape}, example 0 one of {column.shape[1:]}."
                )
            column[index] = leaf

    # Most sources decode files or wait for a disk.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for _ in threads.map(read, range(count)):
            pass
    return columns


def _item_parts(source: Any, item: Any) -> tuple[PyTree, ...]:
    """The inputs, labels and optionally sample_weight of an item."""
    if isinstance(item, tuple | list) and len(item) in (2, 3):
        return tuple(item)
    supervised = getattr(getattr(source, "dataset_info", None), "supervised_keys", None)
    if supervised is not None and isinstance(item, Mapping):
        return tuple(item[key] for key in supervised)
    if isinstance(item, Mapping) and {"inputs", "labels"} <= item.keys() <= {*_NAMES}:
        return tuple(item[key] for key in _NAMES if key in item)
    keys = f" with the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
    raise InputError(f"an item of {type(source).__name__} is a {type(item).__name__}{keys}. {_EXPECTED}")


def _check_lengths(parts: tuple[PyTree, ...]) -> None:
    lengths = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape[:1]
        for path, leaf in jax.tree.leaves_with_path(dict(zip(_NAMES, parts, strict=False)))
    }
    if len(set(lengths.values())) != 1 or () in lengths.values() or (0,) in lengths.values():
        shown = ", ".join(f"{name} {length[0] if length else 'a scalar'}" for name, length in lengths.items())
        raise InputError(f"all arrays must have the same length, at least 1; they have: {shown or 'no arrays'}.")


def read_arrays(path: Path) -> Unlabeled:
    """Reads inputs from NumPy's .npy file, or from an .npz file as a dict of arrays; the ids are row numbers."""
    try:
        content = np.load(path, allow_pickle=False)
        inputs = dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a readable .npy or .npz file ({error}).") from None
    inputs = as_arrays(inputs)
    _check_lengths((inputs,))
    count = len(jax.tree.leaves(inputs)[0])
    return Unlabeled(np.array([str(number) for number in range(count)], object), inputs)
