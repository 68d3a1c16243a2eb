"""The error for invalid user input, and the wording of its messages."""

import contextlib
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

# Longer names are not compared: the time grows with the product of the lengths, and a file may hold long ones.
_MAX_LENGTH = 200


class InputError(ValueError):
    """Invalid user input: an option, a name, a file or an array.

    The message says what is wrong, where, and what would be right. Commands print it without a traceback and exit with
    status 2.
    """


class RunError(RuntimeError):
    """A run cannot continue, such as after divergence or without a checkpoint that can be read.

    The message is complete: command lines print it without a traceback and exit with status 1.
    """


@contextlib.contextmanager
def error_context(where: str) -> Iterator[None]:
    """Prefixes the message of an InputError raised inside with where the input is from, such as a file name.

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
    """Returns a hint at the most similar known name, or an empty string.

    Initials stand for their words; otherwise, the shortest name that contains this one is taken before those that are
    spelled alike.

    >>> did_you_mean("adamm", ["adam", "sgd"])
    " Did you mean 'adam'?"
    >>> did_you_mean("--lr", ["--loss", "--learning-rate"])
    " Did you mean '--learning-rate'?"
    >>> did_you_mean("crossentropy", ["softmax_cross_entropy", "weighted_crossentropy"])
    " Did you mean 'softmax_cross_entropy'?"
    """
    short = [other for other in known if max(len(name), len(other)) <= _MAX_LENGTH]
    letters = _letters(name)
    initials = [
        other for other in short if len(letters) > 1 and letters == _letters(re.sub(r"([a-z])[a-z]*", r"\1", other))
    ]
    containing = [other for other in short if len(letters) > 3 and letters in _letters(other)]
    nearest = sorted(initials) or sorted(containing, key=len) or difflib.get_close_matches(name, short, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def reason(error: Exception) -> str:
    """The first line of the message of an exception from other code, without a full stop.

    >>> reason(ValueError("shapes differ.\\nSee above.")), reason(KeyError())
    ('shapes differ', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__).removesuffix(".")


def flag(name: str) -> str:
    """Returns the command-line option of a setting.

    >>> flag("learning_rate")
    '--learning-rate'
    """
    return f"--{name.replace('_', '-')}"


def listed(values: Sequence[object], most: int = 10) -> str:
    """The first values, and how many more there are.

    >>> listed([3, 5]), listed(range(12), most=2)
    ('3, 5', '0, 1 and 10 more')
    """
    more = f" and {len(values) - most:,} more" if len(values) > most else ""
    return f"{', '.join(map(str, values[:most]))}{more}"


def check_names(owner: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises InputError for a setting that its owner, such as an optimizer, does not take."""
    for name in names:
        if name not in known:
            taken = ", ".join(sorted(known)) or "none"
            raise InputError(f"{owner} takes no setting {name!r}.{did_you_mean(name, known)} It takes: {taken}.")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Returns the error for an unknown name, which suggests the most similar known name and lists all of them.

    >>> raise unknown_name("optimizer", "adamm", ["adam", "sgd"])
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: unknown optimizer 'adamm'. Did you mean 'adam'? Known: adam, sgd.
    """
    known = list(known)
    return InputError(f"unknown {kind} {name!r}.{did_you_mean(name, known)} Known: {', '.join(sorted(known))}.")
