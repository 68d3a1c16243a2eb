"""User-supplied examples in common containers, as arrays on the host."""

import array
import concurrent.futures
import functools
import io
import os
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError, error_context
from jaxcls.data.batching import Examples, examples
from jaxcls.data.dataset import Unlabeled
from jaxcls.data.rows import SMALL, Rows, Stored, columns

PyTree = Any

# Examples of a large source that are checked before training, and that are read at once for their labels.
_SAMPLE = 64
# How far ahead of its turn an example of an iterable may be drawn in the first epoch.
STREAM_WINDOW = 4096
_NAMES = ("inputs", "labels", "sample_weight")
_EXPECTED = (
    "Examples are a tuple (inputs, labels) or (inputs, labels, sample_weight) of arrays or dicts of arrays; or an "
    "object with __len__ and __getitem__ whose items are such tuples for one example, or dicts with 'inputs', 'labels' "
    "and optionally 'sample_weight'; or a Hugging Face data set with a column of ClassLabel, or one called label."
)


def as_examples(data: Any) -> Examples:
    """Converts data to arrays, with float32 for float64 and int32 for int64.

    Args:
      data: a tuple ``(inputs, labels)`` or ``(inputs, labels, sample_weight)`` of arrays or dicts of arrays; a
        :class:`jaxcls.data.batching.Examples`; or an object with ``__len__`` and ``__getitem__`` (a list, a
        ``grain.MapDataset``, a TFDS data source) whose items are such tuples for one example, or dicts with 'inputs',
        'labels' and optionally 'sample_weight'. Items of TFDS are split by the supervised keys of their data set.
        Of a Hugging Face data set, the column of ClassLabel, or else the one called label or labels, holds the labels,
        and all others are inputs. Objects are read in parallel threads: small ones once into memory, others whenever
        their examples are used, as is a large memory-mapped array; of these, a few examples are checked now, and the
        others when they are read. An object with ``__len__`` and ``__iter__`` alone, such as :class:`Counted`, is read
        once, in its order, into a temporary file if it is large.

    Raises:
      InputError: the data has another form, its arrays differ in length, or a number does not fit into 32 bits.

    >>> as_examples([(np.zeros(2), 1), (np.ones(2), 0)]).labels
    array([1, 0], dtype=int32)
    """
    if isinstance(data, tuple):
        parts = tuple(data)  # Examples have the length of their arrays
    else:
        parts = _read_columns(data) if _is_hugging_face(data) else _read_items(data)
    if not 2 <= len(parts) <= 3:
        what = f"a tuple of length {len(parts)}" if isinstance(data, tuple) else "without a column of labels"
        raise InputError(f"the data is {what}. {_EXPECTED}")
    inputs, labels, *sample_weight = _converted(parts)
    _check_lengths((inputs, labels, *sample_weight))
    return examples(inputs, labels, *(jax.tree.map(_as_floats, part) for part in sample_weight))


def as_arrays(values: PyTree, name: str = "inputs") -> PyTree:
    """Converts inputs, labels or sample_weight alone, as :func:`as_examples` does; a list becomes an array.

    Args:
      name: what the values are, for messages.
    """
    if _is_hugging_face(values):
        values, *_ = _read_columns(values)

    def as_array(path: Any, leaf: Any) -> np.ndarray:
        where = ".".join([name, jax.tree_util.keystr(path, simple=True, separator=".")]) if path else name
        return _as_array(leaf, where)

    return jax.tree.map_with_path(as_array, values, is_leaf=lambda node: isinstance(node, list))


def _as_floats(weights: Any) -> Any:
    if isinstance(weights, Rows):
        return weights.mapped(_as_floats, weights.row_shape, np.float32)
    return weights.astype(np.float32)


def _as_array(leaf: Any, name: str) -> Any:
    if isinstance(leaf, np.memmap) and leaf.nbytes > SMALL:
        stored = Stored(leaf)
        stored.sample = _spread(len(leaf))
        (leaf,) = columns(stored, leaf[0], count=len(leaf))
    array = leaf if isinstance(leaf, Rows) else np.asarray(leaf)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has dtype {array.dtype}; examples are numbers. {_EXPECTED}")
    # As JAX would convert them silently.
    narrow = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}.get(array.dtype.name)
    if narrow is None:
        return array
    if isinstance(array, Rows):
        return array.mapped(lambda read: _as_array(read, f"a batch of {name}"), array.row_shape, narrow)
    with np.errstate(over="ignore"):
        narrowed = array.astype(narrow)
    wrong = np.isinf(narrowed) & np.isfinite(array) if array.dtype.kind == "f" else narrowed != array
    for index in np.argwhere(wrong)[:1]:
        right = "labels number the classes from 0" if name.startswith("labels") else "subtract an offset, or scale it"
        raise InputError(
            f"{name}{index.tolist() or ''} is {array[tuple(index)]}, which does not fit into {narrowed.dtype}, as "
            f"models compute; {right}."
        )
    return narrowed


