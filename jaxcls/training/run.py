"""A run: trains an experiment, tests it, and leaves a run directory with checkpoints, weights, records and a report."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxcls import optimizers
from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls._utils.interruption import watched
from jaxcls.checkpoints import CheckpointError, CheckpointManager
from jaxcls.data import batching, streaming
from jaxcls.data.batching import Examples, batch_rows, steps_per_epoch
from jaxcls.data.dataset import Split
from jaxcls.kernels import native
from jaxcls.reports import html_report, run_directory
from jaxcls.reports.callbacks import Callback, ProgressBar, TensorBoardLogger, WandbLogger
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.training import objective as objectives
from jaxcls.training import problems, profiling
from jaxcls.training.debugging import StepSaver
from jaxcls.training.experiment import Experiment, shardings
from jaxcls.training.history import History
from jaxcls.training.loop import FitConfig, chunks, fit
from jaxcls.training.saving import class_names_of, plain_thresholds, save_weights
from jaxcls.training.steps import TrainState

PyTree = Any
Say = Callable[[str], None]


class RunData(NamedTuple):
    """The examples of a run as arrays, checked; ``test`` defaults to the validation examples."""

    train: Examples
    validation: Examples | None = None
    test: Examples | None = None


class RunOptions(NamedTuple):
    """How a run is executed.

    Attributes:
      data_on: where the training examples are kept; 'auto' keeps them on the device if they take at most half of its
        free memory. The result is the same.
      stall_seconds: end the process after this much time without progress; 0 never does.
      restore_best: test the weights of the best epoch instead of the last.
      tune_threshold: the metric that decision thresholds are tuned for on the validation examples.
      profile: a folder for a profiler trace.
      tensorboard, wandb: also log the history there.
    """

    data_on: Literal["auto", "device", "host"] = "auto"
    stall_seconds: float = 0.0
    restore_best: bool = False
    tune_threshold: str | None = None
    profile: Path | None = None
    tensorboard: bool = False
    wandb: bool = False


class Reported(NamedTuple):
    """What the report of a run shows besides its scores.

    Attributes:
      splits: 'train', 'validation' and 'test' as they were read, for class balances and examples of mistakes.
      synthetic: whether the data was generated.
      duplicates: test examples that are also training examples.
      test_split: the name of the split that is tested.
      headline: the metrics that count most.
      differs_from_preset: settings that differ from the preset, with the preset's values.
    """

    splits: Mapping[str, Split]
    synthetic: bool = False
    duplicates: int = 0
    test_split: str = "test"
    headline: Sequence[str] = ()
    differs_from_preset: Mapping[str, Any] = {}


class Result(NamedTuple):
    """The result of a run.

    Attributes:
      directory: of the run.
      state: that was tested.
      history: of all epochs.
      report: of the test examples, as :func:`jaxcls.metrics.report` makes it.
    """

    directory: Path
    state: TrainState
    history: History
    report: dict[str, Any]


def execute(
    experiment: Experiment,
    state: TrainState,
    data: RunData,
    config: FitConfig,
    options: RunOptions,
    directory: RunDirectory,
    reported: Reported,
    *,
    identity: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains, or resumes training, tests at the end, and writes the run directory.

    Args:
      state: before the first step; it is donated.
      identity: what decides the result, for the checkpoints: those of another run are refused.
      settings: of a task, from which ``jaxcls replay`` builds the experiment again.
      say: takes lines for the user.
      stop: polled between dispatches; training saves and stops when it returns True.

    Raises:
      InputError: the directory holds another run, or cannot be written.
      Interrupted, DivergedError: see :func:`jaxcls.training.loop.fit`.
      CheckpointError: the results cannot be written; the message names the last good state.
    """
    problem = problems.get(objectives.problems(experiment.objective))
    class_names = class_names_of(experiment, data.train)
    saver = StepSaver(
        experiment, directory.path / "debug", settings, _rows_of(experiment, data.train, config.batch_size)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    with (
        watched(options.stall_seconds) as alive,
        # It holds a lock: from here on no other run writes to this directory.
        CheckpointManager(
            directory.checkpoints, best_metric=config.monitor, best_mode=config.mode, identity=identity
        ) as checkpoints,
    ):
        checkpoints.check_resources(state)
        directory.begin()
        say(
            f"{experiment.settings.get('model', 'model')}: {count:,} parameters, "
            f"{experiment.settings.get('dtype', 'float32')}, on {jax.device_count()} {jax.devices()[0].device_kind}; "
            f"{len(data.train):,} training and {len(data.validation or ()):,} validation examples"
        )
        for operation, library in native.record().items():
            say(f"{operation} by {library}")
        say(f"{'resuming' if directory.continued else 'saving'} this run in {directory.path}")
        for difference in directory.warnings:
            say(f"warning: {difference}; the last bits of the result may differ from those of an uninterrupted run")
        with (
            TensorBoardLogger(directory.path / "tensorboard")
            if options.tensorboard else contextlib.nullcontext() as events,
            WandbLogger(directory.path.name, directory.path, experiment.settings)
            if options.wandb else contextlib.nullcontext() as online,
            profiling.Trace(options.profile) if options.profile else contextlib.nullcontext() as trace,
        ):  # fmt: skip
            logger = _HistoryLogger(directory, [sink for sink in (events, online) if sink], alive, say)
            state, history = train(
                experiment, state, data, config, data_on=options.data_on, checkpoints=checkpoints, saver=saver,
                callbacks=[logger, *([trace] if trace else []), *callbacks], say=say, stop=stop,
            )  # fmt: skip
            with _written(checkpoints):
                logger.write(history)  # also if the last process was killed before it could
        if options.restore_best and (best := checkpoints.restore(like=state, best=True)):
            state = best.state
        if options.profile:
            say(f"\n{profiling.table(options.profile)}\nthe trace of these steps is in {options.profile}")
        validation = data.validation or data.train
        thresholds = problem.thresholds(
            options.tune_threshold, lambda: _scores(experiment, state, validation), reported.splits["validation"]
        )
        with _written(checkpoints):
            save_weights(directory.model, experiment, state, thresholds)
        scores = _scores(experiment, state, data.test or validation)
        report = problem.report(scores, reported.splits["test"], class_names=class_names, thresholds=thresholds) | {
            "split": reported.test_split,
            "step": int(state.step),
            "thresholds": plain_thresholds(thresholds),
            "synthetic": reported.synthetic,
            "duplicates_in_test": reported.duplicates,
            "params_sha256": sha256(state.params),
        }
        summary = problem.summarize(report, scores, reported.splits, class_names=class_names, thresholds=thresholds) | {
            "headline": [name for name in reported.headline if name in report["metrics"]],
            "parameters": count,
            "recipe": dict(reported.differs_from_preset),
        }
        with _written(checkpoints):
            directory.write_results(report, summary)
            files.write_atomically(directory.report, html_report.render(run_directory.read_records(directory.path)))
    return Result(directory.path, state, history, report)


def train(
    experiment: Experiment,
    state: TrainState,
    data: RunData,
    config: FitConfig,
    *,
    data_on: Literal["auto", "device", "host"] = "auto",
    checkpoints: CheckpointManager | None = None,
    saver: StepSaver | None = None,
    callbacks: Sequence[Callback] = (),
    say: Say | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[TrainState, History]:
    """Fits an experiment to arrays that are kept on the devices, or on the host where they do not fit.

    Args:
      saver: saves non-finite steps; without one they are only named.
      say: takes lines for the user and turns on the progress bar; None is silent.
    """
    on_host = data_on == "host" or (data_on == "auto" and not streaming.fits(data.train, jax.local_devices()))
    if on_host and say:
        say("the training examples stay on the host, and batches are sent to the device ahead of their use")
    replicated, sharded = shardings()
    batches = chunks(
        data.train if on_host else jax.device_put(data.train, replicated),
        config.batch_size,
        order=experiment.epoch_order(data.train, config.batch_size),
        feed=streaming.host_feed if on_host else batching.device_feed,
        sharding=sharded,
    )
    eager = saver or StepSaver(experiment, Path("debug"))
    steps = int(state.step) + config.epochs * batches.steps
    with (
        ProgressBar(steps, epochs=config.epochs, batch_size=config.batch_size)
        if say else contextlib.nullcontext() as bar,
    ):  # fmt: skip
        return fit(
            state,
            batches,
            config,
            train_chunk=eager.train_chunk if experiment.run_eagerly else experiment.train_chunk,
            validate=lambda state: {} if data.validation is None else experiment.measure(state, data.validation),
            checkpoints=checkpoints,
            callbacks=[*([bar] if bar else []), *callbacks],
            stop=stop,
            examine=saver.examine if saver else None,
        )


def sha256(tree: PyTree) -> str:
    """Returns a hash of every bit of the leaves, by which two runs can be compared."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def _scores(experiment: Experiment, state: TrainState, examples: Examples) -> Any:
    params = optimizers.evaluation_params(state.opt_state, state.params)
    return experiment.scores(params, state.model_state, examples.inputs)


def _rows_of(experiment: Experiment, train: Examples, batch_size: int) -> Callable[[TrainState], np.ndarray]:
    order = functools.cache(lambda: experiment.epoch_order(train, batch_size))

    def rows_of(state: TrainState) -> np.ndarray:
        epoch, index = divmod(int(state.step), steps_per_epoch(len(train), batch_size))
        rows, _ = batch_rows(np.asarray(order()(state.key, epoch)), index, batch_size=batch_size, length=1)
        return rows[0]

    return rows_of


@contextlib.contextmanager
def _written(checkpoints: CheckpointManager) -> Iterator[None]:
    """Ends a run whose results cannot be written with a message that names the last good state."""
    try:
        yield
    except (OSError, InputError, CheckpointError) as error:
        if isinstance(error, InputError) and not isinstance(error.__cause__, OSError):
            raise
        # The last save may be in progress; its failure is in the log.
        with contextlib.suppress(CheckpointError):
            checkpoints.wait_until_finished()
        raise CheckpointError(
            f"the results of the run cannot be written ({error}); {checkpoints.describe_latest()}. Once they can "
            f"be, the same "
            "command continues from there."
        ) from error


class _HistoryLogger(Callback):
    """Writes the history as it grows, and tells the watchdog that training makes progress."""

    def __init__(self, directory: RunDirectory, sinks: Sequence[Any], alive: Callable[[], None], say: Say):
        self._directory, self._sinks, self._alive, self._say = directory, sinks, alive, say

    def on_chunk_end(self, step: int, loss: float) -> None:
        self._alive()

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        self._alive()
        try:
            self.write(history)
        except OSError as error:
            # The disk may have free space again before the run ends; the history is part of each checkpoint.
            self._say(f"warning: the history cannot be written ({error}); training continues")

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        self._directory.write_history(history)
        for sink in self._sinks:
            sink.write(history)
