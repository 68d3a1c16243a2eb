"""Log the history of a run to TensorBoard, without TensorFlow, or to Weights & Biases."""

import contextlib
import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcls._utils.errors import InputError


def check_installed(flag: str, package: str) -> None:
    """Raises InputError if the package that a logger needs is missing.

    >>> check_installed("--tensorboard", "no_such_package")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: --tensorboard needs no_such_package: pip install 'jaxcls[tensorboard]'
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{flag} needs {package}: pip install 'jaxcls[{flag.removeprefix('--')}]'")


class Logger(contextlib.AbstractContextManager["Logger"]):
    """Logs each epoch of a run once. Its exit closes the log."""

    _written = 0

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Logs the epochs that are new to this process.

        Args:
          history: the entries of all epochs so far.
        """
        for entry in history[self._written :]:
            values = {name: value for name, value in entry.items() if name != "step" and value is not None}
            self._write_epoch(values, entry["step"])
        self._written = len(history)

    def _write_epoch(self, values: Mapping[str, Any], step: int) -> None:
        raise NotImplementedError


class TensorBoardLogger(Logger):
    """Writes event files with the metrics of each epoch.

    Args:
      folder: its event files from an earlier process are replaced when the first epoch is written: they may hold an
        epoch that was not saved in a checkpoint and is trained again.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    @functools.cached_property
    def _writer(self) -> Any:
        from tensorboardX import SummaryWriter

        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        return SummaryWriter(str(self._folder))

    def _write_epoch(self, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            # Tags with the same prefix are shown in one section.
            tag = f"validation/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
            if name not in ("epoch", "seconds"):
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._written:
            self._writer.close()


class WandbLogger(Logger):
    """Logs the metrics of each epoch to one run of Weights & Biases.

    The environment variables of wandb apply: WANDB_PROJECT, WANDB_MODE=offline, and so on. A continued run logs to a
    new wandb run in the same group, with all epochs from the first.

    Args:
      name: of the run, and of the group of all its processes.
      folder: where wandb keeps its files.
      config: the settings of the run.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]):
        self._arguments = {"name": name, "group": name, "dir": str(folder), "config": dict(config)}

    @functools.cached_property
    def _run(self) -> Any:
        # The import takes seconds.
        import wandb

        return wandb.init(**self._arguments)

    def _write_epoch(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log(values, step=step)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._written:
            self._run.finish(exit_code=0 if kind is None else 1)