def _converted(parts: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    return tuple(as_arrays(part, name) for part, name in zip(parts, _NAMES, strict=False))


def _is_hugging_face(data: Any) -> bool:
    """Whether it is a ``datasets.Dataset``, which is recognized without an import: it may not be installed."""
    attributes = ("features", "column_names", "with_format", "__len__")
    return not isinstance(data, Mapping) and all(hasattr(data, name) for name in attributes)


def _read_columns(data: Any) -> tuple[PyTree, ...]:
    """The inputs, and the labels and weights if there are any, of a Hugging Face data set."""
    # A transform of the user's own makes arrays itself.
    if data.format["type"] != "custom":
        data = data.with_format("numpy", columns=data.format["columns"])

    def parts_of(columns: Mapping[str, Any]) -> tuple[PyTree, ...]:
        columns = dict(columns)
        named = [name for name in columns if name in ("label", "labels")]
        labels = [name for name in columns if type(data.features.get(name)).__name__ == "ClassLabel"] or named
        if len(labels) > 1:
            raise InputError(f"the columns {', '.join(labels)} all hold labels: keep one, with data.remove_columns.")
        # Without labels, as for a prediction, weights mean nothing.
        others = [columns.pop(name) for name in (*labels, "sample_weight") if name in columns]
        parts = others if labels else []
        for name, values in columns.items():
            if np.asarray(values).dtype.kind not in "biuf":
                raise InputError(
                    f"column {name!r} does not hold numbers of one shape in every row: convert it with data.map, or "
                    f"leave it out with data.remove_columns({name!r})."
                )
        return (next(iter(columns.values())) if len(columns) == 1 else columns), *parts

    if len(data) * sum(np.asarray(values).nbytes for values in data[:1].values()) > SMALL:
        return _read_items(data, parts_of)
    # All rows at once, which is faster.
    return parts_of(data[:])


def _read_items(source: Any, parts_of: Callable[[Any], tuple[PyTree, ...]] | None = None) -> tuple[PyTree, ...]:
    """The inputs, and the labels and weights if there are any, of examples with access by index.

    Args:
      parts_of: those of an item.
    """
    name = type(source).__name__
    is_stream = hasattr(source, "__len__") and hasattr(source, "__iter__") and not hasattr(source, "__getitem__")
    if is_stream and len(source):
        source = _Spool(source)
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__") or isinstance(source, Mapping | np.ndarray):
        hint = (
            " Instead of a stream, give the data set that it reads (grain.MapDataset, tfds.data_source), or state how "
            "many examples it has: jaxcls.data.Counted(stream, 1_000_000)."
        )
        if hasattr(source, "with_format") and isinstance(source, Mapping):
            hint = f" Give one of its splits: {', '.join(source)}."
        raise InputError(f"{name} does not give access to examples by index. {_EXPECTED}{hint}")
    count = len(source)
    if not count:
        raise InputError(f"{name} is empty; at least one example is needed.")
    parts_of = parts_of or functools.partial(_item_parts, source)
    leaves, structure = jax.tree.flatten(_converted(parts_of(source[0])))
    unflatten: Callable[..., Any] = functools.partial(jax.tree.unflatten, structure)
    items = _Items(lambda index: _converted(parts_of(source[index])), structure, leaves)
    if count * sum(leaf.nbytes for leaf in leaves) <= SMALL:
        return _converted(unflatten(items.read(np.arange(count))))
    items.remember(np.arange(min(count, _SAMPLE)) if is_stream else _spread(count), count)
    items.window = STREAM_WINDOW if is_stream else None
    return unflatten(
        Rows(items.remembered[number], leaf.shape, leaf.dtype, np.arange(count))
        if number in items.remembered
        else Rows(items, leaf.shape, leaf.dtype, np.arange(count), number)
        for number, leaf in enumerate(items.like)
    )


def _spread(count: int) -> np.ndarray:
    """The rows of a large source that are checked before training."""
    return np.unique(np.linspace(0, count - 1, _SAMPLE).astype(int))


class _Items:
    """Examples with access by index as a source: they are read when they are used, in threads.

    Columns that are small as a whole, such as labels, are remembered in memory once they were read.
    """

    def __init__(self, item: Callable[[int], PyTree], structure: Any, like: list[np.ndarray]):
        self.sample: np.ndarray | None = None
        self.window: int | None = None
        self.like, self.remembered = like, dict[int, _Remembered]()
        self._item, self._structure = item, structure

    def remember(self, chosen: np.ndarray, count: int) -> None:
        """Decides the type of each column by a sample, and which are remembered."""
        sampled = _converted(self._structure.unflatten(self.read(chosen)))
        self.sample, self.like = chosen, [column[0] for column in jax.tree.leaves(sampled)]
        small = {number: leaf for number, leaf in enumerate(self.like) if count * leaf.nbytes <= SMALL // 4}
        self.remembered = {
            number: _Remembered(self, np.empty((count, *leaf.shape), leaf.dtype)) for number, leaf in small.items()
        }

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        read = [np.empty((len(rows), *leaf.shape), leaf.dtype) for leaf in self.like]
        wider: dict[int, list[np.ndarray]] = {}

        def read_item(number: int) -> None:
            index = int(rows[number])
            with error_context(f"example {index}"):
                leaves, structure = jax.tree.flatten(self._item(index))
            if structure != self._structure:
                raise InputError(f"example {index} has another structure than example 0.")
            for column, leaf in zip(read, leaves, strict=True):
                if leaf.shape != column.shape[1:]:
                    raise InputError(
                        f"example {index} has an array of shape {leaf.shape}, example 0 one of {column.shape[1:]}."
                    )
                if np.can_cast(leaf.dtype, column.dtype):
                    column[number] = leaf
                elif self.sample is not None:
                    raise InputError(
                        f"example {index} has an array of {leaf.dtype}, and those before it are {column.dtype}: return "
                        f"{leaf.dtype} for all."
                    )
                else:
                    wider[number] = leaves

        # Most sources decode files or wait for a disk.
        with concurrent.futures.ThreadPoolExecutor() as threads:
            for _ in threads.map(read_item, range(len(rows))):
                pass
        # As in an array of all examples: where some are 0 and 1, others 0.5, all are floats.
        for position, column in enumerate(read):
            dtype = np.result_type(column, *(leaves[position] for leaves in wider.values()))
            read[position] = column.astype(dtype, copy=False)
            for number, leaves in wider.items():
                read[position][number] = leaves[position]
        for position, remembered in self.remembered.items():
            remembered.values[rows], remembered.known[rows] = read[position], True
        return read


class Counted:
    """An iterable with its number of examples.

    >>> len(Counted(iter([(0.5, 1), (0.25, 0)]), 2))
    2
    """

    def __init__(self, examples: Iterable[Any], count: int):
        self._examples, self._count = examples, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return iter(self._examples)


class _Spool:
    """The examples of an iterable with access by index: they are read as far as needed, into a temporary file."""

    def __init__(self, stream: Any):
        self._count, self._examples, self._lock = len(stream), iter(stream), threading.Lock()
        folder = environment.cache_directory()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, as long as the examples
        weakref.finalize(self, self._file.close)
        self._structure: Any = None
        self._ends = array.array("q", [0])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        with self._lock:
            while len(self._ends) <= index + 1:
                self._read_next()
        begin, end = self._ends[index], self._ends[index + 1]
        content, structure = io.BytesIO(os.pread(self._file.fileno(), end - begin, begin)), self._structure
        leaves = [np.load(content, allow_pickle=False) for _ in range(structure.num_leaves)]
        return jax.tree.unflatten(structure, leaves)

    def _read_next(self) -> None:
        number = len(self._ends) - 1
        try:
            leaves, structure = jax.tree.flatten(next(self._examples))
        except StopIteration:
            raise InputError(f"the stream ends after {number:,} examples; {self._count:,} were stated.") from None
        if structure != (self._structure or structure):
            raise InputError(f"example {number} has another structure than example 0.")
        self._structure = structure
        content = io.BytesIO()
        for leaf in leaves:
            np.save(content, np.asarray(leaf), allow_pickle=False)
        self._file.write(content.getbuffer())
        self._ends.append(self._ends[-1] + content.tell())


class _Remembered:
    """A column of a source that is remembered in memory."""

    def __init__(self, items: _Items, values: np.ndarray):
        self.sample, self._items = items.sample, items
        self.values, self.known = values, np.zeros(len(values), bool)

    def read(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        unknown = rows[~self.known[rows]]
        for first in range(0, len(unknown), _SAMPLE):
            self._items.read(unknown[first : first + _SAMPLE])
        return [self.values[rows]]


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
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        # NumPy itself advises to unpickle the file.
        raise InputError(
            f"{path}: {getattr(error, 'strerror', None) or 'is no .npy or .npz file of numbers'}. A run of "
            "jaxcls.compile takes such a file alone, as it does not know how your program decodes images or other "
            "files: decode them as it does, write what the model takes with numpy.save, and give that file."
        ) from None
    inputs = as_arrays(inputs)
    _check_lengths((inputs,))
    count = len(jax.tree.leaves(inputs)[0])
    return Unlabeled(np.array([str(number) for number in range(count)], object), inputs)
