"""A run of a task: from the user's settings to a tested experiment in a run directory."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from jaxcls._utils import processes
from jaxcls._utils.clock import clock
from jaxcls._utils.errors import InputError, error_context, flag
from jaxcls.data import duplicates
from jaxcls.data.batching import Examples
from jaxcls.optimizers.schedules import OPEN_ENDED
from jaxcls.reports import callbacks as loggers
from jaxcls.reports import shift
from jaxcls.reports.callbacks import Callback
from jaxcls.tasks import build, predictor, pretrained
from jaxcls.tasks.predictor import LastState
from jaxcls.training import saving, settings
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import FitConfig
from jaxcls.training.objective import monitor_mode
from jaxcls.training.run import Reported, Result, RunData, sha256, train_and_test
from jaxcls.training.settings import CommandSettings, Settings
from jaxcls.training.steps import TrainState, evaluated_weights


def train_task(
    user_settings: Settings,
    *,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = print,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains a task, or resumes its training, and tests it at the end.

    Args:
      user_settings: what the user gave; the task's recipe fills in the rest.
      callbacks: follow the training.
      say: takes lines for the user.
      stop: polled between dispatches; training saves and stops when it returns True.

    Raises:
      InputError: something given is wrong; nothing was compiled or written yet.
      Interrupted, DivergedError: see :func:`jaxcls.training.loop.train`.
    """
    if user_settings.folds is not None or user_settings.seeds is not None:
        from jaxcls.tasks.population import train_population

        if processes.count() > 1:
            raise InputError("--folds and --seeds train in one process: give --distributed off.")

        return train_population(user_settings, callbacks=callbacks, say=say, stop=stop)
    if user_settings.tensorboard:
        loggers.check_installed("--tensorboard", "tensorboardX")
    if user_settings.wandb:
        loggers.check_installed("--wandb", "wandb")
    earlier = None if user_settings.continue_from is None else _earlier(user_settings)
    built = build.build(user_settings, preprocessor=earlier.experiment.preprocessor if earlier else None, say=say)
    task, resolved, experiment, provenance, splits, train = built
    del built
    with error_context(provenance.location):
        processes.compare({"the data": provenance.sha256})
    copies = duplicates.shared(splits.train.inputs, splits.test.inputs)
    if copies:
        say(f"warning: {copies:,} of {splits.test.num_examples:,} test examples are also training examples")
    for line in build.unfamiliar(experiment.preprocessor, splits.test.inputs):
        say(f"warning: test examples: {line}")
    assert experiment.preprocessor is not None
    with error_context(provenance.location), clock("preprocessing the validation and test examples", say):
        validation, test = (build.preprocess(experiment.preprocessor, one) for one in splits[1:])
    truncated = _truncated(experiment, resolved, {"training": train, "validation": validation, "test": test})
    if truncated.get("training"):
        share = f"{truncated['training']:.1%}"
        say(f"{share} of the training texts reach --max-length {resolved.max_length}; longer ones lose their middle")
    reference = shift.reference(splits.train.inputs, experiment.preprocessor)
    # Of the rest, a report needs no more than their labels.
    splits = splits._replace(train=splits.train._replace(inputs=None))

    state, history, continued = experiment.init(resolved.seed), [], None
    if earlier is not None:
        if experiment.class_names != earlier.experiment.class_names:
            raise InputError(f"--continue-from {resolved.continue_from} learned other classes; give data of the same.")
        if earlier.data["sha256"] != provenance.sha256:
            say(f"warning: {resolved.continue_from} learned from other data, which may contain test examples of this")
        state, history = _started(experiment, earlier.state, state), earlier.history
        continued = sha256((state.params, state.model_state))
        say(f"continuing from {resolved.continue_from} after {len(history)} epochs, for {resolved.epochs} more")

    identity = settings.identity(resolved)
    checkpoint = {} if experiment.pretrained is None else experiment.pretrained.record["sha256"]
    others = {f"pretrained/{name}": value for name, value in checkpoint.items()}
    digest = settings.digest(
        resolved, {**provenance.sha256, **others, **({"continue_from": continued} if continued else {})}
    )
    directory = resolved.run_dir or Path("runs") / f"{task.name}-{digest}"
    if resolved.continue_from is not None and directory.resolve() == resolved.continue_from.resolve():
        raise InputError(f"--run-dir {directory} is that of --continue-from; give a new one.")
    # More epochs change nothing in those before them.
    extensible = resolved.schedule in OPEN_ENDED and not resolved.warmup
    run_directory = saving.run_directory(
        experiment,
        train,
        directory,
        {name: value for name, value in experiment.settings.items() if name not in settings.names(CommandSettings)},
        dataclasses.asdict(provenance) | {"duplicates_in_test": copies},
        identity=identity,
        increasing=["epochs"] if extensible else [],
        replaceable=["calibrate"],
        advice=functools.partial(_advice, directory, resolved, extensible),
        resume=resolved.resume,
    )
    if extensible:
        del identity["epochs"]
    data, learner = RunData(train, validation, test), experiment
    if experiment.pretrained is not None and resolved.freeze == "backbone":
        learner, data = pretrained.on_features(experiment, state, data, resolved, say)
    mode = monitor_mode(experiment.objective, resolved.monitor, resolved.patience, has_validation=True)
    values = vars(resolved) | {"mode": mode}
    return train_and_test(
        learner,
        state,
        data,
        FitConfig(**{name: values[name] for name in FitConfig._fields}),
        run_directory,
        Reported(
            splits._asdict(),
            provenance.synthetic,
            copies,
            headline=task.metrics,
            differs_from_preset=build.differs_from_preset(task, resolved),
            truncated=truncated,
            reference=reference,
        ),
        identity | {"data": provenance.sha256, "continue_from": continued, "pretrained": checkpoint},
        options=resolved,
        history=history,
        callbacks=callbacks,
        say=say,
        stop=stop,
    )


