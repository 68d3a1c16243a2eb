"""Find a learning rate with the range test.

The learning rate rises exponentially from --lowest to --highest; the loss shows
from where it falls, and from where training diverges. Other options are those
of training.

Examples:
    jaxcls find-lr --task fashion_mnist
    jaxcls find-lr --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.training.settings import EvaluationSettings, ScheduleSettings, Settings, names

if TYPE_CHECKING:
    from jaxcls.tasks.learning_rate_search import Search, Suggestions

# What the test sets itself, or has no use for.
OMITTED = {
    *names(ScheduleSettings),
    *names(EvaluationSettings),
    *("learning_rate", "epochs", "max_skipped_steps", "debug"),
    *("run_dir", "resume", "list_tasks", "checkpoint_seconds", "stall_seconds", "profile", "tensorboard", "wandb"),
}
_ROWS, _COLUMNS = 12, 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Settings):
    lowest: float = 1e-6
    """learning rate of the first step"""
    highest: float = 1.0
    """learning rate of the last step"""
    steps: int = 200
    """training steps; the test ends earlier if the loss exceeds 4 times its minimum"""
    output: Path | None = None
    """folder for find_lr.csv and find_lr.svg"""


def run(options: Options) -> None:
    if options.output is not None and options.output.exists() and not options.output.is_dir():
        raise InputError(f"--output {options.output} is a file; give a folder.")
    from jaxcls.tasks import learning_rate_search

    search = learning_rate_search.search(
        options, lowest=options.lowest, highest=options.highest, steps=options.steps, say=console.say
    )
    suggestions = learning_rate_search.suggest(search)
    console.say(plot(search))
    console.say(_summary(search, suggestions, options.steps))
    if options.output is not None:
        from jaxcls.data.formats import tables

        options.output.mkdir(parents=True, exist_ok=True)
        columns = {"rate": search.rates, "loss": search.losses, "smoothed_loss": search.smoothed}
        tables.write_csv(options.output / "find_lr.csv", {"step": range(1, len(search.rates) + 1), **columns})
        (options.output / "find_lr.svg").write_text(svg(search, suggestions.steepest), encoding="utf-8")
        console.say(f"saved in {options.output}")


def plot(search: "Search") -> str:
    """The smoothed loss over the logarithm of the learning rate, in characters.

    >>> import numpy as np
    >>> from jaxcls.tasks.learning_rate_search import Search
    >>> rates = np.logspace(-3, 0, 50)
    >>> plot(Search(rates, 2 - rates, 2 - rates)).splitlines()[0].split("•")[0]
    '     1.999 | '
    """
    import numpy as np

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


def svg(search: "Search", suggestion: float | None) -> str:
    """An SVG file with the loss of each step, its average and the suggested learning rate, for light and dark mode."""
    import numpy as np

    from jaxcls.reports.html_report import charts

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


def _highest(search: "Search") -> float:
    """The highest loss to show: that before the minimum, because divergence at the end would flatten the rest."""
    best = int(search.smoothed.argmin())
    before = search.smoothed[: best + 1] if best else search.smoothed
    return max(float(before.max()), float(search.smoothed[best]) + 1e-12)


def _summary(search: "Search", suggestions: "Suggestions", steps: int) -> str:
    end = f"{len(search.rates)} steps"
    if len(search.rates) < steps:
        end += f" of {steps}: stopped at the learning rate {search.rates[-1]:.2g}, because the loss went up"
    if suggestions.steepest is None or suggestions.tenth_of_lowest is None:
        return f"{end}\nno suggestion: the loss never fell; try other rates or more --steps"
    return (
        f"{end}\n"
        f"--learning-rate {suggestions.steepest:.2g}    where the loss falls fastest\n"
        f"--learning-rate {suggestions.tenth_of_lowest:.2g}    a tenth of the rate with the lowest loss"
    )
