"""One run, from settings to results: the data, the model, the training, the test, and what is kept of them."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls import environment, labels, losses, metrics, optimizers, settings, steps, tasks
from jaxcls.checkpoints import Checkpoints
from jaxcls.data import sources, splits
from jaxcls.data.pipeline import Examples, examples, steps_per_epoch
from jaxcls.data.sources import Dataset
from jaxcls.errors import InputError, unknown_name
from jaxcls.fit import fit
from jaxcls.models.functional import Model, functional
from jaxcls.progress import ProgressBar
from jaxcls.run_directory import RunDirectory
from jaxcls.settings import LOSS_SETTINGS, OPTIMIZER_SETTINGS, Settings
from jaxcls.steps import TrainState, TrainStep
from jaxcls.tasks.task import Task


class Splits(NamedTuple):
    """The three disjoint parts of a data set: one to learn from, one to choose by, one to be judged by."""

    train: Examples
    validation: Examples
    test: Examples


class Program(NamedTuple):
    """What a run computes: the pure functions of it, and the state that it starts from.

    Attributes:
      state: before the first step, on every device.
      train_step: ``(state, batch) -> (state, metrics)``.
      evaluate: ``(state, examples) -> (scores, losses)``, one row for each example, on the host.
      replicated, sharded: an array whole on every device, and one whose first axis is split over them.
    """

    state: TrainState
    train_step: TrainStep
    evaluate: Callable[[TrainState, Examples], tuple[np.ndarray, np.ndarray]]
    replicated: jax.sharding.Sharding
    sharded: jax.sharding.Sharding


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
      InputError: something given is wrong; nothing was compiled yet.
      fit.Interrupted, fit.DivergedError: see :func:`jaxcls.fit.fit`.
    """
    task = tasks.get(given.task)
    resolved = resolve(task, given)
    dataset = task.load(resolved.source, resolved.data_dir)
    say(sources.describe(dataset))
    data = split(task, resolved, dataset)
    program = build(task, resolved, data.train, len(dataset.class_names))

    directory = RunDirectory(
        resolved.run_dir or Path("runs") / f"{task.name}-{settings.digest(resolved)}",
        resolved,
        environment.record(),
        dataclasses.asdict(dataset.provenance),
    )
    say(
        f"{resolved.model}: {sum(leaf.size for leaf in jax.tree.leaves(program.state.params)):,} parameters, "
        f"{resolved.dtype}, on {jax.device_count()} {jax.devices()[0].device_kind}; "
        f"{len(data.train):,} examples to train on, {len(data.validation):,} to validate"
    )
    say(f"{'continuing' if directory.continued else 'keeping'} this run in {directory.path}")
    for difference in directory.warnings:
        say(f"warning: {difference}; the last bits of the result may differ from those of an uninterrupted run")

    state, history = _fit(task, resolved, data, program, directory, stop)
    directory.write_history(history)
    scores, _ = program.evaluate(state, data.test)
    report = metrics.report(scores, data.test.labels, problem=task.problem, class_names=dataset.class_names)
    report |= {
        "step": int(state.step),
        "synthetic": dataset.provenance.synthetic,
        "params_sha256": _sha256(state.params),
    }
    directory.write_results(report)
    return Result(directory.path, state, history, report)


def resolve(task: Task, given: Settings) -> Settings:
    """The settings with the task's recipe filled in, checked as far as they can be before the data is read."""
    if given.preset not in task.presets:
        raise unknown_name("preset", given.preset, task.presets)
    resolved = settings.resolve(given, task.presets[given.preset])
    if resolved.learning_rate is None:
        rate = optimizers.default_learning_rate(resolved.optimizer)
        resolved = dataclasses.replace(resolved, learning_rate=rate)
    _check(resolved, task)
    return resolved


def split(task: Task, resolved: Settings, dataset: Dataset) -> Splits:
    """Checks the labels, and cuts the validation examples from the training ones, class by class."""
    for part in (dataset.train, dataset.test):
        labels.validate(part.labels, task.problem, len(dataset.class_names))
    train_labels = dataset.train.labels
    train, validation = (
        examples(dataset.train.inputs[rows], train_labels[rows])
        for rows in splits.stratified(train_labels, resolved.validation_fraction, seed=resolved.seed)
    )
    return Splits(train, validation, examples(dataset.test.inputs, dataset.test.labels))


def build(task: Task, resolved: Settings, train: Examples, num_classes: int) -> Program:
    """The functions of a run. Statistics and class weights are those of the training examples."""
    model = _build_model(task, resolved, train.inputs.shape[1:], num_classes)
    loss = _build_loss(task, resolved, num_classes, train.labels)
    optimizer = _build_optimizer(resolved, len(train))
    prepare = task.prepare(train.inputs)
    train_step = steps.make_train_step(model, loss, optimizer, prepare=prepare, augment=task.augment[resolved.preset])
    evaluation_step = steps.make_evaluation_step(model, loss, problem=task.problem, prepare=prepare, views=task.views)
    replicated, sharded = _shardings(resolved)

    def evaluate(state: TrainState, data: Examples) -> tuple[np.ndarray, np.ndarray]:
        params = optimizers.evaluation_params(state.opt_state, state.params)
        batch_size = _rounded_up(resolved.eval_batch_size, jax.device_count())
        return steps.collect(evaluation_step, params, state.model_state, data, batch_size=batch_size, sharding=sharded)

    state = jax.device_put(steps.init_state(model, optimizer, resolved.seed), replicated)
    return Program(state, train_step, evaluate, replicated, sharded)


