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

from jaxcls._utils.errors import InputError, error_context
from jaxcls.data.batching import Examples, steps_per_epoch
from jaxcls.data.dataset import describe
from jaxcls.training import program
from jaxcls.training.loop import chunked_epochs
from jaxcls.training.program import Program
from jaxcls.training.settings import Settings
from jaxcls.training.steps import make_train_chunk

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


def search(given: Settings, *, lowest: float, highest: float, steps: int, say: Callable[[str], None] = print) -> Search:
    """Trains for so many steps while the rate rises, and stops where the smoothed loss is 4 times its lowest.

    It goes over the training examples as often as it takes. Everything random follows from the seed.

    Args:
      given: as for a run; its own rate and schedule say nothing here.
      lowest, highest: the rates of the first and the last step.
      say: takes each line of output.

    Raises:
      InputError: something given is wrong.
    """
    if not 0 < lowest < highest < np.inf:
        raise InputError(f"the rates from {lowest} to {highest} do not rise; give 0 < --lowest < --highest.")
    if steps < 10:
        raise InputError(f"--steps is {steps}; it must be 10 or more.")
    task = program.specialise(given)
    resolved = program.resolve(task, given)
    dataset = task.load(resolved)
    say(describe(dataset))
    part = program.split(task, resolved, dataset).train
    with error_context(dataset.provenance.location):
        preprocessor = task.fit_preprocessor(part.inputs, resolved)
        train = program.transform(preprocessor, part)
    batches = resolved.gradient_accumulation_steps or 1
    updates = -(-steps // batches)
    rate = optax.exponential_decay(lowest, max(updates - 1, 1), highest / lowest)
    functions = program.build(task, resolved, preprocessor, train, dataset.class_names, rate=rate)
    losses = _losses(functions, train, resolved.batch_size, steps)
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


def suggest(found: Search) -> Suggestions:
    """Rates to try.

    >>> rates = np.logspace(-4, 0, 100)
    >>> losses = np.where(rates < 1e-1, 1 / (1 + (100 * rates) ** 2), 5 * rates)
    >>> [round(rate, 4) for rate in suggest(Search(rates, losses, losses))]
    [0.0095, 0.0098]
    """
    # The first averages are of few batches, and go up and down with them.
    first = len(found.rates) // 10
    rates, smoothed = found.rates[first:], found.smoothed[first:]
    best = int(np.argmin(smoothed)) if len(smoothed) else 0
    if best == 0:
        return Suggestions(None, None)
    slopes = np.diff(smoothed[: best + 1]) / np.diff(np.log(rates[: best + 1]))
    return Suggestions(float(rates[int(np.argmin(slopes))]), float(rates[best] / 10))


def _losses(functions: Program, train: Examples, batch_size: int, steps: int) -> np.ndarray:
    """The loss of each step, up to the first that is not finite or shows that training diverges."""
    an_epoch = steps_per_epoch(len(train), batch_size)
    data = jax.device_put(train, functions.replicated)
    _, chunks_of = chunked_epochs(data, batch_size=batch_size, order=functions.order, sharding=functions.sharded)
    train_chunk = make_train_chunk(functions.train_step)
    state, losses = functions.state, np.zeros(0)
    while len(losses) < steps:
        epoch = len(losses) // an_epoch
        for chunk in chunks_of(state.key, epoch, 0):
            state, metrics = train_chunk(state, chunk)
            seen = np.where(metrics.applied, np.asarray(metrics.loss, np.float64), np.nan)
            # Those past the end of the epoch are dropped.
            seen = seen[: (epoch + 1) * an_epoch - len(losses)]
            losses = np.concatenate([losses, seen])[:steps]
            smoothed = smooth(losses)
            # A comparison with NaN is False.
            ended = ~(smoothed <= _DIVERGED * np.fmin.accumulate(smoothed))
            if ended.any():
                # The step that is not finite has no place on a scale; that which is merely too high has.
                last = int(ended.argmax())
                return losses[: last + 1] if np.isfinite(losses[last]) else losses[:last]
            if len(losses) == steps:
                break
    return losses
