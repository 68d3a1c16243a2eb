"""From settings to what a run computes: its examples, its model, its loss, its optimizer, as pure functions."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls import labels, losses, metrics, optimizers, settings, steps
from jaxcls.data import splits
from jaxcls.data.pipeline import Examples, examples, steps_per_epoch, take
from jaxcls.data.sources import Dataset
from jaxcls.errors import InputError, unknown_name
from jaxcls.models.functional import Model, functional
from jaxcls.settings import LOSS_SETTINGS, OPTIMIZER_SETTINGS, SCHEDULE_SETTINGS, Settings
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


def resolve(task: Task, given: Settings) -> Settings:
    """The settings with the task's recipe filled in, checked as far as they can be before the data is read.

    The recipe's settings for its own optimizer, schedule or loss are no guide for another one, and are left out
    where another one is given.
    """
    if given.preset not in task.presets:
        raise unknown_name("preset", given.preset, task.presets)
    recipe = task.presets[given.preset].settings
    without: list[str] = []
    if given.optimizer not in (None, recipe.optimizer):
        without += [*OPTIMIZER_SETTINGS, "learning_rate"]
        # Schedule-free averages the weights in place of lowering the rate.
        without += ["schedule"] if given.optimizer == "schedule_free" else []
    if given.schedule not in (None, recipe.schedule):
        without += [*SCHEDULE_SETTINGS, "warmup"]
    if given.loss is not None and losses.find(given.loss, task.problem) != losses.find(recipe.loss, task.problem):
        without += LOSS_SETTINGS
    resolved = settings.resolve(given, recipe, without=without)
    if resolved.schedule is None:
        resolved = dataclasses.replace(resolved, schedule="constant")
    if resolved.learning_rate is None:
        rate = optimizers.default_learning_rate(resolved.optimizer)
        resolved = dataclasses.replace(resolved, learning_rate=rate)
    _check(task, resolved)
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
    """The functions of a run. Statistics and class weights are those of the training examples.

    Raises:
      InputError: the settings do not fit together; the step is traced, not compiled, to see it.
    """
    model = _build_model(task, resolved, train.inputs.shape[1:], num_classes)
    loss = _build_loss(task, resolved, num_classes, train.labels)
    optimizer = _build_optimizer(resolved, len(train))
    prepare = task.prepare(train.inputs)
    preset = task.presets[resolved.preset]
    train_step = steps.make_train_step(model, loss, optimizer, prepare=prepare, augment=preset.augment)
    evaluation_step = steps.make_evaluation_step(model, loss, problem=task.problem, prepare=prepare, views=preset.views)
    replicated, sharded = _shardings(resolved)

    def evaluate(state: TrainState, data: Examples) -> tuple[np.ndarray, np.ndarray]:
        params = optimizers.evaluation_params(state.opt_state, state.params)
        batch_size = _rounded_up(resolved.eval_batch_size, jax.device_count())
        return steps.collect(evaluation_step, params, state.model_state, data, batch_size=batch_size, sharding=sharded)

    initial = functools.partial(steps.init_state, model, optimizer, resolved.seed)
    one = take(train, np.zeros(resolved.batch_size, np.int32), np.ones(resolved.batch_size, bool))
    jax.eval_shape(train_step, jax.eval_shape(initial), one)
    return Program(jax.device_put(initial(), replicated), train_step, evaluate, replicated, sharded)


def _check(task: Task, resolved: Settings) -> None:
    """Everything that can be said of the settings before the data is read."""
    if resolved.model not in task.models:
        raise unknown_name(f"model of {task.name}", str(resolved.model), task.models)
    if resolved.monitor != "loss":
        metrics.get(resolved.monitor, task.problem)
    for name, good, right in (
        ("epochs", resolved.epochs >= 1, "1 or more"),
        ("batch_size", resolved.batch_size >= 1, "1 or more"),
        ("eval_batch_size", resolved.eval_batch_size >= 1, "1 or more"),
        ("max_skipped_steps", resolved.max_skipped_steps >= 1, "1 or more"),
        ("patience", resolved.patience is None or resolved.patience >= 1, "1 or more"),
        ("dropout", 0 <= resolved.dropout < 1, "at least 0 and less than 1"),
        ("validation_fraction", 0 < resolved.validation_fraction < 1, "between 0 and 1"),
        (
            "gradient_accumulation_steps",
            resolved.gradient_accumulation_steps is None or resolved.gradient_accumulation_steps >= 1,
            "1 or more",
        ),
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
        chosen["class_weight"] = labels.resolve_class_weight(
            chosen["class_weight"], task.problem, num_classes, labels=train_labels
        ).astype(np.float32)
    if losses.find(resolved.loss, task.problem) is losses.logit_adjusted_cross_entropy:
        chosen["prior"] = np.bincount(train_labels, minlength=num_classes) / len(train_labels)
    return losses.get(resolved.loss, task.problem, **{"normalizer": "batch", **chosen})


def _build_optimizer(resolved: Settings, count: int) -> optax.GradientTransformation:
    chosen = settings.select(resolved, OPTIMIZER_SETTINGS)
    total_steps = resolved.epochs * steps_per_epoch(count, resolved.batch_size)
    # A schedule counts updates, of which several batches together may make one.
    updates = max(1, total_steps // chosen.get("gradient_accumulation_steps", 1))
    rate = optimizers.schedule(
        resolved.schedule,
        learning_rate=resolved.learning_rate,
        total_steps=updates,
        warmup_steps=round((resolved.warmup or 0) * updates),
        **settings.select(resolved, SCHEDULE_SETTINGS),
    )
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
