"""A task: a value that says where its data comes from and how it is learned."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxcls._utils.labels import AnyProblemName, ProblemName
from jaxcls.data import splits
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.training.settings import Settings
from jaxcls.training.steps import Augment, no_augmentation

PyTree = Any


class Preset(NamedTuple):
    """A recipe.

    Attributes:
      settings: used where the user gives none.
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
        Where the user's data decides it, it is that of the sample until `specialize` replaces it.
      load: resolved settings -> Dataset.
      read: the input of ``jaxcls predict`` and the settings of the run -> the examples to predict.
      fit_preprocessor: the training inputs and the settings -> the fitted preprocessor.
      models: name -> ``(*, num_classes, dropout, dtype, rngs, **preprocessor.model_arguments) -> nnx.Module``;
        ``num_classes`` is the number of logits: 1 for a binary problem, the sum over all outputs.
      presets: name -> recipe. There is a 'default'.
      metrics: computed on the validation examples after each epoch, the most important first; 'output_metric' of
        several outputs.
      split: ``(split, fraction, *, seed) -> (train_rows, validation_rows)``; one of :mod:`jaxcls.data.splits`.
      data_settings: the `DataSettings` that it uses, besides those that its recipes set; others are refused.
      specialize: ``(task, settings) -> task`` with what the settings and the user's data decide before the data is
        loaded: the problem, or a recipe that suits the chosen model.
    """

    name: str
    summary: str
    problem: AnyProblemName | Mapping[str, ProblemName]
    load: Callable[[Settings], Dataset]
    read: Callable[[Path, Settings], Unlabeled]
    fit_preprocessor: Callable[[PyTree, Settings], Preprocessor]
    models: Mapping[str, Callable[..., nnx.Module]]
    presets: Mapping[str, Preset]
    metrics: Sequence[str]
    split: Callable[..., tuple[np.ndarray, np.ndarray]] = splits.stratified
    data_settings: Sequence[str] = ("data_dir",)
    specialize: Callable[["Task", Settings], "Task"] | None = None

    def takes(self, setting: str) -> bool:
        """Returns whether the task uses this data setting."""
        recipes = [preset.settings for preset in self.presets.values()]
        return setting in self.data_settings or any(getattr(recipe, setting) is not None for recipe in recipes)
