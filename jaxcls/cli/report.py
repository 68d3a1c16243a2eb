"""Write the HTML report of a run, or compare several.

Examples:
    jaxcls report --run-dir runs/fashion_mnist-1a2b3c4d --open
    jaxcls report --compare runs/small runs/large --output comparison.html
"""

import dataclasses
import sys
import webbrowser
from pathlib import Path

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.cli import console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    run_dir: Path | None = None
    """folder of the run"""
    compare: tuple[Path, ...] | None = None
    """folders of 2 to 8 runs of one task to compare"""
    output: Path | None = None
    """HTML file to write (default: report.html in --run-dir, or comparison.html)"""
    overwrite: bool = False
    """replace the output if it exists; report.html in --run-dir is always replaced"""
    open: bool = False
    """open the report in the browser"""


def run(options: Options) -> None:
    if (options.run_dir is None) == (options.compare is None):
        raise InputError("give either --run-dir, for the report of one run, or --compare, for several.")
    default = Path("comparison.html") if options.run_dir is None else options.run_dir / "report.html"
    output = options.output or default
    if options.output or options.compare:
        console.check_output(output, overwrite=options.overwrite)
    # Neither --help nor a wrong option needs these.
    from jaxcls.reports import html_report, run_directory

    if options.run_dir is not None:
        html = html_report.render(run_directory.read_records(options.run_dir))
    else:
        html = html_report.render_comparison([run_directory.read_records(path) for path in options.compare or ()])
    files.write_atomically(output, html)
    console.say(f"saved as {output}")
    if options.open and not webbrowser.open(output.resolve().as_uri()):
        console.say("no browser was found to open it with", file=sys.stderr)
