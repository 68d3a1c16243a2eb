"""What all commands print: lines, tables and curves, and errors with their exit status."""

import io
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from jaxcls._utils import clusters, escaping
from jaxcls._utils.errors import InputError, RunError
from jaxcls._utils.interruption import INTERRUPTED, KILLED, Interrupted
from jaxcls._utils.text_table import text_table

# Exit statuses, other than 0 and those of an interruption.
FAILED = 1
BAD_INPUT = 2
# As shells report a process that wrote to a closed pipe, such as that to head.
PIPE_CLOSED = 141

_LABEL_METRICS = ("precision", "recall", "f1", "roc_auc", "map", "map_50")
# The most that are printed; all of them are in the report.
_METRICS, _CLASSES = 5, 10
# The metrics that count most, the first first.
_MAIN_METRICS = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "average_precision", "log_loss")
_COLORS = {"error": 31, "warning": 33}
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
        return clusters.leave(action())
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
    return clusters.leave(status, message, lambda line: say(line, file=sys.stderr))


def say(text: object, *, file: TextIO | None = None) -> None:
    """Prints a text at once, with control characters escaped: names in it may come from others.

    In a terminal, 'error:' and 'warning:' are in color, unless NO_COLOR is set.

    >>> say("cat" + chr(27) + "[2J")
    cat\\x1b[2J
    """
    printed = escaping.text(text)
    out = sys.stdout if file is None else file
    if out.isatty() and not os.environ.get("NO_COLOR"):
        printed = re.sub("^(error|warning):", lambda word: f"\033[{_COLORS[word[1]]}m{word[0]}\033[0m", printed)
    print(printed, file=out, flush=True)


def sayer(*, quiet: bool, json: bool) -> Callable[[str], None]:
    """Returns what prints lines: with json to standard error, and if quiet only warnings, also there.

    Of several processes, the first one prints.
    """

    def say_line(text: str) -> None:
        if not clusters.joined() and (not quiet or text.startswith("warning:")):
            say(text, file=sys.stderr if quiet or json else None)

    return say_line


def say_json(record: Mapping[str, Any]) -> None:
    """Prints a record as one line of JSON."""
    say(json.dumps(record))


def check_output(file: Path, *, overwrite: bool) -> None:
    """Refuses an --output that cannot be written or must not be replaced, before any work is done."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"--output {file}: give the name of a file in an existing folder.")
    if file.exists() and not overwrite:
        raise InputError(f"--output {file} exists; name another file, or give --overwrite.")


def table(report: Mapping[str, Any], split: str) -> str:
    """The scores of a split as text: five metrics, and ten classes with the lowest scores.

    Args:
      report: as :func:`jaxcls.metrics.report` returns it, and 'synthetic': whether the examples were generated.
      split: its name.
    """
    synthetic = "SYNTHETIC " if report["synthetic"] else ""
    known = [name for name, value in report["metrics"].items() if value is not None]
    shown = sorted(known, key=lambda name: _MAIN_METRICS.index(name) if name in _MAIN_METRICS else len(_MAIN_METRICS))
    metrics = [f"  {name:28} {report['metrics'][name]:.4f}" for name in shown[:_METRICS]]
    tables = [_label_table(output["labels"]) for output in report.get("outputs", {"": report}).values()]
    return "\n".join(["", f"{synthetic}{split}, {report['examples']:,} examples", "", *metrics, *tables])


def _label_table(labels: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(labels.values()))
    columns = [name for name in _LABEL_METRICS if name in first]
    main = "f1" if "f1" in columns else columns[-1]
    lowest = sorted(labels, key=lambda label: math.inf if labels[label][main] is None else labels[label][main])
    rows = [["", "support", *columns]]
    for label, row in labels.items():
        if label not in lowest[:_CLASSES]:
            continue
        scores = ["-" if row[name] is None else f"{row[name]:.4f}" for name in columns]
        rows.append([escaping.line(label), f"{row['support']:,.0f}", *scores])
    more = f"\n\n  the {_CLASSES} of {len(labels):,} classes with the lowest {main}" if len(labels) > _CLASSES else ""
    return "\n" + textwrap.indent(text_table(rows), "  ") + more


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
