"""python -m jaxcls.train: trains a classifier and tests it.

python -m jaxcls.train --task fashion_mnist
python -m jaxcls.train --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9 --seed 1
"""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxcls import environment
from jaxcls.errors import InputError
from jaxcls.settings import Settings, from_toml
from jaxcls.signals import stop_requests

# Exit statuses, beside 0 and Python's own 1.
BAD_INPUT = 2
# EX_TEMPFAIL of sysexits.h: what was begun is kept, and the same command goes on with it.
INTERRUPTED = 75
# What shells give for a process that SIGINT ended.
STOPPED_AT_ONCE = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        settings = _parse(arguments)
        # From here on jax is needed, and --help is answered.
        environment.prepare()
        return _list_tasks() if settings.list_tasks else _train(settings, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped at once; what was saved before stands", file=sys.stderr)
        return STOPPED_AT_ONCE


def _parse(arguments: list[str]) -> Settings:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    config = early.parse_known_args(arguments)[0].config
    default = Settings() if config is None else from_toml(config)
    return tyro.cli(
        Settings,
        default=dataclasses.replace(default, config=config),
        args=arguments,
        prog="python -m jaxcls.train",
    )


def _train(settings: Settings, arguments: list[str]) -> int:
    from jaxcls.checkpoints import CheckpointError
    from jaxcls.fit import DivergedError, Interrupted
    from jaxcls.run import run

    try:
        with stop_requests() as stop:
            result = run(settings, say=lambda line: print(line, flush=True), stop=stop)
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "jaxcls.train", *arguments])
        print(f"{stop}. To go on: {command}", file=sys.stderr)
        return INTERRUPTED
    except (DivergedError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_table(result.report))
    print(f"kept in {result.directory}")
    return 0


def _list_tasks() -> int:
    from jaxcls.tasks import TASKS

    for task in TASKS.values():
        print(f"{task.name}: {task.summary} ({'as your data is' if task.specialise else task.problem})")
        print(f"    models: {', '.join(task.models)}")
        for name, preset in task.presets.items():
            recipe = preset.settings
            print(f"    preset {name}: {recipe.model}, {recipe.epochs} epochs, {recipe.loss}, {recipe.optimizer}")
    return 0


def _table(report: dict) -> str:
    """The scores of the test examples, as a terminal shows them."""
    synthetic = "SYNTHETIC " if report["synthetic"] else ""
    lines = ["", f"{synthetic}test, {report['examples']:,} examples", ""]
    lines += [f"  {name:28} {value:.4f}" for name, value in report["metrics"].items() if value is not None]
    columns = ("precision", "recall", "f1", "roc_auc")
    width = max(len(label) for label in report["labels"])
    lines += ["", f"  {'':{width}}  " + "  ".join(f"{c:>9}" for c in ("support", *columns))]
    for label, row in report["labels"].items():
        cells = "  ".join(f"{row[c]:9.4f}" if row[c] is not None else f"{'-':>9}" for c in columns)
        lines.append(f"  {label:{width}}  {row['support']:9,.0f}  {cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
