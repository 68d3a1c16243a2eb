"""What a task is: a value that says where its data comes from and how it is learned."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxcls.data.sources import Dataset
from jaxcls.labels import Problem
from jaxcls.settings import Settings

PyTree = Any


class Preset(NamedTuple):
    """A recipe.

    Attributes:
      settings: those that are used where none is given.
      augment: ``(key, inputs) -> inputs``, for training.
      views: other looks at an example, over which predictions are averaged.
    """

    settings: Settings
    augment: Callable[[jax.Array, PyTree], PyTree]
    views: Sequence[Callable[[PyTree], PyTree]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task, as a value.

    Attributes:
      name: as on the command line.
      summary: one line for a list of tasks.
      problem: what the labels are; the loss, the metrics and their averages follow from it.
      load: ``(source, data_dir) -> Dataset``.
      models: name -> ``(input_shape, num_classes, *, dropout, dtype, rngs) -> nnx.Module``.
      presets: name -> a recipe. There is a 'default'.
      prepare: the training inputs -> the function that turns compact inputs into what a model takes.
      metrics: those reported for the validation examples after each epoch.
    """

    name: str
    summary: str
    problem: Problem
    load: Callable[[str, Path | None], Dataset]
    models: Mapping[str, Callable[..., nnx.Module]]
    presets: Mapping[str, Preset]
    prepare: Callable[[np.ndarray], Callable[[PyTree], PyTree]]
    metrics: Sequence[str]
