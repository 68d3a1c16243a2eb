"""What each setting of an optimizer or a schedule must be."""

import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

from jaxcls._utils.errors import InputError, did_you_mean


def check(owner: str, **values: object) -> None:
    """Refuses a value that is not what its name's rule says."""
    for name, value in values.items():
        rule = _RULES.get(name)
        if rule and not rule.holds(value):
            raise InputError(f"{owner}: {name} must be {rule.words}, got {value!r}.")


def check_names(owner: str, given: Any, taken: list[str]) -> None:
    """Refuses a name that is not one of those taken."""
    for name in given:
        if name not in taken:
            raise InputError(
                f"{owner} takes no setting {name!r}.{did_you_mean(name, taken)}"
                f" It takes: {', '.join(sorted(taken)) or 'none'}."
            )


def keywords(function: Callable[..., Any]) -> list[str]:
    """The names of its keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_sequence_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(is_item, value))


class _Rule(NamedTuple):
    words: str
    holds: Callable[[Any], bool]


_POSITIVE = _Rule("a finite number above 0", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE = _Rule("a finite number of at least 0", lambda value: _is_number(value) and value >= 0)
_BELOW_ONE = _Rule("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)
_COUNT = _Rule("an integer of at least 1", lambda value: _is_integer(value) and value >= 1)
_FLAG = _Rule("True or False", lambda value: isinstance(value, bool))

_RULES = {
    "b1": _BELOW_ONE,
    "b2": _BELOW_ONE,
    "beta": _BELOW_ONE,
    "boundaries": _Rule("a list of steps, integers", _is_sequence_of(_is_integer)),
    "centered": _FLAG,
    "clipnorm": _POSITIVE,
    "clipvalue": _POSITIVE,
    "decay": _BELOW_ONE,
    "div_factor": _POSITIVE,
    "ema_decay": _Rule("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1),
    "end_factor": _Rule("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    "eps": _Rule(_POSITIVE.words, lambda value: value is None or _POSITIVE.holds(value)),
    "final_div_factor": _POSITIVE,
    "global_clipnorm": _POSITIVE,
    "gradient_accumulation_steps": _COUNT,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "learning_rate": _POSITIVE,
    "momentum": _BELOW_ONE,
    "muon_mask": _Rule("a function of the parameters", lambda value: value is None or callable(value)),
    "nesterov": _FLAG,
    "ns_steps": _COUNT,
    "scales": _Rule("a list of numbers above 0", _is_sequence_of(_POSITIVE.holds)),
    "semantics": _Rule("'optax' or 'keras'", lambda value: value in ("optax", "keras")),
    "total_steps": _COUNT,
    "warmup_steps": _Rule("an integer of at least 0", lambda value: _is_integer(value) and value >= 0),
    "weight_decay": _NOT_NEGATIVE,
}