def _fit(
    task: Task,
    resolved: Settings,
    data: Splits,
    program: Program,
    directory: RunDirectory,
    stop: Callable[[], bool],
) -> tuple[TrainState, list[dict[str, Any]]]:
    def validate(state: TrainState) -> dict[str, float]:
        scores, example_losses = program.evaluate(state, data.validation)
        values = {name: metrics.get(name, task.problem)(scores, data.validation.labels) for name in task.metrics}
        return {"loss": float(example_losses.mean(dtype=np.float64)), **values}

    mode = "min" if resolved.monitor == "loss" else metrics.direction(resolved.monitor)
    with (
        Checkpoints(directory.checkpoints, best_metric=resolved.monitor, mode=mode) as checkpoints,
        ProgressBar(
            resolved.epochs * steps_per_epoch(len(data.train), resolved.batch_size),
            epochs=resolved.epochs,
            batch_size=resolved.batch_size,
        ) as bar,
    ):
        state, history = fit(
            program.state,
            program.train_step,
            jax.device_put(data.train, program.replicated),
            epochs=resolved.epochs,
            batch_size=resolved.batch_size,
            validate=validate,
            monitor=resolved.monitor,
            mode=mode,
            patience=resolved.patience,
            max_skipped_steps=resolved.max_skipped_steps,
            checkpoints=checkpoints,
            checkpoint_seconds=resolved.checkpoint_seconds,
            reporter=_Reports(bar, directory),
            stop=stop,
            sharding=program.sharded,
        )
        if resolved.restore_best and (best := checkpoints.restore_best(like=state)):
            state = best.state
    return state, history


class _Reports(NamedTuple):
    """Shows how a run goes, and keeps the history as it grows."""

    bar: ProgressBar
    directory: RunDirectory

    def chunk(self, step: int, loss: float) -> None:
        self.bar.chunk(step, loss)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        self.bar.epoch(history)
        self.directory.write_history(history)


def _check(resolved: Settings, task: Task) -> None:
    """Everything that can be said of the settings before the data is read."""
    if resolved.model not in task.models:
        raise unknown_name(f"model of {task.name}", str(resolved.model), task.models)
    if resolved.monitor not in ("loss", *task.metrics):
        raise unknown_name("--monitor", str(resolved.monitor), ("loss", *task.metrics))
    for name, good, right in (
        ("epochs", resolved.epochs >= 1, "1 or more"),
        ("batch_size", resolved.batch_size >= 1, "1 or more"),
        ("eval_batch_size", resolved.eval_batch_size >= 1, "1 or more"),
        ("max_skipped_steps", resolved.max_skipped_steps >= 1, "1 or more"),
        ("patience", resolved.patience is None or resolved.patience >= 1, "1 or more"),
        ("dropout", 0 <= resolved.dropout < 1, "at least 0 and less than 1"),
        ("validation_fraction", 0 < resolved.validation_fraction < 1, "between 0 and 1"),
        ("warmup", resolved.warmup is None or 0 <= resolved.warmup < 1, "at least 0 and less than 1"),
        ("seed", 0 <= resolved.seed < 2**32, "between 0 and 4294967295"),
    ):
        if not good:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(resolved, name)}; it must be {right}.")


def _build_model(task: Task, resolved: Settings, input_shape: tuple[int, ...], num_classes: int) -> Model:
    build = functools.partial(
        task.models[resolved.model],
        input_shape, num_classes, dropout=resolved.dropout, dtype=jnp.dtype(resolved.dtype),
    )  # fmt: skip
    return functional(lambda rngs: build(rngs=rngs))


def _build_loss(task: Task, resolved: Settings, num_classes: int, train_labels: np.ndarray) -> steps.Loss:
    chosen = settings.select(resolved, LOSS_SETTINGS)
    if resolved.loss == "weighted_crossentropy" and "pos_weight" not in chosen:
        chosen.setdefault("class_weight", "balanced")
    if "class_weight" in chosen:
        chosen["class_weight"] = losses.resolve_class_weight(
            chosen["class_weight"], task.problem, num_classes, labels=train_labels
        ).astype(np.float32)
    return losses.get(resolved.loss, task.problem, **{"normalizer": "batch", **chosen})


def _build_optimizer(resolved: Settings, count: int) -> optax.GradientTransformation:
    chosen = settings.select(resolved, OPTIMIZER_SETTINGS)
    total_steps = resolved.epochs * steps_per_epoch(count, resolved.batch_size)
    # A schedule counts updates, of which several batches together may make one.
    updates = max(1, total_steps // chosen.get("gradient_accumulation_steps", 1))
    rate = optimizers.schedule(
        resolved.schedule, learning_rate=resolved.learning_rate, total_steps=updates,
        warmup_steps=round((resolved.warmup or 0) * updates),
    )  # fmt: skip
    return optimizers.get(resolved.optimizer, learning_rate=rate, **chosen)


def _shardings(resolved: Settings) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
    """The whole of an array on every device, and its first axis split over them."""
    if resolved.batch_size % jax.device_count():
        raise InputError(
            f"--batch-size {resolved.batch_size} cannot be split over {jax.device_count()} devices; give "
            f"{_rounded_up(resolved.batch_size, jax.device_count())}."
        )
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    return jax.sharding.NamedSharding(mesh, spec()), jax.sharding.NamedSharding(mesh, spec("data"))


def _sha256(tree: Any) -> str:
    """A hash of every bit of the leaves, by which two runs can be compared."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