def _truncated(experiment: Experiment, resolved: Settings, splits: Mapping[str, Examples]) -> dict[str, float]:
    """Returns the share of texts that reach --max-length, by split; nothing for other inputs."""
    buckets, longest = experiment.buckets, resolved.max_length
    if buckets is None or longest is None:
        return {}
    return {name: float((buckets.extents(one.inputs) >= longest).mean()) for name, one in splits.items()}


def _earlier(user_settings: Settings) -> LastState:
    """Loads the run to continue from, with which the settings must agree in what it learned."""
    assert user_settings.continue_from is not None
    source = None if user_settings.pretrained is None else pretrained.find(user_settings)
    earlier = predictor.load_last(user_settings.continue_from, source)
    _, resolved = build.resolve(user_settings)
    for name in settings.SHARED:
        before = getattr(earlier.settings, name)
        if before != getattr(resolved, name):
            shown = "is not set" if before is None else f"is {before}"
            raise InputError(
                f"--continue-from {user_settings.continue_from} keeps the {flag(name)} of that run, where it {shown}: "
                "leave it out, or train from scratch."
            )
    return earlier


def _started(experiment: Experiment, earlier: TrainState, initial: TrainState) -> TrainState:
    """Returns the initial state with the weights of an earlier run, and its step, from which random numbers follow."""
    weights = evaluated_weights(earlier)
    opt_state = jax.jit(experiment.optimizer.init)(weights["params"])
    return experiment.put(initial._replace(step=earlier.step, opt_state=opt_state, **weights))


def _advice(directory: Path, resolved: Settings, extensible: bool, differing: Sequence[str]) -> str:
    """Returns what to do where a run directory holds a run with other settings."""
    advice = "Give another --run-dir"
    if "epochs" in differing:
        why = f"--schedule {resolved.schedule}{' with --warmup' if resolved.warmup else ''} depends on their number"
        advice = f"Its epochs {'can only be raised' if extensible else f'cannot be changed, because {why}'}. {advice}"
    if not set(differing) & set(settings.SHARED):
        advice += f", or train from its last weights into a new one, with --continue-from {directory}"
    return f"{advice}. To finish it as it was begun: --config {directory / 'config.toml'} --run-dir {directory}."
