"""Reading files from untrusted sources: errors name the file, and memory follows its size, not what it declares."""

import codecs
import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxcls._utils.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
# A gzip file that is cut off ends in an EOFError.
GZIP_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)
CHUNK = 1 << 18
# Images and texts compress to a tenth, rarely to a thirtieth. Zeros, which decompression bombs are made of, compress to
# a thousandth.
_MAX_RATIO = 100
# A small file is no danger however well it compresses; sorted labels do.
_SMALL = 1 << 26


@contextlib.contextmanager
def error_names(
    path: str | os.PathLike[str], damage: tuple[type[Exception], ...] = (), what: str = ""
) -> Iterator[None]:
    """Turns errors of reading a file into an InputError that names it.

    Args:
      path: the file.
      damage: the exceptions that a damaged file causes.
      what: the message for these.

    >>> with error_names("a.json", (ValueError,), "is not JSON"):
    ...     int("x")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: a.json: is not JSON (invalid literal for int() with base 10: 'x'). The ...
    """
    try:
        yield
    except InputError:
        raise
    # First: some of these, such as gzip.BadGzipFile, are OSErrors.
    except damage as error:
        raise InputError(f"{path}: {what} ({error}). The file may be damaged; fetch it again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
      InputError: it cannot be read.
    """
    with error_names(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8.

    Raises:
      InputError: it cannot be read, or is not UTF-8.
    """
    return decode_text(read_bytes(path), path)


def decode_text(content: bytes, where: str | os.PathLike[str]) -> str:
    """Decodes UTF-8, with or without a byte order mark.

    Raises:
      InputError: it is not UTF-8; the message names `where`, the line, the byte and a likely encoding.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len((content[: error.start] + b".").splitlines())
        raise InputError(
            f"{where}: line {line} is not UTF-8 (byte {content[error.start]:#04x}). Save the file as UTF-8, or convert "
            f"it, for example with: iconv -f {likely_encoding(content)} -t UTF-8."
        ) from None


def likely_encoding(content: bytes) -> str:
    """Guesses the encoding of a text that is not UTF-8, for a hint.

    >>> likely_encoding("caf\xe9".encode("utf-16")), likely_encoding("caf\xe9".encode("latin-1"))
    ('UTF-16', 'WINDOWS-1252')
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content.split(b"\n", 1)[0]
    return "UTF-16" if utf16 else "WINDOWS-1252"


def max_unpacked(packed: int, *, small: int = _SMALL) -> int:
    """Returns the most bytes that this many compressed bytes may become; at least ``small``.

    >>> max_unpacked(10), max_unpacked(10**9)
    (67108864, 100000000000)
    """
    return max(_MAX_RATIO * packed, small)


def gunzip(content: bytes, where: str | os.PathLike[str]) -> bytes:
    """Decompresses the content of a gzip file.

    Raises:
      InputError: it is damaged, or unpacks to more than :func:`max_unpacked` bytes; the message names `where`.
    """
    with error_names(where, GZIP_DAMAGE, "corrupt gzip data"), gzip.GzipFile(fileobj=io.BytesIO(content)) as zipped:
        return BoundedReader(zipped, max_unpacked(len(content)), where).read()


class BoundedReader:
    """A file that is read in small pieces, so that memory follows the content and not the size that was requested.

    Args:
      file: the file to read.
      limit: the most bytes that may be read in all; reading more is an InputError.
      where: its name, for messages.
      at_once: the most bytes that may be requested in one call; requesting more is an InputError.
    """

    def __init__(
        self, file: BinaryIO | gzip.GzipFile, limit: int, where: str | os.PathLike[str], *, at_once: int | None = None
    ):
        self._file, self._limit, self._where, self._at_once = file, limit, where, at_once

    def read(self, size: int = -1) -> bytes:
        if self._at_once is not None and size > self._at_once:
            raise InputError(f"{self._where}: one entry would take {size:,} bytes. Do not trust this file.")
        pieces, left = [], size
        while chunk := self._file.read(CHUNK if size < 0 else min(CHUNK, left)):
            pieces.append(chunk)
            left -= len(chunk)
            if self._file.tell() > self._limit:
                raise InputError(
                    f"{self._where}: unpacks to more than {self._limit:,} bytes, which real data does not. Do not "
                    f"trust "
                    "this file."
                )
        return b"".join(pieces)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()
