"""From settings to what a run computes: its examples, its model, its loss, its optimizer, as pure functions."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls import losses, optimizers, tasks
from jaxcls._utils.errors import InputError, error_context, flag, unknown_name
from jaxcls.data.batching import Batch, Examples, examples, steps_per_epoch, take
from jaxcls.data.dataset import Dataset, Split, describe, num_outputs
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.models.functional import Model, functional
from jaxcls.tasks.task import Task
from jaxcls.training import assembly, problems, settings, steps
from jaxcls.training.assembly import Predict
from jaxcls.training.debugging import Parts
from jaxcls.training.settings import (
    DataSettings,
    LossOptions,
    OptimizerOptions,
    OptimizerSettings,
    ScheduleOptions,
    ScheduleSettings,
    Settings,
    names,
)
from jaxcls.training.steps import TrainState, TrainStep

PyTree = Any


# What a recipe fills in, if it is not given.
_OF_EVERY_RUN = (
    "model", "dropout", "epochs", "batch_size", "validation_fraction", "monitor", "restore_best", "loss", "optimizer",
    "learning_rate", "schedule",
)  # fmt: skip


class Splits(NamedTuple):
    """The three disjoint parts of a data set: one to learn from, one to choose by, one to be judged by."""

    train: Split
    validation: Split
    test: Split


class Program(NamedTuple):
    """What a run computes: the pure functions of it, and the state that it starts from.

    Attributes:
      state: before the first step, on every device.
      train_step: ``(state, batch) -> (state, metrics)``.
      order: ``(key, epoch) -> rows``, the order in which an epoch sees the training examples; None where any will do.
      predict: ``(params, model_state, inputs) -> scores`` of encoded inputs, on the host.
      validate: ``(state, examples) -> {name: value}``, their loss, the task's metrics, and what is monitored.
      batch: the shapes of a batch of training examples.
      parts: what the train step is made of, for :mod:`jaxcls.training.debugging`.
      replicated, sharded: an array whole on every device, and one whose first axis is split over them.
    """

    state: TrainState
    train_step: TrainStep
    order: Callable[[jax.Array, int], jax.Array] | None
    predict: Predict
    validate: Callable[[TrainState, Examples], Mapping[str, float]]
    batch: Batch
    parts: Parts
    replicated: jax.sharding.NamedSharding
    sharded: jax.sharding.NamedSharding


def specialise(given: Settings) -> Task:
    """The task that is asked for; where the user's own data says what the problem is, with that filled in.

    Raises:
      InputError: there is no such task, or it does not take a setting that is given; before any file is opened.
    """
    task = tasks.get(given.task)
    _check_taken(task, given)
    if task.specialise is None:
        return task
    return task.specialise(task, settings.resolve(given, _recipe(task, given)))


def resolve(task: Task, given: Settings) -> Settings:
    """The settings with the task's recipe filled in, checked as far as they can be before the data is read.

    The recipe's settings for its own optimizer, schedule or loss are no guide for another one, and are left out
    where another one is given.
    """
    recipe = _recipe(task, given)
    if given.test_data is not None and given.test_fraction not in (None, recipe.test_fraction):
        raise InputError("--test-fraction sets a part of --data aside, and --test-data takes its place: leave one out.")
    without: list[str] = []
    if given.optimizer not in (None, recipe.optimizer):
        without += names(OptimizerSettings)
        # Schedule-free averages the weights in place of lowering the rate.
        without += ["schedule"] if given.optimizer == "schedule_free" else []
    if given.schedule not in (None, recipe.schedule):
        without += names(ScheduleSettings)
    if given.loss is not None and _form(given.loss, task) != _form(recipe.loss, task):
        without += names(LossOptions)
    resolved = settings.resolve(given, recipe, without=without)
    if resolved.schedule is None:
        resolved = dataclasses.replace(resolved, schedule="constant")
    if resolved.learning_rate is None:
        rate = optimizers.default_learning_rate(resolved.optimizer)
        resolved = dataclasses.replace(resolved, learning_rate=rate)
    _check(task, resolved)
    return resolved


def check_finished(task: Task, resolved: Settings, where: str) -> None:
    """Refuses the settings of a finished run that lack one which every run has, or hold one that none can have.

    Args:
      where: the file that they are from, for messages.
    """
    with error_context(where):
        for name in _OF_EVERY_RUN:
            if getattr(resolved, name) is None:
                raise InputError(f"holds no {name}, which every run has.")
        _recipe(task, resolved)
        _check(task, resolved)


def split(task: Task, resolved: Settings, dataset: Dataset) -> Splits:
    """Checks the labels, and cuts validation examples from the training ones where the data set sets none aside."""
    kind = problems.get(task.problem)
    parts = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, part in parts.items():
        if part is None:
            continue
        if not part.num_examples:
            raise InputError(f"{dataset.provenance.location}: there is no {name} example in {dataset.name}.")
        with error_context(f"{dataset.provenance.location}: {name} examples"):
            kind.check_labels(part, dataset.class_names)
    with error_context(dataset.provenance.location):
        if dataset.validation is None:
            rows = task.split(dataset.train, resolved.validation_fraction, seed=resolved.seed)
            train, validation = (dataset.train.take(chosen) for chosen in rows)
        else:
            train, validation = dataset.train, dataset.validation
        kind.check_learnable(train, validation)
    return Splits(train, validation, dataset.test)


def transform(preprocessor: Preprocessor, part: Split) -> Examples:
    """A part as compact arrays, weighted."""
    return examples(preprocessor.transform(part.inputs), part.labels, part.sample_weight)


def build(
    task: Task,
    resolved: Settings,
    preprocessor: Preprocessor,
    train: Examples,
    class_names: tuple[str, ...],
    *,
    rate: optax.Schedule | None = None,
) -> Program:
    """The functions of a run. Class weights are those of the training examples.

    Args:
      rate: the learning rate of each update, in place of that of the settings.

    Raises:
      InputError: the settings do not fit together; the step is traced, not compiled, to see it.
    """
    model = build_model(task, resolved, preprocessor, class_names)
    monitored = dict.fromkeys([*task.metrics, resolved.monitor])
    head = problems.get(task.problem).head(
        resolved,
        preprocessor,
        class_names=class_names,
        train_labels=train.labels,
        metrics=[name for name in monitored if name != "loss"],
    )
    optimizer = optimizers.get(
        resolved.optimizer,
        learning_rate=rate or _build_schedule(resolved, len(train)),
        **settings.select(resolved, OptimizerOptions),
    )
    preset = task.presets[resolved.preset]
    assembly.check_batch_size(resolved.batch_size, "--batch-size")
    functions = assembly.assemble(
        model,
        head,
        optimizer,
        eval_batch_size=resolved.eval_batch_size,
        preprocess=preprocessor.normalize,
        augment=preset.augment,
        views=preset.views,
        buckets=preprocessor.buckets,
    )
    order = None
    if preprocessor.buckets is not None:
        ordered = jax.jit(steps.bucketed_order, static_argnames="batch_size")
        numbers = preprocessor.buckets.indices(train.inputs)
        order = functools.partial(ordered, buckets=numbers, batch_size=resolved.batch_size)

    seed = np.uint32(resolved.seed)
    one = take(train, np.zeros(resolved.batch_size, np.int32), np.ones(resolved.batch_size, bool))
    jax.eval_shape(functions.train_step, jax.eval_shape(functions.init, seed), one)
    return Program(
        state=functions.init(seed),
        train_step=functions.train_step,
        order=order,
        predict=functions.predict,
        validate=functions.validate,
        batch=jax.eval_shape(lambda: one),
        parts=functions.parts,
        replicated=functions.replicated,
        sharded=functions.sharded,
    )


def of(given: Settings, *, say: Callable[[str], None] = print) -> Program:
    """The functions of a run with these settings, whose data is read again.

    Args:
      say: takes the line that says what the data is.

    Raises:
      InputError: something given is wrong.
    """
    task = specialise(given)
    resolved = resolve(task, given)
    dataset = task.load(resolved)
    say(describe(dataset))
    part = split(task, resolved, dataset).train
    with error_context(dataset.provenance.location):
        preprocessor = task.fit_preprocessor(part.inputs, resolved)
        train = transform(preprocessor, part)
    return build(task, resolved, preprocessor, train, dataset.class_names)


def build_model(task: Task, resolved: Settings, preprocessor: Preprocessor, class_names: tuple[str, ...]) -> Model:
    """The model of a run. That of a binary problem gives one logit for an example, (N,)."""
    made = task.models[resolved.model]
    takes = inspect.signature(getattr(made, "func", made).__init__).parameters
    if not takes.keys() >= preprocessor.model_arguments.keys():
        raise InputError(f"--model {resolved.model} of {task.name} takes other inputs than those that were prepared.")
    build = functools.partial(
        made,
        num_classes=num_outputs(task.problem, class_names),
        dropout=resolved.dropout,
        dtype=jnp.dtype(resolved.dtype),
        **preprocessor.model_arguments,
    )
    with error_context(f"--model {resolved.model}"):
        model = functional(lambda rngs: build(rngs=rngs), remat=resolved.remat)
    return assembly.one_logit(model, task.problem)


def build_prediction_step(
    task: Task, resolved: Settings, preprocessor: Preprocessor, model: Model, class_names: tuple[str, ...]
) -> steps.PredictionStep:
    """``(params, model_state, inputs) -> (scores, outputs)`` of a batch of encoded inputs, with the recipe's views."""
    scores = problems.get(task.problem).scores(preprocessor, class_names)
    views = task.presets[resolved.preset].views
    return steps.make_prediction_step(model, scores=scores, preprocess=preprocessor.normalize, views=views)


