"""Escape untrusted text before it is printed to a terminal."""

import re

# Control characters, which can move the cursor, color text, rename windows or type for the user; bidirectional
# controls, which make a line read as a different one; line separators other than a newline; and surrogates, as which
# Python decodes file names that are not UTF-8.
_HARMFUL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_HARMFUL_IN_TEXT = re.compile(f"[{_HARMFUL}]")
_HARMFUL_IN_LINE = re.compile(f"[\t\n{_HARMFUL}]")


def text(value: object, *, most: int = 20_000) -> str:
    r"""Returns a text with harmful characters escaped; newlines and tabs stay.

    Args:
      most: the number of characters after which the text is cut, with a note of how many are omitted.

    >>> text("a\x1b]0;title\x07b\nc")
    'a\\x1b]0;title\\x07b\nc'
    """
    return _escaped(_HARMFUL_IN_TEXT, str(value), most)


def line(value: object, *, most: int = 200) -> str:
    r"""Returns a text with newlines and tabs escaped too, for a name that must stay on its line.

    >>> line("cat\ntest, 100 examples")
    'cat\\ntest, 100 examples'
    """
    return _escaped(_HARMFUL_IN_LINE, str(value), most)


def _escaped(harmful: re.Pattern[str], value: str, most: int) -> str:
    more = f"... and {len(value) - most:,} more characters" if len(value) > most else ""
    return harmful.sub(lambda match: ascii(match[0])[1:-1], value[:most]) + more
