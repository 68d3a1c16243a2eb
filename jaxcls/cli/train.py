"""Train a classifier and test it.

Options without a default below are set by the preset of the task; those that
the preset does not set have the default of the loss, optimizer or schedule.

Examples:
    jaxcls train --task fashion_mnist
    jaxcls train --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9
    jaxcls train --task csv --data patients.csv --label-column outcome
"""

import sys
from typing import Any

from jaxcls._utils.interruption import stop_requests
from jaxcls._utils.text_table import text_table
from jaxcls.cli import console
from jaxcls.training.settings import Settings as Options


def run(options: Options) -> None:
    if options.list_tasks:
        _list_tasks()
        return
    from jaxcls.tasks.run import run

    with stop_requests() as stop:
        result = run(options, say=console.say, stop=stop)
    console.say(console.table(result.report, "test"))
    if curves := console.curves(result.history, encoding=sys.stdout.encoding):
        console.say(f"\n{curves}\n")
    console.say(f"saved in {result.directory}; report: {result.directory / 'report.html'}")


def _list_tasks() -> None:
    from jaxcls.tasks import TASKS

    for task in TASKS.values():
        problem: Any = task.problem
        if task.takes("data"):
            problem = "the problem follows from your labels"
        elif isinstance(problem, dict):
            problem = ", ".join(f"{output}: {name}" for output, name in problem.items())
        console.say(f"{task.name}: {task.summary} ({problem})\n  models: {', '.join(task.models)}\n  presets:")
        rows = [
            (f"    {name}", recipe.model, f"{recipe.epochs} epochs", recipe.optimizer, recipe.loss or "")
            for name, recipe in ((name, task.recipe(name)) for name in task.presets)
        ]
        console.say(f"{text_table(rows, left=5)}\n")
