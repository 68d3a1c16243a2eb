"""MedMNIST: the images and labels of a data set in one .npz file, with its official division in three parts.

Yang et al. 2023, arXiv 2110.14795.
"""

import contextlib
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data.formats import unpacking

PARTS = ("train", "val", "test")
SIZES = (28, 64, 128, 224)
CHUNK = 1 << 20
# What zipfile raises for damaged files: also for versions (NotImplementedError) and for encryption (RuntimeError).
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, TypeError, EOFError, RuntimeError, LookupError,
    OverflowError,
)  # fmt: skip
_HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=]?[biufcSUVO?]\d{0,9})', 'fortran_order': (?P<order>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18},)?|\d{1,18}(?:, \d{1,18})+)\), \} *\n"
)


class Labelled(NamedTuple):
    """One part: ``images`` uint8 (N, size, size, channels) and ``labels`` int32 (N, L) of 0 and 1."""

    images: np.ndarray
    labels: np.ndarray


def find(folder: Path, name: str, size: int) -> Path | None:
    """The file of a MedMNIST data set, such as pneumoniamnist.npz or pneumoniamnist_64.npz, or None.

    Of several, the smallest images that are no smaller than ``size``, else the largest.

    >>> find(Path("nowhere"), "pneumoniamnist", 64) is None
    True
    """
    names = {pixels: f"{name}.npz" if pixels == SIZES[0] else f"{name}_{pixels}.npz" for pixels in SIZES}
    there = [pixels for pixels in SIZES if (folder / names[pixels]).is_file()]
    if not there:
        return None
    return files.inside(folder, folder / names[min((pixels for pixels in there if pixels >= size), default=there[-1])])


def read(path: Path, *, num_labels: int, size: int) -> dict[str, Labelled]:
    """Reads 'train', 'val' and 'test' of a MedMNIST file whose labels are yes or no.

    No pickle is loaded. Memory follows the size of the file, whatever its headers declare.

    Args:
      path: the .npz file; it holds train_images, train_labels, val_images, ...
      num_labels: how many labels an image has.
      size: the height and width that the images are brought to.

    Raises:
      InputError: naming the file, and the array and the row in it: it cannot be read, is cut or damaged, is not
        what it declares, lacks an array, or holds one that is not of uint8 images or of labels 0 and 1.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "toymnist.npz"
    >>> images, labels = np.zeros((2, 28, 28), np.uint8), np.array([[0], [1]], np.uint8)
    >>> images[:] = np.arange(784, dtype=np.uint8).reshape(28, 28)
    >>> np.savez(path, **{f"{part}_images": images for part in PARTS}, **{f"{part}_labels": labels for part in PARTS})
    >>> read(path, num_labels=1, size=64)["val"].images.shape
    (2, 64, 64, 1)
    """
    with opened(path) as archive:
        parts = {part: _part(path, archive, part, num_labels) for part in PARTS}
    shapes = {key: part.images.shape[1:] for key, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{path}: images of different shapes: {shapes}; those of all parts must have one.")
    return {key: part._replace(images=_resized(part.images, size)) for key, part in parts.items()}


def _part(path: Path, archive: zipfile.ZipFile, part: str, num_labels: int) -> Labelled:
    images = array(path, archive, f"{part}_images")
    square = images.ndim >= 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or images.shape[3:] not in ((), (3,)) or not images.size:
        raise InputError(
            f"{path}: {part}_images: {images.dtype} of shape {images.shape}; images must be uint8 of shape "
            "(N, size, size) or (N, size, size, 3), with at least one."
        )
    labels = array(path, archive, f"{part}_labels")
    if labels.dtype.kind not in "biu" or labels.shape != (len(images), num_labels):
        raise InputError(
            f"{path}: {part}_labels: {labels.dtype} of shape {labels.shape}; labels must be integers of shape "
            f"({len(images)}, {num_labels}), a row for each image."
        )
    for row, column in np.argwhere((labels != 0) & (labels != 1))[:1]:
        raise InputError(f"{path}: {part}_labels: row {row} holds {labels[row, column]}; labels must be 0 or 1.")
    return Labelled(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """An .npz file whose arrays, by :func:`array`, take the memory that the size of the file gives reason for.

    Raises:
      InputError: also for what goes wrong while it is read: it cannot be read, or is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked, packed = sum(member.file_size for member in members), Path(path).stat().st_size
            if unpacked > unpacking.most(packed, small=0):
                raise InputError(
                    f"{path}: its {packed:,} bytes unpack to {unpacked:,}; arrays do not pack so well. Fetch it again."
                )
            if len({member.filename for member in members}) < len(members):
                raise InputError(f"{path}: not an .npz file, or a damaged one (it holds a name twice).")
            yield archive
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except _DAMAGE as error:
        raise InputError(f"{path}: not an .npz file, or a damaged one ({error}). Fetch it again.") from error


def array(path: Path, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """An array of an .npz file; no pickle is loaded.

    Raises:
      InputError: it is not there, or is cut, damaged or none of numbers or text.
    """
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        held = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
        raise InputError(f"{path}: holds no {key}; it holds {held or 'nothing'}.") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {key}: packed in a way that NumPy does not write.")
    try:
        with archive.open(member) as content:
            return _values(content, member.file_size)
    except _DAMAGE as error:
        raise InputError(f"{path}: {key}: cut, damaged, or not an array of numbers ({error}).") from error


def _values(content: IO[bytes], size: int) -> np.ndarray:
    shape, fortran_order, dtype = _header(content)
    # What is declared is no more than what the archive holds, before any of it is given memory.
    declared, held = math.prod(shape) * dtype.itemsize, size - content.tell()
    if declared != held:
        raise ValueError(f"its header declares {dtype} of shape {shape}, {declared:,} bytes; it holds {held:,}")
    values = np.empty(declared, np.uint8)
    for start in range(0, declared, CHUNK):
        count = min(CHUNK, declared - start)
        values[start : start + count] = np.frombuffer(content.read(count), np.uint8, count)
    return values.view(dtype).reshape(shape, order="F" if fortran_order else "C")


def _header(content: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """As NumPy writes it for plain arrays; its own reader has Python parse a header, and whatever stands in one."""
    start = content.read(10)
    if len(start) < 10 or start[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin as an array does")
    if start[6:8] != b"\1\0":
        raise ValueError(f"version {start[6]}.{start[7]} of the format, which plain arrays do not need")
    text = content.read(int.from_bytes(start[8:], "little")).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if found is None:
        raise ValueError(f"its header is {text[:100]!r}, which NumPy does not write for numbers")
    if "O" in found["type"]:
        raise ValueError(f"its type is {found['type']}: pickled objects, which are never loaded")
    shape = tuple(int(length) for length in found["shape"].replace(",", " ").split())
    return shape, found["order"] == "True", np.dtype(found["type"])


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    if images.shape[1] == size:
        return images
    from PIL import Image

    resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, place in zip(images, resized, strict=True):
        # Pillow takes grey images without an axis of channels.
        whole = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        smooth = whole.resize((size, size), Image.Resampling.BILINEAR)
        place[:] = np.asarray(smooth).reshape(place.shape)
    return resized
