"""The learning-rate range test: the loss while the rate rises from far too low to far too high.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186); with a rate that rises
exponentially and a smoothed loss, as in fastai.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Examples
from jaxcls.tasks import build
from jaxcls.training.experiment import Experiment, shardings
from jaxcls.training.loop import chunks
from jaxcls.training.settings import Settings

# fastai's: how much of the average of the losses stays at each step, and how far above its lowest the search ends.
_MEMORY = 0.98
_DIVERGED = 4.0


class Search(NamedTuple):
    """What a search has seen; all float64 (steps,).

    Attributes:
      rates: of each step.
      losses: of each step's batch.
      smoothed: their exponential average, without the bias towards its beginning.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray


class Suggestions(NamedTuple):
    """Rates to try; None where the loss never fell.

    Attributes:
      steepest: where the smoothed loss falls fastest.
      tenth_of_lowest: a tenth of the rate at which it is lowest.
    """

    steepest: float | None
    tenth_of_lowest: float | None


def search(
    user_settings: Settings, *, lowest: float, highest: float, steps: int, say: Callable[[str], None] = print
) -> Search:
    """Trains while the rate rises, and stops early where the smoothed loss reaches 4 times its minimum.

    Epochs repeat until the steps are done. Everything random follows from the seed.

    Args:
      user_settings: as for a run; its learning rate and schedule have no effect.
      lowest, highest: the rates of the first and the last step.
      say: takes lines for the user.

    Raises:
      InputError: something given is wrong.
    """
    if not 0 < lowest < highest < np.inf:
        raise InputError(f"the rates from {lowest} to {highest} do not rise; give 0 < --lowest < --highest.")
    if steps < 10:
        raise InputError(f"--steps is {steps}; it must be 10 or more.")
    # Gradient accumulation: several batches make one update, and the schedule counts updates.
    batches = user_settings.gradient_accumulation_steps or 1
    rate = optax.exponential_decay(lowest, max(-(-steps // batches) - 1, 1), highest / lowest)
    built = build.build(user_settings, learning_rate=rate, say=say)
    losses = _losses(built.experiment, built.train, built.settings, steps)
    if len(losses) < 2:
        raise InputError(f"the loss is not finite at the rate {lowest} already; give a lower --lowest.")
    rates = np.asarray(rate(jnp.arange(len(losses)) // batches), np.float64)
    return Search(rates, losses, smooth(losses))


def smooth(losses: np.ndarray) -> np.ndarray:
    """The exponential average of the losses so far.

    >>> smooth(np.array([2.0, 1.0, 2.0])).round(2).tolist()
    [2.0, 1.49, 1.67]
    """
    total, averages = 0.0, np.empty(len(losses))
    for step, loss in enumerate(losses):
        total = _MEMORY * total + (1 - _MEMORY) * loss
        averages[step] = total / (1 - _MEMORY ** (step + 1))
    return averages


def suggest(search: Search) -> Suggestions:
    """Rates to try.

    >>> rates = np.logspace(-4, 0, 100)
    >>> losses = np.where(rates < 1e-1, 1 / (1 + (100 * rates) ** 2), 5 * rates)
    >>> [round(rate, 4) for rate in suggest(Search(rates, losses, losses))]
    [0.0095, 0.0098]
    """
    # The first averages are of few batches, and go up and down with them.
    first = len(search.rates) // 10
    rates, smoothed = search.rates[first:], search.smoothed[first:]
    best = int(np.argmin(smoothed)) if len(smoothed) else 0
    if best == 0:
        return Suggestions(None, None)
    slopes = np.diff(smoothed[: best + 1]) / np.diff(np.log(rates[: best + 1]))
    return Suggestions(float(rates[int(np.argmin(slopes))]), float(rates[best] / 10))


def _losses(experiment: Experiment, train: Examples, settings: Settings, steps: int) -> np.ndarray:
    """Returns the loss of each step, up to the first that is not finite or shows that training diverges."""
    replicated, sharded = shardings()
    batches = chunks(
        jax.device_put(train, replicated),
        settings.batch_size,
        order=experiment.epoch_order(train, settings.batch_size),
        sharding=sharded,
    )
    state, losses = experiment.init(settings.seed), np.zeros(0)
    while len(losses) < steps:
        epoch = len(losses) // batches.steps
        for chunk in batches.of_epoch(state.key, epoch, 0):
            state, metrics = experiment.train_chunk(state, chunk)
            seen = np.where(metrics.applied, np.asarray(metrics.loss, np.float64), np.nan)
            # Steps past the end of the epoch are dropped.
            seen = seen[: (epoch + 1) * batches.steps - len(losses)]
            losses = np.concatenate([losses, seen])[:steps]
            smoothed = smooth(losses)
            # A comparison with NaN is False.
            ended = ~(smoothed <= _DIVERGED * np.fmin.accumulate(smoothed))
            if ended.any():
                # A loss that is merely too high is shown; one that is not finite cannot be.
                last = int(ended.argmax())
                return losses[: last + 1] if np.isfinite(losses[last]) else losses[:last]
            if len(losses) == steps:
                break
    return losses
