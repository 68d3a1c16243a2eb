"""Decodes image files of any size, mode and bit depth to compact arrays, once: decoded images are cached on disk.

JPEG, PNG, TIFF, BMP, GIF (its first frame), WebP, PGM and PPM are recognized by their content. Images are rotated as
their EXIF orientation says and resized to a square without preserving their aspect ratio, as Keras and torchvision do
by default: nothing is cropped, and no padding reveals a class whose images happen to be wide. Transparency becomes
white. 16-bit gray values are scaled, not clipped; so are integers and floats without a fixed range (from 0 to 65,535
and from 0 to 1, or else from their own minimum to their maximum).

Many images are decoded while they are first trained on. Nothing of them remains in memory, so there may be any number.
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import struct
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError
from jaxcls._utils.escaping import line
from jaxcls.data import sources
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.formats import pixels
from jaxcls.data.formats.pixels import DEEP_WHITE, SUFFIXES
from jaxcls.data.formats.reading import error_names
from jaxcls.data.rows import SMALL, Rows, Stored, columns

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# Increased when decoding changes the pixels, so that older ones are not read from the cache.
_VERSION = 3
# Files that are decoded before training of those that are decoded in training.
_SAMPLE = 2048
_CHUNK = 16
# Pillow's PILLOW_BLOCKS_MAX; a block has at most 16 MB.
_BLOCKS = 16
# What the cache knows of a file besides its pixels: its SHA-256, or zeros if it cannot be decoded, its original height
# and width, and its greatest value if it has more than 8 bits. The CRC-32 is that of the pixels and the rest.
_HEADER, _RECORD = (
    struct.Struct("<32s3i"),
    np.dtype([("sha256", "V32"), ("size", "<i4", 2), ("deepest", "<i4"), ("crc32", "<u4")]),
)


class Decoded(NamedTuple):
    """Decoded images.

    Attributes:
      images: uint8 (N, size, size, channels).
      sha256: the SHA-256 of the lines ``SHA-256 of the file, two spaces, its name`` of all files in their order; with
        the size of a file in place of the SHA-256 where it is decoded later.
      sizes: int32 (N, 2), the original height and width of each image, rotated as its EXIF orientation says; 0 where
        it is decoded later.
      deepest: int32 (N,), the greatest value of each image of more than 8 bits, else 0; likewise.
      rows: int (N,), which of the files these are: all, or those that can be decoded if the others are skipped.
      notes: how many files were skipped, or are decoded later.
    """

    images: Rows
    sha256: str
    sizes: np.ndarray
    deepest: np.ndarray
    rows: np.ndarray
    notes: tuple[str, ...] = ()


# Height and width in pixels, or both of a square.
Size = int | tuple[int, int]


class _Options(NamedTuple):
    """How images are decoded; all of it is part of the cache's key."""

    size: tuple[int, int]
    channels: int
    pad: bool
    skip_damaged: bool = False
    white: int = DEEP_WHITE


# The SHA-256 of a file (b"" if it could not be decoded), its pixels, its original height and width, and its greatest
# value if it has more than 8 bits, else 0.
_File = tuple[bytes, np.ndarray, tuple[int, int], int]


def open_upright(path: Path) -> "Image.Image":
    """Opens an image for display: grayscale or RGB, at its original size, rotated as its EXIF orientation says.

    Raises:
      InputError: it cannot be read, is not an image, is damaged, or has too many pixels to be decoded safely.
    """
    from PIL import ImageOps

    with strict_pillow(), _pillow_error_names(path), pixels.opened(path.read_bytes()) as image:
        image.load()
        mode = "L" if image.mode in ("1", "L") or image.mode.startswith(("I", "F")) else "RGB"
        # Deep grays stay floats.
        return pixels.in_mode(ImageOps.exif_transpose(image), mode, fit_white(np.asarray(image))).convert(mode)


