"""Command lines from dataclasses: each field is an option, and the docstring below it is the help text."""

import argparse
import ast
import dataclasses
import functools
import inspect
import itertools
import re
import sys
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxcls._utils.errors import InputError, did_you_mean, flag
from jaxcls._utils.files import local
from jaxcls.cli import names
from jaxcls.training.settings import from_toml, inherited, value_type

# A command with no more options than this needs no section of the most used.
_FEW = 20
_METAVARS = {int: "N", float: "X", str: "NAME"}


def parse(command: type, arguments: Sequence[str], *, program: str = "jaxcls") -> Any:
    """Parses a command line into the dataclass of a command. With --help, prints the help and exits.

    If there is a field ``config``, options that are not on the command line are read from the TOML file that it names;
    or with ``continue_from``, from that of the run that it names.

    Args:
      command: one of :mod:`jaxcls.cli.commands`. Its base classes become sections of the help, without the fields in
        ``OMITTED``; its docstring is the description, with examples at the end.
      arguments: the words of the command line after the command.
      program: how the command was started.

    Raises:
      InputError: an option is unknown, missing or has a wrong value.
    """
    summary, _, examples = (inspect.getdoc(command) or "").partition("\n\nExamples:\n")
    parser = _Parser(
        prog=program,
        usage=f"{program} [OPTIONS]",
        description=summary,
        epilog=f"examples:\n{examples}".rstrip() if examples else None,
        formatter_class=functools.partial(_HelpFormatter, max_help_position=30),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    _add_options(parser, command, getattr(command, "OMITTED", ()))
    # As usual in Python, --batch_size is accepted as well.
    words = [re.sub("^--[^=]+", lambda name: name[0].replace("_", "-"), word) for word in arguments]
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        hint = did_you_mean(unknown[0], parser._option_string_actions)
        raise InputError(f"unknown option {unknown[0]!r}.{hint} See {program} --help.")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(namespace).items()
    }
    base: dict[str, Any] = {}
    if "config" in values:
        base = vars(from_toml(values["config"]))
    elif "continue_from" in values:
        base = inherited(values["continue_from"], values)
    options = command(**{**base, **values})
    names.check(options)
    return options


def _add_options(parser: argparse.ArgumentParser, options: type, omit: Collection[str]) -> None:
    hints = typing.get_type_hints(options)
    fields = {field.name: field for field in dataclasses.fields(options) if field.name not in omit}
    sections: dict[str, Any] = {"options": parser, "most used": parser.add_argument_group("most used")}
    # Within a section, LossSettings comes before LossOptions.
    for group in sorted(options.__mro__[-2::-1], key=lambda group: group.__name__.endswith("Options")):
        title = "options" if group is options else re.findall("[A-Z][a-z]+", group.__name__)[0].lower()
        for name, text in _docstrings(group).items():
            redeclared = group is not options and name in vars(options)
            if name in fields and not redeclared:
                key = "most used" if fields[name].metadata.get("common") and len(fields) > _FEW else title
                if key not in sections:
                    sections[key] = parser.add_argument_group(key, (group.__doc__ or "").partition(". ")[2])
                _add_option(sections[key], fields[name], hints[name], text)


def _add_option(section: Any, field: "dataclasses.Field[Any]", hint: Any, text: str) -> None:
    kind, choices, count = value_type(hint)
    convert = _path if kind is Path else kind
    required = field.default is dataclasses.MISSING
    if choices:
        text += f" (one of {', '.join(choices)})"
    if required:
        text += " (required)"
    elif field.default is not None and field.default is not False:
        text += f" (default: {'on' if field.default is True else field.default})"
    text = text.replace("%", "%%")
    if field.metadata.get("positional"):
        section.add_argument(field.name, type=convert, nargs=count, help=text)
    elif kind is bool:
        section.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, help=text)
    else:
        metavar = _METAVARS.get(kind, "PATH")
        section.add_argument(flag(field.name), type=convert, nargs=count, metavar=metavar, required=required, help=text)


def _path(text: str) -> Path:
    try:
        return local(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removesuffix(".")) from None


def _docstrings(group: type) -> dict[str, str]:
    """The docstrings below the fields that a class itself declares."""
    declared = _classes(group.__module__)[group.__name__].body
    return {
        ast.unparse(field.target): " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(declared)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        # argparse would ignore a closed pipe.
        print(self.format_help(), end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. See {self.prog} --help.")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        return super()._format_action_invocation(action)
