"""Image files of any size, mode and bit depth to compact arrays, decoded once and kept."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError
from jaxcls._utils.escaping import line
from jaxcls.data import sources
from jaxcls.data.dataset import Unlabeled

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm"})
# What file managers leave in folders, beside hidden files.
_DROPPINGS = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
# Those that Pillow decodes by itself; for others (EPS) it would run another program on the file.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
# Raised by one when `decode` gives other pixels than before, so that nothing old is read from the cache.
_VERSION = 2
_CHUNK = 64
# The tag of EXIF that says how an image is turned.
_ORIENTATION = 0x0112
# What Pillow's decoders raise for damaged files; they are parsers of the most varied age.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip
# An image of more pixels than this is believed only if its file has a byte for so many of them.
_SMALL, _PIXELS_A_BYTE = 1 << 24, 1000


class Decoded(NamedTuple):
    """Decoded images.

    Attributes:
      images: uint8 (N, size, size, channels), mapped from a file and read-only.
      sha256: of the lines ``SHA-256 of the file's content, two spaces, its name`` for all files in their order.
      left_out: the rows of files that could not be decoded, where that was asked for; their images are black.
      sizes: int32 (N, 2), height and width of each image as it was, turned as its EXIF says.
    """

    images: np.ndarray
    sha256: str
    sizes: np.ndarray
    left_out: tuple[int, ...] = ()


def decode(path: str | os.PathLike[str], *, size: int, channels: int) -> np.ndarray:
    """Decodes one image: JPEG, PNG, TIFF, BMP, GIF (its first frame), WebP, PGM or PPM, told by its content.

    It is turned as its EXIF says, and brought to a square without regard to its aspect, as Keras and torchvision
    do it by default: nothing is cut off, no pixel is spent on bars, and no bar tells a class whose images happen
    to be wide. What is transparent becomes white. Greys of 16 bits are scaled, not clipped; so are integers
    and floats without a fixed range (from 0 to 65,535 and from 0 to 1, or else from their own least to greatest).

    Args:
      path: the file.
      size: height and width of the result, in pixels.
      channels: 1 for grey, 3 for red, green, blue.

    Returns:
      uint8 (size, size, channels).

    Raises:
      InputError: the file cannot be read, is no image, is damaged, or has too many pixels to be decoded safely.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grey.pgm"
    >>> _ = path.write_bytes(b"P5 2 1 255 " + bytes([7, 9]))
    >>> decode(path, size=2, channels=1)[:, :, 0].tolist()
    [[7, 9], [7, 9]]
    """
    _check(size, channels)
    with _strict_pillow():
        return _decode_file(Path(path), size, channels, pad=False).image


def decode_on_canvas(path: Path, *, size: int, channels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decodes one image as :func:`decode` does, but keeps its aspect: it stands at the top left of a black square.

    Returns:
      uint8 (size, size, channels), of which :func:`fitted` says how much is image; and the height and width of the
      image as it was, turned as its EXIF says.
    """
    _check(size, channels)
    with _strict_pillow():
        decoded = _decode_file(path, size, channels, pad=True)
    return decoded.image, decoded.size


def picture(path: Path) -> "Image.Image":
    """An image in grey or in colour at its own size, turned as its EXIF says, to be shown.

    Raises:
      InputError: as for :func:`decode`.
    """
    from PIL import ImageOps

    with _strict_pillow(), _damage_named(path), _opened(path.read_bytes()) as image:
        image.load()
        grey = image.mode in ("1", "L") or image.mode.startswith(("I", "F"))
        upright = _in_mode(ImageOps.exif_transpose(image), "L" if grey else "RGB")
        return upright.convert("L") if grey else upright


def fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image that was brought into a square of this size with its aspect kept, in pixels.

    The longer side is as long as the square's, the other one rounded.

    >>> fitted(480, 640, 128)
    (96, 128)
    """
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def decode_all(
    paths: Sequence[Path],
    *,
    size: int,
    channels: int,
    root: Path,
    what: str,
    inside: Path | None = None,
    pad: bool = False,
    skip_damaged: bool = False,
) -> Decoded:
    """Decodes many images, in parallel, once: the next call with the same unchanged files maps what was kept.

    They are kept in the user's cache under a key of the files' names, sizes and times of change, and of all that
    decides the pixels. What was kept is verified; what is damaged is made again. An interrupted call leaves nothing.

    Args:
      paths: the files, in the order of the result.
      size: height and width of the result, in pixels.
      channels: 1 for grey, 3 for red, green, blue.
      root: a folder above all of them; errors and checksums name them from there.
      what: the name of it all, for the progress bar.
      inside: the folder that no link may lead out of; without it, the root.
      pad: keep each image's aspect and pad it, as :func:`decode_on_canvas` does.
      skip_damaged: leave out what cannot be decoded, in place of raising.

    Raises:
      InputError: there are none, one of them leads out of the folder or cannot be decoded (as in :func:`decode`), or
        the cache has no room.
    """
    _check(size, channels)
    if not paths:
        raise InputError(f"{root}: no images for {what}; there must be at least one.")
    files.all_inside(inside or root, paths)
    names = [path.relative_to(root).as_posix() for path in paths]
    folder = environment.cache_directory() / "images" / _key(paths, names, root, size, channels, pad, skip_damaged)
    shape = (len(paths), size, size, channels)
    if decoded := _read_kept(folder, shape):
        return decoded
    try:
        shutil.rmtree(folder, ignore_errors=True)
        sources.write_once(folder, lambda partial: _write(partial, paths, names, shape, what, pad, skip_damaged))
    except OSError as error:
        raise InputError(
            f"{folder}: the decoded images cannot be kept ({error.strerror or error}); they take "
            f"{np.prod(shape) / 1e6:,.0f} MB. Set XDG_CACHE_HOME to a folder that has room for them."
        ) from error
    decoded = _read_kept(folder, shape)
    if decoded is None:
        raise InputError(f"{folder}: what was just written does not read back; the disk may be failing.")
    return decoded


def queries(path: Path, size: int, channels: int) -> Unlabeled:
    """The images to predict: one file, or all in a folder and in those below it, called by their names from there.

    Raises:
      InputError: as for :func:`decode_all`; there are no images.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder; give an image, or a folder of images.")
    if not path.is_dir():
        return Unlabeled(np.array([path.name], object), decode(path, size=size, channels=channels)[None])
    found, _ = listed(path)
    decoded = decode_all(found, size=size, channels=channels, root=path, what=f"images to predict in {path.name}")
    return Unlabeled(np.array([file.relative_to(path).as_posix() for file in found], object), decoded.images)


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files in a folder and in those below it that are images by their suffix, and the others; both sorted.

    Neither counts what is hidden, nor what file managers leave (Thumbs.db, .DS_Store, __MACOSX).

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.png", "a.JPG", "notes.txt", "Thumbs.db"):
    ...     (folder / name).touch()
    >>> [[path.name for path in paths] for paths in listed(folder)]
    [['a.JPG', 'b.png'], ['notes.txt']]
    """
    images, others = [], []
    for path in sorted(folder.rglob("*")):
        places = path.relative_to(folder).parts
        if path.is_dir() or any(place.startswith((".", "__MACOSX")) for place in places):
            continue
        if path.suffix.lower() in SUFFIXES:
            files.check_name(path)
            images.append(path)
        elif path.name.lower() not in _DROPPINGS:
            others.append(path)
    return images, others


def _check(size: int, channels: int) -> None:
    if size < 1:
        raise InputError(f"image size {size}: must be at least 1 pixel.")
    if channels not in (1, 3):
        raise InputError(f"channels {channels}: must be 1 (grey) or 3 (red, green, blue).")


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Makes a decompression bomb an error, and silences remarks on metadata that has no part in the pixels."""
    from PIL import Image

    # Around all threads, never within one: the filters belong to the whole process.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


class _File(NamedTuple):
    """The SHA-256 of a file's content, its pixels, and the height and width that they had there."""

    sha256: str
    image: np.ndarray
    size: tuple[int, int]


def _decode_file(path: Path, size: int, channels: int, *, pad: bool) -> _File:
    with _damage_named(path):
        # Whole: of a file, a decoder would allocate as much as a header says that it should read next.
        content = path.read_bytes()
        return _File(hashlib.sha256(content).hexdigest(), *_pixels(content, size, channels, pad))


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Names the file in whatever Pillow says against it."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: more than the {Image.MAX_IMAGE_PIXELS:,} pixels that are decoded safely (of a small file, the "
            f"{_SMALL:,}); make it smaller or remove it."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image ({', '.join(_FORMATS)}), or damaged; remove or replace it.") from error
    except _DAMAGE as error:
        raise InputError(f"{path}: cannot be decoded ({error}); it may be damaged or cut off. Replace it.") from error


def _opened(content: bytes) -> "Image.Image":
    """An image, of which nothing is decoded yet; one that claims more pixels than its file can hold is a bomb."""
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=_FORMATS)
    if image.width * image.height > max(_SMALL, _PIXELS_A_BYTE * len(content)):
        raise Image.DecompressionBombError
    return image


