"""Decodes image files of any size, mode and bit depth to compact arrays, once: decoded images are cached on disk.

JPEG, PNG, TIFF, BMP, GIF (its first frame), WebP, PGM and PPM are recognized by their content. Images are rotated as
their EXIF orientation says and resized to a square without preserving their aspect ratio, as Keras and torchvision do
by default: nothing is cropped, and no padding reveals a class whose images happen to be wide. Transparency becomes
white. 16-bit gray values are scaled, not clipped; so are integers and floats without a fixed range (from 0 to 65,535
and from 0 to 1, or else from their own minimum to their maximum).
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import warnings
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

if TYPE_CHECKING:
    from PIL import Image

# Increased when decoding changes the pixels, so that older ones are not read from the cache.
_VERSION = 2
_CHUNK = 64


class Decoded(NamedTuple):
    """Decoded images.

    Attributes:
      images: uint8 (N, size, size, channels).
      sha256: the SHA-256 of the lines ``SHA-256 of the file, two spaces, its name`` of all files in their order.
      sizes: int32 (N, 2), the original height and width of each image, rotated as its EXIF orientation says.
      deepest: int32 (N,), the greatest value of each image of more than 8 bits, else 0.
      rows: int (N,), which of the files these are: all, or those that can be decoded if the others are skipped.
      notes: how many files were skipped.
    """

    images: np.ndarray
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


# The SHA-256 of a file ('' if it could not be decoded), its pixels, its original height and width, and its greatest
# value if it has more than 8 bits, else 0.
_File = tuple[str, np.ndarray, tuple[int, int], int]


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
) -> Decoded:
    """Decodes many images in parallel, once: a later call with the same unchanged files maps them from a cache.

    The cache's key covers the files' names, sizes and modification times, and all that affects the pixels. Cached
    images are verified, and decoded again if damaged. An interrupted call leaves nothing behind.

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

    Returns:
      The decoded images, memory-mapped and read-only.

    Raises:
      InputError: there are no files, one of them leads out of the folder, cannot be read, is not an image, is damaged
        or has too many pixels to be decoded safely, or the cache cannot be written.
    """
    options = _Options(_height_and_width(size), channels, pad, skip_damaged, white)
    if not paths:
        raise InputError(f"{root}: no images for {what}; there must be at least one.")
    files.all_inside(inside or root, paths)
    names = [path.relative_to(root).as_posix() for path in paths]
    folder = environment.cache_directory() / "images" / _key(paths, names, root, options)
    shape = (len(paths), *options.size, channels)
    decoded = _read_cached(folder, shape)
    if decoded is None:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            sources.write_once(folder, lambda partial: _write(partial, paths, names, what, options))
        except OSError as error:
            raise InputError(
                f"{folder}: the decoded images cannot be cached ({error.strerror or error}); they take "
                f"{np.prod(shape) / 1e6:,.0f} MB. Set XDG_CACHE_HOME to a folder with enough space."
            ) from error
        decoded = _read_cached(folder, shape)
    if decoded is None:
        raise InputError(f"{folder}: reads back differently than it was written; the disk may be failing.")
    # A file that could not be decoded has no size.
    rows = np.flatnonzero(decoded.sizes[:, 0])
    if len(rows) == len(paths):
        return decoded
    if not len(rows):
        with strict_pillow():
            _decode_file(paths[0], options)
    left_out = np.delete(names, rows)
    note = f"warning: {len(left_out):,} images of {root} cannot be decoded and are left out, such as {left_out[0]}"
    decodable = {name: getattr(decoded, name)[rows] for name in ("images", "sizes", "deepest", "rows")}
    return decoded._replace(**decodable, notes=(note,))


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
        decoded = decode_all(image_paths, size=size, channels=channels, root=path, what=what, pad=pad, white=white)
        return np.array([file.relative_to(path).as_posix() for file in image_paths], object), decoded
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; give an image, or a folder of images.")
    with strict_pillow():
        options = _Options(_height_and_width(size), channels, pad, white=white)
        sha256, image, original, deepest = _decode_file(path, options)
    one = Decoded(image[None], sha256, np.array([original], np.int32), np.array([deepest], np.int32), np.arange(1))
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
    return hashlib.sha256(content).hexdigest(), *decoded


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


def _key(paths: Sequence[Path], names: Sequence[str], root: Path, options: _Options) -> str:
    import PIL

    digest = hashlib.sha256(json.dumps([_VERSION, PIL.__version__, *options, str(root.resolve())]).encode())
    for path, name in zip(paths, names, strict=True):
        with error_names(path):
            status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]


def _write(folder: Path, paths: Sequence[Path], names: Sequence[str], what: str, options: _Options) -> None:
    from tqdm import tqdm

    def decode(path: Path) -> _File:
        try:
            return _decode_file(path, options)
        except InputError:
            if not options.skip_damaged:
                raise
            return "", np.zeros(shape[1:], np.uint8), (0, 0), 0

    shape = (len(paths), *options.size, options.channels)
    content, all_pixels = hashlib.sha256(), hashlib.sha256()
    sizes: list[tuple[int, int]] = []
    deepest: list[int] = []
    # Threads, since Pillow releases the GIL.
    pool = ThreadPoolExecutor(os.cpu_count())
    # Written in order, not mapped: on a full disk, writing to a mapped page kills the process.
    with (
        (folder / "images.npy").open("wb") as file,
        tqdm(total=len(paths), desc=f"decoding {line(what)}", unit="image", leave=False, disable=None) as bar,
        strict_pillow(),
        contextlib.ExitStack() as stack,
    ):
        stack.callback(pool.shutdown, cancel_futures=True)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
        decoded = itertools.chain.from_iterable(pool.map(lambda chunk: [*map(decode, chunk)], chunks))
        for name, (digest, image, size, greatest) in zip(names, decoded, strict=True):
            content.update(f"{digest}  {name}\n".encode(errors="surrogateescape"))
            all_pixels.update(image.data)
            file.write(image.data)
            sizes.append(size)
            deepest.append(greatest)
            bar.update()
    record = {
        "content_sha256": content.hexdigest(),
        "pixels_sha256": all_pixels.hexdigest(),
        "sizes": sizes,
        "deepest": deepest,
    }
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def _read_cached(folder: Path, shape: tuple[int, ...]) -> Decoded | None:
    """The cached images, or None if they are missing or damaged."""
    try:
        record: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if images.shape != shape or images.dtype != np.uint8:
            return None
        if hashlib.sha256(images.data).hexdigest() != record["pixels_sha256"]:
            return None
        sizes = np.array(record["sizes"], np.int32).reshape(len(images), 2)
        deepest = np.array(record["deepest"], np.int32).reshape(len(images))
        return Decoded(np.asarray(images), record["content_sha256"], sizes, deepest, np.arange(len(images)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
