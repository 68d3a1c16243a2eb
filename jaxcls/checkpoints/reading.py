"""Reading the files of a checkpoint: are they at fault, or is it something that may pass?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcls._utils import escaping
from jaxcls.checkpoints.processes import in_every_process

# What Orbax, TensorStore and the JSON parser raise on damaged files (found by flipping, cutting, deleting).
# Of the file system's own errors only a missing file is damage; the others may pass.
_READ_ERRORS = (
    FileNotFoundError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
)


class Damaged(Exception):
    """The files of a checkpoint can be read, and are not what was written."""


def read(path: Path, load: Callable[[], Any]) -> Any:
    """What `load` gives; raises Damaged, in every process, if the files are at fault in any one."""
    result, reason = None, ""
    try:
        result = _unwrapped(load)
    except _READ_ERRORS as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # memory, or open files
            raise
        _read_through(path)
        reason = summary(error)
    if not in_every_process(not reason):
        raise Damaged(reason or "another process could not load it")
    return result


def _unwrapped(load: Callable[[], Any]) -> Any:
    """What `load` gives. Orbax hides what went wrong with a large array in an Exception of no kind: it is uncovered."""
    try:
        return load()
    except Exception as error:
        if type(error) is Exception and error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def _read_through(directory: Path) -> None:
    """Reads every file: an error of the file system, as opposed to damaged content, is raised from here."""
    for path in directory.rglob("*"):
        if not path.is_dir():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def summary(error: Exception) -> str:
    """The first line, not too long: TensorStore's messages hold whole specifications."""
    return f"{type(error).__name__}: {escaping.line((str(error).splitlines() or [''])[0])}"
