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

from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.training.settings import EvaluationSettings, ScheduleSettings, Settings, names

# What the test sets itself, or has no use for.
OMITTED = {
    *names(ScheduleSettings),
    *names(EvaluationSettings),
    *("learning_rate", "epochs", "max_skipped_steps", "debug"),
    *("run_dir", "resume", "list_tasks", "checkpoint_seconds", "stall_seconds", "profile", "tensorboard", "wandb"),
}


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
    from jaxcls.tasks import learning_rate_search as range_test

    search = range_test.search(
        options, lowest=options.lowest, highest=options.highest, steps=options.steps, say=console.say
    )
    suggestions = range_test.suggest(search)
    console.say(range_test.plot(search))
    console.say(range_test.summary(search, suggestions, options.steps))
    if options.output is not None:
        from jaxcls.data.formats import tables

        options.output.mkdir(parents=True, exist_ok=True)
        columns = {"rate": search.rates, "loss": search.losses, "smoothed_loss": search.smoothed}
        tables.write_csv(options.output / "find_lr.csv", {"step": range(1, len(search.rates) + 1), **columns})
        (options.output / "find_lr.svg").write_text(range_test.svg(search, suggestions.steepest), encoding="utf-8")
        console.say(f"saved in {options.output}")
