"""One run, from settings to results: the data, the model, the training, the test, and what is kept of them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls import environment, losses, metrics, optimizers, settings, steps, tasks
from jaxcls.checkpoints import Checkpoints
from jaxcls.data import pipeline, sources, splits
from jaxcls.errors import InputError, unknown_name
from jaxcls.fit import fit
from jaxcls.models.functional import Model, functional
from jaxcls.progress import ProgressBar
from jaxcls.run_directory import RunDirectory
from jaxcls.settings import LOSS_SETTINGS, OPTIMIZER_SETTINGS, Settings
from jaxcls.tasks.task import Task

PyTree = Any


class Result(NamedTuple):
    """What a run ends with.

    Attributes:
      directory: the run's.
      state: the one that was tested.
      history: an entry for each epoch.
      report: of the test examples, as :func:`jaxcls.metrics.report` makes it, with the data's source.
    """

    directory: Path
    state: steps.TrainState
    history: list[dict[str, Any]]
    report: dict[str, Any]


def run(given: Settings, *, say: Callable[[str], None] = print) -> Result:
    """Trains, or goes on training, and tests at the end.

    Args:
      given: what was asked for; the task's recipe fills in the rest.
      say: takes each line of output.

    Raises:
      InputError: something given is wrong; nothing was compiled yet.
      fit.Interrupted, fit.DivergedError: see :func:`jaxcls.fit.fit`.
    """
    task = tasks.get(given.task)
    if given.preset not in task.presets:
        raise unknown_name("preset", given.preset, task.presets)
    resolved = settings.resolve(given, task.presets[given.preset])
    _check(resolved, task)

    dataset = task.load(resolved.source, resolved.data_dir)
    say(sources.describe(dataset))
    num_classes = len(dataset.class_names)
    for split in (dataset.train, dataset.test):
        losses.validate_labels(split.labels, task.problem, num_classes)
    assert resolved.validation_fraction is not None
    train_rows, validation_rows = splits.stratified(
        dataset.train.labels, resolved.validation_fraction, seed=resolved.seed
    )
    train, validation = (
        pipeline.examples(dataset.train.inputs[rows], dataset.train.labels[rows])
        for rows in (train_rows, validation_rows)
    )
    test = pipeline.examples(dataset.test.inputs, dataset.test.labels)

    model = _build_model(task, resolved, train.inputs.shape[1:], num_classes)
    loss = _build_loss(task, resolved, num_classes, train.labels)
    total_steps = resolved.epochs * pipeline.steps_per_epoch(len(train), resolved.batch_size)
    optimizer = _build_optimizer(resolved, total_steps)
    prepare = task.prepare(train.inputs)
    whole, split_over_devices = _shardings(resolved)

    directory = RunDirectory(
        resolved.run_dir or Path("runs") / f"{task.name}-{settings.digest(resolved)}",
        resolved,
        environment.record(),
        dataclasses.asdict(dataset.provenance),
    )
    state = jax.device_put(steps.init_state(model, optimizer, resolved.seed), whole)
    say(
        f"{resolved.model}: {sum(leaf.size for leaf in jax.tree.leaves(state.params)):,} parameters, "
        f"{resolved.dtype}, on {jax.device_count()} {jax.devices()[0].device_kind}; "
        f"{len(train):,} examples to train on, {len(validation):,} to validate"
    )
    say(f"{'continuing' if directory.continued else 'keeping'} this run in {directory.path}")
    for difference in directory.warnings:
        say(f"warning: {difference}; the last bits of the result may differ from those of an uninterrupted run")

    train_step = steps.make_train_step(model, loss, optimizer, prepare=prepare, augment=task.augment[resolved.preset])
    evaluation_step = steps.make_evaluation_step(model, loss, problem=task.problem, prepare=prepare, views=task.views)

    def evaluate(state: steps.TrainState, data: pipeline.Examples) -> tuple[np.ndarray, np.ndarray]:
        params = optimizers.evaluation_params(state.opt_state, state.params)
        return steps.collect(
            evaluation_step, params, state.model_state, data,
            batch_size=_rounded_up(resolved.eval_batch_size, jax.device_count()), sharding=split_over_devices,
        )  # fmt: skip

    def validate(state: steps.TrainState) -> dict[str, float]:
        scores, example_losses = evaluate(state, validation)
        values = {name: metrics.get(name, task.problem)(scores, validation.labels) for name in task.metrics}
        return {"loss": float(example_losses.mean(dtype=np.float64)), **values}

    bar = ProgressBar(total_steps, epochs=resolved.epochs, batch_size=resolved.batch_size)
    try:
        with Checkpoints(
            directory.checkpoints, best_metric=resolved.monitor, mode=metrics.direction(resolved.monitor)
        ) as checkpoints:
            state, history = fit(
                state, train_step, jax.device_put(train, whole),
                epochs=resolved.epochs, batch_size=resolved.batch_size, validate=validate,
                monitor=resolved.monitor, mode=metrics.direction(resolved.monitor), patience=resolved.patience,
                max_skipped_steps=resolved.max_skipped_steps, checkpoints=checkpoints,
                checkpoint_seconds=resolved.checkpoint_seconds, reporter=bar, sharding=split_over_devices,
            )  # fmt: skip
            directory.write_history(history)
            if resolved.restore_best and (best := checkpoints.restore_best(like=state)):
                state = best.state
    finally:
        bar.close()

    scores, _ = evaluate(state, test)
    report = metrics.report(scores, test.labels, problem=task.problem, class_names=dataset.class_names)
    report |= {"step": int(state.step), "synthetic": dataset.provenance.synthetic}
    directory.write_results(report)
    return Result(directory.path, state, history, report)


def _check(resolved: Settings, task: Task) -> None:
    """Everything that can be said of the settings before the data is read."""
    if resolved.model not in task.models:
        raise unknown_name(f"model of {task.name}", str(resolved.model), task.models)
    if resolved.monitor not in task.metrics:
        raise unknown_name("--monitor", str(resolved.monitor), task.metrics)
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


def _build_loss(task: Task, resolved: Settings, num_classes: int, labels: np.ndarray) -> steps.Loss:
    chosen = settings.select(resolved, LOSS_SETTINGS)
    if resolved.loss == "weighted_crossentropy" and "pos_weight" not in chosen:
        chosen.setdefault("class_weight", "balanced")
    if "class_weight" in chosen:
        chosen["class_weight"] = losses.resolve_class_weight(
            chosen["class_weight"], task.problem, num_classes, labels=labels
        ).astype(np.float32)
    return losses.get(resolved.loss, task.problem, **{"normalizer": "batch", **chosen})


def _build_optimizer(resolved: Settings, total_steps: int) -> optax.GradientTransformation:
    chosen = settings.select(resolved, OPTIMIZER_SETTINGS)
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


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
