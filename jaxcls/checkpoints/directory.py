"""The directory of a run's checkpoints, and the lock that keeps other runs out of it."""

import fcntl
import logging
import os
import re
import socket
from pathlib import Path

from jaxcls._utils.errors import InputError

logger = logging.getLogger(__name__)

# The file that a run locks. It also marks the directory as written by jaxcls. Its first line names the process that
# holds the lock, its second line the newest step that was ever saved.
LOCK_FILE = "jaxcls.lock"


def resolve_directory(directory: str | os.PathLike[str], *, create: bool) -> Path:
    """Returns the absolute path of a directory of checkpoints.

    Args:
      create: make the directory if it is missing.

    Raises:
      InputError: the directory cannot be used, or holds numbered directories that jaxcls did not write.
    """
    if "://" in str(directory):
        raise InputError(
            f"checkpoint directory {str(directory)!r} is a URL; give a path in a local or mounted file system, in "
            "which the directory can be locked."
        )
    try:
        path = Path(directory).expanduser().resolve()
        if create:
            path.mkdir(parents=True, exist_ok=True)
        steps = steps_in(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"checkpoint directory {directory} is a file, or inside one; give a directory.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a cycle of links
        raise _unusable(directory, error) from error
    if steps and not (path / LOCK_FILE).exists():
        raise InputError(
            f"{path} holds numbered directories but no {LOCK_FILE}: jaxcls did not write them. Give another "
            f"directory or, if they are copies of jaxcls's checkpoints, create an empty {LOCK_FILE} there."
        )
    return path


def steps_in(directory: Path) -> list[int]:
    """Returns the steps of all checkpoints in the directory, complete or damaged, in ascending order."""
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def take_lock(directory: Path) -> tuple[int, int | None]:
    """Locks the directory until the file descriptor is closed or the process ends, however it ends.

    Returns:
      The file descriptor, and the newest step that was ever saved, or None.

    Raises:
      InputError: another process holds the lock, or the lock file cannot be written.
    """
    try:
        # Not through a link: the file that it points to would be overwritten below.
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise _unusable(directory, error) from error
    in_use = False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        in_use = True
    except OSError as error:
        logger.warning("%s cannot be locked (%s): make sure that no other run uses it", directory, error)
    holder, _, newest = os.read(descriptor, 200).decode(errors="replace").partition("\n")
    if in_use:
        os.close(descriptor)
        raise InputError(f"{directory} is in use by another run ({holder}); give another directory, or end that run.")
    step = int(newest) if newest.isdecimal() else None
    try:
        write_lock(descriptor, step)
    except OSError as error:
        os.close(descriptor)
        raise _unusable(directory, error) from error
    return descriptor, step


def write_lock(descriptor: int, newest: int | None) -> None:
    """Writes into the lock file which process holds it, and the newest step that was saved."""
    content = f"process {os.getpid()} on {socket.gethostname()}\n{'' if newest is None else newest}".encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def _unusable(directory: str | os.PathLike[str], error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"checkpoint directory {directory} cannot be used ({reason}); give another directory.")
