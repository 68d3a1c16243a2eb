"""The tasks by name. A new task is one file here and its name in ``TASKS``."""

import importlib

from jaxcls._utils.errors import unknown_name
from jaxcls.tasks.task import Task

__all__ = ["TASKS", "Task", "get"]

TASKS: dict[str, Task] = {
    name: importlib.import_module(f"jaxcls.tasks.{name}").TASK
    for name in (
        "mnist", "fashion_mnist", "fashion_mnist_groups", "image_folder", "sentiment", "toxic_comment", "chest_xray",
        "disease_tagging", "leaf", "fraud", "detection", "csv", "text_csv",
    )
}  # fmt: skip


def get(name: str) -> Task:
    """The task of that name.

    >>> get("fashion_mnist").problem
    'multiclass'
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
