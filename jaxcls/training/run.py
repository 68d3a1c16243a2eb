"""One run: its directory, its training, its test, and what is kept of them."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxcls import metrics, optimizers
from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, error_context
from jaxcls._utils.watchdog import watched
from jaxcls.checkpoints import CheckpointError, CheckpointManager
from jaxcls.data import batching, duplicates, streaming
from jaxcls.data.batching import Examples, batch_rows, steps_per_epoch
from jaxcls.data.dataset import describe
from jaxcls.kernels import native
from jaxcls.reports import html_report, run_directory, tensorboard, weights_biases
from jaxcls.reports.progress import ProgressBar
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.tasks.task import Task
from jaxcls.training import debugging, problems, profiling, program, settings
from jaxcls.training.loop import fit
from jaxcls.training.program import Program
from jaxcls.training.settings import Settings
from jaxcls.training.steps import TrainState, epoch_order, make_train_chunk

# Settings of one call of the command, which a run's config.toml leaves out.
_COMMAND_ONLY = ("config", "list_tasks", "profile", "resume")


class Result(NamedTuple):
    """What a run ends with.

    Attributes:
      directory: the run's.
      state: the one that was tested.
      history: an entry for each epoch.
      report: of the test examples, as :func:`jaxcls.metrics.report` makes it.
    """

    directory: Path
    state: TrainState
    history: list[dict[str, Any]]
    report: dict[str, Any]


def run(given: Settings, *, say: Callable[[str], None] = print, stop: Callable[[], bool] = lambda: False) -> Result:
    """Trains, or goes on training, and tests at the end.

    Args:
      given: what was asked for; the task's recipe fills in the rest.
      say: takes each line of output.
      stop: asked now and then whether to save and stop.

    Raises:
      InputError: something given is wrong; nothing was compiled or written yet.
      fit.Interrupted, fit.DivergedError: see :func:`jaxcls.training.loop.fit`.
    """
    if given.tensorboard:
        tensorboard.check_installed()
    if given.wandb:
        weights_biases.check_installed()
    task = program.specialise(given)
    resolved = program.resolve(task, given)
    dataset = task.load(resolved)
    say(describe(dataset))
    parts = program.split(task, resolved, dataset)
    copies = duplicates.shared(parts.train.inputs, parts.test.inputs)
    if copies:
        tested = parts.test.num_examples
        say(f"warning: {copies:,} of {tested:,} test examples stand among the training examples too")
    with error_context(dataset.provenance.location):
        preprocessor = task.fit_preprocessor(parts.train.inputs, resolved)
        train, validation, test = (program.transform(preprocessor, part) for part in parts)
    functions = program.build(task, resolved, preprocessor, train, dataset.class_names)

    name = f"{task.name}-{settings.digest(resolved, dataset.provenance.sha256)}"
    directory = RunDirectory(
        resolved.run_dir or Path("runs") / name,
        {name: value for name, value in settings.as_record(resolved).items() if name not in _COMMAND_ONLY},
        identity=settings.identity(resolved),
        resume=resolved.resume,
        environment=environment.record() | native.record(),
        data=dataclasses.asdict(dataset.provenance) | {"duplicates_in_test": copies},
        predictor={
            "problem": task.problem,
            "class_names": dataset.class_names,
            "preprocessor": preprocessor.as_record(),
        },
    )
    kind = problems.get(task.problem)
    mode = "min" if resolved.monitor == "loss" else metrics.direction(resolved.monitor)
    identity = settings.identity(resolved) | {"data": dataset.provenance.sha256}
    with (
        watched(resolved.stall_seconds) as done,
        # It holds a lock: from here on no other run writes to this directory.
        CheckpointManager(
            directory.checkpoints, best_metric=resolved.monitor, best_mode=mode, identity=identity
        ) as checkpoints,
    ):
        checkpoints.check_resources(functions.state)
        directory.begin()
        say(
            f"{resolved.model}: {sum(leaf.size for leaf in jax.tree.leaves(functions.state.params)):,} parameters, "
            f"{resolved.dtype}, on {jax.device_count()} {jax.devices()[0].device_kind}; "
            f"{len(train):,} examples to train on, {len(validation):,} to validate"
        )
        for operation, by in native.record().items():
            say(f"{operation} by {by}")
        say(f"{'continuing' if directory.continued else 'keeping'} this run in {directory.path}")
        for difference in directory.warnings:
            say(f"warning: {difference}; the last bits of the result may differ from those of an uninterrupted run")
        streams = _streams(resolved, train)
        if streams:
            say("the training examples stay on the host, and are sent to the device ahead of their use")
        state, history = _fit(
            resolved, train, validation, functions, directory, checkpoints, mode, stop, streams, say, done
        )
        if resolved.profile:
            say(f"\n{profiling.table(resolved.profile)}\na trace of these steps is in {resolved.profile}")
        thresholds = kind.thresholds(resolved, lambda: _scores(functions, state, validation), parts.validation)
        with _written(checkpoints):
            _keep(directory, state, thresholds)
        scores = _scores(functions, state, test)
        report = kind.report(scores, parts.test, class_names=dataset.class_names, thresholds=thresholds)
        report |= {
            "step": int(state.step),
            "thresholds": np.asarray(thresholds).tolist(),
            "synthetic": dataset.provenance.synthetic,
            "duplicates_in_test": copies,
            "params_sha256": _sha256(state.params),
        }
        named: dict[str, Any] = {"class_names": dataset.class_names, "thresholds": thresholds}
        summary = kind.summarize(report, scores, parts._asdict(), **named)
        summary |= {
            "headline": [name for name in task.metrics if name in report["metrics"]],
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(functions.state.params)),
            "recipe": _recipe_where_it_differs(task, resolved),
        }
        with _written(checkpoints):
            directory.write_results(report, summary)
            files.write_atomically(directory.report, html_report.render(run_directory.read_records(directory.path)))
    return Result(directory.path, state, history, report)


@contextlib.contextmanager
def _written(checkpoints: CheckpointManager) -> Iterator[None]:
    """What cannot be written at the end of a run ends it with a line that names the last good state."""
    try:
        yield
    except (OSError, InputError, CheckpointError) as error:
        if isinstance(error, InputError) and not isinstance(error.__cause__, OSError):
            raise
        # The last save may be under way; if it fails, it is in the log.
        with contextlib.suppress(CheckpointError):
            checkpoints.wait_until_finished()
        raise CheckpointError(
            f"what a run ends with cannot be written ({error}); {checkpoints.describe_latest()}. Once it can be, the same "
            "command goes on from there."
        ) from error


def _streams(resolved: Settings, train: Examples) -> bool:
    """Whether the training examples stay on the host."""
    if resolved.data_on == "auto":
        return not streaming.fits(train, jax.local_devices())
    return resolved.data_on == "host"


def _fit(
    resolved: Settings,
    train: Examples,
    validation: Examples,
    functions: Program,
    directory: RunDirectory,
    checkpoints: CheckpointManager,
    mode: Literal["max", "min"],
    stop: Callable[[], bool],
    streams: bool,
    say: Callable[[str], None],
    done: Callable[[], None],
) -> tuple[TrainState, list[dict[str, Any]]]:
    steps = resolved.epochs * steps_per_epoch(len(train), resolved.batch_size)
    debugged = _debugged(resolved, train, functions, directory)
    with (
        ProgressBar(steps, epochs=resolved.epochs, batch_size=resolved.batch_size) as bar,
        tensorboard.EventFiles(directory.path / "tensorboard") if resolved.tensorboard else contextlib.nullcontext()
        as events,
        weights_biases.WandbRun(directory.path.name, directory.path, settings.identity(resolved))
        if resolved.wandb else contextlib.nullcontext() as online,
        profiling.Trace(resolved.profile) if resolved.profile else contextlib.nullcontext() as trace,
    ):  # fmt: skip
        reports = _Reports(bar, directory, events, online, trace, say, done)
        state, history = fit(
            functions.state,
            functions.train_step,
            train if streams else jax.device_put(train, functions.replicated),
            epochs=resolved.epochs,
            batch_size=resolved.batch_size,
            validate=lambda state: functions.validate(state, validation),
            order=functions.order,
            feed=streaming.host_feed if streams else batching.device_feed,
            monitor=resolved.monitor,
            mode=mode,
            patience=resolved.patience,
            max_skipped_steps=resolved.max_skipped_steps,
            checkpoints=checkpoints,
            checkpoint_seconds=resolved.checkpoint_seconds,
            reporter=reports,
            stop=stop,
            sharding=functions.sharded,
            make_chunk=debugging.make_chunk(*debugged) if resolved.debug else make_train_chunk,
            examine=debugging.keep(*debugged),
        )
        with _written(checkpoints):
            reports.keep(history)  # also where the last process was killed before it could
    if resolved.restore_best and (best := checkpoints.restore(like=state, best=True)):
        state = best.state
    return state, history


def _debugged(resolved: Settings, train: Examples, functions: Program, directory: RunDirectory) -> tuple[Any, ...]:
    """What :mod:`jaxcls.training.debugging` needs to look at a step, to keep it, and to name the rows of its examples."""
    order: Callable[..., jax.Array] = functions.order or functools.partial(epoch_order, count=len(train))

    def rows_of(state: TrainState) -> np.ndarray:
        epoch, place = divmod(int(state.step), steps_per_epoch(len(train), resolved.batch_size))
        rows, _ = batch_rows(np.asarray(order(state.key, epoch)), place, batch_size=resolved.batch_size, length=1)
        return rows[0]

    return functions.parts, directory.path / "debug", {"settings": settings.as_record(resolved)}, rows_of


def _scores(functions: Program, state: TrainState, data: Examples) -> Any:
    params = optimizers.evaluation_params(state.opt_state, state.params)
    return functions.predict(params, state.model_state, data.inputs)


def _recipe_where_it_differs(task: Task, resolved: Settings) -> dict[str, Any]:
    """The values of the recipe, None where it has none, of those settings that are not as in the recipe."""
    recipe = settings.identity(program.resolve(task, Settings(task=resolved.task, preset=resolved.preset)))
    asked = settings.identity(resolved)
    names = [name for name in recipe.keys() | asked.keys() if recipe.get(name) != asked.get(name)]
    return {name: recipe.get(name) for name in sorted(names)}


def _keep(directory: RunDirectory, state: TrainState, thresholds: float | np.ndarray) -> None:
    """The weights that are tested, without the state of the optimizer, and the thresholds that belong to them."""
    weights = {
        "params": optimizers.evaluation_params(state.opt_state, state.params),
        "model_state": state.model_state,
    }
    with CheckpointManager(directory.model, max_to_keep=1) as kept:
        kept.save(int(state.step), weights, metadata={"thresholds": np.asarray(thresholds).tolist()})


class _Reports(NamedTuple):
    """Shows how a run goes, and keeps the history as it grows."""

    bar: ProgressBar
    directory: RunDirectory
    events: tensorboard.EventFiles | None
    online: weights_biases.WandbRun | None
    trace: profiling.Trace | None
    say: Callable[[str], None]
    done: Callable[[], None]

    def chunk(self, step: int, loss: float) -> None:
        self.done()
        self.bar.chunk(step, loss)
        if self.trace is not None:
            self.trace.chunk()

    def epoch(self, history: list[dict[str, Any]]) -> None:
        self.done()
        self.bar.epoch(history)
        try:
            self.keep(history)
        except OSError as error:
            # The disk may have room again before the run ends; the history is part of each checkpoint.
            self.say(f"warning: the history cannot be written ({error}); training goes on")

    def keep(self, history: list[dict[str, Any]]) -> None:
        self.directory.write_history(history)
        if self.events is not None:
            self.events.write(history)
        if self.online is not None:
            self.online.write(history)


def _sha256(tree: Any) -> str:
    """A hash of every bit of the leaves, by which two runs can be compared."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()
