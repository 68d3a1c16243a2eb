"""What the command lines say: their lines, a table of scores, or what went wrong, with the exit status for it."""

import io
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from jaxcls._utils import escaping
from jaxcls._utils.errors import InputError

# Exit statuses, beside 0.
FAILED = 1
BAD_INPUT = 2
# Of a label, those that its problem has.
_OF_A_LABEL = ("precision", "recall", "f1", "roc_auc", "map", "map_50")
_BLOCKS = "▁▂▃▄▅▆▇█"
# For a terminal, or a file, that cannot have them: the darker, the higher.
_PLAIN = ".:-=+*%@"
# Of more epochs than this, as many are shown as fit into a line.
_WIDEST = 48
# What shells give for a process that SIGINT ended.
STOPPED_AT_ONCE = 130
# And for one that wrote to a pipe that nobody read any more, such as that to head.
NOBODY_READS = 141


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command line. What can go wrong with it is a line and an exit status, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name may hold signs that the terminal's encoding has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _status(command)
        finally:
            # Here, where it can be answered, and not when Python ends.
            sys.stdout.flush()
    except BrokenPipeError:
        # What Python still writes when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS


def say(text: object, *, file: TextIO | None = None) -> None:
    """Prints a text at once, whatever names of others it holds: none of it is a command to a terminal.

    >>> say("cat" + chr(27) + "[2J")
    cat\\x1b[2J
    """
    print(escaping.text(text), file=file, flush=True)


def _status(command: Callable[[], int]) -> int:
    try:
        return command()
    except InputError as error:
        say(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        raise
    except OSError as error:
        # A file that was there, a disk, a network: the message names it.
        say(f"error: {error}; what was saved before stands", file=sys.stderr)
        return FAILED
    except RuntimeError as error:
        # Not at the top: --help is answered without jax.
        from jaxcls.checkpoints import CheckpointError
        from jaxcls.training.debugging import NonFiniteError
        from jaxcls.training.loop import DivergedError
        from jaxcls.training.memory import EXHAUSTED

        if str(error).startswith(EXHAUSTED):
            advice = (
                "Lower --batch-size and raise --gradient-accumulation-steps by the same factor, for updates of as many "
                "examples; lower --eval-batch-size; or give --remat."
            )
            say(f"error: out of memory ({str(error).splitlines()[0]}). {advice}", file=sys.stderr)
        elif isinstance(error, CheckpointError | DivergedError | NonFiniteError):
            say(f"error: {error}", file=sys.stderr)
        else:
            raise
        return FAILED
    except KeyboardInterrupt:
        print("stopped at once; what was saved before stands", file=sys.stderr)
        return STOPPED_AT_ONCE


def table(report: Mapping[str, Any], split: str) -> str:
    """The scores of a split as a terminal shows them.

    Args:
      report: as :func:`jaxcls.metrics.report` makes it, with 'synthetic': whether the examples were generated.
      split: its name.
    """
    synthetic = "SYNTHETIC " if report["synthetic"] else ""
    lines = ["", f"{synthetic}{split}, {report['examples']:,} examples", ""]
    lines += [f"  {name:28} {value:.4f}" for name, value in report["metrics"].items() if value is not None]
    known = next(iter(report["labels"].values()))
    columns = [name for name in _OF_A_LABEL if name in known]
    names = {label: escaping.line(label) for label in report["labels"]}
    width = max(map(len, names.values()))
    lines += ["", f"  {'':{width}}  " + "  ".join(f"{c:>9}" for c in ("support", *columns))]
    for label, row in report["labels"].items():
        cells = "  ".join(f"{row[c]:9.4f}" if row[c] is not None else f"{'-':>9}" for c in columns)
        lines.append(f"  {names[label]:{width}}  {row['support']:9,.0f}  {cells}")
    return "\n".join(lines)


def curves(history: Sequence[Mapping[str, Any]], *, encoding: str | None) -> str:
    """The loss and the first metric of the validation examples over the epochs, a line each; nothing of one epoch.

    Args:
      history: an entry for each epoch, as a run keeps it.
      encoding: that of the output; where it has no blocks, other signs stand for them.

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
        known = [value for value in values if value is not None and math.isfinite(value)]
        if known:
            lines.append(f"  {name:{len(metric)}}  {sparkline(values, encoding)}  {known[0]:.4f} to {known[-1]:.4f}")
    return "\n".join(lines)


def sparkline(values: Sequence[float | None], encoding: str | None = "utf-8") -> str:
    """Values as signs of eight heights, from the least to the greatest of them; a blank where there is none.

    >>> sparkline([0, 1, 2, float("nan"), 7])
    '▁▂▃ █'
    """
    signs = _BLOCKS
    try:
        signs.encode(encoding or "ascii")
    except UnicodeEncodeError:
        signs = _PLAIN
    if len(values) > _WIDEST:
        # The first and the last are among them.
        values = [values[round(place * (len(values) - 1) / (_WIDEST - 1))] for place in range(_WIDEST)]
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, spread = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    return "".join(
        " " if value is None or not math.isfinite(value)
        else signs[round((value - low) / spread * (len(signs) - 1)) if spread else 0]
        for value in values
    )  # fmt: skip
