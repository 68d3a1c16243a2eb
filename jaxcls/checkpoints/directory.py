"""The directory of a run's checkpoints, and the lock that keeps other runs out of it."""

import fcntl
import logging
import os
import socket
from pathlib import Path

from jaxcls._utils.errors import InputError

logger = logging.getLogger(__name__)

# The file that a run locks. It also marks the directory as ours: numbered directories without it are not. Its first
# line says who has it, its second the newest step that was ever saved.
LOCK_FILE = "jaxcls.lock"


def own_directory(directory: str | os.PathLike[str], *, create: bool) -> Path:
    """The directory, made if asked; InputError where it cannot be used, or holds what jaxcls did not write."""
    try:
        path = Path(directory).expanduser().resolve()
        if create:
            path.mkdir(parents=True, exist_ok=True)
        steps = steps_in(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"checkpoint directory {directory} is a file, or inside one; give a directory.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise cannot_be_used(directory, error) from error
    if steps and not (path / LOCK_FILE).exists():
        raise InputError(
            f"{path} holds numbered directories and no {LOCK_FILE}: jaxcls did not write them. Give another "
            f"directory; or, if they are copies of jaxcls's checkpoints, create an empty {LOCK_FILE} there."
        )
    return path


def steps_in(directory: Path) -> list[int]:
    """The steps of the checkpoints that lie there, complete or damaged, in order."""
    numbered = [path for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(int(path.name) for path in numbered if path.name == str(int(path.name)))


def take_lock(directory: Path) -> tuple[int, int | None]:
    """Locks the directory until the descriptor is closed, or the process ends, however it ends.

    Returns:
      The descriptor, and the newest step that was ever saved, or None.
    """
    try:
        # Not through a link, which may lead to a file that is dear to somebody: it is written to below.
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise cannot_be_used(directory, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").partition("\n")[0]
        os.close(descriptor)
        raise InputError(
            f"{directory} is in use by another run ({holder}); give another directory, or end that run."
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see to it that no other run uses it", directory, error)
    said = os.read(descriptor, 200).decode(errors="replace").splitlines()
    newest = int(said[1]) if len(said) == 2 and said[1].isdecimal() else None
    try:
        write_lock(descriptor, newest)
    except OSError as error:
        os.close(descriptor)
        raise cannot_be_used(directory, error) from error
    return descriptor, newest


def write_lock(descriptor: int, newest: int | None) -> None:
    """Says who has the directory, and the newest step that was saved."""
    text = f"process {os.getpid()} on {socket.gethostname()}\n{'' if newest is None else newest}"
    os.pwrite(descriptor, text.encode(), 0)
    os.ftruncate(descriptor, len(text.encode()))


def cannot_be_used(directory: str | os.PathLike[str], error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"checkpoint directory {directory} cannot be used ({reason}); give another directory.")
