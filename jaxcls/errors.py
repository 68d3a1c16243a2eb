"""The error that tells a person what they gave, what is wrong with it, and what would be right."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave (a flag, a name, a file, an array) is wrong.

    The message stands by itself: command lines print it without a traceback and exit with status 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to the nearest of the known names, or an empty string.

    >>> did_you_mean("adamm", ["adam", "sgd"])
    " Did you mean 'adam'?"
    """
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not one of the known ones: it suggests the nearest and lists them all.

    >>> raise unknown_name("optimizer", "adamm", ["adam", "sgd"])
    Traceback (most recent call last):
    ...
    jaxcls.errors.InputError: unknown optimizer 'adamm'. Did you mean 'adam'? Known: adam, sgd.
    """
    known = sorted(known)
    return InputError(f"unknown {kind} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
