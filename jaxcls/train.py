"""python -m jaxcls.train: trains a classifier and tests it.

python -m jaxcls.train --task fashion_mnist
python -m jaxcls.train --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9 --seed 1
"""

import shlex
import sys
from collections.abc import Sequence

import tyro

from jaxcls import environment, terminal
from jaxcls.settings import Settings, config_of
from jaxcls.signals import stop_requests

# EX_TEMPFAIL of sysexits.h: what was begun is kept, and the same command goes on with it.
INTERRUPTED = 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return terminal.exit_status(lambda: _run(given))


def _run(arguments: list[str]) -> int:
    settings = _parse(arguments)
    # From here on jax is needed, and --help is answered.
    environment.prepare(deterministic=settings.deterministic)
    return _list_tasks() if settings.list_tasks else _train(settings, arguments)


def _parse(arguments: list[str]) -> Settings:
    return tyro.cli(Settings, default=config_of(arguments), args=arguments, prog="python -m jaxcls.train")


def _train(settings: Settings, arguments: list[str]) -> int:
    from jaxcls.fit import Interrupted
    from jaxcls.run import run

    try:
        with stop_requests() as stop:
            result = run(settings, say=terminal.say, stop=stop)
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "jaxcls.train", *arguments])
        terminal.say(f"{stop}. To go on: {command}", file=sys.stderr)
        return INTERRUPTED
    terminal.say(terminal.table(result.report, "test"))
    if drawn := terminal.curves(result.history, encoding=sys.stdout.encoding):
        terminal.say(f"\n{drawn}\n")
    terminal.say(f"kept in {result.directory}")
    terminal.say(f"as a page in {result.directory / 'report.html'}")
    return 0


def _list_tasks() -> int:
    from jaxcls.tasks import TASKS

    for task in TASKS.values():
        terminal.say(f"{task.name}: {task.summary} ({'as your labels are' if task.takes('data') else task.problem})")
        terminal.say(f"    models: {', '.join(task.models)}")
        for name, preset in task.presets.items():
            recipe = preset.settings
            parts = [recipe.model, f"{recipe.epochs} epochs", recipe.loss, recipe.optimizer]
            terminal.say(f"    preset {name}: {', '.join(part for part in parts if part)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
