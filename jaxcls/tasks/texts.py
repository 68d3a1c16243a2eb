"""What the tasks of texts share: how texts are prepared, and what a network is trained by in place of n-grams."""

import dataclasses

import numpy as np

from jaxcls.data.preprocessing import texts
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Task
from jaxcls.training.settings import Settings


def fit_preprocessor(inputs: np.ndarray, settings: Settings) -> texts.TextPreprocessor:
    """A tokenizer of the training texts."""
    return texts.fit(
        inputs,
        vocabulary_size=user_data.required(settings, "vocabulary_size"),
        max_length=user_data.required(settings, "max_length"),
    )


def specialize(task: Task, settings: Settings) -> Task:
    """The task with recipes for the model that is asked for.

    Those of a task are for n-grams, whose loss is convex. A network takes the usual steps of Adam.

    >>> from jaxcls.tasks import toxic_comment
    >>> asked = specialize(toxic_comment.TASK, Settings(model="cnn"))
    >>> asked.presets["default"].settings.optimizer
    'adam'
    """
    if settings.model not in task.models or settings.model == "ngrams":
        return task
    presets = {
        name: preset._replace(
            settings=dataclasses.replace(
                preset.settings, optimizer="adam", learning_rate=1e-3, momentum=None, dropout=0.3
            )
        )
        for name, preset in task.presets.items()
    }
    return dataclasses.replace(task, presets=presets)
