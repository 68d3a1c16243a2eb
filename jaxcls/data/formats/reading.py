"""Reading files from untrusted sources: errors name the file, and memory follows its size, not what it declares."""

import codecs
import contextlib
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxcls._utils.errors import InputError

_CHUNK = 1 << 18
# Images and texts compress to a tenth, rarely to a thirtieth. Zeros, which decompression bombs are made of, compress to
# a thousandth.
MAX_RATIO = 100


@contextlib.contextmanager
def error_names(path: Path | str, damage: tuple[type[Exception], ...] = (), what: str = "") -> Iterator[None]:
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
        # A Path has only one slash of a URL left.
        url = re.match(r"(?P<scheme>https?|ftp|s3|gs|hf):/+(?P<rest>.*)", str(path))
        hint = f" Download it first, for example with: curl -LO {url['scheme']}://{url['rest']}" if url else ""
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).{hint}") from error


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8.

    Raises:
      InputError: it cannot be read, or is not UTF-8.
    """
    with error_names(path):
        content = path.read_bytes()
    return decode_text(content, path)


def decode_text(content: bytes, where: Path | str) -> str:
    """Decodes UTF-8, with or without a byte order mark.

    Raises:
      InputError: it is not UTF-8; the message names `where`, the line, the byte and a likely encoding.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len((content[: error.start] + b".").splitlines())
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content.split(b"\n", 1)[0]
        raise InputError(
            f"{where}: line {line} is not UTF-8 (byte {content[error.start]:#04x}). Save the file as UTF-8, or convert "
            f"it, for example with: iconv -f {'UTF-16' if utf16 else 'WINDOWS-1252'} -t UTF-8."
        ) from None


class Reader:
    """A file that is read in small pieces, so that memory follows the content and not the size that was requested.

    Args:
      file: the file to read.
      limit: the most bytes that may be read in all; reading more is an InputError.
      where: its name, for messages.
      at_once: the most bytes that may be requested in one call; requesting more is an InputError.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile, limit: float, where: Path, at_once: float):
        self._file, self.limit, self._where, self._at_once = file, limit, where, at_once

    def read(self, size: int = -1) -> bytes:
        if size > self._at_once:
            raise InputError(f"{self._where}: one entry would take {size:,} bytes. Do not trust this file.")
        # Without a second copy, as joining would make.
        pieces, left = io.BytesIO(), size
        while chunk := self._file.read(_CHUNK if size < 0 else min(_CHUNK, left)):
            pieces.write(chunk)
            left -= len(chunk)
            self._check(self._file.tell())
        return pieces.getvalue()

    def seek(self, position: int) -> int:
        self._check(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise InputError(
                f"{self._where}: unpacks to more than {self.limit:,} bytes, which real data does not. Do not trust "
                "this file."
            )


@contextlib.contextmanager
def opened(
    path: Path, damage: tuple[type[Exception], ...] = (), what: str = "corrupt gzip data", at_once: float = math.inf
) -> Iterator[Reader]:
    """Opens a file, plain or gzipped (recognized by its content, not by its name), to read the unpacked content.

    Args:
      path: the file.
      damage: the exceptions that a damaged file causes within the block, in addition to those of damaged gzip data.
      what: the message for these.
      at_once: as in :class:`Reader`.

    Raises:
      InputError: the file cannot be read, is damaged, or unpacks to more than its size gives reason for.
    """
    # A gzip file that is cut off ends in an EOFError.
    damage = (gzip.BadGzipFile, EOFError, zlib.error, *damage)
    with error_names(path, damage, what), path.open("rb") as file:
        if file.peek(2).startswith(b"\x1f\x8b"):
            # A small file is no danger however well it compresses; sorted labels do.
            limit = max(MAX_RATIO * path.stat().st_size, 1 << 26)
            yield Reader(gzip.GzipFile(fileobj=file), limit, path, at_once)
        else:
            yield Reader(file, math.inf, path, at_once)
