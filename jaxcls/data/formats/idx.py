"""IDX, the format of MNIST and its relatives: http://yann.lecun.com/exdb/mnist"""

import gzip
import hashlib
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import reading
from jaxcls.data.formats.reading import CHUNK, GZIP_MAGIC

# Type code -> type.
IDX_DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name)
    for code, name in ((0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8"))
}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the array of an IDX file, plain or gzipped (recognized by its content, not by its name).

    Memory follows the content of the file and never exceeds what the header declares, nor what a gzip file of this
    size may plausibly hold, so neither a lying header nor a gzip bomb is dangerous.

    Returns:
      An array of the shape and type in the header, in native byte order: uint8, int8, int16, int32, float32 or
      float64, of any rank.

    Raises:
      InputError: the file cannot be read, or is not exactly one IDX array.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4]))
    >>> read_idx(path)
    array([9, 0, 4], dtype=uint8)
    """
    path = Path(path)
    with reading.error_names(path, reading.GZIP_DAMAGE, "corrupt gzip data"), path.open("rb") as file:
        if not file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
            return _parse(path, file)
        with gzip.GzipFile(fileobj=file) as content:
            return _parse(path, content, reading.max_unpacked(path.stat().st_size))


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes an array as an IDX file, gzipped if the name ends in .gz.

    The same array gives the same bytes: the gzip header holds neither a time nor a name.

    Raises:
      InputError: IDX has no code for the array's type.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "images-idx3-ubyte.gz"
    >>> write_idx(path, np.zeros((2, 28, 28), np.uint8))
    >>> read_idx(path).shape
    (2, 28, 28)
    """
    path = Path(path)
    header, body = _encode(array)
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as zipped:
                zipped.write(header)
                zipped.write(body)
        else:
            file.write(header)
            file.write(body)


def idx_sha256(array: np.ndarray) -> str:
    """Returns the SHA-256, in hexadecimal, of the uncompressed IDX file that holds this array.

    An array has exactly one IDX encoding, so no file is needed.

    Raises:
      InputError: IDX has no code for the array's type.

    >>> content = bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4])
    >>> idx_sha256(np.array([9, 0, 4], np.uint8)) == hashlib.sha256(content).hexdigest()
    True
    """
    header, body = _encode(array)
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.hexdigest()


def _parse(path: Path, content: BinaryIO | gzip.GzipFile, limit: float = math.inf) -> np.ndarray:
    magic = _read_at_most(content, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_DTYPES:
        codes = ", ".join(f"{code:#04x} {dtype.name}" for code, dtype in IDX_DTYPES.items())
        needed = f"an IDX file begins with 00 00, a type code ({codes}) and the number of dimensions"
        raise InputError(f"{path}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}; {needed}.")
    dtype, rank = IDX_DTYPES[magic[2]], magic[3]
    sizes = _read_at_most(content, 4 * rank)
    if len(sizes) < 4 * rank:
        raise InputError(f"{path}: truncated: it ends inside the header, which declares {rank} dimensions.")
    shape = struct.unpack(f">{rank}I", sizes)
    size = math.prod(shape) * dtype.itemsize
    declared = f"its header declares {dtype.name} of shape {shape}, {size:,} bytes"
    if size > limit:
        most = f"more than the {limit:,} that a gzip file of its size may hold"
        raise InputError(f"{path}: {declared}, {most}. If the header is right, unpack the file.")
    # One byte more than declared, to check that the file ends there: gzip's checksum is only read at the end.
    body = _read_at_most(content, size + 1)
    if len(body) < size:
        raise InputError(f"{path}: truncated: {declared} after the header; the file holds only {len(body):,}.")
    if len(body) > size:
        raise InputError(f"{path}: too long: {declared} after the header; the file holds more.")
    try:
        array: np.ndarray = np.ndarray(shape, dtype, buffer=body)
    except ValueError as error:
        raise InputError(f"{path}: NumPy cannot hold an array of shape {shape}: {error}.") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_at_most(content: BinaryIO | gzip.GzipFile, limit: int) -> bytearray:
    # In chunks: a single read(limit) would allocate the limit, which a header may put at exabytes.
    data = bytearray()
    while chunk := content.read(min(CHUNK, limit - len(data))):
        data += chunk
    return data


def _encode(array: np.ndarray) -> tuple[bytes, memoryview]:
    stored = array.dtype.newbyteorder(">")
    codes = {dtype: code for code, dtype in IDX_DTYPES.items()}
    if stored not in codes:
        known = ", ".join(dtype.name for dtype in codes)
        raise InputError(f"IDX has no code for {array.dtype.name}: convert the array to one of {known}.")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[stored], array.ndim, *array.shape)
    return header, np.ascontiguousarray(array, stored).reshape(-1).view(np.uint8).data
