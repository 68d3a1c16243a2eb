"""A run of a task: from the user's settings to a tested experiment in a run directory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jaxcls._utils.errors import error_context
from jaxcls.data import duplicates
from jaxcls.reports import callbacks
from jaxcls.tasks import build
from jaxcls.training import saving, settings
from jaxcls.training.loop import FitConfig
from jaxcls.training.objective import monitor_mode
from jaxcls.training.run import Reported, Result, RunData, execute
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
        callbacks.check_installed("--tensorboard", "tensorboardX")
    if user_settings.wandb:
        callbacks.check_installed("--wandb", "wandb")
    built = build.build(user_settings, say=say)
    task, resolved, experiment = built.task, built.settings, built.experiment
    provenance, splits = built.dataset.provenance, built.splits
    copies = duplicates.shared(splits.train.inputs, splits.test.inputs)
    if copies:
        say(f"warning: {copies:,} of {splits.test.num_examples:,} test examples are also training examples")
    for line in build.unfamiliar(experiment.preprocessor, splits.test.inputs):
        say(f"warning: test examples: {line}")
    assert experiment.preprocessor is not None
    with error_context(provenance.location):
        validation, test = (build.preprocess(experiment.preprocessor, one) for one in splits[1:])

    identity = settings.identity(resolved)
    preset = settings.identity(build.with_recipe(task, Settings(task=task.name, preset=resolved.preset)))
    differences = {name: preset[name] for name in sorted(identity) if preset[name] != identity[name]}
    directory = saving.run_directory(
        experiment,
        built.train,
        resolved.run_dir or Path("runs") / f"{task.name}-{settings.digest(resolved, provenance.sha256)}",
        {name: value for name, value in experiment.settings.items() if name not in settings.names(CommandSettings)},
        dataclasses.asdict(provenance) | {"duplicates_in_test": copies},
        identity=identity,
        resume=resolved.resume,
    )
    mode = monitor_mode(experiment.objective, resolved.monitor, resolved.patience, has_validation=True)
    values = vars(resolved) | {"mode": mode}
    return execute(
        experiment,
        experiment.init(resolved.seed),
        RunData(built.train, validation, test),
        FitConfig(**{name: values[name] for name in FitConfig._fields}),
        resolved,
        directory,
        Reported(
            splits._asdict(), provenance.synthetic, copies, headline=task.metrics, differs_from_preset=differences
        ),
        identity=identity | {"data": provenance.sha256},
        say=say,
        stop=stop,
    )
