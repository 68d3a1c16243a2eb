"""Packed content that anybody may have made: a few bytes may stand for any number of them, and are unpacked to so many
that their own number gives reason for."""

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO

from jaxcls._utils.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 18
# Images and texts pack to a tenth, rarely to a thirtieth. Zeros pack to a thousandth, which a bomb is made of.
_MOST_UNPACKED = 100
# A small file is no danger, however well it packs: labels in their order do.
_SMALL = 1 << 26


def most(packed: int, *, small: int = _SMALL) -> int:
    """The most bytes that so many packed ones may become; never fewer than ``small``.

    >>> most(10), most(10**9)
    (67108864, 100000000000)
    """
    return max(_MOST_UNPACKED * packed, small)


def gunzip(content: bytes, where: str | Path) -> bytes:
    """The content of a gzip file.

    Raises:
      InputError: names the file: it is damaged, or becomes more bytes than are believed of it.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as zipped:
            return Unpacked(zipped, most(len(content)), where).read()
    # A cut gzip file ends in an EOFError.
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{where}: corrupt gzip data ({error}). Fetch the file again.") from error


class Unpacked:
    """A file that is read in small pieces, so that memory follows what there is and not what is asked for.

    Args:
      file: what is read.
      most: so many bytes it may give in all, and then an InputError.
      where: its name, for messages.
      at_once: so many bytes may be asked for in one call, and for more there is an InputError.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile, most: int, where: str | Path, *, at_once: int | None = None):
        self._file, self._most, self._where, self._at_once = file, most, where, at_once

    def read(self, size: int = -1) -> bytes:
        if self._at_once is not None and size > self._at_once:
            raise InputError(f"{self._where}: one entry would take {size:,} bytes. Do not trust this file.")
        pieces, left = [], size
        while chunk := self._file.read(CHUNK if size < 0 else min(CHUNK, left)):
            pieces.append(chunk)
            left -= len(chunk)
            if self._file.tell() > self._most:
                raise InputError(
                    f"{self._where}: it unpacks to more than {self._most:,} bytes; no data packs so well. Do not trust "
                    "this file."
                )
        return b"".join(pieces)

    def seek(self, place: int) -> int:
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()
