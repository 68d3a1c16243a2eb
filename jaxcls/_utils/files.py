"""Safe access to files in folders that may come from an untrusted source.

An unpacked folder may contain links to anywhere, pipes that block a reader forever, and files of any size.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jaxcls._utils import clusters
from jaxcls._utils.errors import InputError

# The largest record that is read.
MOST_BYTES = 1 << 26


def inside(folder: Path, path: Path) -> Path:
    """Returns the path of a file or folder after checking that it lies in ``folder``, links resolved.

    Args:
      folder: the folder that the user named, which may itself be a link.
      path: a path in it.

    Raises:
      InputError: the path does not exist, is neither a file nor a folder, or leads out of the folder.

    >>> inside(Path("/usr"), Path("/usr/../etc"))
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: /usr/../etc leads out of /usr, to ...
    """
    all_inside(folder, [path])
    return path


def all_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Checks many paths like :func:`inside`, with one system call per file and a few per folder."""
    root = _resolved(folder)
    lies_inside = functools.cache(lambda path: _resolved(path).is_relative_to(root))
    for path in paths:
        try:
            status = path.lstat()
            linked = stat.S_ISLNK(status.st_mode)
            status = path.stat() if linked else status
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
        # The last component may also be "..".
        if not lies_inside(path.parent) or ((linked or path.name == "..") and not lies_inside(path)):
            raise InputError(
                f"{path} leads out of {folder}, to {_resolved(path)}; input files must lie inside it. Copy it there."
            )
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(f"{path} is neither a file nor a folder; remove it.")


def local(path: str | Path) -> Path:
    """Returns the path after checking that it is not a URL, which would become a local folder.

    >>> local("gs://bucket/run")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: gs://bucket/run is a URL; give a path in a local or mounted file system.
    """
    # Path("gs://bucket") has lost a slash.
    if re.match("[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise InputError(f"{path} is a URL; give a path in a local or mounted file system.")
    return Path(path)


def check_name(path: Path) -> None:
    """Raises InputError for a file name that is not UTF-8 and so cannot be written as an id or a class name.

    >>> check_name(Path("caf\xe9.png"))
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: its name is not UTF-8; rename it.") from None


def content(path: Path, *, folder: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the content of a file in a folder.

    Args:
      most: the largest size that is accepted, in bytes.

    Raises:
      InputError: as for :func:`inside`; or the file cannot be read or is larger than ``most``.
    """
    try:
        with inside(folder, path).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if len(data) > most:
        raise InputError(f"{path}: is larger than {most:,} bytes, the limit for such a file.")
    return data


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path; what is written there replaces ``path`` in one step, or not at all after an error.

    A link at ``path`` is replaced, not followed. The temporary name ends like that of ``path``.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']
    """
    # Processes that train together may write the same file of a cache at the same time.
    temporary = path.with_name(f".partial-{clusters.joined() or ''}{path.name}")
    # A killed process may have left a file there, and a stranger a link.
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes the whole content, text as UTF-8, or leaves the file unchanged; see :func:`replacing`."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, readable by its owner only, that becomes ``path`` unless there is an error.

    Raises:
      OSError: a folder with files, such as another process's, is at ``path``.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".partial-{path.name}-", dir=path.absolute().parent))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file; of one that has not changed since the last call, without reading it again."""
    status = path.stat()
    return _sha256(path.absolute(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256sums(contents: Mapping[str, bytes]) -> str:
    """Returns what ``sha256sum`` prints for files of these names and contents, sorted by name.

    >>> print(sha256sums({"empty.txt": b""}), end="")
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty.txt
    """
    return "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents))


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    # RuntimeError: a link that leads to itself.
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None
