"""Files in folders that anybody may have made: opened only where they are, and written only where they are meant.

A folder that was unpacked may hold links to anywhere, pipes at which a reader waits for ever, and files that are larger
than any of their kind.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jaxcls._utils.errors import InputError

# No record is longer.
MOST_BYTES = 1 << 26


def inside(folder: Path, path: Path) -> Path:
    """The path, of a file or a folder that lies in the folder, also behind links.

    Args:
      folder: the one that the user named; it may be a link itself.
      path: one that was found in it.

    Raises:
      InputError: it is not there, is neither file nor folder, or is a link out of the folder.

    >>> inside(Path("/usr"), Path("/usr/../etc"))
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: /usr/../etc leads out of /usr, to ...; what is read must lie inside. Copy it there.
    """
    all_inside(folder, [path])
    return path


def all_inside(folder: Path, paths: Iterable[Path]) -> None:
    """As :func:`inside` of many: a system call for each file, and a few more for each folder."""
    root = _resolved(folder)
    checked: dict[Path, bool] = {}
    for path in paths:
        parent = path.parent
        if parent not in checked:
            checked[parent] = _resolved(parent).is_relative_to(root)
        try:
            status = path.lstat()
            linked = stat.S_ISLNK(status.st_mode)
            status = path.stat() if linked else status
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
        # The last part may be .. as well.
        if not checked[parent] or ((linked or path.name == "..") and not _resolved(path).is_relative_to(root)):
            raise InputError(
                f"{path} leads out of {folder}, to {_resolved(path)}; what is read must lie inside. Copy it there."
            )
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(f"{path} is neither a file nor a folder; remove it.")


def check_name(path: Path) -> None:
    """Refuses a file whose name is not UTF-8, where it is to be written down as an id or a class.

    >>> check_name(Path("caf\xe9.png"))
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: its name is not UTF-8; rename it.") from None


def content(path: Path, *, folder: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file in a folder.

    Raises:
      InputError: as :func:`inside`; it cannot be read, or holds more than so many bytes.
    """
    try:
        with inside(folder, path).open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if len(found) > most:
        raise InputError(f"{path}: holds more than the {most:,} bytes that such a file has at the most.")
    return found


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
    temporary = path.with_name(f".partial-{path.name}")
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
    """Writes the whole content, text as UTF-8, or leaves the file as it was; see :func:`replacing`."""
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
