"""Arrays that take long to compute, in files of the cache directory, each with the SHA-256 of its content."""

import contextlib
import hashlib
import io
import itertools
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.clock import progress
from jaxcls._utils.errors import InputError

# The hash of what a row is computed of. NumPy drops zeros at the end of bytes, and treats those without them as equal.
ROW_KEY = np.dtype("S16")

# The most files of :func:`cached_file` in a folder.
_MOST_FILES = 12
# A file that nobody has written to for so long is not written any more.
_ABANDONED_SECONDS = 3600.0

logger = logging.getLogger(__name__)


def cached(folder: str, key: Any, compute: Callable[[], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
    """Returns what ``compute`` returns, from a file if it was computed before.

    A damaged file is computed again, and a cache that cannot be written is no error.

    Args:
      folder: in the cache directory.
      key: all that decides the arrays, as JSON values.
    """
    path = environment.cache_directory() / folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.npz"
    stored = _read(path)
    if stored is not None:
        return stored
    arrays = compute()
    content = io.BytesIO()
    np.savez(content, *arrays)
    with _warned(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
    return arrays


def cached_record(folder: str, key: Any, compute: Callable[[], Any]) -> Any:
    """Returns what ``compute`` returns, JSON values, as :func:`cached` does."""
    (content,) = cached(folder, key, lambda: [np.frombuffer(json.dumps(compute()).encode(), np.uint8)])
    return json.loads(content.tobytes())


def cached_file(folder: str, key: Any, write: Callable[[Path], None]) -> Path:
    """Returns a file that ``write`` has written, now or before; its name ends in its SHA-256, which is verified.

    It is meant to be mapped into memory, and large: of a folder, those that were used last remain.

    Args:
      folder: in the cache directory.
      key: all that decides the content, as JSON values.

    Raises:
      InputError: the file cannot be written.
    """
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    where = environment.cache_directory() / folder
    for file in where.glob(f"{name}-*"):
        if files.sha256(file) == file.name.removeprefix(f"{name}-"):
            # When it was used; when it was written remains, by which its hash is remembered.
            os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))
            return file
        file.unlink(missing_ok=True)  # damaged
    try:
        where.mkdir(parents=True, exist_ok=True)
        _remove_oldest(where)
        with tempfile.NamedTemporaryFile(dir=where, prefix=f".{name[:8]}-", delete=False) as temporary:
            path = Path(temporary.name)
        try:
            write(path)
            return path.replace(where / f"{name}-{files.sha256(path)}")
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{where}: data that is larger than memory cannot be written there ({error.strerror or error}). Set "
            "XDG_CACHE_HOME to a folder with enough space."
        ) from error


def _remove_oldest(folder: Path) -> None:
    """Removes files of :func:`cached_file` before another one is written, and what a process that was killed left."""
    used: list[tuple[float, Path]] = []
    for file in folder.iterdir():
        # Another process may remove it, or give it its name.
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            if not file.name.startswith("."):
                used.append((max(status.st_atime, status.st_mtime), file))
            elif time.time() - status.st_mtime > _ABANDONED_SECONDS:
                file.unlink()
    # What is deleted while it is mapped remains for who mapped it.
    for _, file in sorted(used, reverse=True)[_MOST_FILES - 1 :]:
        file.unlink(missing_ok=True)


def cached_blocks(
    folder: str, key: Any, shapes: Sequence[Any], blocks: Callable[[], Iterable[Sequence[np.ndarray]]]
) -> list[np.ndarray]:
    """Returns arrays of one length, mapped into memory, that are computed a few rows at a time, now or before.

    Args:
      folder, key: see :func:`cached_file`.
      shapes: of the arrays, with ``shape`` and ``dtype``.
      blocks: yields the next rows of each array.
    """
    sizes = [math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in shapes]
    starts = [0, *itertools.accumulate(-(-size // 64) * 64 for size in sizes)]

    def write(path: Path) -> None:
        written = starts[:-1]
        with path.open("r+b") as file:
            for block in blocks():
                for index, array in enumerate(block):
                    file.seek(written[index])
                    written[index] += file.write(np.ascontiguousarray(array).data)
                progress(written[0] / max(1, sizes[0]))
            file.truncate(starts[-1])

    path = cached_file(folder, [key, [[*one.shape, np.dtype(one.dtype).str] for one in shapes]], write)
    return [
        np.memmap(path, one.dtype, "r", start, one.shape) if size else np.zeros(one.shape, one.dtype)
        for one, size, start in zip(shapes, sizes, starts[:-1], strict=True)
    ]


def cached_rows(folder: str, key: Any, row_keys: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns a row for each key; only those are computed that are in no file of an earlier call.

    A file is an array of keys and rows, mapped into memory, whose name is its SHA-256. Damaged ones are ignored, and a
    cache that cannot be written is no error.

    Args:
      folder: in the cache directory.
      key: all that decides a row besides its own key, as JSON values.
      row_keys: of type ROW_KEY, (N,).
      compute: ``indices of row_keys -> rows``, one for each.
    """
    path = environment.cache_directory() / folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()
    # Equal rows are computed once.
    keys, first, inverse = np.unique(row_keys, return_index=True, return_inverse=True)
    known, rows = np.zeros(len(keys), bool), None
    for file in path.glob("*.npy"):
        try:
            stored = np.load(file, mmap_mode="r", allow_pickle=False)
            if _sha256(stored) != file.stem:
                continue
        except (OSError, ValueError):
            continue
        _, here, there = np.intersect1d(keys, stored["key"], assume_unique=True, return_indices=True)
        if rows is None:
            rows = np.empty((len(keys), *stored["row"].shape[1:]), stored["row"].dtype)
        rows[here], known[here] = stored["row"][there], True
    if not known.all():
        computed = compute(first[~known])
        if rows is None:
            rows = np.empty((len(keys), *computed.shape[1:]), computed.dtype)
        rows[~known] = computed
        added = np.empty(len(computed), [("key", ROW_KEY), ("row", computed.dtype, computed.shape[1:])])
        added["key"], added["row"] = keys[~known], computed
        file = path / f"{_sha256(added)}.npy"
        with _warned(file):
            path.mkdir(parents=True, exist_ok=True)
            with files.replacing(file) as temporary:
                np.save(temporary, added)
    assert rows is not None
    return rows[inverse]


@contextlib.contextmanager
def _warned(path: Path) -> Iterator[None]:
    """Only warns where a file cannot be written."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: cannot be written (%s), and will be computed again", path, error.strerror or error)


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.view(np.uint8).data).hexdigest()


def _read(path: Path) -> list[np.ndarray] | None:
    """Returns the arrays of a file, or None if there is none or it is damaged."""
    try:
        content = memoryview(path.read_bytes())
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    with np.load(io.BytesIO(content[32:]), allow_pickle=False) as arrays:
        return [*arrays.values()]
