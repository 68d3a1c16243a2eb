"""Folders of text files, one text a file, as they lie on the disk or in a gzipped tar archive; and lines of text.

aclImdb (Maas et al. 2011) is such a set of folders: train/pos, train/neg, train/unsup, test/pos, test/neg.
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data.formats import unpacking
from jaxcls.data.formats.tables import likely_encoding

# No text is longer; one that is would be a bomb of a few compressed bytes.
MOST_BYTES = 1 << 24


def read_folders(
    root: str | os.PathLike[str], folders: Sequence[str], *, inside: Path | None = None
) -> dict[str, np.ndarray]:
    """Reads the .txt files of some folders.

    Args:
      root: the folder that they are in.
      inside: the folder that no link may lead out of; without it, the root.

    Returns:
      folder -> texts, str objects (N,), in the order of the files' names, the same as of :func:`read_archive`.

    Raises:
      InputError: a folder is not there or holds no text, or names a file that cannot be read or is not UTF-8.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "pos").mkdir()
    >>> _ = (root / "pos" / "0_9.txt").write_text("Splendid.")
    >>> read_folders(root, ["pos"])
    {'pos': array(['Splendid.'], dtype=object)}
    """
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        where = Path(root) / folder
        if not where.is_dir():
            raise InputError(f"{where} is not a folder; it should hold one text file for each example.")
        paths = [*where.glob("*.txt")]
        files.all_inside(inside or Path(root), paths)
        found[folder] = {path.name: _decoded(_content(path), str(path)) for path in paths}
    return _in_order(found, str(root))


def read_archive(path: str | os.PathLike[str], folders: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the .txt files of some folders out of a gzipped tar archive; nothing is written to the disk.

    Args:
      folders: as they are called in the archive, such as 'aclImdb/train/pos'.

    Raises:
      InputError: as for :func:`read_folders`; the archive is truncated or no gzipped tar archive; or it names a member
        that has an absolute path or '..' in it, or is a link or a device.
    """
    found: dict[str, dict[str, str]] = {folder: {} for folder in folders}
    try:
        most = unpacking.most(Path(path).stat().st_size)
        with gzip.open(path, "rb") as zipped:
            # tarfile asks for as much as a header declares, in one call.
            content: Any = unpacking.Unpacked(zipped, most, str(path), at_once=MOST_BYTES + tarfile.BLOCKSIZE)
            with tarfile.open(fileobj=content, mode="r:") as archive:
                for member in archive:
                    _check_member(member, str(path))
                    name = PurePosixPath(member.name)
                    texts = found.get(str(name.parent))
                    if texts is not None and member.isfile() and name.suffix == ".txt":
                        file = archive.extractfile(member)
                        assert file is not None
                        texts[name.name] = _decoded(file.read(), f"{path}: {name}")
            # Only at its end is gzip's checksum read, and what follows the last member is never asked for.
            while content.read(unpacking.CHUNK):
                pass
    except InputError:
        raise
    # A cut gzip file ends in an EOFError; BadGzipFile is an OSError, so it stands before it. tarfile lets some of what
    # it meets in damaged headers pass, and calls itself for each header of a header.
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: truncated, or no gzipped tar archive ({error}). Fetch the file again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return _in_order(found, str(path))


def read_lines(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a text file with one text a line, str objects (N,); empty lines are texts too.

    Raises:
      InputError: names the file: it cannot be read, is empty, or is not UTF-8.
    """
    lines = _decoded(_content(Path(path)), str(path)).split("\n")
    # A new line ends a line, so what follows the last one is none.
    lines = lines if lines[-1] else lines[:-1]
    if not lines:
        raise InputError(f"{path}: is empty; it should hold one text a line.")
    return np.array([line.removesuffix("\r") for line in lines], object)


def _in_order(found: dict[str, dict[str, str]], where: str) -> dict[str, np.ndarray]:
    for folder, texts in found.items():
        if not texts:
            raise InputError(f"{where}: {folder} holds no text; it should hold one .txt file for each example.")
    return {folder: np.array([texts[name] for name in sorted(texts)], object) for folder, texts in found.items()}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: is not UTF-8 (byte {error.start + 1} is {content[error.start]:#04x}). Convert it, for example "
            f"with: iconv -f {likely_encoding(content)} -t UTF-8."
        ) from None


def _check_member(member: tarfile.TarInfo, where: str) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{where}: {member.name!r} leads out of the archive. Do not trust this file.")
    if not (member.isfile() or member.isdir()):
        raise InputError(f"{where}: {member.name!r} is a link or a device. Do not trust this file.")
    if member.size < 0 or member.issparse():
        raise InputError(f"{where}: {member.name!r} is not a plain file. Do not trust this file.")
    if member.size > MOST_BYTES:
        raise InputError(f"{where}: {member.name!r} holds more than {MOST_BYTES:,} bytes.")
