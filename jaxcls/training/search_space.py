"""The space of a search for settings: a range or choices for each, and points in it.

A TOML file has an entry for each setting that is searched::

    learning_rate = {low = 1e-4, high = 1e-1, log = true}
    dropout = {low = 0.0, high = 0.5}
    optimizer = {choices = ["adam", "sgd"]}
"""

import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxcls._utils import ranges
from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.training import settings
from jaxcls.training.settings import Settings

# Points are compared by the same metric of the same validation examples after the same epochs, so what decides these
# is not searched.
SEARCHABLE = (
    *("image_size", "standardize", "max_length", "vocabulary_size"),
    *settings.names(settings.ModelSettings),
    *settings.names(settings.FineTuningSettings),
    *settings.names(settings.LossSettings),
    *settings.names(settings.OptimizerSettings),
    *settings.names(settings.ScheduleSettings),
    "batch_size",
)
# Enough for any training, and short in a command.
_DIGITS = 4


class Range(NamedTuple):
    """The numbers from ``low`` to ``high``, equally likely, or with ``log`` their logarithms."""

    low: float
    high: float
    log: bool
    integer: bool

    def at(self, quantile: float) -> float:
        """Returns the number below which this share of the range is.

        >>> Range(1e-4, 1e-2, log=True, integer=False).at(0.5), Range(1, 3, log=False, integer=True).at(0.9)
        (0.001, 3)
        """
        # An integer stands for the numbers that are rounded to it.
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        if self.log:
            value = math.exp(math.log(low) + quantile * (math.log(high) - math.log(low)))
        else:
            value = low + quantile * (high - low)
        value = round(value) if self.integer else float(f"{value:.{_DIGITS}g}")
        return min(max(value, self.low), self.high)


class Choices(NamedTuple):
    """Values that are equally likely."""

    values: tuple[Any, ...]

    def at(self, quantile: float) -> Any:
        """Returns the value at this share of them.

        >>> Choices(("adam", "sgd")).at(0.5)
        'sgd'
        """
        return self.values[min(int(quantile * len(self.values)), len(self.values) - 1)]


Space = Mapping[str, Range | Choices]


def read(path: Path) -> dict[str, Range | Choices]:
    """Reads a space from a TOML file.

    Raises:
      InputError: the file is missing or not TOML, a name is no setting that can be searched, or its entry is not right.
    """
    where = f"--space {path}"
    return from_record(settings.read_toml(path, where), where)


def from_record(record: Mapping[str, Any], where: str) -> dict[str, Range | Choices]:
    """Returns the space of a record, such as that of a TOML file.

    >>> from_record({"dropout": {"low": 0.0, "high": 1.5}}, "space.toml")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: space.toml: dropout is 1.5; it must be a number of at least 0 and less than 1.
    """
    if not record:
        raise InputError(f"{where}: it is empty; give a setting, as in: learning_rate = {{low = 1e-4, high = 1e-1}}.")
    for name in record:
        if name not in SEARCHABLE:
            if name in settings.names(Settings):
                raise InputError(
                    f"{where}: {name!r} cannot be searched: it changes how trials are compared, or nothing that they "
                    "learn."
                )
            raise InputError(f"{where}: {name!r} is no setting.{did_you_mean(name, SEARCHABLE)}")
    return {name: _entry(name, entry, where) for name, entry in record.items()}


def sample(space: Space, count: int, *, sampler: Literal["sobol", "random"], seed: int) -> list[dict[str, Any]]:
    """Returns points of the space, the first of which do not depend on their number.

    Args:
      sampler: 'sobol' spreads them evenly: any part of the space has about its share of them (a scrambled Sobol
        sequence, Owen 1998); 'random' draws each for itself (Bergstra and Bengio 2012).

    >>> space = {"dropout": Range(0.0, 0.5, log=False, integer=False)}
    >>> points = sample(space, 4, sampler="sobol", seed=0)
    >>> sorted(int(8 * point["dropout"]) for point in points)
    [0, 1, 2, 3]
    """
    if sampler == "random":
        quantiles = np.random.default_rng(seed).random((count, len(space)))
    else:
        from scipy.stats import qmc

        # A sequence is balanced at the powers of two only.
        quantiles = qmc.Sobol(len(space), scramble=True, rng=seed).random_base2((count - 1).bit_length())[:count]
    return [
        {name: one.at(float(quantile)) for (name, one), quantile in zip(space.items(), row, strict=True)}
        for row in quantiles
    ]


def as_record(space: Space) -> dict[str, Any]:
    """Returns the space as JSON and TOML values."""
    return {
        name: {"choices": list(one.values)}
        if isinstance(one, Choices)
        else {"low": one.low, "high": one.high, "log": one.log}
        for name, one in space.items()
    }


def _entry(name: str, entry: Any, where: str) -> Range | Choices:
    kind, _, count = settings.value_type(typing.get_type_hints(Settings)[name])
    right = f"{name} = {{choices = [...]}}"
    if kind in (int, float) and count is None:
        right = f"{name} = {{low = ..., high = ...}}, with log = true for a rate, or {right}"
    if not isinstance(entry, dict) or entry.keys() - {"log"} not in ({"choices"}, {"low", "high"}):
        raise InputError(f"{where}: {name} = {entry!r}; it must be {right}.")
    values = entry.get("choices", [entry.get("low"), entry.get("high")])
    if not isinstance(values, list) or not values:
        raise InputError(f"{where}: {name} has the choices {values!r}; give a list of values.")
    values = [_value(name, value, where) for value in values]
    if "choices" in entry:
        if "log" in entry:
            raise InputError(f"{where}: {name} has choices, to which log does not apply; leave it out.")
        return Choices(tuple(values))
    if kind not in (int, float) or count is not None:
        raise InputError(f"{where}: {name} is no number; it must be {right}.")
    (low, high), log = values, entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}: {name} has log = {log!r}; it must be true or false.")
    if not low < high:
        raise InputError(f"{where}: {name} goes from {low} to {high}; low must be less than high.")
    if log and low <= 0:
        raise InputError(f"{where}: {name} begins at {low}; with log = true, low must be above 0.")
    return Range(low, high, log, kind is int)


def _value(name: str, value: Any, where: str) -> Any:
    """Returns a value of a setting, checked as if it was given on the command line."""
    converted = getattr(settings.from_record({name: value}, where=where), name)
    ranges.check({name: converted}, lambda name: f"{where}: {name}")
    return converted
