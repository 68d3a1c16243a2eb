"""jaxcls: one program with a sub-command for each thing that it does."""

import importlib
import sys
from collections.abc import Sequence

from jaxcls import __version__
from jaxcls._utils.errors import unknown_name

COMMANDS = {
    "train": "train a classifier and test it",
    "evaluate": "score a finished run on one split of its data, or on other data",
    "predict": "predict new examples with a finished run",
    "report": "write the HTML report of a run, or compare several",
    "export": "write a finished run as StableHLO, ONNX or safetensors",
    "find-lr": "find a learning rate with the range test",
    "replay": "examine a training step that was saved because it was not finite",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sub-command that the first argument names, and returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"jaxcls {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"error: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"jaxcls.cli.{name.replace('-', '_')}")
    status: int = command.main(rest)
    return status


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        ["usage: jaxcls COMMAND ...", "", "commands:", *lines, "", "jaxcls COMMAND --help shows the options of each."]
    )