def _pixels(content: bytes, size: int, channels: int, pad: bool) -> tuple[np.ndarray, tuple[int, int]]:
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    with _opened(content) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):  # a quarter turn
            width, height = height, width
        # A JPEG can be decoded at an eighth of its size; twice what is wanted leaves the rest to a better filter.
        image.draft(mode, (2 * size, 2 * size))
        image.load()
        upright = ImageOps.exif_transpose(image)
    # In Pillow, bilinear averages over all pixels when it makes smaller. It does not ring, as bicubic does.
    rows, columns = fitted(height, width, size) if pad else (size, size)
    resized = _in_mode(upright, mode).resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(resized)
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
        pixels = np.repeat(pixels[:, :, None], channels, axis=2)
    canvas = np.zeros((size, size, channels), np.uint8)
    canvas[:rows, :columns] = pixels.reshape(rows, columns, channels)
    return canvas, (height, width)


def _in_mode(image: "Image.Image", mode: str) -> "Image.Image":
    """The image in that mode, or as floats from 0 to 255 (mode F) if it holds more than 8 bits."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    elif image.mode not in ("1", "L"):
        # On the way to grey: not every mode has a way there of its own.
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Greys of more than 8 bits as float32 from 0 to 255."""
    full = 1.0 if values.dtype.kind == "f" else 65535.0
    values = values.astype(np.float64)
    least, greatest = values.min(), values.max()
    if not np.isfinite([least, greatest]).all():
        raise ValueError("some pixels are NaN or infinite")
    if least < 0 or greatest > full:
        # No fixed range: its own.
        return ((values - least) / max(greatest - least, 1e-30) * 255).astype(np.float32)
    return (values / full * 255).astype(np.float32)


def _key(
    paths: Sequence[Path], names: Sequence[str], root: Path, size: int, channels: int, pad: bool, skip_damaged: bool
) -> str:
    import PIL

    decisive = [_VERSION, PIL.__version__, size, channels, pad, skip_damaged, str(root.resolve())]
    digest = hashlib.sha256(json.dumps(decisive).encode())
    for path, name in zip(paths, names, strict=True):
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]


def _write(
    folder: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    shape: tuple[int, ...],
    what: str,
    pad: bool,
    skip_damaged: bool,
) -> None:
    from tqdm import tqdm

    size, channels = shape[2:]
    content, pixels = hashlib.sha256(), hashlib.sha256()
    sizes: list[tuple[int, int]] = []
    left_out: list[int] = []
    # Written in order, not mapped: on a full disk a mapped page ends the process without a word.
    with (
        (folder / "images.npy").open("wb") as file,
        tqdm(total=len(paths), desc=f"decoding {line(what)}", unit="image", leave=False, disable=None) as bar,
        contextlib.closing(_chunks(paths, size, channels, pad, skip_damaged)) as chunks,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start, decoded in chunks:
            for row, (digest, image, original) in enumerate(decoded, start):
                name = names[row]
                if not digest:
                    left_out.append(row)
                content.update(f"{digest}  {name}\n".encode(errors="surrogateescape"))
                pixels.update(image.data)
                file.write(image.data)
                sizes.append(original)
            bar.update(len(decoded))
    record = {
        "content_sha256": content.hexdigest(),
        "pixels_sha256": pixels.hexdigest(),
        "sizes": sizes,
        "left_out": left_out,
    }
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def _chunks(
    paths: Sequence[Path], size: int, channels: int, pad: bool, skip_damaged: bool
) -> Generator[tuple[int, list[_File]]]:
    """Decodes in threads, since Pillow lets go of the interpreter, some images at a time; yields them in order.

    One that is left out has no SHA-256.
    """

    def one(path: Path) -> _File:
        try:
            return _decode_file(path, size, channels, pad=pad)
        except InputError:
            if not skip_damaged:
                raise
            return _File("", np.zeros((size, size, channels), np.uint8), (0, 0))

    def some(start: int) -> tuple[int, list[_File]]:
        return start, [one(path) for path in paths[start : start + _CHUNK]]

    pool = ThreadPoolExecutor(os.cpu_count())
    with _strict_pillow():
        try:
            yield from pool.map(some, range(0, len(paths), _CHUNK))
        finally:
            pool.shutdown(cancel_futures=True)


def _read_kept(folder: Path, shape: tuple[int, ...]) -> Decoded | None:
    """What was kept, or None if it is not there, or not what was written."""
    try:
        record: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        whole = images.shape == shape and images.dtype == np.uint8
        if not whole or hashlib.sha256(images.data).hexdigest() != record["pixels_sha256"]:
            return None
        sizes = np.array(record["sizes"], np.int32).reshape(-1, 2)
        return Decoded(np.asarray(images), record["content_sha256"], sizes, tuple(record["left_out"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
