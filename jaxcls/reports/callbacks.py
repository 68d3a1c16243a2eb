"""Callbacks follow training: user code, the progress bar, and loggers.

The loggers write to TensorBoard, without TensorFlow, and to Weights & Biases.
"""

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from jaxcls._utils import clock
from jaxcls._utils.errors import InputError

# What the history holds of an epoch besides scores.
_NOT_SCORES = ("epoch", "step", "skipped_steps", "seconds", "examples_per_second")


class Callback:
    """Follows training: override the methods that you need.

    Callbacks observe and cannot change the state. An exception that one raises ends training.
    """

    def on_train_begin(self, step: int) -> None:
        """Called before the first step of this process, with the step that training starts or resumes from."""

    def on_compile_begin(self, seconds: float) -> None:
        """Called before the training steps are compiled, with about how many seconds that takes the first time."""

    def on_chunk_end(self, step: int, loss: float) -> None:
        """Called after each dispatch of up to 32 steps, with the number and the loss of its last step."""

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        """Called after the validation of each epoch, with the entries of all epochs so far."""

    def on_train_end(self, history: Sequence[dict[str, Any]]) -> None:
        """Called once after the last epoch."""


class ProgressBar(Callback, contextlib.AbstractContextManager["ProgressBar"]):
    """Shows the loss, the rate and the remaining time, and prints a line for each epoch.

    Args:
      total: the number of steps of the whole run, including those of earlier processes.
      epochs: the number of epochs of the whole run.
      batch_size: for the rate in examples per second.
      say: prints the lines.
      out: the stream of the bar, which is shown only in a terminal; by default standard error.
    """

    def __init__(
        self, total: int, *, epochs: int, batch_size: int, say: Callable[[str], None] = print, out: TextIO | None = None
    ):
        from tqdm import tqdm

        # A default argument would be the standard error of the time of import.
        out = sys.stderr if out is None else out
        self._epochs = epochs
        self._say = say
        self._bar = tqdm(
            total=total * batch_size,
            unit=" examples",
            unit_scale=True,
            file=out,
            disable=not out.isatty(),
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}, {rate_fmt}{postfix}",
        )
        self._batch_size = batch_size
        self._started = False
        self._compiling: clock.Clock | None = None

    def on_compile_begin(self, seconds: float) -> None:
        self._compiling = clock.Clock(
            f"compiling (first time, about {max(1, round(float(f'{seconds:.1g}')))} s)", self._say
        )
        self._bar.clear()

    def on_chunk_end(self, step: int, loss: float) -> None:
        bar, done = self._bar, step * self._batch_size
        bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        if self._started:
            bar.update(done - bar.n)
            return
        if self._compiling is not None:
            self._compiling.stop()
        # The steps of earlier processes, and the first dispatch, which compiles, count for the bar but not for the
        # rate. last_print_n keeps them out of tqdm's moving average.
        bar.initial = bar.n = bar.last_print_n = done
        bar.unpause()
        bar.refresh()
        self._started = True

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        entry = history[-1]
        values = "  ".join(
            f"{name} {value:.4f}" for name, value in entry.items() if value is not None and name not in _NOT_SCORES
        )
        skipped = f"  {entry['skipped_steps']} steps skipped" if entry["skipped_steps"] else ""
        with self._bar.external_write_mode():  # clears the bar
            self._say(
                f"epoch {entry['epoch']:{len(str(self._epochs))}}/{self._epochs}  {values}{skipped}  "
                f"{entry['seconds']:.1f} s, {entry['examples_per_second']:,.0f} examples/s"
            )
        sys.stdout.flush()

    def __exit__(self, *error: object) -> None:
        if self._compiling is not None:
            self._compiling.stop()
        self._bar.close()


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
