"""A run of a task: from the user's settings to a tested experiment in a run directory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcls._utils import environment
from jaxcls._utils.errors import error_context
from jaxcls.data import duplicates
from jaxcls.kernels import native
from jaxcls.reports import loggers
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.tasks import build
from jaxcls.tasks.build import Built
from jaxcls.training import checks, settings
from jaxcls.training.loop import FitConfig
from jaxcls.training.run import Reported, Result, RunData, RunOptions, execute
from jaxcls.training.saving import predictor_record
from jaxcls.training.settings import CommandSettings, Settings


def run(
    user_settings: Settings, *, say: Callable[[str], None] = print, stop: Callable[[], bool] = lambda: False
) -> Result:
    """Trains a task, or resumes its training, and tests it at the end.

    Args:
      user_settings: what the user gave; the task's recipe fills in the rest.
      say: takes lines for the user.
      stop: polled between dispatches; training saves and stops when it returns True.

    Raises:
      InputError: something given is wrong; nothing was compiled or written yet.
      Interrupted, DivergedError: see :func:`jaxcls.training.loop.fit`.
    """
    if user_settings.tensorboard:
        loggers.check_installed("--tensorboard", "tensorboardX")
    if user_settings.wandb:
        loggers.check_installed("--wandb", "wandb")
    built = build.build(user_settings, say=say)
    task, resolved, experiment = built.task, built.settings, built.experiment
    provenance, splits = built.dataset.provenance, built.splits
    copies = duplicates.shared(splits.train.inputs, splits.test.inputs)
    if copies:
        say(f"warning: {copies:,} of {splits.test.num_examples:,} test examples are also training examples")
    assert experiment.preprocessor is not None
    with error_context(provenance.location):
        validation, test = (build.preprocess(experiment.preprocessor, one) for one in splits[1:])

    record = settings.as_record(resolved)
    identity = settings.identity(resolved)
    directory = RunDirectory(
        resolved.run_dir or Path("runs") / f"{task.name}-{settings.digest(resolved, provenance.sha256)}",
        {name: value for name, value in record.items() if name not in settings.names(CommandSettings)},
        identity=identity,
        resume=resolved.resume,
        environment=environment.record() | native.record(),
        data=dataclasses.asdict(provenance) | {"duplicates_in_test": copies},
        predictor=predictor_record(experiment, built.train),
    )
    names = RunOptions._fields
    return execute(
        experiment,
        experiment.init(resolved.seed),
        RunData(built.train, validation, test),
        FitConfig(
            resolved.epochs,
            resolved.batch_size,
            resolved.monitor,
            checks.monitor_mode(experiment.objective, resolved.monitor, resolved.patience, has_validation=True),
            resolved.patience,
            resolved.max_skipped_steps,
            resolved.checkpoint_seconds,
        ),
        RunOptions(**{name: getattr(resolved, name) for name in names}),
        directory,
        Reported(
            splits._asdict(),
            provenance.synthetic,
            copies,
            headline=task.metrics,
            differs_from_preset=_differs_from_preset(built),
        ),
        identity=identity | {"data": provenance.sha256},
        settings=record,
        say=say,
        stop=stop,
    )


def _differs_from_preset(built: Built) -> dict[str, Any]:
    """Returns the preset's values of the settings that differ from it; None where it has none."""
    chosen = built.settings
    preset = build.with_recipe(built.task, Settings(task=chosen.task, preset=chosen.preset))
    theirs, ours = settings.identity(preset), settings.identity(chosen)
    return {name: theirs.get(name) for name in sorted(ours) if theirs.get(name) != ours.get(name)}
