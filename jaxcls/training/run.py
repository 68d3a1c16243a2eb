"""A run: trains an experiment, tests it, and leaves a run directory with checkpoints, weights, records and a report."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls import metrics
from jaxcls._utils import files, processes
from jaxcls._utils.errors import InputError, flag
from jaxcls._utils.interruption import watched
from jaxcls.checkpoints import CheckpointError, CheckpointManager
from jaxcls.checkpoints.record import leaves_by_path
from jaxcls.data import rows
from jaxcls.data.batching import Examples, copies
from jaxcls.data.dataset import Split
from jaxcls.kernels import native
from jaxcls.reports import html_report, run_directory, shift
from jaxcls.reports.callbacks import Callback, TensorBoardLogger, WandbLogger
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.training import calibration, loop, mesh, problems, profiling, saving
from jaxcls.training import objective as objectives
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import FitConfig, History
from jaxcls.training.settings import Settings
from jaxcls.training.steps import TrainState, evaluated_weights

PyTree = Any
Say = Callable[[str], None]


# With fewer validation examples, what they choose is chance: the accuracy of 50 varies by 7 points.
FEW_EXAMPLES = 50
# Validation examples whose scores others are compared to: a share of them is known to within 0.05.
_MOST_COMPARED = 1000


class RunData(NamedTuple):
    """The examples of a run as arrays, checked; ``test`` defaults to the validation examples."""

    train: Examples
    validation: Examples | None = None
    test: Examples | None = None


class Reported(NamedTuple):
    """What the report of a run shows besides its scores.

    Attributes:
      splits: 'train', 'validation' and 'test' as they were read, for class balances and examples of mistakes.
      synthetic: whether the data was generated.
      duplicates: test examples that are also training examples.
      test_split: the name of the split that is tested.
      headline: the metrics that count most.
      differs_from_preset: settings that differ from the preset, with the preset's values.
      truncated: the share of texts that are as long as the longest that is used, by split.
      records: of results.json besides the scores, such as the members of an ensemble.
      summary: of summary.json besides that of the test.
      reference: of the training inputs, see :func:`jaxcls.reports.shift.reference`.
    """

    splits: Mapping[str, Split]
    synthetic: bool = False
    duplicates: int = 0
    test_split: str = "test"
    headline: Sequence[str] = ()
    differs_from_preset: Mapping[str, Any] = {}
    truncated: Mapping[str, float] = {}
    records: Mapping[str, Any] = {}
    summary: Mapping[str, Any] = {}
    reference: Mapping[str, Any] | None = None


class Result(NamedTuple):
    """The result of a run.

    Attributes:
      directory: that of the run.
      state: the one that was tested.
      history: that of all epochs.
      report: the scores of the test examples, as :func:`jaxcls.metrics.report` makes it.
    """

    directory: Path
    state: TrainState
    history: History
    report: dict[str, Any]


def array_run(
    experiment: Experiment, state: TrainState, data: RunData, config: FitConfig, path: Path
) -> tuple[RunDirectory, Reported, dict[str, Any]]:
    """Returns the directory, the report and the identity of a run on a user's arrays, for :func:`train_and_test`."""
    test_split = "test" if data.test is not None else "validation" if data.validation is not None else "train"
    validation = data.validation or data.train
    splits = {"train": data.train, "validation": validation, "test": data.test or validation}
    # Of those that were given: an epoch without validation data has no validation loss to compare with.
    checksums = {name: sha256(tuple(examples)) for name, examples in data._asdict().items() if examples is not None}
    directory = saving.run_directory(
        experiment,
        data.train,
        path.absolute(),
        dict(experiment.settings) | {name: value for name, value in config._asdict().items() if value is not None},
        saving.array_provenance(checksums),
        identity=["batch_size", "monitor", "patience"],
    )
    batch = copies(data.train, experiment.step_size(config.batch_size))
    # As on one device, because a run may continue on another number of them.
    state_shapes = mesh.placed(mesh.first_device(), experiment.state_shapes)
    program = jax.jit(experiment.step).lower(state_shapes, batch).as_text()
    # A function that the partitioner calls is its address, which every process has another of.
    program = re.sub(r'backend_config = "\d+"', "", program)
    # Everything that decides the result where the functions are the user's: the program of the step contains the
    # model, the loss, the optimizer, its rates and the class weights.
    identity = {
        "batch_size": config.batch_size,
        "step (model, loss, optimizer, augmentation, version of jax)": hashlib.sha256(program.encode()).hexdigest(),
        "initial state (weights, seed, optimizer)": sha256(state._replace(key=jax.random.key_data(state.key))),
        "data": checksums,
    }
    reported = Reported(
        {name: calibration.as_split(experiment, examples) for name, examples in splits.items()},
        test_split=test_split,
        headline=experiment.metric_names,
    )
    return directory, reported, identity