def build_predict(
    task: Task, resolved: Settings, preprocessor: Preprocessor, model: Model, class_names: tuple[str, ...]
) -> Predict:
    """``(params, model_state, inputs) -> scores`` of encoded inputs, whatever their number."""
    step = build_prediction_step(task, resolved, preprocessor, model, class_names)
    return assembly.predict_all(step, eval_batch_size=resolved.eval_batch_size, buckets=preprocessor.buckets)


def _form(loss: str, task: Task) -> tuple[Any, bool]:
    """What a name stands for: the function, and whether it asks for class weights."""
    return losses.find(loss, task.problem), loss == "weighted_crossentropy"


def _recipe(task: Task, given: Settings) -> Settings:
    if given.preset not in task.presets:
        raise unknown_name("preset", given.preset, task.presets)
    return task.presets[given.preset].settings


def _check_taken(task: Task, given: Settings) -> None:
    """Refuses settings of the data that say nothing to the task."""
    for name in settings.select(given, DataSettings):
        if not task.takes(name):
            others = [other.name for other in tasks.TASKS.values() if other.takes(name)]
            taken = [flag(other) for other in names(DataSettings) if task.takes(other)]
            raise InputError(
                f"--task {task.name} takes no {flag(name)}, which is for {', '.join(others)}. Of its data it takes "
                f"{', '.join(taken)}."
            )


