"""A task: a value that says where its data comes from and how it is learned."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from flax import nnx

from jaxcls._utils.errors import InputError, flag, unknown_name
from jaxcls._utils.labels import AnyProblemName, ProblemName
from jaxcls.data import splits
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.training import settings
from jaxcls.training.settings import Settings
from jaxcls.training.steps import Augment, no_augmentation

PyTree = Any
Models = dict[str, Callable[..., nnx.Module]]


class Preset(NamedTuple):
    """A recipe.

    Attributes:
      settings: used where the user gives none; :meth:`Task.recipe` fills in what these leave out.
      augment: ``(key, inputs, labels) -> (inputs, labels)`` of a batch of arrays, in training.
      tta: test-time augmentation: functions of a batch of inputs, over which predictions are averaged.
    """

    settings: Settings
    augment: Augment = no_augmentation
    tta: Sequence[Callable[[PyTree], PyTree]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task: where its data comes from, its models, its metrics and its recipes.

    Attributes:
      name: as on the command line.
      summary: one line for a list of tasks.
      problem: decides the losses, metrics and averages that fit; a dict by output for a model with several outputs.
        If the user's data decides it, this is the problem of the sample, which `specialize` replaces.
      load: resolved settings -> Dataset.
      read: the input of ``jaxcls predict``, the settings and the preprocessor of the run -> the examples to predict.
        None for image files only, which need no more than the preprocessor.
      fit_preprocessor: the training inputs and the settings -> the fitted preprocessor.
      models: name -> ``(*, num_classes, dropout, dtype, rngs, **preprocessor.model_arguments) -> nnx.Module``;
        ``num_classes`` is the number of logits: 1 for a binary problem, the sum over all outputs.
      presets: name -> recipe. There is a 'default'.
      metrics: computed on the validation examples after each epoch, the most important first; for several outputs,
        named 'output_metric'.
      split: ``(split, fraction, *, seed) -> (train_rows, validation_rows)``; one of :mod:`jaxcls.data.splits`.
      data_settings: the `DataSettings` that it uses, besides those that its recipes set; others are refused.
      pretrained: the inputs of the pretrained encoders that can replace its models.
      specialize: ``(task, settings) -> task`` with what the settings and the user's data decide before the data is
        loaded: the problem, or a recipe that suits the chosen model.
    """

    name: str
    summary: str
    problem: AnyProblemName | Mapping[str, ProblemName]
    load: Callable[[Settings], Dataset]
    fit_preprocessor: Callable[[PyTree, Settings], Preprocessor]
    models: Models
    presets: Mapping[str, Preset]
    metrics: Sequence[str]
    read: Callable[..., Unlabeled] | None = None
    split: Callable[..., tuple[np.ndarray, np.ndarray]] = splits.stratified
    data_settings: Sequence[str] = ("data_dir",)
    pretrained: Literal["texts", "images"] | None = None
    specialize: Callable[["Task", Settings], "Task"] = lambda task, settings: task

    @property
    def first_problem(self) -> Any:
        """The problem; for several outputs that of the first, as one loss is used for all."""
        return next(iter(self.problem.values())) if isinstance(self.problem, Mapping) else self.problem

    def recipe(self, preset: str) -> Settings:
        """Returns the settings of a preset; what it does not set has the same default in all tasks.

        Raises:
          InputError: there is no such preset.

        >>> from jaxcls.tasks import leaf
        >>> leaf.TASK.recipe("default").monitor
        'log_loss'
        """
        if preset not in self.presets:
            raise unknown_name("preset", preset, self.presets)
        defaults = Settings(
            dropout=0.0,
            loss="sparse_categorical_crossentropy" if self.first_problem == "multiclass" else "binary_crossentropy",
            optimizer="adam",
            schedule="cosine",
            monitor=self.metrics[0],
            eval_batch_size=500,
            # The rate ends at zero, so the last epoch is the one to keep; a choice by validation scores adds noise.
            restore_best=False,
        )
        return settings.resolve(self.presets[preset].settings, defaults)

    def with_settings(self, **changes: Any) -> "Task":
        """Returns the task with these settings in all its presets."""
        presets = {
            name: preset._replace(settings=dataclasses.replace(preset.settings, **changes))
            for name, preset in self.presets.items()
        }
        return dataclasses.replace(self, presets=presets)

    def takes(self, setting: str) -> bool:
        """Returns whether the task uses this data setting."""
        recipes = [preset.settings for preset in self.presets.values()]
        return setting in self.data_settings or any(getattr(recipe, setting) is not None for recipe in recipes)


def required(settings: Settings, name: str) -> Any:
    """Returns the value of a setting that the task cannot do without.

    >>> required(Settings(task="csv"), "data")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: --task csv needs --data. See --help for its meaning.
    """
    value = getattr(settings, name)
    if value is None:
        raise InputError(f"--task {settings.task} needs {flag(name)}. See --help for its meaning.")
    if name == "data" and settings.source in ("tfds", "sample"):
        raise InputError(f"--data goes with --source auto or files, not with {settings.source}: leave one out.")
    return value
