"""The error that tells a person what they gave, what is wrong with it, and what would be right."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

# No name that a person types is longer.
_LONGEST_NAME = 200


class InputError(ValueError):
    """Something that the user gave (a flag, a name, a file, an array) is wrong.

    The message stands by itself: command lines print it without a traceback and exit with status 2.
    """


class RunError(RuntimeError):
    """A run cannot continue, such as after divergence or without a checkpoint that can be read.

    The message is complete: command lines print it without a traceback and exit with status 1.
    """


@contextlib.contextmanager
def error_context(where: str) -> Iterator[None]:
    """Names the file in what is refused inside by functions that know arrays, not files.

    >>> with error_context("rows.csv"):
    ...     raise InputError("1 rows are too few to split.")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: rows.csv: 1 rows are too few to split.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to the nearest of the known names, or an empty string.

    >>> did_you_mean("adamm", ["adam", "sgd"])
    " Did you mean 'adam'?"
    """
    # Of two names, the time grows with the product of their lengths; nobody mistypes those of others' files.
    short = [other for other in known if len(other) <= _LONGEST_NAME] if len(name) <= _LONGEST_NAME else []
    nearest = difflib.get_close_matches(name, short, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def flag(name: str) -> str:
    """The spelling of a setting on the command line.

    >>> flag("learning_rate")
    '--learning-rate'
    """
    return f"--{name.replace('_', '-')}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not one of the known ones: it suggests the nearest and lists them all.

    >>> raise unknown_name("optimizer", "adamm", ["adam", "sgd"])
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: unknown optimizer 'adamm'. Did you mean 'adam'? Known: adam, sgd.
    """
    known = sorted(known)
    return InputError(f"unknown {kind} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
