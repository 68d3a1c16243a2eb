"""The files of a run's checkpoints: the directory, the lock that keeps other runs out, and reading damaged files."""

import fcntl
import logging
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from jaxcls._utils import escaping
from jaxcls._utils.errors import InputError

logger = logging.getLogger(__name__)

# The file that a run locks. It also marks the directory as written by jaxcls. Its first line names the process that
# holds the lock, its second line the newest step that was ever saved.
LOCK_FILE = "jaxcls.lock"

# What Orbax, TensorStore and the JSON parser raise on damaged files (determined by flipping bits, truncating files and
# deleting them). Of the errors of the file system only a missing file means damage; the others may pass.
_READ_ERRORS = (
    FileNotFoundError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError,
    AssertionError,
)  # fmt: skip


class Damaged(Exception):
    """The files of a checkpoint can be read, but their content is not what was written."""


def open_directory(
    directory: str | os.PathLike[str], *, create: bool, lock: bool
) -> tuple[Path, int | None, int | None]:
    """Opens a directory of checkpoints.

    Args:
      create: make the directory if it is missing.
      lock: lock it until the returned file descriptor is closed or the process ends, however it ends.

    Returns:
      Its absolute path; and, if it is locked, the file descriptor of the lock and the newest step that was ever saved,
      which is None if none was.

    Raises:
      InputError: the directory cannot be used, another process holds the lock, or it holds numbered directories that
        jaxcls did not write.
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
        if steps_in(path) and not (path / LOCK_FILE).exists():
            raise InputError(
                f"{path} holds numbered directories but no {LOCK_FILE}: jaxcls did not write them. Give another "
                f"directory or, if they are copies of jaxcls's checkpoints, create an empty {LOCK_FILE} there."
            )
        return (path, *_take_lock(path)) if lock else (path, None, None)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"checkpoint directory {directory} is a file, or inside one; give a directory.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a cycle of links
        reason = getattr(error, "strerror", None) or error
        message = f"checkpoint directory {directory} cannot be used ({reason}); give another directory."
        raise InputError(message) from error


def steps_in(directory: Path) -> list[int]:
    """Returns the steps of all checkpoints in the directory, complete or damaged, in ascending order."""
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def _take_lock(directory: Path) -> tuple[int, int | None]:
    # Not through a link: the file that it points to would be overwritten below.
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        in_use = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            in_use = True
        except OSError as error:
            logger.warning("%s cannot be locked (%s): make sure that no other run uses it", directory, error)
        holder, _, newest = os.read(descriptor, 200).decode(errors="replace").partition("\n")
        if in_use:
            raise InputError(
                f"{directory} is in use by another run ({holder}); give another directory, or end that run."
            )
        step = int(newest) if newest.isdecimal() else None
        write_lock(descriptor, step)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, step


def write_lock(descriptor: int, newest: int | None) -> None:
    """Writes into the lock file which process holds it, and the newest step that was saved."""
    content = f"process {os.getpid()} on {socket.gethostname()}\n{'' if newest is None else newest}".encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def read(path: Path, load: Callable[[], Any]) -> Any:
    """Calls ``load``; raises Damaged, in every process, if in any process the files are damaged."""
    result, reason = None, ""
    try:
        try:
            result = load()
        except Exception as error:
            # Orbax wraps the error of a large array in a plain Exception.
            if type(error) is Exception and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
    except _READ_ERRORS as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # memory, or open files
            raise
        # Read every file, to raise an error of the file system as itself.
        for file in path.rglob("*"):
            if not file.is_dir():
                with file.open("rb") as opened:
                    while opened.read(1 << 20):
                        pass
        reason = summary(error)
    if not np.all(multihost_utils.process_allgather(np.array(not reason))):
        raise Damaged(reason or "another process could not load it")
    return result


def summary(error: Exception) -> str:
    """Returns the type and the first line of an error, shortened: TensorStore's messages hold whole specifications."""
    return f"{type(error).__name__}: {escaping.line((str(error).splitlines() or [''])[0])}"
