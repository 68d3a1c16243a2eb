"""Texts that others wrote, made harmless for a terminal."""

import re

# Control characters, which move a cursor, colour, rename windows or answer for the user; what turns the direction of
# writing, so that a line reads as another one; what ends a line without being a new line; and halves of characters, as
# which Python reads names that are not UTF-8.
_HARMFUL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_OF_TEXT = re.compile(f"[{_HARMFUL}]")
_OF_A_LINE = re.compile(f"[\t\n{_HARMFUL}]")


def text(value: object, *, most: int = 20_000) -> str:
    r"""What a terminal may be given of a text, whatever it holds: harmful characters as their escapes.

    New lines and tabs stay. Of a longer text there is the beginning, and how much more there is.

    >>> text("a\x1b]0;title\x07b\nc")
    'a\\x1b]0;title\\x07b\nc'
    """
    return _shown(_OF_TEXT, str(value), most)


def line(value: object, *, most: int = 200) -> str:
    r"""As :func:`text`, of a name that must not make up a line of its own.

    >>> line("cat\ntest, 100 examples")
    'cat\\ntest, 100 examples'
    """
    return _shown(_OF_A_LINE, str(value), most)


def _shown(harmful: re.Pattern[str], value: str, most: int) -> str:
    more = f"... and {len(value) - most:,} characters more" if len(value) > most else ""
    return harmful.sub(lambda found: ascii(found[0])[1:-1], value[:most]) + more
