"""The program ``jaxcls``, with one command for each thing that it does."""

import shlex
import sys
from collections.abc import Sequence

import jaxcls
from jaxcls._utils import clusters, environment
from jaxcls._utils.errors import unknown_name
from jaxcls._utils.text_table import text_table
from jaxcls.cli import console
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import COMMANDS, Describe, Train


def main(arguments: Sequence[str] | None = None, *, program: str = "jaxcls") -> int:
    """Runs the command that the first argument names, and returns the exit status.

    Args:
      arguments: the command line without the program; by default that of the process.
      program: how the program was started, for messages.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in COMMANDS:
        return run(*arguments, program=f"{program} {arguments[0]}")
    return console.exit_status(lambda: _answer(arguments, program))


def run(name: str, *arguments: str, program: str) -> int:
    """Runs a command, and returns the exit status.

    Args:
      name: one of COMMANDS.
      arguments: the command line after the name.
      program: how the command was started, for messages.
    """
    try:
        return console.exit_status(lambda: _run(name, arguments, program), command=f"{program} {shlex.join(arguments)}")
    except Exception:
        clusters.failed()
        raise


def _run(name: str, arguments: Sequence[str], program: str) -> int:
    options = parse(COMMANDS[name], arguments, program=program)
    # Before jax is imported, which --help does without.
    environment.configure(deterministic=getattr(options, "deterministic", False))
    if isinstance(options, Train) and not options.list_tasks:
        say = console.sayer(quiet=options.quiet, json=options.json)
        clusters.join(options.distributed, seconds=options.join_seconds, say=say)
    if isinstance(options, Describe):
        options.simulate()
    environment.check_platform()
    return options.run() or 0


def _answer(arguments: list[str], program: str) -> int:
    """Answers a command line that names no command."""
    if arguments == ["--version"]:
        console.say(f"jaxcls {jaxcls.__version__}")
    elif not arguments or arguments[0] in ("-h", "--help"):
        summaries = [(f"  {name}", (command.__doc__ or "").splitlines()[0]) for name, command in COMMANDS.items()]
        console.say(f"usage: {program} COMMAND [OPTIONS]\n\ncommands:\n{text_table(summaries, left=2)}\n")
        console.say(f"{program} COMMAND --help shows the options of a command.")
    else:
        raise unknown_name("command", arguments[0], COMMANDS)
    return 0 if arguments else console.BAD_INPUT
