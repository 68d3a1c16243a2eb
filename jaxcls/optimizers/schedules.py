"""Learning-rate schedules by name: functions of the number of updates."""

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import optax

from jaxcls._utils import ranges
from jaxcls._utils.errors import InputError, check_names, unknown_name


def schedule(
    name: str, *, learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any
) -> optax.Schedule:
    """The learning rate as a function of the number of updates applied so far.

    The rate rises linearly from 0 at step 0 to `learning_rate` at `warmup_steps`, then follows the named curve until
    `total_steps`, which include the warm-up, and stays at its last value. With gradient accumulation, a step is an
    applied update.

    - 'constant'.
    - 'linear', 'cosine', 'exponential': falls to `learning_rate * end_factor` (default 0, 0 and 0.01).
    - 'warmup_cosine': 'cosine', with `warmup_steps` required.
    - 'one_cycle': a cosine rise from `learning_rate / div_factor` (25) over `warmup_steps` (if 0, 30% of all), then a
      cosine fall to that initial rate divided by `final_div_factor` (1e4).
    - 'piecewise': is multiplied by `scales[i]` at step `boundaries[i]`, counted from the start of training.

    Raises:
      InputError: the name or an option is unknown, or a value is out of range.

    Source: `optax.schedules`; one_cycle: Smith and Topin 2017, arXiv 1708.07120.

    >>> rate = schedule("cosine", learning_rate=0.1, total_steps=10, warmup_steps=2)
    >>> [round(float(rate(step)), 4) for step in (0, 1, 2, 6, 10, 11)]
    [0.0, 0.05, 0.1, 0.05, 0.0, 0.0]
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    curve = SCHEDULES[name]
    check_names(name, options, inspect.getfullargspec(curve).kwonlyargs)
    steps = {"total_steps": total_steps, "warmup_steps": warmup_steps}
    ranges.check({"learning_rate": learning_rate, **steps, **options}, lambda option: f"{name}: {option}")
    if warmup_steps >= total_steps:
        raise InputError(
            f"{name}: warmup_steps must be below total_steps, which include them; got {warmup_steps} of {total_steps}."
        )
    rate = curve(learning_rate, total_steps, warmup_steps, **options)
    if warmup_steps == 0 or name == "one_cycle":
        return rate
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), rate], [warmup_steps])


# The curves start after the warm-up, at step 0; only one_cycle contains its own.


def _constant(peak: float, total: int, warmup: int) -> optax.Schedule:
    return optax.constant_schedule(peak)


def _linear(peak: float, total: int, warmup: int, *, end_factor: float = 0.0) -> optax.Schedule:
    return optax.linear_schedule(peak, peak * end_factor, total - warmup)


def _cosine(peak: float, total: int, warmup: int, *, end_factor: float = 0.0) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, total - warmup, end_factor)


def _warmup_cosine(peak: float, total: int, warmup: int, *, end_factor: float = 0.0) -> optax.Schedule:
    if warmup == 0:
        raise InputError("warmup_cosine: warmup_steps must be at least 1; without a warm-up use 'cosine'.")
    return _cosine(peak, total, warmup, end_factor=end_factor)


def _exponential(peak: float, total: int, warmup: int, *, end_factor: float = 0.01) -> optax.Schedule:
    if end_factor == 0:
        raise InputError("exponential: end_factor must be above 0: an exponential does not reach 0.")
    return optax.exponential_decay(peak, total - warmup, end_factor, end_value=peak * end_factor)


def _one_cycle(
    peak: float, total: int, warmup: int, *, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> optax.Schedule:
    # optax.cosine_onecycle_schedule interpolates with a dot product, which an accelerator rounds to bfloat16.
    rising = warmup or int(0.3 * total)
    fall = optax.cosine_decay_schedule(peak, total - rising, alpha=1 / (div_factor * final_div_factor))
    if rising == 0:
        return fall
    rise = optax.cosine_decay_schedule(peak / div_factor, rising, alpha=div_factor)
    return optax.join_schedules([rise, fall], [rising])


def _piecewise(
    peak: float, total: int, warmup: int, *, boundaries: Sequence[int] = (), scales: Sequence[float] = ()
) -> optax.Schedule:
    if not boundaries or len(boundaries) != len(scales):
        raise InputError(f"piecewise: pass as many scales as boundaries, got {len(scales)} and {len(boundaries)}.")
    if any(left >= right for left, right in pairwise([warmup, *boundaries, total])):
        raise InputError(
            f"piecewise: boundaries must rise, above warmup_steps ({warmup}) and below total_steps ({total}),"
            f" got {list(boundaries)}."
        )
    after_warmup = {boundary - warmup: scale for boundary, scale in zip(boundaries, scales, strict=True)}
    return optax.piecewise_constant_schedule(peak, after_warmup)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    curve.__name__.removeprefix("_"): curve
    for curve in (_constant, _cosine, _exponential, _linear, _one_cycle, _piecewise, _warmup_cosine)
}
# Those that, without a warm-up, do not depend on the total number of steps.
OPEN_ENDED = ("constant", "piecewise")
