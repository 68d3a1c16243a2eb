"""jaxcls find-lr: the learning-rate range test, with a plot.

jaxcls find-lr --task fashion_mnist
jaxcls find-lr --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9 --output found
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError, flag
from jaxcls.cli import console
from jaxcls.training.settings import Maybe, Settings, config_of

if TYPE_CHECKING:
    from jaxcls.training.learning_rate_search import Search, Suggestions

# What the search sets itself, and what follows a training.
_NOT_TAKEN = (
    "list_tasks", "run_dir", "resume", "epochs", "learning_rate", "schedule", "warmup", "end_factor", "boundaries",
    "scales", "patience", "monitor", "restore_best", "tune_threshold", "checkpoint_seconds", "max_skipped_steps",
    "eval_batch_size",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked(Settings):
    """Find a learning rate. Takes the flags of training but those of its rate, its length and its run."""

    lowest: float = 1e-6
    """The rate of the first step."""
    highest: float = 1.0
    """The rate of the last step."""
    steps: int = 200
    """Steps over which the rate rises; the search stops earlier where the loss is 4 times its lowest."""
    output: Maybe[Path | None] = None
    """A folder to write find_lr.csv and find_lr.svg to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return console.exit_status(lambda: _run(_parse(given)))


def _parse(arguments: list[str]) -> Asked:
    default = dataclasses.replace(Asked(), **vars(config_of(arguments)))
    asked = tyro.cli(Asked, default=default, args=arguments, prog="jaxcls find-lr")
    for name in _NOT_TAKEN:
        if getattr(asked, name) != getattr(default, name):
            raise InputError(f"{flag(name)} says nothing to the search for a learning rate; leave it out.")
    return asked


def _run(asked: Asked) -> int:
    if asked.output is not None and asked.output.exists() and not asked.output.is_dir():
        raise InputError(f"--output {asked.output} is a file; give a folder.")
    # From here on jax is needed, and --help is answered.
    environment.configure()
    from jaxcls.cli import rate_plot
    from jaxcls.training import learning_rate_search

    found = learning_rate_search.search(asked, lowest=asked.lowest, highest=asked.highest, steps=asked.steps)
    suggestions = learning_rate_search.suggest(found)
    console.say(rate_plot.text(found))
    console.say(_said(found, suggestions, asked))
    if asked.output is not None:
        from jaxcls.data.formats import tables

        asked.output.mkdir(parents=True, exist_ok=True)
        columns = {"rate": found.rates, "loss": found.losses, "smoothed_loss": found.smoothed}
        tables.write_csv(asked.output / "find_lr.csv", {"step": range(1, len(found.rates) + 1), **columns})
        marked = [rate for rate in suggestions if rate is not None]
        (asked.output / "find_lr.svg").write_text(rate_plot.svg(found, marked), encoding="utf-8")
        console.say(f"kept in {asked.output}")
    return 0


def _said(found: "Search", suggestions: "Suggestions", asked: Asked) -> str:
    if len(found.rates) < asked.steps:
        end = (
            f"stopped at step {len(found.rates)} of {asked.steps}, at the rate {found.rates[-1]:.2g}: the loss went up"
        )
    else:
        end = f"{len(found.rates)} steps"
    if suggestions.steepest is None or suggestions.tenth_of_lowest is None:
        return f"{end}\nthe loss never fell: there is no rate to suggest. Try others, or more --steps."
    return (
        f"{end}\n"
        f"--learning-rate {suggestions.steepest:.2g}    where the loss falls fastest\n"
        f"--learning-rate {suggestions.tenth_of_lowest:.2g}    a tenth of the rate where it is lowest"
    )
