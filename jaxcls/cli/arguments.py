"""Command lines from dataclasses: each field is an option, and the docstring below it is the help text."""

import argparse
import ast
import dataclasses
import functools
import inspect
import itertools
import re
import sys
import textwrap
import typing
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

from jaxcls._utils.errors import InputError, did_you_mean, flag
from jaxcls.training.settings import from_toml, value_type

_Options = TypeVar("_Options")
_Argument: TypeAlias = tuple[list[str], dict[str, Any]]
# A command with no more options than this needs no section of the most used.
_FEW = 20
_METAVARS = {int: "N", float: "X", str: "NAME"}


def parse(
    options: type[_Options],
    arguments: Sequence[str],
    *,
    program: str = "jaxcls train",
    description: str = "",
    omit: Collection[str] = (),
) -> _Options:
    """Parses a command line into a dataclass. With --help, prints the help and exits.

    Args:
      options: the dataclass, whose base classes become sections of the help. If it has a field ``config``, options that
        are not on the command line are read from the TOML file that it names.
      arguments: the words of the command line after the command.
      program: the command, such as 'jaxcls train'.
      description: a summary of the command, and below it examples.
      omit: names of fields that are not options.

    Raises:
      InputError: an option is unknown, missing or has a wrong value.
    """
    summary, _, examples = description.partition("\n\n")
    parser = _Parser(
        prog=program,
        usage=f"{program} [OPTIONS]",
        description=summary,
        epilog="examples:\n" + textwrap.indent(examples, "  ") if examples else None,
        formatter_class=_HelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for title, actions in _sections(options, omit).items():
        section = parser if title == "options" else parser.add_argument_group(title)
        for words, settings in actions:
            section.add_argument(*words, **settings)
    # Like most programs in Python, this accepts --batch_size as well.
    words = [re.sub("^--[^=]+", lambda name: name[0].replace("_", "-"), word) for word in arguments]
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        hint = did_you_mean(unknown[0], parser._option_string_actions)
        raise InputError(f"unknown option {unknown[0]!r}.{hint} See {program} --help.")
    given = vars(namespace)
    base = vars(from_toml(given["config"])) if "config" in given else {}
    return options(**{**base, **given})


def _sections(options: type, omit: Collection[str]) -> dict[str, list[_Argument]]:
    """The title of each section, and its options as arguments of ``add_argument``."""
    fields = {field.name: field for field in dataclasses.fields(options) if field.name not in omit}
    hints = typing.get_type_hints(options)
    titles: dict[str, str] = {}
    texts: dict[str, str] = {}
    # Within a section, LossSettings comes before LossOptions.
    for group in sorted(options.__mro__[-2::-1], key=lambda group: group.__name__.endswith("Options")):
        own = _docstrings(group)
        title = "options" if group is options else re.findall("[A-Z][a-z]+", group.__name__)[0].lower()
        titles = {name: title for name, title in titles.items() if name not in own} | dict.fromkeys(own, title)
        texts |= own
    sections: dict[str, list[_Argument]] = {"options": [], "most used": []}
    for name, title in titles.items():
        if name in fields:
            most_used = fields[name].metadata.get("common") and len(fields) > _FEW
            section = sections.setdefault("most used" if most_used else title, [])
            section.append(_argument(fields[name], hints[name], texts[name]))
    return {title: section for title, section in sections.items() if section}


def _argument(field: "dataclasses.Field[Any]", hint: Any, text: str) -> _Argument:
    kind, choices, count = value_type(hint)
    if not any(field.default is nothing for nothing in (None, False, dataclasses.MISSING)):
        text += f" (default: {'on' if field.default is True else field.default})"
    settings: dict[str, Any] = {"help": text.replace("%", "%%")}
    if kind is bool:
        return [flag(field.name)], settings | {"action": argparse.BooleanOptionalAction}
    if choices is None:
        settings |= {"type": kind, "metavar": _METAVARS.get(kind, "PATH")}
    else:
        settings |= {"choices": choices}
    if count is not None:
        settings |= {"nargs": count, "action": _StoreTuple}
    if field.metadata.get("positional"):
        return [field.name], settings
    return [flag(field.name)], settings | {"required": field.default is dataclasses.MISSING}


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


class _StoreTuple(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        return super()._format_action_invocation(action)
