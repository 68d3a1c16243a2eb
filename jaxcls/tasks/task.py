"""What a task is: a value that says where its data comes from and how it is learned."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxcls._utils.labels import AnyProblemName
from jaxcls.data import splits
from jaxcls.data.dataset import Dataset, Unlabeled
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.training.settings import Settings
from jaxcls.training.steps import Augment

PyTree = Any


def _unchanged(key: jax.Array, inputs: PyTree, labels: PyTree) -> tuple[PyTree, PyTree]:
    return inputs, labels


class Preset(NamedTuple):
    """A recipe.

    Attributes:
      settings: those that are used where none is given.
      augment: ``(key, inputs, labels) -> (inputs, labels)``, of compact inputs, for training.
      views: other looks at an example, over which predictions are averaged.
    """

    settings: Settings
    augment: Augment = _unchanged
    views: Sequence[Callable[[PyTree], PyTree]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task, as a value.

    Attributes:
      name: as on the command line.
      summary: one line for a list of tasks.
      problem: what the labels are; the loss, the metrics and their averages follow from it. Where the user's own
        data decides it, it is that of the sample, until `specialise` says otherwise.
      load: the resolved settings -> Dataset.
      read: what `predict` is given and the settings of the run -> the examples to predict.
      fit_preprocessor: the inputs of the training examples and the settings -> what was fitted on them.
      models: name -> ``(*, num_classes, dropout, dtype, rngs, **preprocessor.model_arguments) -> nnx.Module``.
        ``num_classes`` is the number of logits: 1 for a binary problem.
      presets: name -> a recipe. There is a 'default'.
      metrics: those reported for the validation examples after each epoch, the one that counts most first.
      split: ``(part, fraction, *, seed) -> (train_rows, validation_rows)``; one of :mod:`jaxcls.data.splits`.
      data_settings: those of `DataSettings` that it takes, beside those that its recipes set; others are refused.
      specialise: ``(task, settings) -> task`` with what the settings and the user's own data decide, before the data
        is loaded: its problem, or a recipe that suits the model that is asked for.
    """

    name: str
    summary: str
    problem: AnyProblemName
    load: Callable[[Settings], Dataset]
    read: Callable[[Path, Settings], Unlabeled]
    fit_preprocessor: Callable[[PyTree, Settings], Preprocessor]
    models: Mapping[str, Callable[..., nnx.Module]]
    presets: Mapping[str, Preset]
    metrics: Sequence[str]
    split: Callable[..., tuple[np.ndarray, np.ndarray]] = splits.stratified
    data_settings: Sequence[str] = ("data_dir",)
    specialise: Callable[["Task", Settings], "Task"] | None = None

    def takes(self, setting: str) -> bool:
        """Whether this setting of the data says something to the task."""
        recipes = [preset.settings for preset in self.presets.values()]
        return setting in self.data_settings or any(getattr(recipe, setting) is not None for recipe in recipes)
