"""Records of JSON that anybody may have written: parsed, and compared with the form that they must have.

A form is written in Python's own values:

    str, bool, int       a value of this type; whole numbers up to 2**53, which no reader rounds
    float                a number that is finite and neither too large nor too small to compute with
    NUMBER               such a number, or NaN, or an infinite one
    ANYTHING             whatever
    None                 null
    frozenset            one of these words
    (form, form)         any of these forms
    [form]               a list of them, of any length
    [form, form]         a list of just these
    {str: form}          an object of any names
    {"a": form, "b?": form}  an object that has the name a, may have b, and any others
"""

import json
import math
from typing import Any

from jaxcls._utils.errors import InputError
from jaxcls._utils.escaping import line

Form = Any

NUMBER = object()
ANYTHING = object()
# Between these, differences and ratios of a few numbers are finite and not 0.
_LARGEST, _SMALLEST = 1e300, 1e-300


def parse(text: str | bytes, form: Form, where: str) -> Any:
    """The value of a text of JSON.

    Raises:
      InputError: it is no JSON, or not of this form; names what differs.

    >>> parse('{"epochs": [1, 2]}', {"epochs": [int]}, "record.json")
    {'epochs': [1, 2]}
    >>> parse('{"epochs": [1, "2"]}', {"epochs": [int]}, "record.json")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: record.json is damaged: epochs[1] is '2'; it must be a whole number.
    """
    try:
        value = json.loads(text)
    # Brackets within brackets: the parser calls itself for each.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is damaged: it is no JSON ({error}).") from None
    if not _all_texts(value):
        raise InputError(f"{where} is damaged: it holds the half of a character, which is no text.")
    check(value, form, where)
    return value


def check(value: Any, form: Form, where: str) -> None:
    """Raises InputError unless the value is of this form.

    >>> check({"a": 1.5}, {"a": float, "b?": str}, "record.json")
    """
    _check(value, form, where, "")


def _check(value: Any, form: Form, where: str, place: str) -> None:
    match form:
        case dict():
            wrong = not isinstance(value, dict) or not all(map(_is_text, value))
        case [_]:
            wrong = not isinstance(value, list)
        case list():
            wrong = not isinstance(value, list) or len(value) != len(form)
        case _:
            wrong = not _matches(value, form)
    if wrong:
        shown = line(repr(value) if not isinstance(value, list | dict) else type(value).__name__, most=60)
        what = f"{line(place)} is {shown}" if place else f"it is {shown}"
        raise InputError(f"{where} is damaged: {what}; it must be {_named(form)}.")
    match form:
        case dict() if str in form:
            for name, part in value.items():
                _check(part, form[str], where, f"{place}.{name}" if place else name)
        case dict():
            for key, part in form.items():
                name = key.removesuffix("?")
                if name in value:
                    _check(value[name], part, where, f"{place}.{name}" if place else name)
                elif key == name:
                    raise InputError(f"{where} is damaged: it does not hold {f'{place}.{name}' if place else name}.")
        case [each]:
            for number, part in enumerate(value):
                _check(part, each, where, f"{place}[{number}]")
        case list():
            for number, (part, each) in enumerate(zip(value, form, strict=True)):
                _check(part, each, where, f"{place}[{number}]")


def _matches(value: Any, form: Form) -> bool:
    """Whether a value is of a form; of a list or an object, whether all of it is."""
    if isinstance(form, dict | list):
        try:
            _check(value, form, "", "")
        except InputError:
            return False
        return True
    if isinstance(form, tuple):
        return any(_matches(value, one) for one in form)
    if form is ANYTHING:
        return True
    if form is None:
        return value is None
    if isinstance(form, frozenset):
        return isinstance(value, str) and value in form
    if form is int:
        return type(value) is int and abs(value) <= 1 << 53
    if form is NUMBER:
        return (type(value) is float and not math.isfinite(value)) or _matches(value, float)
    if form is float:
        return _matches(value, int) or (
            type(value) is float and math.isfinite(value) and (value == 0 or _SMALLEST <= abs(value) <= _LARGEST)
        )
    return isinstance(value, form) and (form is not str or _is_text(value))


def _all_texts(value: Any) -> bool:
    """Whether all texts in a value, names too, can be written."""
    found = [value]
    while found:
        match found.pop():
            case str(text) if not _is_text(text):
                return False
            case list(parts):
                found += parts
            case dict(parts):
                found += [*parts, *parts.values()]
    return True


def _is_text(value: str) -> bool:
    """Whether it can be written: JSON can name the half of a character."""
    return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)


def _named(form: Form) -> str:
    match form:
        case None:
            return "null"
        case frozenset():
            return " or ".join(sorted(form))
        case tuple():
            return " or ".join(map(_named, form))
        case [_]:
            return "a list"
        case list():
            return f"a list of {len(form)}"
        case dict():
            return "an object"
        case _:
            return {str: "a text", bool: "true or false", int: "a whole number"}.get(form, "a number")