def train_and_test(
    experiment: Experiment,
    state: TrainState,
    data: RunData,
    config: FitConfig,
    directory: RunDirectory,
    reported: Reported,
    identity: Mapping[str, Any],
    *,
    options: Settings,
    history: Sequence[dict[str, Any]] = (),
    callbacks: Sequence[Callback] = (),
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains, or resumes training, tests at the end, and writes the run directory.

    Args:
      state: before the first step; it is donated.
      identity: everything that decides the result; checkpoints with another identity are refused.
      options: how the run is executed: the watchdog, the tested epoch, thresholds, loggers.
      history: of an earlier run whose weights the state has.
      say: takes lines for the user.
      stop: polled between dispatches; training saves and stops when it returns True.

    Raises:
      InputError: the directory holds another run, or cannot be written.
      Interrupted, DivergedError: see :func:`jaxcls.training.loop.train`.
      CheckpointError: the results cannot be written; the message names the last good state.
    """
    problem_name: Any = objectives.problems(experiment.objective)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    frozen = sum(leaf.size for path, leaf in leaves_by_path(state).items() if path in experiment.constant_leaves)
    whole = f" that learn, of {count + frozen:,}" if frozen else ""
    # A task that does not restore the best epoch need not save it.
    best_metric = None if options.restore_best is False else config.monitor
    processes.compare({"the run directory": str(directory.path), **identity})
    with (
        watched(options.stall_seconds),
        # It holds a lock: from here on no other run writes to this directory.
        CheckpointManager(
            directory.checkpoints,
            best_metric=best_metric,
            best_mode=config.mode,
            identity=identity,
            constant=experiment.constant_leaves,
        ) as checkpoints,
    ):
        checkpoints.check_resources(state)
        directory.begin()
        say(
            f"{experiment.settings.get('model', 'model')}: {count:,} parameters{whole}, "
            f"{experiment.settings.get('dtype', 'float32')}, on {jax.device_count()} {jax.devices()[0].device_kind}; "
            f"{len(data.train):,} training and {len(data.validation or ()):,} validation examples"
        )
        for operation, library in native.record().items():
            say(f"{operation} by {library}")
        say(f"{'resuming' if directory.continued else 'saving'} this run in {directory.path}")
        for difference in directory.warnings:
            say(f"warning: {difference}; the last bits of the result may differ from those of an uninterrupted run")
        chosen = [
            name for name in ("patience", "restore_best", "tune_threshold", "calibrate") if getattr(options, name)
        ]
        if chosen and (examples := len(data.validation or data.train)) < FEW_EXAMPLES:
            say(
                f"warning: {flag(chosen[0])} chooses by {examples} validation examples, which is chance: give a "
                "greater --validation-fraction, such as 0.2"
            )
        with contextlib.ExitStack() as stack:
            sinks: list[Any] = []
            if options.tensorboard and processes.first():
                sinks.append(stack.enter_context(TensorBoardLogger(directory.path / "tensorboard")))
            if options.wandb and processes.first():
                logger = WandbLogger(directory.path.name, directory.path, experiment.settings)
                sinks.append(stack.enter_context(logger))
            history_logger = _HistoryLogger(directory, sinks, say)
            followers: list[Callback] = []
            if not options.quiet and processes.first():
                bar = loop.progress_bar(experiment, state, data.train, config, history=history, say=say)
                followers.append(stack.enter_context(bar))
            followers.append(history_logger)
            if options.profile and processes.first():
                followers.append(stack.enter_context(profiling.Trace(options.profile)))
            state, history = loop.train(
                experiment, state, data.train, data.validation, config, checkpoints=checkpoints,
                callbacks=[*followers, *callbacks], debug=directory.path / "debug", history=history, say=say, stop=stop,
            )  # fmt: skip
            with _written(checkpoints):
                history_logger.write(history)  # also if the last process was killed before it could
        if options.restore_best and (best := checkpoints.restore(like=state, best=True)):
            state = best.state
        if options.profile and processes.first():
            say(f"\n{profiling.table(options.profile)}\nthe trace of these steps is in {options.profile}")
        validation = data.validation or data.train
        thresholds, calibrated = problems.default_thresholds(problem_name), None
        weights, truth = evaluated_weights(state), reported.splits["validation"]
        if options.calibrate is not None:
            logits = calibration.logits(experiment, weights, validation.inputs)
            calibrated = calibration.fit(
                problem_name, logits, truth, options.calibrate, tune_threshold=options.tune_threshold
            )
        elif options.tune_threshold is not None:
            thresholds = metrics.tune_threshold(
                experiment.scores(weights, validation.inputs),
                rows.in_memory(truth.labels),
                problem=problem_name,
                metric=options.tune_threshold,
                sample_weight=rows.in_memory(truth.sample_weight),
            )
        with _written(checkpoints):
            test = data.test or validation
            report = _tested(experiment, state, test, thresholds, calibrated, directory, reported, say, data.validation)
    return Result(directory.path, state, history, report)


def save_ensemble(
    experiment: Experiment,
    state: TrainState,
    test: Examples,
    thresholds: Any,
    directory: RunDirectory,
    reported: Reported,
    histories: Sequence[Sequence[Mapping[str, Any]]],
    calibrated: Mapping[str, Any] | None = None,
    say: Say = print,
) -> Result:
    """Tests an ensemble, and writes the run directory of a finished run: weights, records and a report.

    Args:
      experiment, state: from :func:`jaxcls.training.ensemble.ensemble` and :func:`jaxcls.training.ensemble.state`.
      test: the examples that are tested, as the ensemble's preprocessor encodes them (``experiment.transform``).
      thresholds: of decisions, such as those tuned on out-of-fold scores, or
        :func:`jaxcls.training.problems.default_thresholds`.
      directory: from :func:`jaxcls.training.saving.run_directory`, of this experiment, or of an ensemble of the same
        members with other weights, which are replaced.
      histories: of the members; the report shows their mean.
      calibrated: the record of a calibration, whose thresholds are taken; see :mod:`jaxcls.training.calibration`.
    """
    directory.begin()
    directory.replace_predictor(saving.predictor_record(experiment, test))
    history = mean_history(histories)
    directory.write_history(history)
    report = _tested(experiment, state, test, thresholds, calibrated, directory, reported, say)
    return Result(directory.path, state, history, report)


def mean_history(histories: Sequence[Sequence[Mapping[str, Any]]]) -> History:
    """Returns the mean of each value of each epoch, over the members that trained so long; of seconds, the sum.

    >>> mean_history([[{"epoch": 1, "loss": 1.0, "seconds": 2.0}], [{"epoch": 1, "loss": 3.0, "seconds": 2.0}]])
    [{'epoch': 1, 'loss': 2.0, 'seconds': 4.0}]
    """
    history = History()
    for epoch in range(max(map(len, histories))):
        entries = [member[epoch] for member in histories if epoch < len(member)]
        values = {name: [entry[name] for entry in entries if entry.get(name) is not None] for name in entries[0]}
        means: dict[str, Any] = {name: sum(known) / len(known) if known else None for name, known in values.items()}
        means |= {name: sum(values[name]) for name in ("seconds", "skipped_steps") if name in values}
        history.append(means | {name: max(values[name]) for name in ("epoch", "step") if name in values})
    return history


def _tested(
    experiment: Experiment,
    state: TrainState,
    test: Examples,
    thresholds: Any,
    calibrated: Mapping[str, Any] | None,
    directory: RunDirectory,
    reported: Reported,
    say: Say,
    validation: Examples | None = None,
) -> dict[str, Any]:
    """Saves the weights that are evaluated, tests them, and writes the results and the report of a run.

    Args:
      validation: examples whose scores those of others are compared to.
    """
    weights = evaluated_weights(state)
    problem_name: Any = objectives.problems(experiment.objective)
    names = saving.class_names_of(experiment, test)
    problem = problems.get(problem_name, names)
    saving.save_weights(directory.model, state, thresholds)
    directory.write_calibration(calibrated)
    scores = before = experiment.scores(weights, test.inputs)
    scored = experiment
    if calibrated is not None:
        thresholds = calibrated["thresholds"]
        scored = calibration.calibrated(experiment, calibrated)
        scores = scored.scores(weights, test.inputs)
    splits = {
        name: split._replace(labels=rows.in_memory(split.labels), sample_weight=rows.in_memory(split.sample_weight))
        for name, split in reported.splits.items()
    }
    report = problem.report(scores, splits["test"], thresholds) | {
        "split": reported.test_split,
        "step": int(state.step),
        "thresholds": saving.plain_thresholds(thresholds),
        "synthetic": reported.synthetic,
        "duplicates_in_test": reported.duplicates,
        "params_sha256": sha256(state.params),
        **reported.records,
    }
    summary = problem.summarize(report, scores, splits, thresholds) | {
        "headline": [name for name in reported.headline if name in report["metrics"]],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "frozen": sum(leaf.size for path, leaf in leaves_by_path(state).items() if path in experiment.constant_leaves),
        "truncated": dict(reported.truncated),
        "recipe": dict(reported.differs_from_preset),
        **reported.summary,
    }
    if calibrated is not None:
        calibration.describe(calibrated, before, scores, splits["test"], report, summary)
        say(calibration.line(report))
    if reported.reference is not None:
        reference = dict(reported.reference)
        if validation is not None:
            chosen = np.linspace(0, len(validation) - 1, min(len(validation), _MOST_COMPARED)).astype(int)
            some = rows.select(validation.inputs, chosen)
            known = metrics.shift.score_columns(scored.scores(weights, some), problem_name, names)
            reference["scores"] = metrics.shift.reference(known)
        shifts = shift.compare(reference, splits["test"].inputs, scores, problem_name, names, experiment.preprocessor)
        summary["shift"] = shift.summary(shifts)
        if (line := shift.line(shifts)) is not None:
            say(f"warning: test: {line}")
        directory.write_reference(reference)
    directory.write_results(report, summary)
    if processes.first():
        files.write_atomically(directory.report, html_report.render(run_directory.read_records(directory.path)))
    return report


def sha256(tree: PyTree) -> str:
    """Returns a hash of every bit of the leaves, by which two runs can be compared.

    Of rows that take long to read, it is that of their number and of a sample.
    """
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, rows.Rows):
            if rows.is_sampled(leaf):
                total.update(str(len(leaf)).encode())
            for block in rows.blocks(leaf.sample()):
                total.update(block.tobytes())
        else:
            total.update(processes.whole(leaf).tobytes())
    return total.hexdigest()


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
    """Writes the history as it grows."""

    def __init__(self, directory: RunDirectory, sinks: Sequence[Any], say: Say):
        self._directory, self._sinks, self._say = directory, sinks, say

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        try:
            self.write(history)
        except OSError as error:
            # The disk may have free space again before the run ends; the history is part of each checkpoint.
            self._say(f"warning: the history cannot be written ({error}); training continues")

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        self._directory.write_history(history)
        for sink in self._sinks:
            sink.write(history)
