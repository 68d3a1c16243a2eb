"""The valid values of what a user sets by name: settings of a run, of an optimizer, of a schedule."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from jaxcls._utils.errors import InputError


def check(values: Mapping[str, Any], spelled: Callable[[str], str] = str) -> None:
    """Checks values by the rules of their names; names without a rule are ignored.

    Args:
      spelled: name -> how the user gives it.

    Raises:
      InputError: a value is not valid.

    >>> check({"patience": 0})
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: patience is 0; it must be an integer of 1 or more.
    """
    for name, value in values.items():
        rule = _RULES.get(name)
        # Whoever lets JAX trace a value has checked it: within a compiled function it is not known.
        if rule and not hasattr(value, "aval") and not rule.allows(value):
            raise InputError(f"{spelled(name)} is {value!r}; it must be {rule.words}.")


class _Rule(NamedTuple):
    words: str
    allows: Callable[[Any], bool]


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _number(words: str, allows: Callable[[float], bool]) -> _Rule:
    return _Rule(words, lambda value: _is_a(Real, value) and math.isfinite(value) and allows(value))


def _integer(words: str, least: int, most: float = math.inf) -> _Rule:
    return _Rule(words, lambda value: _is_a(Integral, value) and least <= value <= most)


def _list_of(words: str, rule: _Rule) -> _Rule:
    return _Rule(words, lambda value: isinstance(value, list | tuple) and all(map(rule.allows, value)))


_COUNT = _integer("an integer of 1 or more", 1)
_POSITIVE = _number("a finite number above 0", lambda value: value > 0)
_NOT_NEGATIVE = _number("a finite number of 0 or more", lambda value: value >= 0)
_BELOW_ONE = _number("a number of at least 0 and less than 1", lambda value: 0 <= value < 1)
_FRACTION = _number("a number between 0 and 1", lambda value: 0 < value < 1)
_SEED = _integer("an integer between 0 and 4294967295", 0, 2**32 - 1)
_FLAG = _Rule("True or False", lambda value: isinstance(value, bool))

_RULES = {
    **dict.fromkeys(("epochs", "batch_size", "eval_batch_size", "max_skipped_steps", "patience", "max_length"), _COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "lora_rank", "ns_steps", "total_steps"), _COUNT),
    **dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm", "learning_rate"), _POSITIVE),
    **dict.fromkeys(("div_factor", "final_div_factor", "lora_alpha"), _POSITIVE),
    **dict.fromkeys(("initial_accumulator_value", "weight_decay"), _NOT_NEGATIVE),
    **dict.fromkeys(("dropout", "warmup", "b1", "b2", "beta", "decay", "momentum"), _BELOW_ONE),
    **dict.fromkeys(("validation_fraction", "test_fraction", "ema_decay"), _FRACTION),
    **dict.fromkeys(("centered", "nesterov"), _FLAG),
    "boundaries": _list_of("a list of steps, integers", _integer("", 0)),
    "end_factor": _number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "eps": _Rule(_POSITIVE.words, lambda value: value is None or _POSITIVE.allows(value)),
    "head_epochs": _integer("an integer of 0 or more", 0),
    "image_size": _integer("an integer between 8 and 1024", 8, 1024),
    "layer_decay": _number("a number above 0 and at most 1", lambda value: 0 < value <= 1),
    "muon_mask": _Rule("a function of the parameters", lambda value: value is None or callable(value)),
    "scales": _list_of("a list of numbers above 0", _POSITIVE),
    **dict.fromkeys(("seed", "split_seed"), _SEED),
    "folds": _integer("an integer of 2 or more", 2),
    "seeds": _Rule(
        "distinct integers between 0 and 4294967295",
        lambda value: value is None or (all(map(_SEED.allows, value)) and len(set(value)) == len(value)),
    ),
    "semantics": _Rule("'optax' or 'keras'", lambda value: value in ("optax", "keras")),
    "vocabulary_size": _integer("an integer of 257 or more, a token per byte and the padding", 257),
    "warmup_steps": _integer("an integer of 0 or more", 0),
}