def _check(task: Task, resolved: Settings) -> None:
    """Everything that can be said of the settings before the data is read."""
    if resolved.model not in task.models:
        raise unknown_name(f"model of {task.name}", str(resolved.model), task.models)
    problems.get(task.problem).check_settings(resolved)
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
        (
            "test_fraction",
            resolved.test_fraction is None or 0 < resolved.test_fraction < 1,
            "between 0 and 1",
        ),
        ("image_size", resolved.image_size is None or 8 <= resolved.image_size <= 1024, "between 8 and 1024"),
        ("max_length", resolved.max_length is None or resolved.max_length >= 1, "1 or more"),
        (
            "vocabulary_size",
            resolved.vocabulary_size is None or resolved.vocabulary_size >= 257,
            "257 or more, a token a byte and the padding",
        ),
        ("seed", 0 <= resolved.seed < 2**32, "between 0 and 4294967295"),
    ):
        if not good:
            raise InputError(f"{flag(name)} is {getattr(resolved, name)}; it must be {right}.")


def _build_schedule(resolved: Settings, count: int) -> optax.Schedule:
    total_steps = resolved.epochs * steps_per_epoch(count, resolved.batch_size)
    # A schedule counts updates, of which several batches together may make one.
    updates = max(1, total_steps // (resolved.gradient_accumulation_steps or 1))
    return optimizers.schedule(
        resolved.schedule,
        learning_rate=resolved.learning_rate,
        total_steps=updates,
        warmup_steps=round((resolved.warmup or 0) * updates),
        **settings.select(resolved, ScheduleOptions),
    )
