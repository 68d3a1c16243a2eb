"""python -m jaxcls.train: trains a classifier and tests it.

python -m jaxcls.train --task fashion_mnist
python -m jaxcls.train --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9 --seed 1
"""

import shlex
import sys
from collections.abc import Sequence

import tyro

from jaxcls._utils import environment
from jaxcls._utils.signals import stop_requests
from jaxcls.cli import console
from jaxcls.training.settings import Settings, config_of

# EX_TEMPFAIL of sysexits.h: what was begun is kept, and the same command goes on with it.
INTERRUPTED = 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return console.exit_status(lambda: _run(given))


def _run(arguments: list[str]) -> int:
    settings = _parse(arguments)
    # From here on jax is needed, and --help is answered.
    environment.configure(deterministic=settings.deterministic)
    return _list_tasks() if settings.list_tasks else _train(settings, arguments)


def _parse(arguments: list[str]) -> Settings:
    return tyro.cli(Settings, default=config_of(arguments), args=arguments, prog="python -m jaxcls.train")


def _train(settings: Settings, arguments: list[str]) -> int:
    from jaxcls.training.loop import Interrupted
    from jaxcls.training.run import run

    try:
        with stop_requests() as stop:
            result = run(settings, say=console.say, stop=stop)
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "jaxcls.train", *arguments])
        console.say(f"{stop}. To go on: {command}", file=sys.stderr)
        return INTERRUPTED
    console.say(console.table(result.report, "test"))
    if drawn := console.curves(result.history, encoding=sys.stdout.encoding):
        console.say(f"\n{drawn}\n")
    console.say(f"kept in {result.directory}")
    console.say(f"as a page in {result.directory / 'report.html'}")
    return 0


def _list_tasks() -> int:
    from jaxcls.tasks import TASKS

    for task in TASKS.values():
        console.say(f"{task.name}: {task.summary} ({'as your labels are' if task.takes('data') else task.problem})")
        console.say(f"    models: {', '.join(task.models)}")
        for name, preset in task.presets.items():
            recipe = preset.settings
            parts = [recipe.model, f"{recipe.epochs} epochs", recipe.loss, recipe.optimizer]
            console.say(f"    preset {name}: {', '.join(part for part in parts if part)}")
    return 0
