"""jaxcls report: the page of a finished run, or one that lays several runs beside each other.

jaxcls report --run-dir runs/fashion_mnist-1a2b3c4d --open
jaxcls report --compare runs/small runs/large --output comparison.html
"""

import dataclasses
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.training.settings import Maybe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write the page of a finished run from what its directory holds, or compare several."""

    run_dir: Maybe[Path | None] = None
    """The directory of the run, as training named it."""
    compare: Maybe[tuple[Path, ...] | None] = None
    """The directories of 2 to 8 runs of one task, to lay beside each other."""
    output: Maybe[Path | None] = None
    """The HTML file to write: by default report.html in --run-dir, or comparison.html."""
    overwrite: bool = False
    """Replace the output if it is there; report.html in --run-dir is replaced in any case."""
    open: bool = False
    """Show the page in the browser."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return console.exit_status(lambda: _run(tyro.cli(Report, args=arguments, prog="jaxcls report")))


def _run(asked: Report) -> int:
    if (asked.run_dir is None) == (asked.compare is None):
        raise InputError("give either --run-dir, for the page of one run, or --compare, for several.")
    output = _output(asked)
    # From here on more is needed than --help takes; jax is not.
    from jaxcls.reports import html_report, run_directory

    if asked.run_dir is not None:
        html = html_report.render(run_directory.read_records(asked.run_dir))
    else:
        html = html_report.render_comparison([run_directory.read_records(path) for path in asked.compare or ()])
    files.write_atomically(output, html)
    console.say(f"kept in {output}")
    if asked.open and not webbrowser.open(output.resolve().as_uri()):
        console.say("no browser was found to open it with", file=sys.stderr)
    return 0


def _output(asked: Report) -> Path:
    """Where the page goes; what cannot be written, or is not to be replaced, is refused."""
    if asked.output is None and asked.run_dir is not None:
        return asked.run_dir / "report.html"
    output = asked.output or Path("comparison.html")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: give the name of a file, in a folder that is there.")
    if output.exists() and not asked.overwrite:
        raise InputError(f"--output {output} is there already; name another file, or give --overwrite.")
    return output
