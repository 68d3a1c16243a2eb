"""Arrays that take long to compute, in files of the cache directory, each with the SHA-256 of its content."""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils import environment, files

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
    except OSError as error:
        logger.warning("%s: cannot be written (%s), and will be computed again", path, error.strerror or error)
    return arrays


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
