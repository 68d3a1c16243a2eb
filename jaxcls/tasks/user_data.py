"""What the user's own data decides of a task: its problem, and with it the loss and the metrics."""

import dataclasses

from jaxcls._utils.labels import ProblemName
from jaxcls.tasks.task import Task

_LOSSES: dict[ProblemName, str] = {
    "binary": "binary_crossentropy",
    "multiclass": "sparse_categorical_crossentropy",
    "multilabel": "binary_crossentropy",
}
_METRICS: dict[ProblemName, tuple[str, ...]] = {
    "binary": ("roc_auc", "accuracy"),
    "multiclass": ("accuracy",),
    "multilabel": ("roc_auc",),
}


def specialise(task: Task, problem: ProblemName) -> Task:
    """A task whose problem was open, for this problem: every recipe gets its loss, and the task its metrics.

    >>> from jaxcls.tasks import text_csv
    >>> specialise(text_csv.TASK, "multiclass").presets["default"].settings.loss
    'sparse_categorical_crossentropy'
    """
    presets = {
        name: preset._replace(settings=dataclasses.replace(preset.settings, loss=_LOSSES[problem]))
        for name, preset in task.presets.items()
    }
    return dataclasses.replace(task, problem=problem, presets=presets, metrics=_METRICS[problem])
