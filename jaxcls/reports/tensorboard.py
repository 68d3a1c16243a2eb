"""The history of a run as TensorBoard reads it, without TensorFlow."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jaxcls._utils.errors import InputError

# What an entry of the history holds beside scalars to draw.
_NO_SCALARS = ("epoch", "step", "seconds")


def check_installed() -> None:
    """Refuses to begin what could not be written.

    Raises:
      InputError: there is no tensorboardX.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs tensorboardX: pip install 'jaxcls[tensorboard]'")


class EventFiles:
    """Writes the scalars of each epoch into a folder, each step once, whatever was interrupted.

    Args:
      folder: event files that an earlier process left in it are replaced when the first epoch is written: it may have
        written one that it did not live to save, and that this process trains again.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: Any = None
        self._written = 0

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Writes the epochs that this process has not yet written.

        Args:
          history: the entries of all epochs so far.
        """
        if self._writer is None:
            from tensorboardX import SummaryWriter

            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = SummaryWriter(str(self._folder))
        for entry in history[self._written :]:
            for name, value in entry.items():
                if name not in _NO_SCALARS and value is not None:
                    self._writer.add_scalar(_tag(name), value, entry["step"])
        self._written = len(history)
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _tag(name: str) -> str:
    """TensorBoard draws what has one first part in one place, and names it by the rest.

    >>> _tag("loss"), _tag("val_accuracy")
    ('train/loss', 'validation/accuracy')
    """
    return f"validation/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