def decode_all(
    paths: Sequence[Path],
    *,
    size: Size,
    channels: int,
    root: Path,
    what: str,
    inside: Path | None = None,
    pad: bool = False,
    skip_damaged: bool = False,
    white: int = DEEP_WHITE,
    later: bool = False,
) -> Decoded:
    """Decodes many images in parallel, once: a later call with the same unchanged files reads them from a cache.

    The cache's key covers the files' names, sizes and modification times, and all that affects the pixels. Cached
    images are verified when they are first read, and decoded again if damaged. After an interrupted call, those that it
    decoded are in the cache.

    Args:
      paths: the files, in the order of the result.
      size: height and width of the result, in pixels; those of images with `pad` are equal.
      channels: 1 for grayscale, 3 for RGB.
      root: a folder above all of them; errors and checksums use names relative to it.
      what: what the images are, for the progress bar.
      inside: the folder that no link may lead out of; `root` by default.
      pad: whether to preserve each image's aspect ratio, at the top left of a black square; see :func:`fitted_size`.
      skip_damaged: whether to leave out files that cannot be decoded instead of raising, unless that leaves none.
      white: the integer that is white in images of more than 8 bits; see :func:`fit_white`.
      later: whether images of more than ``SMALL`` bytes are decoded when they are first read, except for a sample. If
        their cache is full, they are decoded each time. With `skip_damaged`, all are decoded at once.

    Raises:
      InputError: there are no files, one of them leads out of the folder, cannot be read, is not an image, is damaged
        or has too many pixels to be decoded safely, or the cache cannot be written. Of images that are decoded later,
        reading them raises it.
    """
    from tqdm import tqdm

    options = _Options(_height_and_width(size), channels, pad, skip_damaged, white)
    if not paths:
        raise InputError(f"{root}: no images for {what}; there must be at least one.")
    files.all_inside(inside or root, paths)
    names = [path.relative_to(root).as_posix() for path in paths]
    shape = (*options.size, channels)
    nbytes = len(paths) * math.prod(shape)
    later = later and not skip_damaged and nbytes > SMALL
    status = []
    for path in paths:
        with error_names(path):
            status.append(path.stat())
    folder = environment.cache_directory() / "images" / _key(names, status, root, options)
    source = _Files(paths, options, folder, later=later)
    first = np.arange(len(paths)) if source.sample is None else source.sample
    step = _CHUNK * 2 * (os.cpu_count() or 1)
    with (
        strict_pillow(),
        tqdm(total=len(first), desc=f"decoding {line(what)}", unit="image", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(first), step):
            source.read(first[start : start + step])
            bar.update(step)
    # What was decoded by an earlier run makes no difference.
    records = np.zeros_like(source.records)
    records[first] = source.records[first]
    content = hashlib.sha256()
    digests = [str(one.st_size) for one in status] if later else [""] * len(paths)
    for row in first[records["size"][first, 0] > 0].tolist():
        digests[row] = records["sha256"][row].tobytes().hex()
    for name, digest in zip(names, digests, strict=True):
        content.update(f"{digest}  {name}\n".encode(errors="surrogateescape"))
    (images,) = columns(source, np.empty(shape, np.uint8), count=len(paths))
    # A file that could not be decoded has no size.
    rows = np.arange(len(paths)) if later else np.flatnonzero(records["size"][:, 0])
    decoded = Decoded(images, content.hexdigest(), records["size"], records["deepest"], rows)
    if later:
        note = (
            f"{len(first):,} of {len(paths):,} images of {root} were decoded, for statistics; the others are decoded "
            "in training, and are neither compared with each other nor checked before it"
        )
        return decoded._replace(notes=(note,))
    if len(rows) == len(paths):
        return decoded
    if not len(rows):
        with strict_pillow():
            _decode_file(paths[0], options)
    left_out = np.delete(names, rows)
    note = f"warning: {len(left_out):,} images of {root} cannot be decoded and are left out, such as {left_out[0]}"
    return decoded._replace(
        images=images.select(rows), sizes=decoded.sizes[rows], deepest=decoded.deepest[rows], notes=(note,)
    )


def is_image(path: Path) -> bool:
    """Returns whether this is a folder, or a file with the suffix of an image."""
    return path.is_dir() or path.suffix.lower() in SUFFIXES


def fit_white(deepest: np.ndarray) -> int:
    """Returns the integer that is white in images with these greatest values: all ones in the bits that they use.

    >>> fit_white(np.array([0, 4000, 900])), fit_white(np.array([0, 40_000]))
    (4095, 65535)
    """
    return (1 << int(deepest.max()).bit_length()) - 1 if 0 < deepest.max(initial=0) < DEEP_WHITE else DEEP_WHITE


def with_fitted_white(read: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """Lets a reader of a data set scale images of more than 8 bits by the bits that its training images use.

    The reader takes ``white``, as :func:`decode_all` does, and returns ``deepest`` of its splits.
    """

    @functools.wraps(read)
    def read_again(*arguments: Any, **options: Any) -> Dataset:
        dataset = read(*arguments, **options)
        white = fit_white(np.asarray(dataset.train.deepest))
        if white == DEEP_WHITE:
            return dataset
        dataset = read(*arguments, **options, white=white)
        note = f"white is {white:,} in images of 16 bits, since training images have no greater values"
        return sources.with_provenance(dataset, note=f"{dataset.provenance.note}; {note}")._replace(white=white)

    return read_again


def decode_path(
    path: Path, *, size: Size, channels: int, pad: bool = False, white: int = DEEP_WHITE
) -> tuple[np.ndarray, Decoded]:
    """Decodes one image, or all images in a folder and its subfolders.

    Args:
      path: the file or folder.
      size, channels, pad, white: as in :func:`decode_all`.

    Returns:
      The names of the files relative to the folder, str objects (N,), and the images.

    Raises:
      InputError: as for :func:`decode_all`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "gray.pgm"
    >>> _ = path.write_bytes(b"P5 2 1 255 " + bytes([7, 9]))
    >>> decode_path(path, size=2, channels=1)[1].images[0, :, :, 0].tolist()
    [[7, 9], [7, 9]]
    """
    if path.is_dir():
        image_paths, _ = list_files(path)
        what = f"images to predict in {path.name}"
        # A detector needs the sizes of all.
        options: Any = {"pad": pad, "white": white, "later": not pad}
        decoded = decode_all(image_paths, size=size, channels=channels, root=path, what=what, **options)
        return np.array([file.relative_to(path).as_posix() for file in image_paths], object), decoded
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; give an image, or a folder of images.")
    with strict_pillow():
        sha256, image, original, deepest = _decode_file(
            path, _Options(_height_and_width(size), channels, pad, white=white)
        )
    (rows,) = columns(Stored(image[None]), image, count=1)
    one = Decoded(rows, sha256.hex(), np.array([original], np.int32), np.array([deepest], np.int32), np.arange(1))
    return np.array([path.name], object), one


def read_unlabeled(path: Path, size: Size, channels: int, white: int = DEEP_WHITE) -> Unlabeled:
    """Reads images to predict, of one file or of a folder; see :func:`decode_path`."""
    ids, decoded = decode_path(path, size=size, channels=channels, white=white)
    return Unlabeled(ids, decoded.images)


def list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Lists the files in a folder and its subfolders: those with the suffix of an image, and the others; both sorted.

    Leaves out hidden files and what file managers create (Thumbs.db, .DS_Store, __MACOSX).

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.png", "a.JPG", "notes.txt", "Thumbs.db"):
    ...     (folder / name).touch()
    >>> [[path.name for path in paths] for paths in list_files(folder)]
    [['a.JPG', 'b.png'], ['notes.txt']]
    """
    images, others = [], []
    for path in sorted(_all_files(folder)):
        if path.suffix.lower() in SUFFIXES:
            files.check_name(path)
            images.append(path)
        elif path.name.lower() not in ("thumbs.db", "desktop.ini", "icon\r"):
            others.append(path)
    return images, others


def _all_files(folder: Path) -> Iterator[Path]:
    """Yields the files in a folder and its subfolders, also behind links that lead into them, in no order."""
    for root, folders, names in os.walk(folder, followlinks=True):
        above = Path(root)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for link in [above / name for name in folders if (above / name).is_symlink()]:
            # Not in circles.
            if files.inside(folder, link).resolve() in {parent.resolve() for parent in (above, *above.parents)}:
                folders.remove(link.name)
        yield from (above / name for name in names if not name.startswith((".", "__MACOSX")))


def missing(where: Path, names: Sequence[object], total: int) -> InputError:
    """The error for missing image files, of which a table, a list or a folder says that they exist."""
    return InputError(
        f"{where}: there is no image {names[0]}; {len(names):,} of {total:,} are missing. Fetch them, or remove their "
        "entries."
    )


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Makes a decompression bomb an error, and silences warnings about metadata, which does not affect the pixels."""
    from PIL import Image

    # Around all threads, never within one: the filters belong to the whole process.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextlib.contextmanager
def _pillow_error_names(path: Path | str) -> Iterator[None]:
    """Turns whatever Pillow raises into an InputError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: has more than the {Image.MAX_IMAGE_PIXELS:,} pixels that are decoded safely "
            f"({pixels.SMALL:,} for a small file); make it smaller or remove it."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not an image ({', '.join(pixels.FORMATS)}), or damaged; remove or replace it."
        ) from error
    # Pillow's decoders raise almost anything for a damaged file.
    except Exception as error:
        raise InputError(f"{path}: cannot be decoded ({error}); it may be damaged or cut off. Replace it.") from error


def _decode_file(path: Path, options: _Options) -> _File:
    with _pillow_error_names(path):
        content = path.read_bytes()
        decoded = pixels.decode(content, options.size, options.channels, pad=options.pad, white=options.white)
    return hashlib.sha256(content).digest(), *decoded


def decode_content(
    content: bytes, size: tuple[int, int], channels: int, where: str, *, pad: bool = False, white: int = DEEP_WHITE
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decodes the content of an image file to uint8 (height, width, channels); see :func:`decode_all`.

    Args:
      where: the content is from, for messages.

    Returns:
      The pixels, and the original height and width.

    Raises:
      InputError: it is no image, or damaged.
    """
    with _pillow_error_names(where):
        return pixels.decode(content, size, channels, pad=pad, white=white)[:2]


def _height_and_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _key(names: Sequence[str], status: Sequence[os.stat_result], root: Path, options: _Options) -> str:
    import PIL

    digest = hashlib.sha256(json.dumps([_VERSION, PIL.__version__, *options, str(root.resolve())]).encode())
    for name, file in zip(names, status, strict=True):
        digest.update(f"{name}\0{file.st_size}\0{file.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    """The threads that decode, which all reads of a process share."""
    return ThreadPoolExecutor(os.cpu_count(), "decode")


class _Files:
    """Image files as a source of rows, which are decoded when they are first read, and from then on are in the cache.

    Files of the cache are read, not mapped: mapped pages count as memory of the process, and writing to one on a full
    disk kills it. Each image has a checksum, so that an interruption or another process that writes the same does no
    harm.
    """

    def __init__(self, paths: Sequence[Path], options: _Options, folder: Path, *, later: bool):
        from PIL import Image

        # Memory of images is used again: to get it from the system each time takes longer than decoding 224 pixels.
        Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]
        self.sample = np.unique(np.linspace(0, len(paths) - 1, _SAMPLE).astype(int)) if later else None
        self.records = np.zeros(len(paths), _RECORD)
        self._paths, self._options, self._folder, self._later = paths, options, folder, later
        self._shape = (*options.size, options.channels)
        self._verified = np.zeros(len(paths), bool)
        self._files: list[int] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            size, there = math.prod(self._shape) * len(paths), folder / "pixels"
            if shutil.disk_usage(folder).free < size - (512 * there.stat().st_blocks if there.exists() else 0):
                raise OSError("the disk has too little space")
            for name in ("pixels", "records"):
                file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                weakref.finalize(self, os.close, file)
                self._files.append(file)
            stored = np.frombuffer(os.pread(self._files[1], self.records.nbytes, 0), np.uint8)
            self.records.view(np.uint8)[: len(stored)] = stored
        except OSError as error:
            self._failed(error)

    def read(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        images = np.empty((len(rows), *self._shape), np.uint8)
        new = [number for number, row in enumerate(rows.tolist()) if not self._is_cached(row, images[number])]

        def decode(start: int) -> None:
            for number in new[start : start + _CHUNK]:
                self._decode(int(rows[number]), images[number])

        # Threads, since Pillow releases the GIL.
        parts = [_decoders().submit(decode, start) for start in range(0, len(new), _CHUNK)]
        try:
            for part in parts:
                part.result()
        finally:
            for part in parts:
                part.cancel()
        return [images]

    def _is_cached(self, row: int, image: np.ndarray) -> bool:
        """Reads an image from the cache, if it is there and whole."""
        record = self.records[row]
        if not self._files or not record["crc32"]:
            return False
        if os.preadv(self._files[0], [image.data], row * image.nbytes) != image.nbytes:
            return False
        if not self._verified[row]:
            header = record.tobytes()[: _HEADER.size]
            self._verified[row] = zlib.crc32(header, zlib.crc32(image.data)) == record["crc32"]
        return bool(self._verified[row])

    def _decode(self, row: int, image: np.ndarray) -> None:
        try:
            sha256, image[...], size, deepest = _decode_file(self._paths[row], self._options)
        except InputError:
            if not self._options.skip_damaged:
                raise
            sha256, image[...], size, deepest = b"", 0, (0, 0), 0
        header = _HEADER.pack(sha256, *size, deepest)
        record = header + zlib.crc32(header, zlib.crc32(image.data)).to_bytes(4, "little")
        self.records[row] = np.frombuffer(record, _RECORD)[0]
        if not self._files:
            return
        try:
            # A short write is one to a full disk, which the next would report.
            os.pwrite(self._files[0], image.data, row * image.nbytes)
            os.pwrite(self._files[1], record, row * len(record))
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Continues without a cache, unless all images are read before training."""
        size = f"they take {math.prod(self._shape) * len(self._paths) / 1e6:,.0f} MB"
        problem = f"{self._folder}: the decoded images cannot be cached ({error.strerror or error}); {size}"
        if not self._later:
            raise InputError(f"{problem}. Set XDG_CACHE_HOME to a folder with enough space.") from error
        self._files = []
        logger.warning("%s. They are decoded again in every epoch; with XDG_CACHE_HOME on a larger disk, once", problem)
