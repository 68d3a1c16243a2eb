"""The tasks by name. A new task is one file here and one line in this dict."""

from jaxcls._utils.errors import unknown_name
from jaxcls.tasks import (
    chest_xray,
    csv,
    detection,
    disease_tagging,
    fashion_mnist,
    fashion_mnist_groups,
    fraud,
    image_folder,
    leaf,
    mnist,
    sentiment,
    text_csv,
    toxic_comment,
)
from jaxcls.tasks.task import Task

__all__ = ["TASKS", "Task", "get"]

TASKS: dict[str, Task] = {
    "mnist": mnist.TASK,
    "fashion_mnist": fashion_mnist.TASK,
    "fashion_mnist_groups": fashion_mnist_groups.TASK,
    "image_folder": image_folder.TASK,
    "sentiment": sentiment.TASK,
    "toxic_comment": toxic_comment.TASK,
    "chest_xray": chest_xray.TASK,
    "disease_tagging": disease_tagging.TASK,
    "leaf": leaf.TASK,
    "fraud": fraud.TASK,
    "detection": detection.TASK,
    "csv": csv.TASK,
    "text_csv": text_csv.TASK,
}


def get(name: str) -> Task:
    """The task of that name.

    >>> get("fashion_mnist").problem
    'multiclass'
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
