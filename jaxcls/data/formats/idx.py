"""File formats: a file in, a compact NumPy array out.

IDX is the format of MNIST and its relatives: http://yann.lecun.com/exdb/mnist
"""

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import unpacking
from jaxcls.data.formats.unpacking import CHUNK, GZIP_MAGIC

IDX_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads one array from an IDX file, plain or gzipped (told by its content, not by its name).

    Returns an array of the shape and type in the file's header, in the machine's byte order: uint8, int8,
    int16, int32, float32 or float64, of any rank. Memory follows the bytes that are really in the file, and
    never passes what the header declares, nor what a file of this size may unpack to, so neither a lying header nor a
    gzip bomb is dangerous.

    Raises InputError, which names the file, if it cannot be read, or is not exactly one IDX array.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4]))
    >>> read_idx(path)
    array([9, 0, 4], dtype=uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            zipped = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
            if not zipped:
                return _read_idx(path, file)
            packed = os.fstat(file.fileno()).st_size
            with gzip.GzipFile(fileobj=file) as content:
                return _read_idx(path, content, unpacking.most(packed))
    # BadGzipFile is an OSError, so it stands before it; a cut gzip file ends in an EOFError.
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: corrupt gzip data ({error}). Fetch the file again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes an array as an IDX file that `read_idx` reads, gzipped if the name ends in .gz.

    The same array gives the same bytes: the gzip header holds neither a time nor a name.
    Raises InputError if IDX has no code for the array's type.

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
    """The SHA-256, in hexadecimal digits, of the unpacked IDX file that holds this array.

    An array has exactly one IDX form, so this needs no file: whatever file it came from had this content,
    under whatever gzip header. Raises InputError if IDX has no code for the array's type.

    >>> content = bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4])
    >>> idx_sha256(np.array([9, 0, 4], np.uint8)) == hashlib.sha256(content).hexdigest()
    True
    """
    header, body = _encode(array)
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.hexdigest()


def _read_idx(path: Path, content: BinaryIO | gzip.GzipFile, most: float = math.inf) -> np.ndarray:
    magic = _read_at_most(content, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_DTYPES:
        codes = ", ".join(f"{code:#04x} {dtype.name}" for code, dtype in IDX_DTYPES.items())
        raise InputError(
            f"{path}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}; an IDX file begins with "
            f"00 00, a type code ({codes}) and the number of dimensions."
        )
    dtype, rank = IDX_DTYPES[magic[2]], magic[3]
    sizes = _read_at_most(content, 4 * rank)
    if len(sizes) < 4 * rank:
        raise InputError(f"{path}: truncated: it ends inside the header, which declares {rank} dimensions.")
    shape = struct.unpack(f">{rank}I", sizes)
    declared = math.prod(shape) * dtype.itemsize
    if declared > most:
        raise InputError(
            f"{path}: its header declares {dtype.name} of shape {shape}, {declared:,} bytes, and a gzip file of its "
            f"size is believed to hold {most:,} at the most. If it is right, unpack it."
        )
    # One byte more than declared, to see that the file ends there: only at its end is gzip's checksum read.
    body = _read_at_most(content, declared + 1)
    if len(body) != declared:
        state = "truncated" if len(body) < declared else "too long"
        held = f"only {len(body):,}" if len(body) < declared else "more"
        raise InputError(
            f"{path}: {state}: its header declares {dtype.name} of shape {shape}, {declared:,} bytes after "
            f"the header; the file holds {held}."
        )
    try:
        array: np.ndarray = np.ndarray(shape, dtype, buffer=body)
    except ValueError as error:
        raise InputError(f"{path}: shape {shape} is not one that NumPy can hold: {error}.") from error
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
    body = np.ascontiguousarray(array, stored).reshape(-1).view(np.uint8)
    return header, body.data
