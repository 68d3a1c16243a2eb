"""The valid values of each setting of an optimizer or a schedule."""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from jaxcls._utils.errors import InputError, did_you_mean


def check(owner: str, **values: object) -> None:
    """Raises InputError for a value that the rule of its name does not allow."""
    for name, value in values.items():
        rule = _RULES.get(name)
        if rule and not rule.allows(value):
            raise InputError(f"{owner}: {name} must be {rule.words}, got {value!r}.")


def check_names(owner: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raises InputError for a name that is not known."""
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise InputError(f"{owner} takes no setting {name!r}.{did_you_mean(name, known)} It takes: {listed}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_list_of(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(allows, value))


class _Rule(NamedTuple):
    words: str
    allows: Callable[[Any], bool]


_POSITIVE = _Rule("a finite number above 0", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE = _Rule("a finite number of at least 0", lambda value: _is_number(value) and value >= 0)
_BELOW_ONE = _Rule("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)
_COUNT = _Rule("an integer of at least 1", lambda value: _is_integer(value) and value >= 1)
_FLAG = _Rule("True or False", lambda value: isinstance(value, bool))

_RULES = {
    **dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm", "learning_rate"), _POSITIVE),
    **dict.fromkeys(("div_factor", "final_div_factor"), _POSITIVE),
    **dict.fromkeys(("initial_accumulator_value", "weight_decay"), _NOT_NEGATIVE),
    **dict.fromkeys(("b1", "b2", "beta", "decay", "momentum"), _BELOW_ONE),
    **dict.fromkeys(("gradient_accumulation_steps", "ns_steps", "total_steps"), _COUNT),
    **dict.fromkeys(("centered", "nesterov"), _FLAG),
    "boundaries": _Rule("a list of steps, integers", _is_list_of(_is_integer)),
    "ema_decay": _Rule("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1),
    "end_factor": _Rule("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    "eps": _Rule(_POSITIVE.words, lambda value: value is None or _POSITIVE.allows(value)),
    "muon_mask": _Rule("a function of the parameters", lambda value: value is None or callable(value)),
    "scales": _Rule("a list of numbers above 0", _is_list_of(_POSITIVE.allows)),
    "semantics": _Rule("'optax' or 'keras'", lambda value: value in ("optax", "keras")),
    "warmup_steps": _Rule("an integer of at least 0", lambda value: _is_integer(value) and value >= 0),
}
