"""The history of a run in Weights & Biases."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jaxcls._utils.errors import InputError


def check_installed() -> None:
    """Refuses to begin what could not be written.

    Raises:
      InputError: there is no wandb.
    """
    if importlib.util.find_spec("wandb") is None:
        raise InputError("--wandb needs wandb: pip install 'jaxcls[wandb]'")


class WandbRun:
    """Writes the scalars of each epoch into one run of Weights & Biases.

    Whatever wandb's own environment says holds: WANDB_PROJECT, WANDB_MODE=offline, and so on. Where a run is continued,
    there is a new one of the same group, with all epochs from the first on.

    Args:
      name: of the run, and of the group of all its processes.
      folder: where wandb keeps its files.
      settings: of the run, to compare by.
    """

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]):
        self._given = {"name": name, "group": name, "dir": str(folder), "config": dict(settings)}
        self._run: Any = None
        self._written = 0

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Writes the epochs that this process has not yet written.

        Args:
          history: the entries of all epochs so far.
        """
        if self._run is None:
            # It takes seconds, and only who asked for it has it.
            import wandb

            self._run = wandb.init(**self._given)
        for entry in history[self._written :]:
            values = {name: value for name, value in entry.items() if name != "step" and value is not None}
            self._run.log(values, step=entry["step"])
        self._written = len(history)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, at: object) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)
