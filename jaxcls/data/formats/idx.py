"""IDX, the format of MNIST and its relatives: http://yann.lecun.com/exdb/mnist"""

import hashlib
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import reading

# Type code -> type.
_NAMES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DTYPES: dict[int, np.dtype[Any]] = {code: np.dtype(name) for code, name in _NAMES.items()}


def read_idx(path: Path) -> np.ndarray:
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
    with reading.opened(path) as content:
        magic = content.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
            codes = ", ".join(f"{code:#04x} {dtype.name}" for code, dtype in _DTYPES.items())
            needed = f"an IDX file begins with 00 00, a type code ({codes}) and the number of dimensions"
            raise InputError(f"{path}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}; {needed}.")
        dtype, rank = _DTYPES[magic[2]], magic[3]
        sizes = content.read(4 * rank)
        if len(sizes) < 4 * rank:
            raise InputError(f"{path}: truncated: it ends inside the header, which declares {rank} dimensions.")
        shape = struct.unpack(f">{rank}I", sizes)
        size = math.prod(shape) * dtype.itemsize
        declared = f"its header declares {dtype.name} of shape {shape}, {size:,} bytes"
        if size > content.limit:
            most = f"more than the {content.limit:,} that a gzip file of its size may hold"
            raise InputError(f"{path}: {declared}, {most}. If the header is right, unpack the file.")
        # One byte more than declared, to check that the file ends there: gzip's checksum is only read at the end.
        body = content.read(size + 1)
    if len(body) != size:
        problem = "truncated" if len(body) < size else "too long"
        holds = f"only {len(body):,}" if len(body) < size else "more"
        raise InputError(f"{path}: {problem}: {declared} after the header; the file holds {holds}.")
    try:
        array: np.ndarray = np.ndarray(shape, dtype, buffer=body)
    except ValueError as error:
        raise InputError(f"{path}: NumPy cannot hold an array of shape {shape}: {error}.") from error
    return array.astype(dtype.newbyteorder("="))


def idx_sha256(array: np.ndarray) -> str:
    """Returns the SHA-256, in hexadecimal, of the uncompressed IDX file that holds this array.

    An array has exactly one IDX encoding, so no file is needed.

    Raises:
      InputError: IDX has no code for the array's type.

    >>> content = bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4])
    >>> idx_sha256(np.array([9, 0, 4], np.uint8)) == hashlib.sha256(content).hexdigest()
    True
    """
    return hashlib.sha256(to_bytes(array)).hexdigest()


def to_bytes(array: np.ndarray) -> bytes:
    """Returns the content of the IDX file that holds this array.

    Raises:
      InputError: IDX has no code for the array's type.

    >>> to_bytes(np.array([9, 0, 4], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 03 09 00 04'
    """
    stored = array.dtype.newbyteorder(">")
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    if stored not in codes:
        known = ", ".join(dtype.name for dtype in codes)
        raise InputError(f"IDX has no code for {array.dtype.name}: convert the array to one of {known}.")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[stored], array.ndim, *array.shape)
    return header + array.astype(stored).tobytes()
