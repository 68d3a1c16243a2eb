"""Text files: folders with one text per file, also in a gzipped tar archive, and files with one text per line.

An example of such folders is aclImdb (Maas et al. 2011): train/pos, train/neg, train/unsup, test/pos, test/neg.
"""

import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data.formats import reading
from jaxcls.data.formats.reading import decode_text, read_text


def read_folders(root: Path, folders: Sequence[str], *, inside: Path | None = None) -> dict[str, np.ndarray]:
    """Reads the .txt files of some folders.

    Args:
      root: the folder that contains them.
      folders: their paths below it, such as 'train/pos'.
      inside: the folder that no link may lead out of; `root` by default.

    Returns:
      folder -> texts, str objects (N,), in the order of the file names, as :func:`read_archive` returns them.

    Raises:
      InputError: a folder is missing or holds no text, or a file cannot be read or is not UTF-8.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "pos").mkdir()
    >>> _ = (root / "pos" / "0_9.txt").write_text("Splendid.")
    >>> read_folders(root, ["pos"])
    {'pos': array(['Splendid.'], dtype=object)}
    """
    texts: dict[str, dict[str, str]] = {}
    for folder in folders:
        where = root / folder
        if not where.is_dir():
            raise InputError(f"{where} is not a folder; it should hold one text file for each example.")
        paths = [*where.glob("*.txt")]
        files.all_inside(inside or root, paths)
        texts[folder] = {path.name: read_text(path) for path in paths}
    return _sorted_by_name(texts, str(root))


def read_archive(path: Path, folders: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the .txt files of some folders in a gzipped tar archive; writes nothing to disk.

    Args:
      path: the archive.
      folders: their paths in the archive, such as 'aclImdb/train/pos'.

    Raises:
      InputError: as :func:`read_folders`; the file is truncated or not a gzipped tar archive; or a member is a link or
        a device, or has an absolute path or '..' in it.
    """
    texts: dict[str, dict[str, str]] = {folder: {} for folder in folders}
    # tarfile lets some errors of damaged headers pass, and calls itself for each header of a header.
    damage = (tarfile.TarError, ValueError, RecursionError)
    what = "truncated, or not a gzipped tar archive"
    # No text is longer than 16 MB; one that is would be a bomb of a few compressed bytes.
    with reading.opened(path, damage, what, at_once=1 << 24) as content:
        with tarfile.open(fileobj=content, mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                name = PurePosixPath(member.name)
                plain = (member.isfile() or member.isdir()) and member.size >= 0 and not member.issparse()
                if not plain or name.is_absolute() or ".." in name.parts:
                    problem = "leads out of the archive" if plain else "is a link, a device or no plain file"
                    raise InputError(f"{path}: {member.name!r} {problem}. Do not trust this file.")
                folder = texts.get(str(name.parent))
                if folder is not None and member.isfile() and name.suffix == ".txt":
                    file = archive.extractfile(member)
                    assert file is not None
                    folder[name.name] = decode_text(file.read(), f"{path}: {name}")
        # tarfile does not read past the last member, but gzip's checksum is only verified at the end.
        while content.read(1 << 18):
            pass
    return _sorted_by_name(texts, str(path))


def read_lines(path: Path) -> np.ndarray:
    """Reads a text file with one text per line, str objects (N,); empty lines are texts too.

    Raises:
      InputError: the file cannot be read, is empty, or is not UTF-8.
    """
    # Not splitlines, which also splits at other characters, such as U+2028.
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{path}: is empty; it should hold one text per line.")
    return np.array([line.removesuffix("\r") for line in lines], object)


def _sorted_by_name(texts: dict[str, dict[str, str]], where: str) -> dict[str, np.ndarray]:
    for folder, by_name in texts.items():
        if not by_name:
            raise InputError(f"{where}: {folder} holds no text; it should hold one .txt file for each example.")
    return {folder: np.array([by_name[name] for name in sorted(by_name)], object) for folder, by_name in texts.items()}
