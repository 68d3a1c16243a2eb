"""Reads the files of a checkpoint, and distinguishes damaged content from errors that may pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils import escaping

# What Orbax, TensorStore and the JSON parser raise on damaged files (determined by flipping bits, truncating files and
# deleting them). Of the errors of the file system only a missing file means damage; the others may pass.
_READ_ERRORS = (
    FileNotFoundError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError,
    AssertionError,
)  # fmt: skip


class Damaged(Exception):
    """The files of a checkpoint can be read, but their content is not what was written."""


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
        _read_through(path)
        reason = summary(error)
    if not _in_every_process(not reason):
        raise Damaged(reason or "another process could not load it")
    return result


def summary(error: Exception) -> str:
    """Returns the type and the first line of an error, shortened: TensorStore's messages hold whole specifications."""
    return f"{type(error).__name__}: {escaping.line((str(error).splitlines() or [''])[0])}"


def _read_through(directory: Path) -> None:
    """Reads every file, to raise an error of the file system as itself."""
    for path in directory.rglob("*"):
        if not path.is_dir():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def _in_every_process(ok: bool) -> bool:
    """Whether ``ok`` is true in all processes that train together; waits for all of them."""
    if jax.process_count() == 1:
        return ok
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(ok))))
