"""What all commands print: lines, tables and curves, and errors with their exit status."""

import io
import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from jaxcls._utils import escaping
from jaxcls._utils.errors import InputError, RunError
from jaxcls._utils.interruption import Interrupted
from jaxcls._utils.text_table import text_table

# Exit statuses, other than 0.
FAILED = 1
BAD_INPUT = 2
# EX_TEMPFAIL of sysexits.h: the run is saved, and the same command continues it.
INTERRUPTED = 75
# As shells report a process that SIGINT ended, and one that wrote to a closed pipe, such as that to head.
KILLED = 130
PIPE_CLOSED = 141

_LABEL_METRICS = ("precision", "recall", "f1", "roc_auc", "map", "map_50")
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", ".:-=+*%@"
_SPARKLINE_WIDTH = 48


def exit_status(action: Callable[[], int], *, command: str = "") -> int:
    """Runs a command; its errors become a line on stderr and an exit status, without a traceback.

    Args:
      action: runs the command and returns its exit status.
      command: its command line, which an interrupted run is continued with.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may contain characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return action()
    except BrokenPipeError:
        # For what Python still writes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Interrupted as stop:
        message, status = f"{stop}. To continue: {command}", INTERRUPTED
    except KeyboardInterrupt:
        message, status = "stopped at once; what was saved before remains", KILLED
    except InputError as error:
        message, status = f"error: {error}", BAD_INPUT
    except OSError as error:
        # A file that disappeared, a full disk, a network: the message names it.
        message, status = f"error: {error}; what was saved before remains", FAILED
    except RunError as error:
        message, status = f"error: {error}", FAILED
    except RuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        status = FAILED
        message = (
            f"error: out of memory ({str(error).splitlines()[0]}). Lower --batch-size and raise "
            "--gradient-accumulation-steps by the same factor, which keeps the examples per update; lower "
            "--eval-batch-size; or give --remat."
        )
    say(message, file=sys.stderr)
    return status


def say(text: object, *, file: TextIO | None = None) -> None:
    """Prints a text at once, with control characters escaped: names in it may come from others.

    >>> say("cat" + chr(27) + "[2J")
    cat\\x1b[2J
    """
    print(escaping.text(text), file=file, flush=True)


def check_output(file: Path, *, overwrite: bool) -> None:
    """Refuses an --output that cannot be written or must not be replaced, before any work is done."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"--output {file}: give the name of a file in an existing folder.")
    if file.exists() and not overwrite:
        raise InputError(f"--output {file} exists; name another file, or give --overwrite.")


def table(report: Mapping[str, Any], split: str) -> str:
    """The scores of a split as text.

    Args:
      report: as :func:`jaxcls.metrics.report` returns it, and 'synthetic': whether the examples were generated.
      split: its name.
    """
    synthetic = "SYNTHETIC " if report["synthetic"] else ""
    metrics = [f"  {name:28} {value:.4f}" for name, value in report["metrics"].items() if value is not None]
    tables = [_label_table(output["labels"]) for output in report.get("outputs", {"": report}).values()]
    return "\n".join(["", f"{synthetic}{split}, {report['examples']:,} examples", "", *metrics, *tables])


def _label_table(labels: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(labels.values()))
    columns = [name for name in _LABEL_METRICS if name in first]
    rows = [["", "support", *columns]]
    for label, row in labels.items():
        scores = ["-" if row[name] is None else f"{row[name]:.4f}" for name in columns]
        rows.append([escaping.line(label), f"{row['support']:,.0f}", *scores])
    return "\n" + textwrap.indent(text_table(rows), "  ")


def curves(history: Sequence[Mapping[str, Any]], *, encoding: str | None) -> str:
    """The training loss and the first validation metric over the epochs, one line each; empty for a single epoch.

    Args:
      history: one entry per epoch, as a run saves it.
      encoding: that of the output; without block characters, it gets ASCII.

    >>> history = [{"loss": 2.0, "val_accuracy": 0.5}, {"loss": 1.0, "val_accuracy": 0.75}]
    >>> print(curves(history, encoding="ascii"))
      loss          @.  2.0000 to 1.0000
      val_accuracy  .@  0.5000 to 0.7500
    """
    if len(history) < 2:
        return ""
    metric = next((name for name in history[-1] if name.startswith("val_") and name != "val_loss"), "val_loss")
    lines = []
    for name in ("loss", metric):
        values = [entry.get(name) for entry in history]
        if known := _finite(values):
            lines.append(f"  {name:{len(metric)}}  {sparkline(values, encoding)}  {known[0]:.4f} to {known[-1]:.4f}")
    return "\n".join(lines)


def sparkline(values: Sequence[float | None], encoding: str | None = "utf-8") -> str:
    """Values as blocks of eight heights, from their minimum to their maximum; blank where there is none.

    >>> sparkline([0, 1, 2, float("nan"), 7])
    '▁▂▃ █'
    """
    try:
        _BLOCKS.encode(encoding or "ascii")
        blocks = _BLOCKS
    except UnicodeEncodeError:
        blocks = _ASCII_BLOCKS
    if len(values) > _SPARKLINE_WIDTH:
        # The first and the last are kept.
        step = (len(values) - 1) / (_SPARKLINE_WIDTH - 1)
        values = [values[round(index * step)] for index in range(_SPARKLINE_WIDTH)]
    low, high = min(_finite(values), default=0.0), max(_finite(values), default=0.0)
    heights = {value: (value - low) / ((high - low) or 1.0) for value in _finite(values)}
    return "".join(blocks[round(heights[v] * (len(blocks) - 1))] if v in heights else " " for v in values)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
