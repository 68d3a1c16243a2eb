"""The learning-rate range test: the loss while the rate rises from far too low to far too high.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186); with a rate that rises
exponentially and a smoothed loss, as in fastai.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxcls._utils.errors import InputError
from jaxcls.reports.html_report import charts
from jaxcls.tasks import build
from jaxcls.training.loop import chunks
from jaxcls.training.settings import Settings

# fastai's: how much of the average of the losses stays at each step, and how far above its lowest the search ends.
_MEMORY = 0.98
_DIVERGED = 4.0
# The size of the plot in characters.
_ROWS, _COLUMNS = 12, 60


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

    @property
    def recommended(self) -> float | None:
        """The lower of both: the average follows the losses late, so that both come out too high if they are noisy."""
        return min(filter(None, self), default=None)


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
    rate = optax.exponential_decay(lowest, steps - 1, highest / lowest)
    built = build.build(user_settings, learning_rate=rate, say=say)
    losses = _losses(built, steps, say)
    if len(losses) < 2:
        raise InputError(f"the loss is not finite at the rate {lowest} already; give a lower --lowest.")
    rates = np.asarray(rate(jnp.arange(len(losses))), np.float64)
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


def plot(search: Search) -> str:
    """The smoothed loss over the logarithm of the learning rate, in characters.

    >>> rates = np.logspace(-3, 0, 50)
    >>> plot(Search(rates, 2 - rates, 2 - rates)).splitlines()[0].split("•")[0]
    '     1.999 | '
    """
    low, high = float(search.smoothed.min()), _highest(search)
    decades = np.log(search.rates / search.rates[0])
    columns = (decades / decades[-1] * (_COLUMNS - 1)).round().astype(int)
    rows = ((high - search.smoothed) / (high - low) * (_ROWS - 1)).round().clip(0).astype(int)
    cells = np.full((_ROWS, _COLUMNS), " ")
    cells[rows, columns] = "•"
    labels = [f"{high:.4g}", *[""] * (_ROWS - 2), f"{low:.4g}"]
    lines = [f"{label:>10} | {''.join(row)}".rstrip() for label, row in zip(labels, cells, strict=True)]
    first, last = f"{search.rates[0]:.1e}", f"{search.rates[-1]:.1e}"
    return "\n".join([*lines, f"{'loss':>10} +-{'-' * _COLUMNS}", f"{'':12} {first}{last:>{_COLUMNS - len(first)}}"])


def svg(search: Search, suggestion: float | None) -> str:
    """An SVG file with the loss of each step, its average and the suggested learning rate, for light and dark mode."""
    # An average follows late, so the losses reach lower than it.
    losses = {"smoothed loss": search.smoothed, "loss": search.losses.clip(max=_highest(search))}
    lines = [
        charts.Line(name, list(zip(np.log10(search.rates).tolist(), values.tolist(), strict=True)), style)
        for style, (name, values) in enumerate(losses.items())
    ]
    mark = None if suggestion is None else (float(np.log10(suggestion)), f"{suggestion:.2g}")
    chart = charts.lines(lines, x="log10 of the learning rate", y="loss", mark=mark)
    style = Path(charts.__file__).with_name("style.css").read_text(encoding="utf-8")
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background: var(--ground); font-family: sans-serif"'
    return str(chart).replace("<svg", head, 1).replace(">", f"><style>{style}</style>", 1) + "\n"


def summary(search: Search, suggestions: Suggestions, steps: int) -> str:
    """How the search of at most `steps` steps ended, both suggestions, and the one that is recommended."""
    end = f"{len(search.rates)} steps"
    if len(search.rates) < steps:
        end += f" of {steps}: stopped at the learning rate {search.rates[-1]:.2g}, because the loss went up"
    if suggestions.steepest is None or suggestions.tenth_of_lowest is None:
        return f"{end}\nno suggestion: the loss never fell; try other rates or more --steps"
    steepest, tenth = f"{suggestions.steepest:.2g}", f"{suggestions.tenth_of_lowest:.2g}"
    return (
        f"{end}\n"
        f"the loss falls fastest at {steepest}; a tenth of the rate with the lowest loss is {tenth}\n"
        f"recommended: --learning-rate {suggestions.recommended:.2g}, the lower of the two, because a rate that is too "
        "low costs some epochs, and one that is too high the run"
    )


def _highest(search: Search) -> float:
    """The highest loss to show: that before the minimum, because divergence at the end would flatten the rest."""
    best = int(search.smoothed.argmin())
    before = search.smoothed[: best + 1] if best else search.smoothed
    return max(float(before.max()), float(search.smoothed[best]) + 1e-12)


def _losses(built: build.Built, steps: int, say: Callable[[str], None]) -> np.ndarray:
    """Returns the loss of each step, up to the first that is not finite or shows that training diverges."""
    experiment, settings = built.experiment, built.settings
    batches = chunks(experiment, built.train, settings.batch_size, data_on=settings.data_on, say=say)
    state, losses = experiment.init(settings.seed), np.zeros(0)
    while True:
        epoch = len(losses) // batches.steps
        for chunk in batches.epoch_chunks(state.key, epoch, 0):
            state, metrics = experiment.train_chunk(state, chunk)
            seen = np.where(metrics.applied, np.asarray(metrics.loss, np.float64), np.nan)
            # Steps past the end of the epoch are dropped.
            losses = np.concatenate([losses, seen])[: min(steps, (epoch + 1) * batches.steps)]
            smoothed = smooth(losses)
            # A comparison with NaN is False.
            ended = ~(smoothed <= _DIVERGED * np.fmin.accumulate(smoothed))
            if ended.any():
                # A loss that is merely too high is shown; one that is not finite cannot be.
                last = int(ended.argmax())
                return losses[: last + 1] if np.isfinite(losses[last]) else losses[:last]
            if len(losses) == steps:
                return losses
