"""Parse JSON from an untrusted source and check it against a schema.

A schema is written in Python values:

    str, bool, int       a value of this type; integers up to 2**53, which every reader represents exactly
    float                a finite number that is neither too large nor too small to compute with
    NUMBER               such a number, NaN, or an infinite number
    ANYTHING             any value
    None                 null
    frozenset            one of these strings
    (schema, schema)     any of these schemas
    [schema]             a list of any length
    [schema, schema]     a list of this length
    {str: schema}        an object with any names
    {"a": schema, "b?": schema}  an object that has the name a and may have b and others
    {"a": schema, str: schema}   an object that has the name a, and may have others of the second schema

Schema libraries were considered: msgspec, for one, accepts neither NaN nor a choice between two kinds of list.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from jaxcls._utils.errors import InputError
from jaxcls._utils.escaping import line

Schema = Any

NUMBER = object()
ANYTHING = object()
# Between these, differences and ratios of a few numbers are finite and not 0.
_LARGEST, _SMALLEST = 1e300, 1e-300


def parse(text: str | bytes, schema: Schema, where: str) -> Any:
    """Parses JSON and checks the value.

    Args:
      text: JSON, as UTF-8 if it is bytes.
      schema: of the whole value.
      where: the name of the record, for messages.

    Raises:
      InputError: the text is not JSON, or the value does not match; the message names the first mismatch.

    >>> parse('{"epochs": [1, 2]}', {"epochs": [int]}, "record.json")
    {'epochs': [1, 2]}
    >>> parse('{"epochs": [1, "2"]}', {"epochs": [int]}, "record.json")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: record.json is damaged: epochs[1] is '2'; it must be an integer.
    """
    try:
        value = json.loads(text)
        # JSON can name half of a surrogate pair, which cannot be written again.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} is damaged: it contains an unpaired surrogate.") from None
    # RecursionError: thousands of nested brackets.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is damaged: it is not JSON ({error}).") from None
    check(value, schema, where)
    return value


def check(value: Any, schema: Schema, where: str) -> None:
    """Raises InputError with the first mismatch unless the value matches the schema.

    >>> check({"a": 1.5}, {"a": float, "b?": str}, "record.json")
    """
    for mismatch in _mismatches(value, schema, ""):
        raise InputError(f"{where} is damaged: {mismatch}.")


def _mismatches(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """Yields a description of each mismatch between a value and a schema."""
    if not _matches(value, schema):
        shown = line(repr(value) if not isinstance(value, list | dict) else type(value).__name__, most=60)
        yield f"{line(path) or 'it'} is {shown}; it must be {_description(schema)}"
    elif isinstance(schema, list):
        for index, item in enumerate(value):
            yield from _mismatches(item, schema[index if len(schema) > 1 else 0], f"{path}[{index}]")
    elif isinstance(schema, dict):
        prefix = f"{path}." if path else ""
        for name in schema:
            if name is not str and not name.endswith("?") and name not in value:
                yield f"{prefix}{name} is missing"
        for name, item in value.items():
            item_schema = schema.get(name, schema.get(f"{name}?", schema.get(str, ANYTHING)))
            yield from _mismatches(item, item_schema, f"{prefix}{name}")


def _matches(value: Any, schema: Schema) -> bool:
    """Whether a value matches a schema; the items of a list or an object are not compared."""
    is_integer = type(value) is int and abs(value) <= 1 << 53
    match schema:
        case dict():
            return isinstance(value, dict) and all(map(_is_text, value))
        case list():
            return isinstance(value, list) and len(schema) in (1, len(value))
        case tuple():
            return any(not any(_mismatches(value, option, "")) for option in schema)
        case frozenset():
            return isinstance(value, str) and value in schema
        case None:
            return value is None
    if schema is ANYTHING:
        return True
    if schema is int:
        return is_integer
    if schema is float or schema is NUMBER:
        if type(value) is float and not math.isfinite(value):
            return schema is NUMBER
        return is_integer or (type(value) is float and (value == 0 or _SMALLEST <= abs(value) <= _LARGEST))
    return isinstance(value, schema) and (schema is not str or _is_text(value))


def _is_text(value: str) -> bool:
    """Whether a string can be encoded: it has no unpaired surrogate."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _description(schema: Schema) -> str:
    match schema:
        case None:
            return "null"
        case frozenset():
            return " or ".join(sorted(schema))
        case tuple():
            return " or ".join(map(_description, schema))
        case list():
            return "a list" if len(schema) == 1 else f"a list of {len(schema)}"
        case dict():
            return "an object"
        case _:
            return {str: "a string", bool: "true or false", int: "an integer"}.get(schema, "a number")
