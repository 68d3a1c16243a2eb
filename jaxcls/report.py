"""What the command lines say at the end: a table of scores, or what went wrong, with the exit status for it."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from jaxcls.errors import InputError

# Exit statuses, beside 0.
FAILED = 1
BAD_INPUT = 2
# What shells give for a process that SIGINT ended.
STOPPED_AT_ONCE = 130


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command line. What can go wrong with it is a line and an exit status, not a traceback."""
    try:
        return command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except RuntimeError as error:
        # Not at the top: --help is answered without jax.
        from jaxcls.checkpoints import CheckpointError
        from jaxcls.fit import DivergedError

        if not isinstance(error, CheckpointError | DivergedError):
            raise
        print(f"error: {error}", file=sys.stderr)
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
    columns = ("precision", "recall", "f1", "roc_auc")
    width = max(len(label) for label in report["labels"])
    lines += ["", f"  {'':{width}}  " + "  ".join(f"{c:>9}" for c in ("support", *columns))]
    for label, row in report["labels"].items():
        cells = "  ".join(f"{row[c]:9.4f}" if row[c] is not None else f"{'-':>9}" for c in columns)
        lines.append(f"  {label:{width}}  {row['support']:9,.0f}  {cells}")
    return "\n".join(lines)
