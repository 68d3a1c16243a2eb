"""NumPy's .npz files, read without pickle and without trusting what their headers declare."""

import contextlib
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import reading

_CHUNK = 1 << 20
# What zipfile raises for damaged files, unsupported versions (NotImplementedError) and encryption (RuntimeError).
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, TypeError, EOFError, RuntimeError, LookupError,
    OverflowError,
)  # fmt: skip
_HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=]?[biufcSUV?]\d{0,9})', 'fortran_order': (?P<order>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18},)?|\d{1,18}(?:, \d{1,18})+)\), \} *\n"
)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an .npz file, of which :func:`array` reads the arrays.

    Raises:
      InputError: the file cannot be read, is not an .npz file, is damaged (also within the block), or unpacks to more
        than its size gives reason for.
    """
    with reading.error_names(path, _DAMAGE, "not an .npz file, or a damaged one"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
        if unpacked > reading.MAX_RATIO * packed:
            raise InputError(
                f"{path}: its {packed:,} bytes unpack to {unpacked:,}, which real arrays do not. Fetch it again."
            )
        yield archive


def array(path: Path, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """Reads an array of an .npz file; no pickle is loaded, and memory follows the size of the file.

    Raises:
      InputError: the array is missing, cut off, damaged, or not one of numbers or text.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "toy.npz"
    >>> np.savez(path, labels=np.array([1, 0], np.uint8))
    >>> with opened(path) as archive:
    ...     array(path, archive, "labels")
    array([1, 0], dtype=uint8)
    """
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        names = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
        raise InputError(f"{path}: holds no {key}; it holds {names or 'nothing'}.") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {key}: compressed in a way that NumPy does not write.")
    damaged = reading.error_names(f"{path}: {key}", _DAMAGE, "cut off, damaged, or not an array of numbers")
    with damaged, archive.open(member) as content:
        return _values(content, member.file_size)


def _values(content: IO[bytes], size: int) -> np.ndarray:
    """Reads an array and its header, as NumPy writes it; NumPy's own reader lets Python parse whatever that holds."""
    start = content.read(10)
    header = content.read(int.from_bytes(start[8:], "little")).decode("latin-1")
    match = _HEADER.fullmatch(header)
    if start[:8] != b"\x93NUMPY\1\0" or match is None:
        written = "NumPy does not write for numbers, though perhaps for pickled objects, which are never loaded"
        raise ValueError(f"its header is {header[:100]!r}, which {written}")
    dtype, shape = np.dtype(match["type"]), tuple(map(int, match["shape"].replace(",", " ").split()))
    # Compared before any memory is allocated: the size is at most what the file gives reason for.
    declared, available = math.prod(shape) * dtype.itemsize, size - content.tell()
    if declared != available:
        raise ValueError(f"its header declares {dtype} of shape {shape}, {declared:,} bytes; it holds {available:,}")
    values = np.empty(declared, np.uint8)
    for start_of_chunk in range(0, declared, _CHUNK):
        count = min(_CHUNK, declared - start_of_chunk)
        values[start_of_chunk : start_of_chunk + count] = np.frombuffer(content.read(count), np.uint8, count)
    return values.view(dtype).reshape(shape, order="F" if match["order"] == "True" else "C")
