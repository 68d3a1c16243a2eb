"""The sizes and variations of a network in its config.json, checked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls._utils.escaping import line

SIZE = range(1, 1 << 16)
BLOCKS = range(1, 1 << 10)


class Between(NamedTuple):
    """Numbers from ``low`` to ``high``."""

    low: float
    high: float


def checked(values: Mapping[str, Any], supported: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the supported values.

    Args:
      values: those of a config.json, with defaults for what it may leave out.
      supported: for each name, a range of integers, a tuple of choices, a :class:`Between`, ``float`` for a number
        from 0 to 1, or a list of one of these for a list of up to 16, or of as many for a list of this length.
      where: the name of the checkpoint, for messages.

    Raises:
      InputError: a value is missing or is not supported; the message names it.

    >>> checked({"depths": [2, 2], "act": "gelu", "other": 1}, {"depths": [SIZE], "act": ("gelu", "relu")}, "tiny")
    {'depths': [2, 2], 'act': 'gelu'}
    """
    for name, allowed in supported.items():
        if not _fits(values.get(name), allowed):
            shown = line(repr(values[name]), most=60) if name in values else "missing"
            raise InputError(f"config.json of {where}: {name} is {shown}; it must be {_description(allowed)}.")
    return {name: values[name] for name in supported}


def timm(
    config: Mapping[str, Any], defaults: Mapping[str, Any], supported: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Like :func:`checked`, for timm's arguments of a network: the defaults of its name, changed by "model_args".

    Raises:
      InputError: there is an argument that is not supported.
    """
    schema = {"pretrained_cfg?": {"input_size?": [int, int, int]}, "model_args?": {}, "global_pool?": str}
    schemas.check(config, schema, f"config.json of {where}")
    supported = {"in_chans": (3,), "drop_rate": float, "drop_path_rate": float, **supported}
    arguments = {name: config[name] for name in ("global_pool",) if name in config} | config.get("model_args", {})
    for name, value in arguments.items():
        if name not in supported and name != "num_classes":
            raise InputError(
                f"config.json of {where}: the argument {name}={line(repr(value), most=60)} of timm is not supported."
            )
    common = {
        "in_chans": 3, "drop_rate": 0.0, "drop_path_rate": 0.0,
        "img_size": config.get("pretrained_cfg", {}).get("input_size", [3, 224, 224])[1:],
    }  # fmt: skip
    return checked({**common, **defaults, **arguments}, supported, where)


def _fits(value: Any, allowed: Any) -> bool:
    if isinstance(allowed, list):
        fits = isinstance(value, list) and len(value) in (range(1, 17) if len(allowed) == 1 else (len(allowed),))
        return fits and all(_fits(item, allowed[0]) for item in value)
    if allowed is float:
        allowed = Between(0, 1)
    if isinstance(allowed, Between):
        return type(value) in (int, float) and allowed.low <= value <= allowed.high
    return type(value) is type(allowed[0]) and value in allowed


def _description(allowed: Any) -> str:
    if isinstance(allowed, list):
        return f"a list, each item {_description(allowed[0])}"
    if allowed is float:
        allowed = Between(0, 1)
    if isinstance(allowed, Between):
        return f"a number from {allowed.low} to {allowed.high}"
    if isinstance(allowed, range):
        return f"an integer from {allowed[0]} to {allowed[-1]}"
    return " or ".join(map(repr, allowed))
